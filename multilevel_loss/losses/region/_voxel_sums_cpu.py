"""The sums of `_voxel_sums` on the CPU: numba kernels that activate the logits once, and turn that into their gradient.

They go block by block, small enough for the nearest cache, and thread by thread. What a block computes, the compiler
turns into vector instructions; so the exponential and the logarithm are polynomials here, good to a few units in the
last place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled, divided, run

_BLOCK = 4096  # voxels of a class that one loop goes over; half as many where several loops do
_PER_VOXEL = 2  # elements of the distance maps that take as long, for which threads are counted
_ITEM = 2**15  # voxels of a sample whose sums are added up by one thread

_Reals = NDArray[np.float32]
_Members = NDArray[np.float32] | NDArray[np.uint8]  # as labels 0 and 1; whatever stands where the weight is 0
_TINY = np.finfo(np.float32).tiny
_ZERO, _HALF, _ONE, _TWO = (np.float32(value) for value in (0, 0.5, 1, 2))
_SHIFT = np.float32(1.5 * 2**23)  # added to a number, it leaves the nearest integer in the low bits
_NO_LABELS, _NO_REALS = np.empty((0, 0, 0), np.uint8), np.empty((0, 0, 0), np.float32)
_kernel = compiled(fastmath={"contract"})  # multiply and add in one instruction
_reduces = compiled(fastmath={"contract", "reassoc"})  # and add up a row in any order, as torch does


def sums(
    logits: Tensor,
    truth: Tensor,
    weight: Tensor | None,
    field: Tensor | None,
    softmax: bool,
    squared: bool,
    gamma: float | None,
    errors: bool,
    keep: bool,
) -> tuple[tuple[Tensor | None, ...], Tensor | None]:
    """Return what `_voxel_sums_torch.sums` does, of logits (B, C, N), and their activation if that is to `keep`."""
    batch, channels, voxels = logits.shape
    items = -(-voxels // _ITEM)
    of_items = np.zeros((12, batch * items, channels))
    result = torch.empty(12, batch, channels, dtype=torch.float32)
    kept = torch.empty(logits.shape, dtype=torch.float32) if keep else None
    arrays, options = _arrays(truth, channels, weight, field), (softmax, squared, *_focusing(gamma), errors)
    work = logits.numel() * _PER_VOXEL
    run(_forward, batch * items, work, _reals(logits), *arrays, *options, _reals(kept), of_items)
    collect(of_items, 2, result.numpy())
    entropy, sides = gamma is not None, field is not None and not errors
    asked = True, True, entropy, entropy and not softmax, sides, sides, errors, True, True, True, sides, sides
    return tuple(row if wanted else None for row, wanted in zip(result.unbind(), asked, strict=True)), kept


def gradient(
    logits: Tensor,
    truth: Tensor,
    weight: Tensor | None,
    field: Tensor | None,
    softmax: bool,
    squared: bool,
    gamma: float | None,
    errors: bool,
    by_sums: Sequence[Tensor | None],
    kept: Tensor | None,
    place: Tensor | None,
) -> Tensor:
    """Return what `_voxel_sums_torch.gradient` does, in the place of the activation if that was `kept`."""
    x = logits.flatten(2) if kept is None else None
    result = kept if x is None else place
    if result is None:
        result = torch.empty(logits.flatten(2).shape, dtype=torch.float32)
    batch, channels, voxels = result.shape
    by = np.zeros((len(by_sums), batch, channels), np.float32)
    for own, given in zip(by, by_sums, strict=True):
        if given is not None:
            own[...] = given.numpy()
    arrays, options = _arrays(truth, channels, weight, field), (softmax, squared, *_focusing(gamma), errors)
    count, work = batch * -(-voxels // _ITEM), result.numel() * _PER_VOXEL
    run(_backward, count, work, _reals(x), *arrays, *options, by, result.numpy())
    return result


def _arrays(
    truth: Tensor, channels: int, weight: Tensor | None, field: Tensor | None
) -> tuple[NDArray[np.uint8], _Reals, _Reals, _Reals]:
    """Return labels and memberships of which one is empty, weights and field, empty for None."""
    labels = memberships = None
    if truth.is_floating_point() or truth.shape[1] == channels > 1:
        memberships = truth.float()
    else:
        labels = truth.view(torch.uint8) if truth.dtype == torch.bool else truth.to(torch.uint8)
    of_labels = _NO_LABELS if labels is None else labels.contiguous().numpy()
    return of_labels, _reals(memberships), _reals(weight), _reals(field)


def _reals(tensor: Tensor | None) -> _Reals:
    return _NO_REALS if tensor is None else tensor.detach().contiguous().numpy()


def _focusing(gamma: float | None) -> tuple[bool, np.float32]:
    return gamma is not None, np.float32(gamma or 0)


@_kernel
def _exp(x: np.float32) -> np.float32:
    """Return e^x for x ≤ 0, but no less than e^−87.3, lest it be no normal number."""
    bounded = np.float32(-87.3) if x < np.float32(-87.3) else x  # NaN stays
    shifted = bounded * np.float32(1.44269504) + _SHIFT
    k = shifted - _SHIFT
    r = bounded - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
    y = np.float32(8.3125e-3)
    y = y * r + np.float32(4.189033e-2)
    y = y * r + np.float32(1.6667115e-1)
    y = y * r + np.float32(4.999923e-1)
    y = y * r * r + r + _ONE
    bits = np.int32(np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000)
    return y * np.int32(bits).view(np.float32)


@_kernel
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


@_kernel
def _log1p(x: np.float32) -> np.float32:
    """Return log(1 + x) for x from 0 to 1, 2 artanh(x / (2 + x)), to a few units in the last place however small x."""
    s = x / (_TWO + x)
    z = s * s
    y = np.float32(0.28178335)
    y = y * z + np.float32(0.27960603)
    y = y * z + np.float32(0.4002491)
    y = y * z + np.float32(0.66666315)
    y = y * z + _TWO
    return y * s


# A function for each loop over a row: of loops within loops the compiler makes no vector instructions. And no slice is
# assigned to: compiling that takes a second.


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
def _sigmoid_counts(x: _Reals, v: _Members, w: _Reals, p: _Reals) -> tuple[np.float32, np.float32, np.float32]:
    """Write the sigmoid p and return the same."""
    overlap = predicted = members = _ZERO
    for j in range(x.size):
        small, wv = _exp(-abs(x[j])), w[j] * np.float32(v[j])
        p[j] = (_ONE if x[j] >= _ZERO else small) / (_ONE + small)
        overlap += wv * p[j]
        predicted += w[j] * p[j]
        members += wv
    return overlap, predicted, members


@_reduces
def sigmoid_entropies(
    x: _Reals, v: _Members, w: _Reals, p: _Reals
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Write it and return these, Σ w·v·(−log p) and Σ w·(1−v)·(−log(1−p))."""
    overlap = predicted = members = positive = negative = _ZERO
    for j in range(x.size):
        small, greatest, wv = _exp(-abs(x[j])), max(x[j], _ZERO), w[j] * np.float32(v[j])
        log_total = _log1p(small)
        p[j] = (_ONE if x[j] >= _ZERO else small) / (_ONE + small)
        overlap += wv * p[j]
        predicted += w[j] * p[j]
        members += wv
        positive += wv * ((greatest - x[j]) + log_total)
        negative += (w[j] - wv) * (greatest + log_total)
    return overlap, predicted, members, positive, negative


@_reduces
def _sigmoid_sides(
    x: _Reals, v: _Members, w: _Reals, p: _Reals, field: _Reals
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Write it and return the counts, Σ w·p·max(field, 0) and Σ w·p·min(field, 0)."""
    overlap = predicted = members = above = below = _ZERO
    for j in range(x.size):
        small, wv = _exp(-abs(x[j])), w[j] * np.float32(v[j])
        p[j] = (_ONE if x[j] >= _ZERO else small) / (_ONE + small)
        overlap += wv * p[j]
        predicted += w[j] * p[j]
        members += wv
        above += w[j] * p[j] * max(field[j], _ZERO)
        below += w[j] * p[j] * min(field[j], _ZERO)
    return overlap, predicted, members, above, below


@_reduces
def _sides(w: _Reals, p: _Reals, field: _Reals) -> tuple[np.float32, np.float32]:
    """Return Σ w·p·max(field, 0) and Σ w·p·min(field, 0)."""
    above = below = _ZERO
    for j in range(p.size):
        above += w[j] * p[j] * max(field[j], _ZERO)
        below += w[j] * p[j] * min(field[j], _ZERO)
    return above, below


@_kernel
def _sigmoid_sums(x: _Reals, v: _Members, w: _Reals, p: _Reals, field: _Reals, entropy: bool) -> tuple[np.float32, ...]:
    """Write it and return the counts, the entropies and the sums of both sides, 0 for what is not asked for."""
    positive = negative = above = below = _ZERO
    if entropy:
        overlap, predicted, members, positive, negative = sigmoid_entropies(x, v, w, p)
        if field.size:
            above, below = _sides(w, p, field)
    elif field.size:
        overlap, predicted, members, above, below = _sigmoid_sides(x, v, w, p, field)
    else:
        overlap, predicted, members = _sigmoid_counts(x, v, w, p)
    return overlap, predicted, members, positive, negative, above, below


@_reduces
def total_of(x: _Reals) -> np.float32:
    """Return Σ x."""
    result = _ZERO
    for j in range(x.size):
        result += x[j]
    return result


@_reduces
def _squares(w: _Reals, x: _Reals) -> np.float32:
    """Return Σ w·x²."""
    result = _ZERO
    for j in range(x.size):
        result += w[j] * x[j] * x[j]
    return result


@_reduces
def _errors(v: _Reals, w: _Reals, p: _Reals, field: _Reals) -> np.float32:
    """Return Σ w·field·(p−v)²."""
    result = _ZERO
    for j in range(p.size):
        result += w[j] * field[j] * (p[j] - v[j]) * (p[j] - v[j])
    return result


@_kernel
def _extremes(x: _Reals) -> tuple[np.float32, np.float32]:
    """Return the greatest x and the greatest −x, at least 0."""
    highest = deepest = np.int32(0)
    for j in range(x.size):  # bits of floats order as they do, and several are compared at a time
        highest = max(highest, np.float32(x[j]).view(np.int32))
        deepest = max(deepest, np.float32(-x[j]).view(np.int32))
    return np.int32(highest).view(np.float32), np.int32(deepest).view(np.float32)


@_reduces
def entropies(
    v: _Reals, w: _Reals, x: _Reals, greatest: _Reals, log_total: _Reals, focus: _Reals, other_focus: _Reals
) -> tuple[np.float32, np.float32]:
    """Return Σ w·v·focus·(−log p) and Σ w·(1−v)·other_focus·(−log(1−p)), by way of logits, which cannot underflow."""
    positive = negative = _ZERO
    for j in range(x.size):
        positive += w[j] * v[j] * focus[j] * ((greatest[j] - x[j]) + log_total[j])
        negative += w[j] * (_ONE - v[j]) * other_focus[j] * (greatest[j] + log_total[j])
    return positive, negative


@_kernel
def fill(value: np.float32, out: _Reals) -> None:
    for j in range(out.size):
        out[j] = value


@_kernel
def _equal(labels: NDArray[np.uint8], label: int, out: _Reals) -> None:
    wanted = np.uint8(label)
    for j in range(out.size):
        out[j] = _ONE if labels[j] == wanted else _ZERO


@_kernel
def _copy(x: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] = x[j]


@_kernel
def _complement(x: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] = _ONE - x[j]


@_kernel
def _add(x: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] += x[j]


@_kernel
def _subtract_product(x: _Reals, y: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] -= x[j] * y[j]


@_kernel
def _maximum(x: _Reals, out: _Reals) -> None:
    for j in range(x.size):
        out[j] = max(out[j], x[j])


@_kernel
def _exponentials(x: _Reals, greatest: _Reals, out: _Reals, total: _Reals) -> None:
    for j in range(x.size):
        out[j] = _exp(x[j] - greatest[j])
        total[j] += out[j]


@_kernel
def _divide(by: _Reals, out: _Reals) -> None:
    for j in range(by.size):
        out[j] /= by[j]


@_kernel
def write_softmax(
    x: _Reals, b: int, start: int, out: _Reals, out_b: int, out_start: int, greatest: _Reals, total: _Reals
) -> None:
    """Write p, the greatest of the logits, and the sum of their exponentials less it, of one block."""
    stop, out_stop = start + total.size, out_start + total.size
    fill(-np.float32(np.inf), greatest)
    fill(_ZERO, total)
    for c in range(x.shape[1]):
        _maximum(x[b, c, start:stop], greatest)
    for c in range(x.shape[1]):
        _exponentials(x[b, c, start:stop], greatest, out[out_b, c, out_start:out_stop], total)
    for c in range(x.shape[1]):
        _divide(total, out[out_b, c, out_start:out_stop])


@_kernel
def _sigmoid_parts(x: _Reals, p: _Reals, greatest: _Reals, small: _Reals) -> None:
    """Write the sigmoid, the greater of x and 0, and e^−|x|."""
    for j in range(x.size):
        greatest[j] = max(x[j], _ZERO)
        small[j] = _exp(-abs(x[j]))
        p[j] = (_ONE if x[j] >= _ZERO else small[j]) / (_ONE + small[j])


@_kernel
def log_all(out: _Reals) -> None:
    for j in range(out.size):
        out[j] = _log(out[j])


@_kernel
def _log1p_all(out: _Reals) -> None:
    for j in range(out.size):
        out[j] = _log1p(out[j])


@_kernel
def _focus(p: _Reals, gamma: np.float32, out: _Reals) -> None:
    """Write (1 − p)^γ, for γ > 0."""
    if gamma == _TWO:
        for j in range(p.size):
            out[j] = (_ONE - p[j]) * (_ONE - p[j])
    else:
        for j in range(p.size):
            out[j] = _exp(gamma * _log(max(_ONE - p[j], _TINY)))


@_kernel
def _slope(p: _Reals, gamma: np.float32, out: _Reals) -> None:
    """Multiply by the derivative of −(1 − p)^γ·log p by log p, for γ > 0, divided by (1 − p)^γ."""
    for j in range(p.size):
        # Where p underflows, p·log p is 0 whatever stands for the logarithm; −log p / (1−p) goes to 1 as p does.
        out[j] *= gamma * p[j] * _log(min(max(p[j], _TINY), _ONE)) / max(_ONE - p[j], _TINY) - _ONE


@_kernel
def _gradient(
    v: _Reals, w: _Reals, by_field: _Reals, p: _Reals, by_overlap: np.float32, by_sum: np.float32,
    by_squares: np.float32, out: _Reals,
) -> None:  # fmt: skip
    """Write the gradient by log p, p of a softmax."""
    for j in range(p.size):
        out[j] = w[j] * ((by_overlap * v[j] + by_sum + _TWO * by_squares * p[j] + by_field[j]) * p[j])


@_kernel
def _to_gradient(
    v: _Members, w: _Reals, field: _Reals, by_overlap: np.float32, by_sum: np.float32, by_squares: np.float32,
    by_positive: np.float32, by_negative: np.float32, by_above: np.float32, by_below: np.float32, p: _Reals,
) -> None:  # fmt: skip
    """Write that by a logit where its sigmoid p was, with that of the plain cross entropies and of a field."""
    for j in range(p.size):
        member = np.float32(v[j])
        by_p = by_overlap * member + by_sum + _TWO * by_squares * p[j]
        by_p += (by_above if field[j] > _ZERO else by_below) * field[j]
        of_members = (by_p * p[j] - by_positive * member) * (_ONE - p[j])
        p[j] = w[j] * (of_members + by_negative * (_ONE - member) * p[j])


@_kernel
def _gradient_with_entropies(
    v: _Reals, w: _Reals, by_field: _Reals, p: _Reals, rest: _Reals,
    by_overlap: np.float32, by_sum: np.float32, by_squares: np.float32,
    slope: _Reals, other_slope: _Reals, by_positive: np.float32, by_negative: np.float32, out: _Reals,
) -> None:  # fmt: skip
    """Write the gradient by a logit where `rest` is 1 − p, that by log p where it is 1, with that of the entropies."""
    for j in range(p.size):
        by_p = by_overlap * v[j] + by_sum + _TWO * by_squares * p[j] + by_field[j]
        of_members = (by_p * p[j] + by_positive * v[j] * slope[j]) * rest[j]
        out[j] = w[j] * (of_members - by_negative * (_ONE - v[j]) * other_slope[j] * p[j])


@_kernel
def _by_field(above: np.float32, below: np.float32, field: _Reals, out: _Reals) -> None:
    """Write the gradient, by w·p, of the sums on both sides of a field."""
    for j in range(field.size):
        out[j] = (above if field[j] > _ZERO else below) * field[j]


@_kernel
def _by_errors(by: np.float32, v: _Reals, p: _Reals, field: _Reals) -> None:
    """Turn a field into that of the squared errors."""
    for j in range(field.size):
        field[j] *= _TWO * by * (p[j] - v[j])


@_kernel
def _forward(
    threads: int, first: int, last: int,
    logits: _Reals, labels: NDArray[np.uint8], truth: _Reals, weight: _Reals, field: _Reals,
    softmax: bool, squared: bool, entropy: bool, gamma: np.float32, errors: bool, kept: _Reals,
    sums: NDArray[np.float64],
) -> None:  # fmt: skip
    """Write the sums and the activation, unless `kept` is empty, of items `first` to `last`."""
    if divided(threads, first, last):
        return
    batch, channels, voxels = logits.shape
    items = sums.shape[1] // batch
    keep, focused, sides = kept.size > 0, gamma > _ZERO, field.size > 0 and not errors
    plain = not (softmax or focused)
    size = _BLOCK if plain else _BLOCK // 2
    scratch, own = np.empty((7, size), np.float32), np.empty((1, channels, size), np.float32)
    activation = kept if keep else own
    fill(_ONE, scratch[0])
    fill(_ONE, scratch[4])
    fill(_ONE, scratch[5])
    for item in range(first, last):
        b, of, begin = item // items, sums[:, item], item % items * _ITEM
        end = min(begin + _ITEM, voxels)
        for start in range(begin, end, size):
            stop = min(start + size, end)
            n = stop - start
            w = weight[b, 0, start:stop] if weight.size else scratch[0, :n]
            greatest, total, rest = scratch[1, :n], scratch[2, :n], scratch[3, :n]
            focus, other_focus = scratch[4, :n], scratch[5, :n]
            weight_of_block = total_of(w) if weight.size else np.float32(n)
            place, at = (b, start) if keep else (0, 0)  # of the activation
            if softmax:
                write_softmax(logits, b, start, activation, place, at, greatest, total)
                if entropy:
                    log_all(total)
            for c in range(channels):
                x, p = logits[b, c, start:stop], activation[place, c, at : at + n]
                v = truth[b, c, start:stop] if truth.size else scratch[6, :n]
                if labels.size and (errors or not plain):
                    _equal(labels[b, 0, start:stop], c if channels > 1 else 1, v)
                two_sided = field[b, c, start:stop] if sides else scratch[0, :0]
                positive = negative = above = below = _ZERO
                if plain and labels.size:
                    row = labels[b, 0, start:stop]
                    overlap, predicted, members, positive, negative, above, below = _sigmoid_sums(
                        x, row, w, p, two_sided, entropy
                    )
                elif plain:
                    overlap, predicted, members, positive, negative, above, below = _sigmoid_sums(
                        x, v, w, p, two_sided, entropy
                    )
                else:
                    if not softmax:
                        _sigmoid_parts(x, p, greatest, total)
                        _log1p_all(total)
                    overlap, predicted, members = _counts(v, w, p)
                    if sides:
                        above, below = _sides(w, p, two_sided)
                of[0, c] += overlap
                of[1, c] += _squares(w, p) if squared else predicted
                of[7, c] += _squares(w, v) if squared and truth.size else members
                of[8, c] += members
                of[9, c] += weight_of_block
                if errors:
                    of[6, c] += _errors(v, w, p, field[b, c, start:stop])
                if sides:
                    highest, deepest = _extremes(two_sided)
                    of[10, c], of[11, c] = max(of[10, c], highest), max(of[11, c], deepest)
                if focused:
                    _focus(p, gamma, focus)
                if focused and not softmax:
                    _complement(p, rest)
                    _focus(rest, gamma, other_focus)
                if entropy and not plain:
                    positive, negative = entropies(v, w, x, greatest, total, focus, other_focus)
                of[2, c] += positive
                of[3, c] += negative
                of[4, c] += above
                of[5, c] += below


@_kernel
def collect(of_items: NDArray[np.float64], extremes: int, out: _Reals) -> None:
    """Write (rows, B, C) of (rows, B·items, C): sums over items, in the last `extremes` rows the greatest, 0 as 1."""
    rows, batch, channels = out.shape
    items = of_items.shape[1] // batch
    for row in range(rows):
        for b in range(batch):
            for c in range(channels):
                total = 0.0
                for item in range(b * items, (b + 1) * items):
                    part = of_items[row, item, c]
                    total = total + part if row < rows - extremes else max(total, part)
                out[row, b, c] = 1 if row >= rows - extremes and total == 0 else total


@_kernel
def _backward(
    threads: int, first: int, last: int,
    logits: _Reals, labels: NDArray[np.uint8], truth: _Reals, weight: _Reals, field: _Reals,
    softmax: bool, squared: bool, entropy: bool, gamma: np.float32, errors: bool, by_sums: _Reals, out: _Reals,
) -> None:  # fmt: skip
    """Write the gradient of items `first` to `last`, whose activation lies in `out` unless logits are given."""
    if divided(threads, first, last):
        return
    _, channels, voxels = out.shape
    items = (voxels + _ITEM - 1) // _ITEM
    focused = gamma > _ZERO
    plain = not (softmax or focused)
    size = _BLOCK if plain else _BLOCK // 2
    scratch, own = np.empty((7, size), np.float32), np.empty((1, channels if softmax else 1, size), np.float32)
    fill(_ONE, scratch[0])
    fill(-_ONE, scratch[3])
    fill(-_ONE, scratch[4])
    fill(_ZERO, scratch[6])
    for item in range(first, last):
        b, begin = item // items, item % items * _ITEM
        end = min(begin + _ITEM, voxels)
        for start in range(begin, end, size):
            stop = min(start + size, end)
            n = stop - start
            w = weight[b, 0, start:stop] if weight.size else scratch[0, :n]
            total, rest = scratch[1, :n], scratch[0 if softmax else 2, :n]
            slope, other_slope, by_field = scratch[3, :n], scratch[4, :n], scratch[6, :n]
            if softmax and logits.size:
                write_softmax(logits, b, start, own, 0, 0, scratch[2, :n], total)
            fill(_ZERO, total)
            for c in range(channels):
                v = truth[b, c, start:stop] if truth.size else scratch[5, :n]
                if labels.size and (errors or not plain):
                    _equal(labels[b, 0, start:stop], c if channels > 1 else 1, v)
                by = by_sums[:, b, c]
                by_sum, by_squares = (_ZERO, by[1]) if squared else (by[1], _ZERO)
                p, g = own[0, c if softmax else 0, :n], out[b, c, start:stop]
                two_sided, by_above, by_below = by_field, _ONE, _ONE
                if errors:
                    _copy(field[b, c, start:stop], by_field)  # whose place may be that of the gradient
                elif field.size and plain and not logits.size:
                    two_sided, by_above, by_below = field[b, c, start:stop], by[4], by[5]
                elif field.size:
                    _by_field(by[4], by[5], field[b, c, start:stop], by_field)
                if logits.size and not softmax:
                    _sigmoid_parts(logits[b, c, start:stop], g, scratch[1], scratch[2])
                if errors:
                    _by_errors(by[6], v, p if softmax and logits.size else g, by_field)
                if plain and labels.size:
                    row = labels[b, 0, start:stop]
                    _to_gradient(row, w, two_sided, by[0], by_sum, by_squares, by[2], by[3], by_above, by_below, g)
                    continue
                if plain:
                    _to_gradient(v, w, two_sided, by[0], by_sum, by_squares, by[2], by[3], by_above, by_below, g)
                    continue
                if not (softmax and logits.size):
                    _copy(g, p)
                if not softmax:
                    _complement(p, rest)
                if focused:
                    _focus(p, gamma, slope)
                    _slope(p, gamma, slope)
                    if not softmax:
                        _focus(rest, gamma, other_slope)
                        _slope(rest, gamma, other_slope)
                if entropy:
                    _gradient_with_entropies(
                        v, w, by_field, p, rest, by[0], by_sum, by_squares, slope, other_slope, by[2], by[3], g
                    )
                else:
                    _gradient(v, w, by_field, p, by[0], by_sum, by_squares, g)
                if softmax:
                    _add(g, total)
            if softmax:
                for c in range(channels):
                    _subtract_product(own[0, c, :n], total, out[b, c, start:stop])
