"""The Triton kernels compile for a real GPU: their code for sm_90 is made here without one."""

import os
from pathlib import Path

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)
pytest.importorskip("triton")
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from multilevel_loss.distance import _cuda

UNREACHED = {"i32": 2**30, "i64": 2**62, "fp32": float("inf")}
BOUNDS = {"_scan": ("plane_first", "plane_last", "volume_first", "volume_last"), "_minimize": ("low", "high", "used")}


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(
    ("kernel", "squares", "options"),
    [
        (_cuda._scan, "i32", {"inner": True, "rows": 8, "block": 256}),
        (_cuda._scan, "fp32", {"inner": False, "rows": 2, "block": 1024}),
        (_cuda._minimize, "i32", {"inner": True, "final": True, "small": True, "axis": 1}),
        (_cuda._minimize, "i32", {"inner": False, "final": False, "small": True, "axis": 1}),
        (_cuda._minimize, "i64", {"inner": False, "final": True, "small": False, "axis": 1}),
        (_cuda._minimize, "fp32", {"inner": False, "final": True, "small": True, "axis": 0}),
    ],
)
def test_kernel_compiles_for_sm_90(
    kernel: triton.JITFunction,
    squares: str,
    options: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    name = kernel.__name__
    types = dict.fromkeys(kernel.arg_names, "i32")
    types |= dict.fromkeys(BOUNDS[name], "*i32") | {"mask": "*u8", "squares": f"*{squares}", "spacing": "*fp64"}
    constants: dict[str, object] = {"unreached": UNREACHED[squares], **options}
    if name == "_scan":
        types["row_used"] = "*i32"
    else:
        types["result"] = "*fp32" if options["final"] else f"*{squares}"
        constants |= {"rows": _cuda._ROWS, "columns": _cuda._LOAD // (8 if squares == "i64" else 4)}
    if squares != "fp32":
        constants["spacing"] = None
    types |= dict.fromkeys(constants, "constexpr")
    places = {argument: (place,) for place, argument in enumerate(kernel.arg_names)}
    source = ASTSource(kernel, types, constexprs={places[key]: value for key, value in constants.items()})
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4 if name == "_scan" else 1}
    )
    assert ".target sm_90" in compiled.asm["ptx"]
    assert compiled.asm["cubin"]
