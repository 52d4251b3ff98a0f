"""Exact signed distances in Triton, on CUDA tensors (and on CPU tensors under ``TRITON_INTERPRET=1``).

The squared distance to a set is separable, f'(i) = min over j of f(j) + (i − j)²: one kernel scans along the last
axis, one kernel minimizes along each axis before it. Only rows with a feature (a voxel that has a face neighbour on
the other side) can hold the minimum, so only these are scanned and only these are visited. Their bounds, for each
plane and each volume, are gathered with atomics and stay on the device: the host launches for the worst case, reads
nothing back, and a program with nothing in its bounds ends at once.

Measured to the other side (`inner` false), a voxel has distance 0 to its own side. So one signed number carries both
transforms: the squared distance to D outside, minus the squared distance to the complement inside.

Without spacing the squares are integers, so the map is exact: int32 while the image's squared diagonal is below 2³⁰,
then int64. With spacing they are float32, rounded at most five times: a distance is off by at most 2⁻²² of itself.
Temporary memory: one map of squares in 2-D, two in 3-D, and one int32 a row.
"""

# Triton has no types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

_BLOCK = 1024  # voxels that one program scans at a time, of one row or several; twice as many spill registers
_ROWS = 8  # along the axis, that one program minimizes; few, because the farthest of them decides how far it searches
_LOAD = 256  # bytes that a warp, here a whole program, loads at a time: as many lanes; twice as many double registers


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return signed distances without a host synchronisation; `_op.signed_distances` explains the arguments."""
    out = torch.empty_like(inside, dtype=torch.float32)
    if out.numel() == 0:
        return out
    samples, depth, height, width = inside.shape[0], *[1] * (4 - inside.ndim), *inside.shape[1:]
    planes = samples * depth
    diagonal = sum((size - 1) ** 2 for size in inside.shape[1:])
    unreached: float
    if spacing is not None:
        dtype, unreached, small = torch.float32, float("inf"), True
        spacing = pad(spacing.to(inside.device, non_blocking=True), (4 - inside.ndim, 0), value=1.0)
    elif diagonal < 2**30:
        dtype, unreached, small = torch.int32, 2**30, diagonal < 2**24  # small: float32 holds every square
    else:
        dtype, unreached, small = torch.int64, 2**62, False
    mask = inside.view(torch.uint8)
    squares = torch.empty_like(inside, dtype=dtype)
    row_used = torch.empty(planes * height, dtype=torch.int32, device=inside.device)
    # The largest (size − index, index + 1) of the used rows of a plane and of the used planes of a volume: 0 where
    # there are none, so one zeroed buffer serves both ends.
    bounds = torch.zeros(2, planes + samples, dtype=torch.int32, device=inside.device)
    plane_bounds, volume_bounds = bounds[:, :planes], bounds[:, planes:]
    passes = [(planes, height, width, row_used, plane_bounds)]
    if depth > 1:
        passes.append((samples, depth, height * width, plane_bounds[1], volume_bounds))

    block = min(triton.next_power_of_2(width), _BLOCK)
    rows = min(_BLOCK // block, triton.next_power_of_2(height))
    with torch.cuda.device_of(inside):
        _scan[(planes * triton.cdiv(height, rows),)](
            mask, squares, row_used, *plane_bounds, *volume_bounds, spacing, depth, height, width,
            inner=inner, unreached=unreached, rows=rows, block=block,
        )  # fmt: skip
        for index, (groups, length, lanes, used, group_bounds) in enumerate(passes, 1):
            final = index == len(passes)
            columns = min(triton.next_power_of_2(lanes), _LOAD // dtype.itemsize)
            result = out if final else torch.empty_like(squares)
            _minimize[(groups * triton.cdiv(length, _ROWS) * triton.cdiv(lanes, columns),)](
                mask, squares, result, used, *group_bounds, spacing, groups // samples, length, lanes,
                axis=2 - index, final=final, small=small, inner=inner, unreached=unreached,
                rows=_ROWS, columns=columns, num_warps=1,
            )  # fmt: skip
            squares = result
    return out


@triton.jit
def _scan(
    mask, squares, row_used, plane_first, plane_last, volume_first, volume_last, spacing, depth, height, width,
    inner: tl.constexpr, unreached: tl.constexpr, rows: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Write the squared distance along the last axis in the rows with a feature, mark these rows and their bounds.

    One program sweeps some rows of one plane, a block of each at a time. The first sweep finds features and costs one
    byte a voxel (the neighbours are in the cache). Only where it finds some, one sweep to the right keeps the nearest
    feature behind, a running maximum of indices, and one back to the left the nearest one ahead, a running minimum.
    """
    tiles, blocks = tl.cdiv(height, rows), tl.cdiv(width, block)
    plane = tl.program_id(0) // tiles
    sample, z = plane // depth, plane % depth
    y = tl.program_id(0) % tiles * rows + tl.arange(0, rows)[:, None]
    row = tl.cast(plane, tl.int64) * height + y
    used = tl.zeros((rows, 1), tl.int32)
    for k in range(0, blocks):
        x = k * block + tl.arange(0, block)[None, :]
        _, _, _, feature = _border(mask, row, x, y, z, depth, height, width, inner)
        used = tl.maximum(used, tl.max(feature.to(tl.int32), 1, keep_dims=True))
    tl.store(row_used + row, used, mask=y < height)
    last = tl.max(used * (y + 1))
    if last > 0:
        tl.atomic_max(plane_first + plane, tl.max(used * (height - y)))
        tl.atomic_max(plane_last + plane, last)
        tl.atomic_max(volume_first + sample, depth - z)
        tl.atomic_max(volume_last + sample, z + 1)

        none: tl.constexpr = 2**30  # as an index or a distance: beyond any row
        behind = tl.full((rows, 1), -none, tl.int32)
        for k in range(0, blocks):
            x = k * block + tl.arange(0, block)[None, :]
            _, left, _, feature = _border(mask, row, x, y, z, depth, height, width, inner)
            nearest = tl.where(feature, x, -none) if inner else tl.where(left, x - 1, -none)
            distance = x - tl.maximum(tl.associative_scan(nearest, 1, _larger), behind)
            behind = tl.maximum(behind, tl.max(nearest, 1, keep_dims=True))
            tl.store(squares + row * width + x, distance, mask=(x < width) & (used > 0))
        tl.debug_barrier()  # the sweep back reads what other threads have stored
        weight = _weight(squares, spacing, sample, 2)
        ahead = tl.full((rows, 1), none, tl.int32)
        for k in range(0, blocks):
            x = (blocks - 1 - k) * block + tl.arange(0, block)[None, :]
            here, _, right, feature = _border(mask, row, x, y, z, depth, height, width, inner)
            nearest = tl.where(feature, x, none) if inner else tl.where(right, x + 1, none)
            distance = tl.minimum(tl.associative_scan(nearest, 1, _smaller, reverse=True), ahead) - x
            ahead = tl.minimum(ahead, tl.min(nearest, 1, keep_dims=True))
            voxel = squares + row * width + x
            distance = tl.minimum(distance, tl.load(voxel, mask=(x < width) & (used > 0), other=0).to(tl.int32))
            square = tl.where(distance < width, _square(distance, weight), unreached)
            if not inner:
                square = tl.where(here, -square, square)
            tl.store(voxel, square, mask=(x < width) & (used > 0))


@triton.jit
def _border(mask, row, x, y, z, depth, height, width, inner: tl.constexpr):
    """Return what is inside, what differs from its left and from its right neighbour, and what is a feature."""
    valid = (y < height) & (x < width)
    voxel = mask + row * width + x
    # Beyond the edge of the image a voxel sees itself, which is no boundary.
    here = tl.load(voxel, mask=valid, other=0)
    left = here != tl.load(voxel - 1, mask=valid & (x > 0), other=here)
    right = here != tl.load(voxel + 1, mask=valid & (x < width - 1), other=here)
    feature = left | right
    feature |= here != tl.load(voxel - width, mask=valid & (y > 0), other=here)
    feature |= here != tl.load(voxel + width, mask=valid & (y < height - 1), other=here)
    area = tl.cast(height, tl.int64) * width
    if z > 0:
        feature |= here != tl.load(voxel - area, mask=valid, other=here)
    if z < depth - 1:
        feature |= here != tl.load(voxel + area, mask=valid, other=here)
    if inner:
        feature &= here != 0
    return here != 0, left, right, feature


@triton.jit
def _minimize(
    mask, squares, result, used, low, high, spacing, per_sample, length, lanes,
    axis: tl.constexpr, final: tl.constexpr, small: tl.constexpr, inner: tl.constexpr, unreached: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Write f'(i) = min over the used rows j of f(j) + (i − j)², or its signed root after the `final` axis.

    One program finds `rows` neighbouring i in `columns` lanes. It visits the rows j of its own tile, or those of the
    bounds nearest to it, then ever farther ones on both sides, until the way there alone is longer than the largest
    minimum found. So a voxel costs at most the length of the bounds, and about twice the largest distance in its tile
    where that is less.
    """
    tiles, strips = tl.cdiv(length, rows), tl.cdiv(lanes, columns)
    group = tl.program_id(0) // (tiles * strips)
    first = length - tl.load(low + group)
    last = tl.load(high + group)
    if final or last > 0:
        start = tl.program_id(0) // strips % tiles * rows
        stop = start + rows
        i = start + tl.arange(0, rows)[:, None]
        lane = tl.cast(tl.program_id(0) % strips, tl.int64) * columns + tl.arange(0, columns)[None, :]
        valid = (i < length) & (lane < lanes)
        base = tl.cast(group, tl.int64) * length
        voxel = (base + i) * lanes + lane
        here = tl.load(mask + voxel, mask=valid, other=0) != 0
        sign = tl.where(here, -1, 1).to(squares.dtype.element_ty)
        weight = _weight(squares, spacing, group // per_sample, axis)

        gap = tl.maximum(first - stop, start - last)
        seen = tl.where(gap < 0, -rows, gap)  # the way already gone on both sides; at −rows the tile itself is to come
        farthest = tl.maximum(start - first, last - stop)
        best = tl.where(valid, tl.full((rows, columns), unreached, squares.dtype.element_ty), 0)
        while (seen < farthest) & (tl.max(best) > _square(tl.maximum(seen + 1, 0), weight)):
            for j in range(tl.maximum(first, start - seen - rows), tl.minimum(last, start - seen)):
                best = _lower(best, sign, squares, used, base, i, j, lane, lanes, weight, inner, unreached)
            for j in range(tl.maximum(first, stop + tl.maximum(seen, 0)), tl.minimum(last, stop + seen + rows)):
                best = _lower(best, sign, squares, used, base, i, j, lane, lanes, weight, inner, unreached)
            seen += rows

        if final:
            root = tl.sqrt_rn(best.to(tl.float32)) if small else tl.sqrt(best.to(tl.float64)).to(tl.float32)
            root = tl.where(best < unreached, root, 0.0)
            tl.store(result + voxel, tl.where(here, 0.0 - root, root), mask=valid)  # 0 − 0 is 0, where −0 is −0
        else:
            if not inner:
                best = tl.where(here, -best, best)
            tl.store(result + voxel, best, mask=valid)


@triton.jit
def _lower(
    best, sign, squares, used, base, i, j, lane, lanes, weight, inner: tl.constexpr, unreached: tl.constexpr
):  # fmt: skip
    """Return the minimum of `best` and of what row `j` offers to the rows `i`."""
    visit = tl.load(used + base + j) > 0
    square = tl.load(squares + (base + j) * lanes + lane, mask=lane < tl.where(visit, lanes, 0), other=0)
    way = tl.where(visit, _square(i - j, weight), unreached)
    # max(±f, 0) + way: on the other side of the border f counts as 0.
    square = square + way if inner else tl.maximum(square * sign + way, way)
    return tl.minimum(best, square)


@triton.jit
def _square(steps, weight):
    steps = tl.cast(steps, weight.dtype)
    return steps * steps * weight


@triton.jit
def _weight(squares, spacing, sample, axis: tl.constexpr):
    """Return the square of one step along `axis`, in the type of the squares."""
    step = tl.full((), 1, squares.dtype.element_ty) if spacing is None else tl.load(spacing + sample * 3 + axis)
    return tl.cast(step * step, squares.dtype.element_ty)


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b)
