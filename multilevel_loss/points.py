"""Uncertain points: where a prediction hesitates, on any grid of one to three dimensions.

Coordinates are (x, y, z), the last spatial axis first, in [0, 1] from edge to edge of the image: the centre of cell i
of W lies at (i + ½) / W. They mean the same place on every grid that covers the image, however coarse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, check_input, check_number, resolve_mode
from multilevel_loss._targets import FEW, memberships


def sample_points(field: Tensor, point_coords: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sample a field at points, linearly between cell centres and constant beyond the outermost ones.

    Args:
        field: (B, C, *spatial), 1-D to 3-D, floating.
        point_coords: (B, P, D) in [0, 1], x first: the centre of cell i of W lies at (i + ½) / W.
        mask: (B, 1, *spatial) bool; a False cell takes no part, and the others around the point take its share.

    Returns:
        (B, C, P), in the dtype of `field`, 0 where no cell around the point takes part; differentiable in `field`,
        on CUDA deterministically where :func:`torch.use_deterministic_algorithms` asks for it.

    Raises:
        ValueError: `point_coords` has another batch size or number of dimensions.

    Example:
        >>> sample_points(torch.tensor([[[0.0, 10.0]]]), torch.tensor([[[0.25], [0.5], [1.0]]]))
        tensor([[[ 0.,  5., 10.]]])

    Source:
        The bilinear sampling of PointRend (Kirillov et al., CVPR 2020), with the border repeated instead of zeros,
        which would pull logits at the image edge towards ½.
    """
    index, share = _neighbours(point_coords, field)
    return _interpolate(_cells(field, index), share, None if mask is None else _cells(mask, index))


def sample_memberships(
    truth: Tensor, num_classes: int, point_coords: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Sample class memberships (B, C, P) as :func:`sample_points` does, of a label map (B, 1, *spatial) or of such."""
    index, share = _neighbours(point_coords, truth)
    values = memberships(_cells(truth, index), num_classes, dtype)
    return _interpolate(values, share, None if mask is None else _cells(mask, index))


def nearest_points(field: Tensor, point_coords: Tensor) -> Tensor:
    """Return the value of the cell in which each point lies, (B, C, P), for a field (B, C, *spatial) of any dtype."""
    check_coords(point_coords, field)
    index = torch.zeros_like(point_coords[..., 0], dtype=torch.int64)
    for axis, size in enumerate(field.shape[2:]):
        cell = (point_coords[..., -1 - axis] * size).long().clamp(0, size - 1)
        index = index * size + cell
    return field.flatten(2).gather(2, index.unsqueeze(1).expand(-1, field.shape[1], -1))


def uncertainty(logits: Tensor, mode: Mode) -> Tensor:
    """Return how undecided logits (B, C, N) are, (B, N): 0 where on the edge of a decision, the less the surer.

    −|logit| of the least decided class for sigmoid modes, second largest − largest logit for multiclass.
    """
    if mode == "multiclass":
        largest, second = logits.topk(2, dim=1).values.unbind(1)
        return second - largest
    return -logits.abs().amin(1)


@torch.no_grad()
def uncertain_points(
    input: Tensor,
    num_points: int,
    *,
    mode: Mode | None = None,
    oversample_ratio: float = 3.0,
    importance_sample_ratio: float = 0.75,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw points near the decision boundary of a prediction.

    Of ⌊k·N⌋ uniform points the ⌊m·N⌋ most uncertain are kept, and N − ⌊m·N⌋ fresh uniform ones added.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D.
        num_points: N, at least 1; may exceed the number of voxels.
        mode: "binary", "multiclass" or "multilabel"; None for binary when C = 1, multiclass otherwise.
        oversample_ratio: k, at least 1.
        importance_sample_ratio: m, from 0 to 1.
        mask: (B, 1, *spatial') bool, on this grid or another; points are drawn in its True voxels only. In a sample
            without one they are drawn anywhere.
        generator: the source of randomness; torch's default one when None.

    Returns:
        Coordinates (B, N, D) in [0, 1], x first, float32; the same for all classes; no gradient flows through them.

    Raises:
        ValueError: an option breaks a rule above.

    Example:
        >>> import torch
        >>> logits = torch.linspace(-8, 8, 64).view(1, 1, 64)  # undecided in the middle
        >>> points = uncertain_points(logits, 16, generator=torch.Generator().manual_seed(0))
        >>> points.shape, int(((points - 0.5).abs() < 0.25).sum()) >= 12
        (torch.Size([1, 16, 1]), True)

    Source:
        §2.4 of Liu et al. (k = 3, m = 0.75), after PointRend (Kirillov et al., CVPR 2020): logits are interpolated
        first, their uncertainty is taken then.
    """
    check_input(input)
    mode = resolve_mode(mode, input.shape[1])
    check_number("num_points", num_points, minimum=1)
    check_number("oversample_ratio", oversample_ratio, minimum=1)
    if not 0 <= importance_sample_ratio <= 1:
        raise ValueError(f"expected `importance_sample_ratio` to be from 0 to 1, got {importance_sample_ratio!r}")
    num_uncertain = int(importance_sample_ratio * num_points)
    num_drawn = int(oversample_ratio * num_points)
    drawn = _uniform_points(input, num_drawn + num_points - num_uncertain, mask, generator)
    field = input.float()
    known = mask if mask is not None and mask.shape[2:] == input.shape[2:] else None
    if has_kernels(field, drawn):
        from multilevel_loss import _points_cpu  # here, so that importing the package spares numba

        return _points_cpu.keep_uncertain(field, known, drawn, num_drawn, num_uncertain, mode == "multiclass")
    candidates, fresh = drawn[:, :num_drawn], drawn[:, num_drawn:]
    if input.ndim == 4 and known is None:  # the same, without the gradient; in three dimensions it is the slower one
        logits = F.grid_sample(
            field, (2 * candidates - 1).unsqueeze(1), padding_mode="border", align_corners=False
        ).squeeze(2)
    else:
        logits = sample_points(field, candidates, known)
    chosen = uncertainty(logits, mode).topk(num_uncertain, dim=1, sorted=False).indices
    kept = candidates.gather(1, chosen.unsqueeze(-1).expand(-1, -1, candidates.shape[-1]))
    return torch.cat([kept, fresh], 1)


@torch.no_grad()
def uncertain_grid_points(
    input: Tensor, num_points: int, *, mode: Mode | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return the centres of the most uncertain cells of a prediction, the most uncertain first.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D.
        num_points: N, at least 1.
        mode: "binary", "multiclass" or "multilabel"; None for binary when C = 1, multiclass otherwise.
        mask: (B, 1, *spatial) bool; only True cells are chosen. Where a sample has fewer than N of them, its most
            uncertain one is repeated.

    Returns:
        Coordinates (B, min(N, cells), D) in [0, 1], x first, float32; no gradient flows through them.

    Raises:
        ValueError: an option breaks a rule above.

    Example:
        >>> logits = torch.tensor([[[9.0, -1.0, 0.5, -7.0]]])
        >>> uncertain_grid_points(logits, 2).flatten().tolist()  # cells 2 and 1 of 4
        [0.625, 0.375]

    Source:
        §3.3 of Liu et al.: regular points instead of drawn ones, so that features find their way back to the grid.
    """
    check_input(input)
    check_number("num_points", num_points, minimum=1)
    doubt = uncertainty(input.float().flatten(2), resolve_mode(mode, input.shape[1]))
    if mask is not None:
        doubt = doubt.masked_fill(~mask.flatten(1), -torch.inf)
    chosen, cell = doubt.topk(min(num_points, doubt.shape[1]), dim=1)
    cell = torch.where(chosen > -torch.inf, cell, cell[:, :1])
    coords: list[Tensor] = []
    for size in reversed(input.shape[2:]):
        coords.append((cell % size + 0.5) / size)
        cell = cell // size
    return torch.stack(coords, -1)


def _uniform_points(input: Tensor, count: int, mask: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Return points (B, count, D), uniform over the image or over the True voxels of `mask`."""
    shape = (input.shape[0], count, input.ndim - 2)
    uniform = _rand(shape, input.device, generator, torch.float32)
    if mask is None:
        return uniform
    # The n-th True voxel, n uniform, is found by its rank; the point lies anywhere within it, but for a margin that
    # outweighs all rounding, lest it lie in the next one.
    margin = 2**-22 * max(mask.shape[2:])
    uniform = uniform * (1 - 2 * margin) + margin
    draw = _rand(shape[:2], input.device, generator, torch.float64)
    if has_kernels(mask, uniform):
        from multilevel_loss import _points_cpu

        _points_cpu.move_into(mask, draw, uniform)
        return uniform
    rank = mask.flatten(1).cumsum(1)
    total = rank[:, -1:]
    voxel = torch.searchsorted(rank, (draw * total).long() + 1).clamp_max(rank.shape[1] - 1)
    cells: list[Tensor] = []
    for size in reversed(mask.shape[2:]):
        cells.append((voxel % size + uniform[..., len(cells)]) / size)
        voxel = voxel // size
    return torch.where((total > 0).unsqueeze(-1), torch.stack(cells, -1), uniform)


def _rand(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor:
    if generator is None:  # a call of its own: with a generator, even None, sizes cannot be traced as dynamic
        return torch.rand(shape, device=device, dtype=dtype)
    return torch.rand(shape, generator=generator, device=generator.device, dtype=dtype).to(device)


def _neighbours(point_coords: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
    """Return the flat index and the share, each (B, 1, K, P), of the K cell centres around each point of a field."""
    check_coords(point_coords, field)
    sizes = field.shape[2:]
    position = torch.stack(
        [(point_coords[..., -1 - axis] * size - 0.5).clamp(0, size - 1) for axis, size in enumerate(sizes)]
    )
    below = position.floor()
    fraction = position - below
    cells = torch.stack([below, position.ceil()], 2).long()  # a point on a cell centre has no share of any other
    shares = torch.stack([1 - fraction, fraction], 2)
    index, share = cells[0], shares[0]
    for axis, size in enumerate(sizes[1:], 1):
        index = (index.unsqueeze(2) * size + cells[axis].unsqueeze(1)).flatten(1, 2)
        share = (share.unsqueeze(2) * shares[axis].unsqueeze(1)).flatten(1, 2)
    return index.unsqueeze(1), share.unsqueeze(1)


def _cells(field: Tensor, index: Tensor) -> Tensor:
    """Return (B, C, K, P), the values of a field at indices (B, 1, K, P)."""
    # One gather for all: its backward is the one operation that has to be deterministic.
    values = field.flatten(2).gather(2, index.flatten(2).expand(-1, field.shape[1], -1))
    return values.view(*field.shape[:2], *index.shape[2:])


def _interpolate(values: Tensor, share: Tensor, known: Tensor | None) -> Tensor:
    """Return the mean of values (B, C, K, P) over K by their shares, of those that are known."""
    share = share.to(values.dtype)
    if known is not None:
        share = share * known
        total = share.sum(2, keepdim=True)
        share = share / torch.where(total > 0, total, 1)
        values = values.masked_fill(~known, 0)
    return torch.sum(values * share, 2)


def has_kernels(field: Tensor, point_coords: Tensor) -> bool:
    """Whether the kernels of the CPU take such tensors and are worth it."""
    large = field.device.type == "cpu" and field.numel() >= FEW and point_coords.dtype == torch.float32
    return large and not torch.compiler.is_compiling()


def check_coords(point_coords: Tensor, field: Tensor) -> None:
    """Raise ValueError unless `point_coords` are (B, P, D) for a field (B, C, *spatial)."""
    batch, dims = field.shape[0], field.ndim - 2
    if point_coords.ndim != 3 or point_coords.shape[0] != batch or point_coords.shape[2] != dims:
        raise ValueError(
            f"expected `point_coords` to have shape (B, P, D) = ({batch}, P, {dims}), got {tuple(point_coords.shape)}"
        )
