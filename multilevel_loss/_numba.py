"""How the CPU kernels are compiled and spread over threads; imported by them alone, for it imports numba."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])

_WORTH_A_THREAD = 2**16  # items that keep a core busy for longer than it takes to wake a thread
_PIECES = 4  # for each thread, so that none waits long for another
_PROCESS = os.getpid()  # where this is imported: threads do not survive a fork
_Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def compiled(*, fastmath: set[str] | bool = False) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a kernel at its first call, kept on disk, to run without the GIL."""

    def decorate(function: _Function) -> _Function:
        # Not `parallel=True`: numba's own threads neither survive a fork nor heed torch.set_num_threads.
        kernel = numba.njit(function, nogil=True, cache=True, error_model="numpy", fastmath=fastmath)
        return cast(_Function, kernel)

    return decorate


def run(kernel: Callable[..., object], count: int, work: int, *arguments: object) -> None:
    """Call `kernel(first, last, *arguments)` on parts of range(`count`), in as many threads as torch and `work` allow.

    Args:
        kernel: what :func:`compiled` returned.
        count: items that may be divided among threads.
        work: array elements to be written in all; too few are left to the calling thread.
        arguments: passed on.
    """
    threads = min(torch.get_num_threads(), count, work // _WORTH_A_THREAD)
    if threads < 2:
        kernel(0, count, *arguments)
        return
    pieces = min(count, _PIECES * threads)
    turns = iter(list(pairwise(count * piece // pieces for piece in range(pieces + 1))))
    failures: list[BaseException] = []

    def take_turns(_: object = None) -> None:
        try:
            for turn in turns:
                kernel(*turn, *arguments)
        except BaseException as error:  # an exception does not pass through C
            failures.append(error)

    process = os.getpid()
    team = _team_of_torch() if process == _PROCESS else None
    if team is not None:
        team(_Task(take_turns), None, threads, 0)
    else:
        others = [_pool(process).submit(take_turns) for _ in range(threads - 1)]
        take_turns()
        for other in others:
            if not other.cancel():  # on a busy machine a thread may not have begun by the time that all is done
                other.result()
    if failures:
        raise failures[0]


@functools.cache
def _team_of_torch() -> Callable[..., None] | None:
    """Return what calls a function in several of the OpenMP threads of torch, or None where these are out of reach.

    They wait for their next work by spinning, so that a thread of our own would have to share a core with them.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        call = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):  # no Linux, or an OpenMP of another kind
        return None
    call.argtypes, call.restype = (_Task, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return call


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads of one process."""
    return ThreadPoolExecutor(os.cpu_count())
