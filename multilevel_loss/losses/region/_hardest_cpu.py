"""The greatest elements of rows on the CPU: numba kernels that count digits instead of sorting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled, divided, run

_SHIFTS = (20, 10, 0)  # of the digits of 31 bits: the counts of one digit stay in the nearest cache
_DIGITS = 2**11

_Reals = NDArray[np.float32]
_kernel = compiled()


def hardest(values: Tensor, k: int) -> Tensor:
    """Return what `topk.hardest` does, of contiguous float32 (R, N)."""
    result = torch.empty_like(values)
    run(_hardest, len(values), values.numel(), values.detach().numpy(), k, result.numpy())
    return result


@_kernel
def _hardest(threads: int, first: int, last: int, values: _Reals, k: int, out: _Reals) -> None:
    """Write the shares of rows `first` to `last`."""
    if divided(threads, first, last):
        return
    counts = np.empty((2, _DIGITS), np.int64)
    for row in range(first, last):
        kth, left, above = np.int32(0), k, 31
        for shift in _SHIFTS:
            for digit in range(_DIGITS):
                counts[0, digit] = counts[1, digit] = 0
            _count(values[row], kth, above, shift, counts)
            digit = _DIGITS - 1
            while counts[0, digit] + counts[1, digit] < left:
                left -= counts[0, digit] + counts[1, digit]
                digit -= 1
            kth, above = np.int32(kth | digit << shift), shift
        _share(values[row], kth, np.float32(left / (counts[0, digit] + counts[1, digit])), out[row])


@_kernel
def _key(value: np.float32) -> np.int32:
    """Return the bits of a value of at least 0, which are ordered as the values are, NaN above all."""
    return np.int32(np.float32(value).view(np.int32) & np.int32(0x7FFFFFFF))


@_kernel
def _count(values: _Reals, kth: np.int32, above: int, shift: int, counts: NDArray[np.int64]) -> None:
    """Count the digits from bit `shift` to `above` of the keys that are those of `kth` from there on."""
    digits = (1 << (above - shift)) - 1
    for j in range(values.size):
        key = _key(values[j])
        if (key ^ kth) >> above == 0:
            # By turns in two places, for to count one digit twice in a row takes twice as long.
            counts[j & 1, (key >> shift) & digits] += 1


@_kernel
def _share(values: _Reals, kth: np.int32, share: np.float32, out: _Reals) -> None:
    """Write 1 for what is above `kth`, `share` for its equals, and 0."""
    for j in range(values.size):
        key = _key(values[j])
        out[j] = np.float32(1) if key > kth else (share if key == kth else np.float32(0))
