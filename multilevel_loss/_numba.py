"""How the CPU kernels are compiled and spread over threads; imported by them alone, for it imports numba."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar, cast

import numba
import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])

_WORTH_A_THREAD = 2**16  # items that keep a core busy for longer than it takes to wake a thread
_PIECES = 4  # for each thread, so that none waits long for another


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
    waiting = list(pairwise(count * piece // pieces for piece in range(pieces + 1)))

    def take_turns() -> None:
        while True:
            try:
                piece = waiting.pop()
            except IndexError:
                return
            kernel(*piece, *arguments)

    others = [_pool().submit(take_turns) for _ in range(threads - 1)]
    take_turns()
    for other in others:
        if not other.cancel():  # on a busy machine a thread may not have begun by the time that all is done
            other.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)
