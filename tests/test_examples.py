"""The examples of the how-to pages run as they stand there, and learn."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import DATA

ROOT = Path(__file__).parents[1]
HIPPOCAMPUS = DATA / "hippocampus_3d"


@pytest.mark.parametrize(
    ("script", "package", "arguments"),
    [
        ("plain_pytorch.py", "torch", []),
        ("monai_volumes.py", "monai", [HIPPOCAMPUS] if HIPPOCAMPUS.is_dir() else []),
        ("lightning_module.py", "lightning", []),
        ("smp_unet.py", "segmentation_models_pytorch", []),
    ],
)
def test_example_improves_the_dice_score(script, package, arguments, tmp_path):
    if find_spec(package) is None:
        pytest.skip(f"docs/how-to/{script} was not run: {package} is not installed")
    result = subprocess.run(
        [sys.executable, ROOT / "docs" / "how-to" / script, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    before, after = re.search(r"DSC (\d\.\d+) → (\d\.\d+)\n$", result.stdout).groups()
    assert float(after) > float(before) + 0.2
    assert list(tmp_path.iterdir()) == []
