"""Label maps on the CPU: a numba kernel that looks for wrong labels and turns them into bytes in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled, divided, run

_ITEM = 2**15  # labels that one thread goes through
_PER_ITEM = _ITEM // 8  # elements of the distance maps that take as long, for which threads are counted
_ALL = np.empty(0, np.bool_)


def narrow(labels: Tensor, num_classes: int, other: int, counts: Tensor | None) -> Tensor | None:
    """Return labels as bytes, `other` where they do not count; None where one that does is no class.

    Args:
        labels: integers of any size, signed unless of 8 bits.
        num_classes: 255 at most.
        other: 255 at most.
        counts: bool, of the shape of `labels`; None where all of them count.
    """
    flat = labels.contiguous().numpy().reshape(-1)
    counted = _ALL if counts is None else counts.contiguous().numpy().reshape(-1)
    result = torch.empty(labels.shape, dtype=torch.uint8)
    items = -(-flat.size // _ITEM)
    bits, most = np.empty(items, np.int64), np.empty(items, np.uint8)
    run(_narrow, items, items * _PER_ITEM, flat, counted, other, result.numpy().reshape(-1), bits, most)
    return result if not np.any(bits & ~255) and most.max(initial=0) < num_classes else None


@compiled()
def _narrow(
    threads: int,
    first: int,
    last: int,
    labels: NDArray[Any],
    counted: NDArray[np.bool_],
    other: int,
    out: NDArray[np.uint8],
    bits: NDArray[np.int64],
    most: NDArray[np.uint8],
) -> None:
    """Write labels, and for each item all bits that any of them has and the greatest of their lowest bytes."""
    if divided(threads, first, last):
        return
    for item in range(first, last):
        span = slice(item * _ITEM, min((item + 1) * _ITEM, labels.size))
        given, known, written = labels[span], counted[span], out[span]
        seen, greatest = np.int64(0), np.uint8(0)
        if known.size == 0:
            for i in range(given.size):
                label = np.uint8(given[i])
                seen |= given[i]
                greatest = max(greatest, label)
                written[i] = label
        else:
            for i in range(given.size):
                label = np.uint8(given[i]) if known[i] else np.uint8(0)
                if given.itemsize > 1:
                    seen |= given[i] if known[i] else np.int64(0)
                greatest = max(greatest, label)
                written[i] = label if known[i] else np.uint8(other)
        bits[item], most[item] = seen, greatest
