"""How kernels are spread over threads."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from multilevel_loss import _numba
from multilevel_loss._numba import compiled, divided, run

THREADS = 3
WORK = THREADS * _numba._WORTH_A_THREAD

_thread = ctypes.CDLL(None).pthread_self
_thread.argtypes, _thread.restype = (), ctypes.c_size_t


@compiled()
def _count(threads: int, first: int, last: int, by: int, counts: NDArray[np.int64], parts: NDArray[np.int64]) -> None:
    if divided(threads, first, last):
        return
    for item in range(first, last):
        counts[item] += by
        parts[item] = last - first


@compiled()
def _fail(threads: int, first: int, last: int, counts: NDArray[np.int64]) -> None:
    if divided(threads, first, last):
        return
    for item in range(first, last):
        counts[item] += 1
        if item == 7:
            raise ValueError("item 7")


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield THREADS
    torch.set_num_threads(before)


def _run_count(items: int, work: int) -> tuple[list[int], list[int]]:
    counts, parts = np.zeros(items, np.int64), np.zeros(items, np.int64)
    run(_count, items, work, 2, counts, parts)
    return counts.tolist(), parts.tolist()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("items", [1, 2, 11, 12, 13, 50, 10007])
def test_every_item_is_taken_once(items: int) -> None:
    counts, parts = _run_count(items, WORK)
    assert counts == [2] * items
    assert max(parts) <= -(-items // min(items, THREADS))


def test_threads_work_side_by_side(threads: int) -> None:
    # Compiled here, and not kept on disk, for the address of a function of C is good for this process alone.
    @numba.njit(nogil=True)
    def kernel(threads: int, first: int, last: int, by: NDArray[np.uint64], x: NDArray[np.float64]) -> None:
        if divided(threads, first, last):
            return
        for item in range(first, last):
            by[item] = _thread()
            for _ in range(20_000_000):  # some 20 ms, in which every other thread has long begun
                x[item] = x[item] * 0.5 + 1.0

    by = np.zeros(4 * threads, np.uint64)
    run(kernel, len(by), WORK, by, np.zeros(len(by)))
    assert len(set(by.tolist())) == threads
    assert _thread() in by


@pytest.mark.usefixtures("threads")
def test_little_work_stays_in_the_calling_thread() -> None:
    assert _run_count(50, 100) == ([2] * 50, [50] * 50)


@pytest.mark.parametrize("work", [100, WORK])
def test_an_exception_reaches_the_caller(threads: int, work: int) -> None:
    counts = np.zeros(50, np.int64)
    with pytest.raises(ValueError, match="item 7"):
        run(_fail, 50, work, counts)
    assert counts[:8].tolist() == [1] * 8


def test_a_pool_serves_where_torch_has_no_team() -> None:
    threads = os.cpu_count() or 1
    together = threading.Barrier(threads, timeout=30)
    came: list[int] = []

    def task(shared: int) -> None:
        together.wait()  # fails unless each call has a thread
        came.append(shared)

    _numba._pooled(_numba._Task(task), 1234, threads, 0)
    assert came == [1234] * threads


@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_works_by_itself() -> None:
    _run_count(50, WORK)
    child = os.fork()
    if child == 0:  # a thread that does not survive the fork would be waited for without end
        os._exit(0 if _run_count(50, WORK) == ([2] * 50, [50] * 50) else 1)
    assert os.waitpid(child, 0)[1] == 0
