"""The sums of `_voxel_sums` on the CPU: numba kernels that read the logits once forward and the activation once back.

They go block by block, small enough for the nearest cache, and thread by thread. What a block computes, the compiler
turns into vector instructions; so the exponential and the logarithm are polynomials here, good to a few units in the
last place.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled, run

_BLOCK = 2048  # voxels of a class
_ITEM = 2**15  # voxels of a sample whose sums are added up by one thread

_Reals = NDArray[np.float32]
_TINY = np.finfo(np.float32).tiny
_ZERO, _HALF, _ONE, _TWO = (np.float32(value) for value in (0, 0.5, 1, 2))


def sums(
    logits: Tensor, truth: Tensor, weight: Tensor | None, softmax: bool, squared: bool, gamma: float | None
) -> tuple[Tensor, Tensor]:
    """Return the activation of logits (B, C, N) and the sums, as `_voxel_sums_torch.whole_sums` does."""
    batch, channels, voxels = logits.shape
    items = -(-voxels // _ITEM)
    x, activated = logits.detach().contiguous().numpy(), torch.empty(logits.shape)
    options = (*_arrays(truth, weight, channels), softmax, squared, gamma is not None, np.float32(gamma or 0))
    of_items = np.zeros((batch * items, 6, channels))
    run(_forward, batch * items, logits.numel(), x, *options, activated.numpy(), of_items)
    result = of_items.reshape(batch, items, 6, channels).sum(1).transpose(1, 0, 2)
    return activated, torch.from_numpy(result.astype(np.float32))


def gradient(
    activated: Tensor,
    truth: Tensor,
    weight: Tensor | None,
    softmax: bool,
    squared: bool,
    gamma: float | None,
    by_activated: Tensor | None,
    by_sums: Tensor,
) -> Tensor:
    """Return the gradient with respect to the logits, given those with respect to the results of `sums`."""
    batch, channels, voxels = activated.shape
    items = -(-voxels // _ITEM)
    p, result = activated.numpy(), torch.empty(activated.shape)
    options = (*_arrays(truth, weight, channels), softmax, squared, gamma is not None, np.float32(gamma or 0))
    by = np.empty((0, 0, 0), np.float32) if by_activated is None else by_activated.contiguous().numpy()
    run(_backward, batch * items, p.size, p, *options, by, by_sums.contiguous().numpy(), items, result.numpy())
    return result


def _arrays(truth: Tensor, weight: Tensor | None, channels: int) -> tuple[NDArray[np.generic], _Reals, bool]:
    """Return the truth, a label map of integers or float32 memberships, the weights, and whether it is memberships."""
    soft = truth.is_floating_point() or truth.shape[1] == channels > 1
    if soft:
        truth = truth.float()
    elif truth.dtype == torch.bool:
        truth = truth.view(torch.uint8)
    empty = np.empty((0, 0, 0), np.float32)
    return truth.contiguous().numpy(), empty if weight is None else weight.contiguous().numpy(), soft


@compiled()
def _exp(x: np.float32) -> np.float32:
    """Return e^x for x ≤ 0, and 0 where that is no normal number."""
    bounded = np.float32(-87.3) if x < np.float32(-87.3) else x  # NaN stays
    k = np.floor(bounded * np.float32(1.44269504) + _HALF)
    r = bounded - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + _ONE
    power = np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
    return _ZERO if x < np.float32(-87.3) else y * power


@compiled()
def _log(x: np.float32) -> np.float32:
    """Return log x of a normal x > 0."""
    bits = np.float32(x).view(np.int32)
    mantissa = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)).view(np.float32)  # from ½ to 1
    low = mantissa < np.float32(0.707106781)
    exponent = np.float32((bits >> np.int32(23)) - np.int32(126)) - (_ONE if low else _ZERO)
    m = mantissa + mantissa - _ONE if low else mantissa - _ONE
    y = np.float32(7.0376836292e-2)
    y = y * m + np.float32(-1.1514610310e-1)
    y = y * m + np.float32(1.1676998740e-1)
    y = y * m + np.float32(-1.2420140846e-1)
    y = y * m + np.float32(1.4249322787e-1)
    y = y * m + np.float32(-1.6668057665e-1)
    y = y * m + np.float32(2.0000714765e-1)
    y = y * m + np.float32(-2.4999993993e-1)
    y = y * m + np.float32(3.3333331174e-1)
    y = y * m * m * m - np.float32(2.12194440e-4) * exponent - _HALF * m * m
    return m + y + np.float32(0.693359375) * exponent


@compiled()
def _log1p(x: np.float32) -> np.float32:
    """Return log(1 + x) for x from 0 to 1, exact to the relative rounding where x is lost in 1 + x."""
    y = _ONE + x
    return x if y == _ONE else _log(y) * (x / (y - _ONE))


# A function for each loop over a row: of loops within loops the compiler makes no vector instructions. Those that add a
# row up may do so in any order, as torch does.
_reduces = compiled(fastmath={"reassoc"})


@_reduces
def _counts(v: _Reals, w: _Reals, p: _Reals) -> tuple[np.float32, np.float32, np.float32]:
    """Return Σ w·v·p, Σ w·p and Σ w·v."""
    overlap = predicted = members = _ZERO
    for j in range(p.size):
        overlap += w[j] * v[j] * p[j]
        predicted += w[j] * p[j]
        members += w[j] * v[j]
    return overlap, predicted, members


@_reduces
def _dot(x: _Reals, y: _Reals, z: _Reals) -> np.float32:
    """Return Σ x·y·z."""
    result = _ZERO
    for j in range(x.size):
        result += x[j] * y[j] * z[j]
    return result


@_reduces
def _softmax_entropy_sum(x: _Reals, greatest: _Reals, log_total: _Reals, v: _Reals, w: _Reals) -> np.float32:
    """Return Σ w·v·(−log p)."""
    result = _ZERO
    for j in range(x.size):
        result += w[j] * v[j] * ((greatest[j] - x[j]) + log_total[j])
    return result


@_reduces
def _sigmoid_entropy_sums(x: _Reals, least: _Reals, v: _Reals, w: _Reals) -> tuple[np.float32, np.float32]:
    """Return Σ w·v·(−log p) and Σ w·(1 − v)·(−log(1 − p)), of both of which `least`, log(1 + e^−|x|), is the lesser."""
    positive = negative = _ZERO
    for j in range(x.size):
        positive += w[j] * v[j] * (least[j] + max(-x[j], _ZERO))
        negative += w[j] * (_ONE - v[j]) * (least[j] + max(x[j], _ZERO))
    return positive, negative


@compiled()
def _convert(labels: NDArray[np.generic], out: _Reals) -> None:
    for j in range(out.size):
        out[j] = np.float32(labels[j])


@compiled()
def _equal(labels: _Reals, label: np.float32, out: _Reals) -> None:
    for j in range(out.size):
        out[j] = _ONE if labels[j] == label else _ZERO


@compiled()
def _multiply(by: _Reals, out: _Reals) -> None:
    for j in range(by.size):
        out[j] *= by[j]


@compiled()
def _add(x: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] += x[j]


@compiled()
def _add_product(factor: np.float32, x: _Reals, y: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] += factor * x[j] * y[j]


@compiled()
def _add_others(factor: np.float32, v: _Reals, w: _Reals, p: _Reals, out: _Reals) -> None:
    for j in range(v.size):
        out[j] += factor * (_ONE - v[j]) * w[j] * p[j]


@compiled()
def _complement(x: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] = _ONE - x[j]


@compiled()
def _maximum(x: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] = max(out[j], x[j])


@compiled()
def _exponentials(x: _Reals, greatest: _Reals, out: _Reals, total: _Reals) -> None:
    for j in range(x.size):
        out[j] = _exp(x[j] - greatest[j])
        total[j] += out[j]


@compiled()
def _divide(by: _Reals, out: _Reals) -> None:
    for j in range(by.size):
        out[j] /= by[j]


@compiled()
def _log_all(out: _Reals) -> None:
    for j in range(out.size):
        out[j] = _log(out[j])


@compiled()
def _softmax_entropy(x: _Reals, greatest: _Reals, log_total: _Reals, out: _Reals) -> None:
    """Write −log p."""
    for j in range(x.size):
        out[j] = (greatest[j] - x[j]) + log_total[j]


@compiled()
def _sigmoid(x: _Reals, out: _Reals, small: _Reals) -> None:
    """Write p, and e^−|x|."""
    for j in range(x.size):
        small[j] = _exp(-abs(x[j]))
        out[j] = (_ONE if x[j] >= _ZERO else small[j]) / (_ONE + small[j])


@compiled()
def _log1p_all(out: _Reals) -> None:
    for j in range(out.size):
        out[j] = _log1p(out[j])


@compiled()
def _sigmoid_entropy(x: _Reals, least: _Reals, sign: np.float32, out: _Reals) -> None:
    """Write −log p, or −log(1 − p) with `sign` −1; `least`, log(1 + e^−|x|), is the lesser of the two."""
    for j in range(x.size):
        out[j] = least[j] + max(-sign * x[j], _ZERO)


@compiled()
def _focus(p: _Reals, gamma: np.float32, out: _Reals) -> None:
    """Multiply by (1 − p)^γ."""
    if gamma == _TWO:
        for j in range(p.size):
            out[j] *= (_ONE - p[j]) * (_ONE - p[j])
    elif gamma != _ZERO:
        for j in range(p.size):
            out[j] *= _exp(gamma * _log(max(_ONE - p[j], _TINY)))


@compiled()
def _slope(p: _Reals, gamma: np.float32, out: _Reals) -> None:
    """Write the derivative of (1 − p)^γ·(−log p) by log p."""
    if gamma == _ZERO:
        out[:] = -_ONE
        return
    for j in range(p.size):
        out[j] = gamma * p[j] * _log(min(max(p[j], _TINY), _ONE)) / max(_ONE - p[j], _TINY) - _ONE
    _focus(p, gamma, out)


@compiled()
def _by_log_p(
    v: _Reals, w: _Reals, p: _Reals, by_overlap: np.float32, by_sum: np.float32, by_squares: np.float32, out: _Reals
) -> None:
    """Write the gradient of by_overlap·Σ w·v·p + by_sum·Σ w·p + by_squares·Σ w·p² by log p."""
    for j in range(p.size):
        out[j] = w[j] * (by_overlap * v[j] + by_sum + _TWO * by_squares * p[j]) * p[j]


@compiled()
def _forward(
    first: int, last: int, logits: _Reals, truth: NDArray[np.generic], weight: _Reals, soft: bool, softmax: bool,
    squared: bool, entropy: bool, gamma: np.float32, activated: _Reals, sums: NDArray[np.float64],
) -> None:  # fmt: skip
    """Write the activation and the sums of items `first` to `last`."""
    batch, channels, voxels = logits.shape
    items = sums.shape[0] // batch
    scratch = np.ones((7, _BLOCK), np.float32)
    for item in range(first, last):
        b, of, begin = item // items, sums[item], item % items * _ITEM
        end = min(begin + _ITEM, voxels)
        for start in range(begin, end, _BLOCK):
            stop = min(start + _BLOCK, end)
            n = stop - start
            v, w, labels, loss = scratch[0, :n], scratch[1, :n], scratch[2, :n], scratch[3, :n]
            greatest, total, rest = scratch[4, :n], scratch[5, :n], scratch[6, :n]
            if not soft:
                _convert(truth[b, 0, start:stop], labels)
            if weight.size:
                w[:] = weight[b, 0, start:stop]
            if softmax:
                greatest[:], total[:] = logits[b, 0, start:stop], _ZERO
                for c in range(1, channels):
                    _maximum(logits[b, c, start:stop], greatest)
                for c in range(channels):
                    _exponentials(logits[b, c, start:stop], greatest, activated[b, c, start:stop], total)
                for c in range(channels):
                    _divide(total, activated[b, c, start:stop])
                if entropy:
                    _log_all(total)
            for c in range(channels):
                x, p = logits[b, c, start:stop], activated[b, c, start:stop]
                if not softmax:
                    _sigmoid(x, p, total)
                if soft:
                    v[:] = truth[b, c, start:stop]
                else:
                    _equal(labels, np.float32(c if channels > 1 else 1), v)
                overlap, predicted, members = _counts(v, w, p)
                of[0, c] += overlap
                of[1, c] += _dot(w, p, p) if squared else predicted
                of[2, c] += _dot(w, v, v) if squared else members
                of[3, c] += members
                if not entropy:
                    continue
                if not softmax:
                    _log1p_all(total)
                if gamma == _ZERO:
                    if softmax:
                        of[4, c] += _softmax_entropy_sum(x, greatest, total, v, w)
                    else:
                        positive, negative = _sigmoid_entropy_sums(x, total, v, w)
                        of[4, c] += positive
                        of[5, c] += negative
                    continue
                if softmax:
                    _softmax_entropy(x, greatest, total, loss)
                else:
                    _sigmoid_entropy(x, total, _ONE, loss)
                _focus(p, gamma, loss)
                of[4, c] += _dot(w, v, loss)
                if not softmax:
                    _complement(p, rest)
                    _complement(v, v)
                    _sigmoid_entropy(x, total, -_ONE, loss)
                    _focus(rest, gamma, loss)
                    of[5, c] += _dot(w, v, loss)


@compiled()
def _backward(
    first: int, last: int, activated: _Reals, truth: NDArray[np.generic], weight: _Reals, soft: bool, softmax: bool,
    squared: bool, entropy: bool, gamma: np.float32, by_activated: _Reals, by_sums: _Reals, items: int,
    gradient: _Reals,
) -> None:  # fmt: skip
    """Write the gradient of items `first` to `last`."""
    _, channels, voxels = activated.shape
    scratch = np.ones((6, _BLOCK), np.float32)
    for item in range(first, last):
        b, begin = item // items, item % items * _ITEM
        end = min(begin + _ITEM, voxels)
        for start in range(begin, end, _BLOCK):
            stop = min(start + _BLOCK, end)
            n = stop - start
            v, w, labels = scratch[0, :n], scratch[1, :n], scratch[2, :n]
            slope, total, rest = scratch[3, :n], scratch[4, :n], scratch[5, :n]
            total[:] = _ZERO
            if not soft:
                _convert(truth[b, 0, start:stop], labels)
            if weight.size:
                w[:] = weight[b, 0, start:stop]
            for c in range(channels):
                p, g = activated[b, c, start:stop], gradient[b, c, start:stop]
                if soft:
                    v[:] = truth[b, c, start:stop]
                else:
                    _equal(labels, np.float32(c if channels > 1 else 1), v)
                by_predicted = by_sums[1, b, c]
                by_sum, by_squares = (_ZERO, by_predicted) if squared else (by_predicted, _ZERO)
                _by_log_p(v, w, p, by_sums[0, b, c], by_sum, by_squares, g)
                if by_activated.size:
                    _add_product(_ONE, by_activated[b, c, start:stop], p, g)
                by_positive, by_negative = by_sums[4, b, c], by_sums[5, b, c]
                if entropy and gamma == _ZERO:
                    _add_product(-by_positive, v, w, g)
                elif entropy:
                    _slope(p, gamma, slope)
                    _multiply(w, slope)
                    _add_product(by_positive, v, slope, g)
                if softmax:
                    _add(g, total)
                    continue
                _complement(p, rest)
                _multiply(rest, g)
                if entropy and gamma == _ZERO:
                    _add_others(by_negative, v, w, p, g)
                elif entropy:
                    _slope(rest, gamma, slope)
                    _multiply(w, slope)
                    _add_others(-by_negative, v, slope, p, g)
            if softmax:
                for c in range(channels):
                    _add_product(-_ONE, activated[b, c, start:stop], total, gradient[b, c, start:stop])
