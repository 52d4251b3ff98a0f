"""Exact signed distances on the CPU: numba kernels without the GIL, run in the threads of torch.

README.md beside this file derives the algorithm and its bounds. Every mask is viewed as (A, B, C), C contiguous: a
plane as (1, H, W), a line as (1, 1, W). A box is (a0, a1, b0, b1, c0, c1), half-open. Kernels take the rows of a batch
as (N · A · B, C), for an index of four dimensions takes numba much longer to compile.

A slice takes numba several times as long to compile as an element, so elements are indexed where they lie; along C by
np.uint64, for loops whose index might be negative are not vectorized. (uint64 and int64 make float64.)
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled as _compile
from multilevel_loss._numba import divided
from multilevel_loss._numba import run as _run

_Bytes = NDArray[np.uint8]
_Integers = NDArray[np.int64]
_Indices = NDArray[np.int32]
_Reals = NDArray[np.float32] | NDArray[np.float64]

_LANES = 64  # neighbours along C that are minimized together: four AVX-512 or eight AVX registers of float32
_ROWS = 16  # of a block, whose minimizers are bounded together
_FEW = 4  # candidates that are tried at a time, so that fewer are not worth narrowing down
_ROUNDING = 1e-6  # several times float32's, relative


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return signed distances; `_op.signed_distances` explains the arguments."""
    distances = torch.empty_like(inside, dtype=torch.float32)
    if inside.numel() == 0:
        return distances
    batch, *sides = inside.shape
    size_a, size_b, size_c = shape = (1, 1, *sides)[-3:]
    steps = np.ones((batch, 3))
    if spacing is not None:
        steps[:, 3 - len(sides) :] = spacing.numpy()
    exact = spacing is None and sum((size - 1) ** 2 for size in shape) <= 2**24
    masks = inside.numpy().view(np.uint8).reshape(-1, size_c)
    out = distances.numpy().reshape(masks.shape)
    slabs, rows, strips = batch * size_a, batch * size_a * size_b, -(-size_c // _LANES)

    work = masks.size // 4  # voxels take so little that 512² are not worth a second thread
    seen, extents = np.zeros((slabs, 2, size_c), np.uint8), np.zeros((slabs, 2, 6), np.int64)
    features, written = np.empty((2, 2, batch, 6), np.int64)
    _run(_find_extents, slabs, masks.size // 8, masks, size_a, size_b, seen, extents)
    if size_a > 1:
        extents = extents.reshape(batch, size_a, 2, 6).max(1)
    scanned = _find_boxes(extents, np.array(shape), features, written)
    # The nearest voxel of D is on ∂D, so distances to ∂D serve outside D, and inside if `inner`; otherwise the inside
    # is written a second time.
    for side in (1,) if inner else (1, 0):
        # Squares are kept where the distances will be, unless these are there already or float32 is too narrow.
        squares = out if exact and side else np.empty(masks.shape, np.float32 if exact else np.float64)
        arguments = masks, size_a, size_b, steps, side, features[side], written[side], squares
        _run(_scan, rows, scanned, *arguments)
        if size_a > 1:
            _run(_minimize, batch * size_b * strips, work, *arguments, out, False)
        _run(_minimize, slabs * strips, work, *arguments, out, True)
    return distances


@_compile()
def _find_extents(
    threads: int, first: int, last: int, masks: _Bytes, size_a: int, size_b: int, seen: _Bytes, extents: _Integers
) -> None:
    """Set extents[slab, side] to what bounds the voxels equal to `side` in each slab: (a0, a1, b0, b1, c0, c1).

    Lows are counted from the far end, so that extents join by their maxima, and are 0, as they were, for no voxels.
    """
    if divided(threads, first, last):
        return
    size_c = masks.shape[1]
    for slab in range(first, last):
        zeros, ones = seen[slab, 0], seen[slab, 1]
        extent_0, extent_1 = extents[slab, 0], extents[slab, 1]
        for b in range(size_b):
            row = masks[slab * size_b + b]
            any_1, all_1 = np.uint8(0), np.uint8(1)
            for c in range(size_c):
                any_1 |= row[c]
                all_1 &= row[c]
            if any_1:
                extent_1[2], extent_1[3] = max(extent_1[2], size_b - b), b + 1
            if not all_1:
                extent_0[2], extent_0[3] = max(extent_0[2], size_b - b), b + 1
            if any_1 == all_1:
                seen[slab, any_1, 0] = seen[slab, any_1, size_c - 1] = 1
            else:
                for c in range(size_c):
                    ones[c] |= row[c]
                    zeros[c] |= row[c] ^ 1
        for side in range(2):
            extent, present = extents[slab, side], seen[slab, side]
            if extent[3]:
                extent[0], extent[1] = size_a - slab % size_a, slab % size_a + 1
            for c in range(size_c):
                if present[c]:
                    extent[4], extent[5] = max(extent[4], size_c - c), c + 1


@_compile()
def _find_boxes(extents: _Integers, shape: _Integers, features: _Integers, written: _Integers) -> int:
    """Set features[side] to the boxes of the boundary voxels of a side, written[side] to where distances to them go.

    That is everywhere for side 1, and the box of D for side 0. Returns the voxels that are to be scanned.
    """
    scanned = 0
    for n in range(extents.shape[0]):
        both = extents[n, 0, 1] > 0 and extents[n, 1, 1] > 0
        for i in range(6):
            size = shape[i // 2]
            for side in range(2):
                own, other = extents[n, side, i], extents[n, 1 - side, i]
                feature = min(own, other + 1) if both else 0
                write = size if side else other
                features[side, n, i] = feature if i % 2 else size - feature
                written[side, n, i] = write if i % 2 else size - write
        if both:
            box = features[1, n]
            scanned += (box[1] - box[0]) * (box[3] - box[2]) * shape[2]
    return scanned


@_compile()
def _scan(
    threads: int,
    first: int,
    last: int,
    masks: _Bytes,
    size_a: int,
    size_b: int,
    steps: NDArray[np.float64],
    side: int,
    features: _Integers,
    written: _Integers,
    squares: _Reals,
) -> None:
    """Set the squared distances along C to the nearest feature, in the rows that meet the box of features."""
    if divided(threads, first, last):
        return
    size_c = masks.shape[1]
    gaps, real = np.empty((2, 3 * size_c), np.float32), squares.dtype.type
    flip, zero, none = np.uint8(1 - side), np.float32(0), np.float32(np.inf)
    one, margin = np.uint64(1), np.uint64(size_c)
    for slab in range(first // size_b, (last - 1) // size_b + 1):
        n, a = slab // size_a, slab % size_a
        if a < features[n, 0] or a >= features[n, 1]:
            continue
        for c in range(margin + margin + margin):
            gaps[0, c] = gaps[1, c] = none  # beside the box, which may have been wider
        c0, c1 = np.uint64(features[n, 4]), np.uint64(features[n, 5])
        step = real(steps[n, 2])
        for b in range(max(features[n, 2], first - slab * size_b), min(features[n, 3], last - slab * size_b)):
            r = slab * size_b + b
            here, gap = masks[r], gaps[0]
            up, down = masks[r - (a > 0) * size_b], masks[r + (a + 1 < size_a) * size_b]
            north, south = masks[r - (b > 0)], masks[r + (b + 1 < size_b)]
            found = np.uint8(0)
            for c in range(c0, c1):
                edge = (here[c] ^ up[c]) | (here[c] ^ down[c]) | (here[c] ^ north[c]) | (here[c] ^ south[c])
                found |= edge & (here[c] ^ flip)
                gap[margin + c] = zero if edge & (here[c] ^ flip) else none
            for c in range(c0, min(c1, margin - one)):
                edge = here[c] ^ here[c + one]
                found |= edge & (here[c] ^ flip)
                gap[margin + c] = zero if edge & (here[c] ^ flip) else gap[margin + c]
            for c in range(max(c0, one), c1):
                edge = here[c] ^ here[c - one]
                found |= edge & (here[c] ^ flip)
                gap[margin + c] = zero if edge & (here[c] ^ flip) else gap[margin + c]

            # After the step of length r, gaps below 2r are right; without a feature all stay infinite.
            reach, other = one if found else c1 - c0, gaps[1]
            while reach < c1 - c0:
                length = np.float32(reach)
                for c in range(margin + c0, margin + c1):
                    left, middle, right = gap[c - reach], gap[c], gap[c + reach]
                    beside = (left if left < right else right) + length
                    other[c] = middle if middle < beside else beside
                gap, other = other, gap
                reach += reach
            first_gap, last_gap = real(gap[margin + c0]), real(gap[margin + c1 - one])
            for c in range(np.uint64(written[n, 4]), c0):
                distance = (first_gap + real(np.int32(c0 - c))) * step
                squares[r, c] = distance * distance
            for c in range(c0, c1):
                distance = real(gap[margin + c]) * step
                squares[r, c] = distance * distance
            for c in range(c1, np.uint64(written[n, 5])):
                distance = (last_gap + real(np.int32(c - c1 + one))) * step
                squares[r, c] = distance * distance


@_compile()
def _minimize(
    threads: int,
    first: int,
    last: int,
    masks: _Bytes,
    size_a: int,
    size_b: int,
    steps: NDArray[np.float64],
    side: int,
    features: _Integers,
    written: _Integers,
    squares: _Reals,
    out: NDArray[np.float32],
    final: bool,
) -> None:
    """Minimize f(p) + (x − p)² h² over p: along A in place or, `final`, along B into signed distances.

    An item is a strip of neighbours along C, minimized together. Candidates p that none of them needs are left out,
    the minimizers at the starts of blocks are bounded by bisection, and the x of a block try what lies between.
    """
    if divided(threads, first, last):
        return
    size_c = masks.shape[1]
    strips, lines, axis = -(-size_c // _LANES), size_a if final else size_b, 1 if final else 0
    longest = max(size_a, size_b) + _LANES
    # Few arrays of few kinds, for each kind takes time to compile; no candidate takes the row of `least`.
    heights, ways = np.empty((longest, _LANES), squares.dtype), np.empty((1, longest), squares.dtype)[0]
    indices, least = np.empty((4, longest), np.int32), heights[longest - 1]
    lower, upper = indices[0], indices[1]
    places, minimizers = indices[2], indices[3]
    sample, step, lanes = -1, 1.0, np.uint64(_LANES)
    across, stride = written if final else features, 1 if final else size_b
    for item in range(first, last):
        line, strip = item // strips % lines, item % strips
        n = item // strips // lines
        c, rest = np.uint64(written[n, 4] + strip * _LANES), written[n, 5] - written[n, 4] - strip * _LANES
        if rest <= 0 or line < across[n, 2 - 2 * axis] or line >= across[n, 3 - 2 * axis]:
            continue
        width = min(np.uint64(rest), lanes)
        low, high = features[n, 2 * axis], features[n, 2 * axis + 1]
        start, stop = written[n, 2 * axis], written[n, 2 * axis + 1]
        origin = (n * size_a + line) * size_b if final else n * size_a * size_b + line  # the row of x = 0
        if low >= high:  # no boundary
            for x in range(start, stop):
                for i in range(width):
                    out[origin + x * stride, c + i] = 0
            continue
        if n != sample:
            sample, step = n, steps[n, axis]
            for k in range(longest):
                way = k * step
                ways[k] = way * way
        count = 0
        for p in range(low, high):
            near = squares[origin + p * stride]
            if near[c] == np.inf:  # like its neighbours: no feature
                continue
            for i in range(width):
                heights[count, i] = near[c + i]
            for i in range(width, lanes):
                heights[count, i] = near[c]
            places[count] = p
            while count > 1 and _is_nowhere_lowest(heights, places, count - 1, ways[1]):
                for i in range(lanes):
                    heights[count - 1, i] = heights[count, i]
                places[count - 1] = p
                count -= 1
            count += 1
        for p in range(count, count + _FEW):
            places[p] = start
            for i in range(lanes):
                heights[p, i] = np.inf

        blocks = -(-(stop - start) // _ROWS)
        lower[0], upper[blocks] = 0, count - 1
        reach = 1
        while reach < blocks:
            reach *= 2
        while reach > 1:
            for block in range(reach // 2, blocks, reach):
                p, q = lower[block - reach // 2], upper[min(block + reach // 2, blocks)]
                if q - p >= _FEW:
                    p, q = _bound(heights, places, ways, step, start + block * _ROWS, p, q, least, minimizers)
                lower[block], upper[block] = p, q
            reach //= 2

        for block in range(blocks):
            p, q = lower[block], upper[block + 1]
            alone = final and side and q - p < _FEW and width == lanes
            for x in range(start + block * _ROWS, min(start + (block + 1) * _ROWS, stop)):
                r = origin + x * stride
                if alone:
                    way_0, way_1 = ways[abs(x - places[p])], ways[abs(x - places[p + 1])]
                    way_2, way_3 = ways[abs(x - places[p + 2])], ways[abs(x - places[p + 3])]
                    for i in range(lanes):
                        first_two = min(heights[p, i] + way_0, heights[p + 1, i] + way_1)
                        last_two = min(heights[p + 2, i] + way_2, heights[p + 3, i] + way_3)
                        root = np.float32(np.sqrt(min(first_two, last_two)))
                        out[r, c + i] = np.float32(0) - root if masks[r, c + i] else root
                    continue
                for i in range(lanes):
                    least[i] = np.inf
                for k in range(p, q + 1, _FEW):
                    way_0, way_1 = ways[abs(x - places[k])], ways[abs(x - places[k + 1])]
                    way_2, way_3 = ways[abs(x - places[k + 2])], ways[abs(x - places[k + 3])]
                    for i in range(lanes):
                        first_two = min(heights[k, i] + way_0, heights[k + 1, i] + way_1)
                        last_two = min(heights[k + 2, i] + way_2, heights[k + 3, i] + way_3)
                        least[i] = min(min(first_two, least[i]), last_two)
                if final:
                    for i in range(width):
                        root = np.float32(np.sqrt(least[i]))
                        beyond = root if side else out[r, c + i]
                        out[r, c + i] = np.float32(0) - root if masks[r, c + i] else beyond
                else:
                    for i in range(width):
                        squares[r, c + i] = least[i]


@_compile()
def _is_nowhere_lowest(heights: _Reals, places: _Indices, p: int, square: float) -> bool:
    """Return whether no line of a strip needs candidate p beside those before and after it."""
    real = heights.dtype.type
    before, after = real(1) / real(places[p] - places[p - 1]), real(1) / real(places[p + 1] - places[p])
    bend, rounding = real(places[p + 1] - places[p - 1]) * square, real(_ROUNDING)
    needed = np.int32(0)
    for i in range(_LANES):
        rise, fall = (heights[p, i] - heights[p - 1, i]) * before, (heights[p, i] - heights[p + 1, i]) * after
        needed |= np.int32(rise + fall < bend + rounding * (abs(rise) + abs(fall)))
    return bool(needed == 0)


@_compile()
def _bound(
    heights: _Reals,
    places: _Indices,
    ways: _Reals,
    step: float,
    x: int,
    p: int,
    q: int,
    least: _Reals,
    minimizers: _Indices,
) -> tuple[int, int]:
    """Return the lowest and the highest of the minimizers at x of a strip, which are among p … q."""
    nearest = min(max(p + x - places[p], np.int64(p)), np.int64(q))
    height, part = heights[nearest], _LANES // 4
    for i in range(part):
        first_two, last_two = max(height[i], height[part + i]), max(height[2 * part + i], height[3 * part + i])
        least[i] = max(first_two, last_two)
    farthest = least[0]
    for i in range(1, part):
        farthest = max(farthest, least[i])
    # The way alone to a candidate farther than this is longer.
    reach = np.int64(np.sqrt(farthest + ways[abs(x - places[nearest])]) / step) + 1
    while p < q and places[p] < x - reach:
        p += 1
    while p < q and places[q] > x + reach:
        q -= 1
    for i in range(_LANES):
        least[i], minimizers[i] = np.inf, p
    for place in range(p, q + 1, 2):
        way, next_way = ways[abs(x - places[place])], ways[abs(x - places[place + 1])]
        here, there = np.int32(place), np.int32(place + 1)
        for i in range(_LANES):
            cost, next_cost = heights[place, i] + way, heights[place + 1, i] + next_way
            better = there if next_cost < cost else here
            cost = next_cost if next_cost < cost else cost
            known, minimizer = least[i], minimizers[i]
            minimizers[i] = better if cost < known else minimizer
            least[i] = cost if cost < known else known
    lowest, highest = minimizers[0], minimizers[0]
    for i in range(_LANES):
        minimizer = minimizers[i]
        lowest = minimizer if minimizer < lowest else lowest
        highest = minimizer if minimizer > highest else highest
    return lowest, highest
