"""How kernels are spread over threads, with Python functions in their place."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from multilevel_loss import _numba


@pytest.fixture(params=["team", "pool"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param == "pool":
        monkeypatch.setattr(_numba, "_team_of_torch", lambda: None)
    elif _numba._team_of_torch() is None:
        pytest.skip("torch computes without OpenMP")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


WORK = 3 * _numba._WORTH_A_THREAD


def test_every_item_is_taken_once(threads: int) -> None:
    taken: list[int] = []
    _numba.run(lambda first, last, by: taken.extend(by * item for item in range(first, last)), 50, WORK, 2)
    assert sorted(taken) == list(range(0, 100, 2))


def test_threads_work_side_by_side(threads: int) -> None:
    together = threading.Barrier(threads, timeout=30)
    _numba.run(lambda first, last: together.wait(), threads, WORK)  # fails unless each item has a thread


def test_few_items_stay_in_the_calling_thread(threads: int) -> None:
    calls: list[tuple[int, int, int]] = []
    _numba.run(lambda first, last: calls.append((first, last, threading.get_ident())), 50, 100)
    assert calls == [(0, 50, threading.get_ident())]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_reaches_the_caller(threads: int, error: type[BaseException]) -> None:
    def kernel(first: int, last: int) -> None:
        if first <= 7 < last:
            raise error("item 7")

    with pytest.raises(error, match="item 7"):
        _numba.run(kernel, 50, WORK)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_threads_of_its_own(threads: int) -> None:
    _numba.run(lambda first, last: None, 50, WORK)
    child = os.fork()
    if child == 0:  # a thread that does not survive the fork would be waited for without end
        taken: list[int] = []
        _numba.run(lambda first, last: taken.extend(range(first, last)), 50, WORK)
        os._exit(0 if sorted(taken) == list(range(50)) else 1)
    assert os.waitpid(child, 0)[1] == 0
