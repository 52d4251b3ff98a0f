"""What every benchmark needs: time, peak memory, the circumstances, and a file to write them to."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's mallopt


@dataclass(frozen=True)
class Timing:
    """Seconds of one step: the median of its repeats and their quartiles."""

    median: float
    lower: float
    upper: float
    repeats: int


def measure(
    steps: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 2, limit: float = math.inf
) -> dict[str, Timing]:
    """Time every step `repeats` times, or no more once it has itself taken `limit` seconds.

    They take turns, so that whatever else the machine does slows all of them alike.
    """
    for step in steps.values():
        spent = 0.0
        for _ in range(warmup):
            if spent <= limit:
                spent += _seconds(step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            for name, step in steps.items():
                if sum(seconds[name]) <= limit:
                    seconds[name].append(_seconds(step))
    finally:
        gc.enable()
    return {name: _summary(times) for name, times in seconds.items()}


def _seconds(step: Callable[[], object]) -> float:
    synchronize()
    start = time.perf_counter()
    result = step()
    synchronize()
    end = time.perf_counter()
    del result  # after the clock: on a CPU, what freeing it takes depends on what others have freed before
    return end - start


def _summary(seconds: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Timing(median, lower, upper, len(seconds))


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(step: Callable[[], object], device: torch.device) -> int | None:
    """Return the bytes that `step` needs at once beyond those in use before it, what it leaves behind included.

    On a GPU that is what torch allocated. On a CPU it is resident memory, so that the buffers of NumPy, SciPy, Numba
    and of torch's own kernels count too; None where the system is not Linux.
    """
    if device.type == "cuda":
        synchronize()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        synchronize()
        return torch.cuda.max_memory_allocated(device) - before
    if platform.system() != "Linux":
        return None
    libc = ctypes.CDLL(None)
    # Blocks of more than 64 KiB go back to the system as soon as they are freed; otherwise a block that is kept for
    # later would hide the next of its size.
    libc.mallopt(_MMAP_THRESHOLD, 2**16)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    line = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if line is None:
        raise OSError(f"expected `{field}` in /proc/self/status, got none")
    return int(line[1]) * 1024


def metadata(*packages: str, device: torch.device) -> dict[str, str | int | float | None]:
    """Return what figures of `device` depend on: the commit, versions, also of `packages`, the machine and its load."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numpy", "scipy", *packages)},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None  # An unpacked source distribution.


def _cpu_name() -> str:
    try:
        name = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        name = None
    return name[1] if name else platform.processor()


def write_json(path: Path, content: object) -> None:
    """Write `content` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)
