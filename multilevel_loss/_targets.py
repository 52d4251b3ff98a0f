"""From a prediction and a label map or one-hot target to what a loss computes on."""

from __future__ import annotations

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, check_input, check_labels, check_memberships, resolve_mode

FEW = 2**16
"""Elements below which the kernels of the CPU are not worth their compilation."""


class Prepared:
    """Logits and class memberships in one form, and the voxels that count.

    Attributes:
        logits: (B, C, *spatial), float32 or float64; 0 where masked, so that no masked NaN reaches a gradient.
        truth: the target, label map (B, 1, *spatial') or memberships (B, C, *spatial'), of any dtype; a voxel that does
            not count is a member of no channel: labelled C, or 0 where C = 1. The grid is that of `logits` unless
            :func:`prepare` was told otherwise.
        mask: (B, 1, *spatial') bool, True where a voxel counts; None when all do.
        mode: the activation meant.
        activated: the activated logits, once a loss has made them.
        sums: sums over the voxels, by their kind, that one loss has made and another may ask for.
    """

    def __init__(self, logits: Tensor, truth: Tensor, mask: Tensor | None, mode: Mode) -> None:
        self.logits = logits
        self.truth = truth
        self.mask = mask
        self.mode: Mode = mode
        self._target: Tensor | None = None
        self.activated: Tensor | None = None
        self.sums: dict[tuple[bool, float | None], object] = {}

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.logits.device

    @property
    def target(self) -> Tensor:
        """Membership of each class (B, C, *spatial') in the dtype of `logits`; 0 where masked."""
        if self._target is None:
            self._target = memberships(self.truth, self.logits.shape[1], self.logits.dtype)
        return self._target

    def probability(self) -> Tensor:
        """Return the activated logits, 0 where masked; activated once."""
        if self.activated is None:
            self.activated = self.logits.softmax(1) if self.mode == "multiclass" else self.logits.sigmoid()
        return self.activated if self.mask is None else masked(self.activated, self.mask)

    def counts(self) -> Tensor:
        """Return the mask in the dtype of `logits`; a single 1 when all voxels count."""
        if self.mask is None:
            return self.logits.new_ones(())
        return self.mask.view(torch.uint8).to(self.logits.dtype)  # on a CPU bools take several times as long

    def first_class(self, include_background: bool) -> int:
        """Return the first class that counts: 1 when the background, class 0 of several, is left out."""
        return 0 if include_background or self.logits.shape[1] == 1 else 1

    def with_logits(self, name: str, logits: Tensor, *, same_grid: bool = True) -> Prepared:
        """Return the same target beside the argument `name`, other logits of the same grid or of any."""
        axes = self.logits.ndim if same_grid else 2
        if logits.shape[:axes] != self.logits.shape[:axes] or logits.ndim != self.logits.ndim:
            came = tuple(logits.shape)
            rule = (
                f"to have shape {tuple(self.logits.shape)}"
                if same_grid
                else f"to have shape (B, C) = {tuple(self.logits.shape[:2])} and {self.logits.ndim - 2} spatial axes"
            )
            raise ValueError(f"expected `{name}` {rule}, as the other logits have, got shape {came}")
        logits = logits.to(self.logits.dtype)
        if self.mask is not None and same_grid:
            logits = masked(logits, self.mask)
        return Prepared(logits, self.truth, self.mask, self.mode)


def prepare(
    input: Tensor | Prepared,
    target: Tensor,
    *,
    mode: Mode | None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    same_grid: bool = True,
) -> Prepared:
    """Check a prediction against its target and bring both to the form of :class:`Prepared`.

    Args:
        input: logits (B, C, *spatial), floating; half precisions are computed on as float32. What was prepared
            already, by a loss that shares it among its terms, is returned as it is.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype; or class memberships
            (B, C, *spatial), floating in [0, 1], or integer/bool 0 and 1 where C > 1.
        mode: None for binary when C = 1 and multiclass otherwise.
        ignore_index: label of the voxels that do not count; needs a label map.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts; elsewhere `target` may hold anything.
        same_grid: False when `target` and `mask` may be finer or coarser than `input`.
    """
    if isinstance(input, Prepared):
        return input
    ndim = check_input(input)
    mode = resolve_mode(mode, input.shape[1])
    if not isinstance(target, Tensor):
        raise TypeError(f"expected `target` to be a tensor, got {type(target).__name__}")
    if target.device != input.device:
        raise ValueError(f"expected `target` on the device of `input`, {input.device}, got {target.device}")
    form = _target_form(input, target, mode)
    if form is None or (same_grid and target.shape[-ndim:] != input.shape[2:]):
        raise ValueError(_shape_message(input, target, mode))

    if target.dtype in (torch.uint16, torch.uint32, torch.uint64):  # few operations take these
        target = target.long()
    dtype = torch.promote_types(input.dtype, torch.float32)
    counts = None if mask is None else _check_mask(mask, target, ndim)
    if form == "labels":
        labels = target if target.ndim == input.ndim else target.unsqueeze(1)
        if ignore_index is not None:
            known = labels != ignore_index
            counts = known if counts is None else counts & known
        truth = _labels(labels, input.shape[1], counts)
    else:
        if ignore_index is not None:
            raise ValueError(
                f"expected `target` to be a label map when `ignore_index` is given, got class memberships of shape "
                f"{tuple(target.shape)}: use `mask`"
            )
        truth = target.detach() if counts is None else masked(target.detach(), counts)
        check_memberships("target", truth)
    logits = input.to(dtype)
    if counts is not None and same_grid:
        logits = masked(logits, counts)
    return Prepared(logits, truth, counts, mode)


def _target_form(input: Tensor, target: Tensor, mode: Mode) -> str | None:
    """Return "labels" or "memberships", or None when the shape and dtype of `target` fit neither."""
    if target.shape[0] != input.shape[0]:
        return None
    channels = input.shape[1]
    if target.ndim == input.ndim - 1:
        return None if target.is_floating_point() or mode == "multilabel" else "labels"
    if target.ndim != input.ndim:
        return None
    if target.shape[1] == 1 and not target.is_floating_point() and mode != "multilabel":
        return "labels"
    return "memberships" if target.shape[1] == channels else None


def _labels(labels: Tensor, channels: int, counts: Tensor | None) -> Tensor:
    """Return the checked label map, in bytes if large; a voxel that does not count belongs to no channel."""
    num_classes, other = max(channels, 2), channels if channels > 1 else 0
    large = labels.device.type == "cpu" and labels.numel() >= FEW and not torch.compiler.is_compiling()
    in_bytes = counts is None and labels.dtype in (torch.bool, torch.uint8)
    if large and not in_bytes and num_classes < 255:
        from multilevel_loss import _labels_cpu  # here, so that importing the package spares numba

        narrow = _labels_cpu.narrow(labels, num_classes, other, counts)
        if narrow is not None:
            return narrow
    check_labels("target", labels if counts is None else labels.masked_fill(~counts, 0), num_classes)
    return labels if counts is None else labels.long().masked_fill(~counts, other)


def memberships(truth: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return the membership of each class, in `dtype`, of a label map (B, 1, ...) or of what is that already."""
    if truth.is_floating_point() or truth.shape[1] == num_classes > 1:
        return truth.to(dtype)
    # Compared as floats and into floats: on a CPU bools are several times slower to write and to read.
    if num_classes == 1:
        return truth.to(dtype).eq_(1)
    result = torch.empty((truth.shape[0], num_classes, *truth.shape[2:]), dtype=dtype, device=truth.device)
    classes = torch.arange(num_classes, dtype=dtype, device=truth.device)
    return torch.eq(truth.to(dtype), classes.view(-1, *[1] * (truth.ndim - 2)), out=result)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return values where a mask is True, and 0 elsewhere; on a CPU `masked_fill` takes twice as long."""
    return torch.where(mask, values, values.new_zeros(()))


def from_class(first: int, values: Tensor) -> Tensor:
    """Return values (B, C, ...) of the classes from `first` on; as they are if that is all, without an operation."""
    return values[:, first:] if first else values


def regions(truth: Tensor, num_classes: int) -> Tensor:
    """Return which voxels lie in which class, contiguous bool, of what :func:`memberships` takes."""
    if truth.is_floating_point() or truth.shape[1] == num_classes > 1:
        return above(0.5, truth)
    checked = not torch.compiler.is_compiling()
    if num_classes == 1 and truth.dtype == torch.uint8 and checked:
        return truth.contiguous().view(torch.bool)  # 0 and 1 they are
    classes = torch.arange(num_classes, device=truth.device) if num_classes > 1 else torch.ones(1, device=truth.device)
    classes = classes.view(-1, *[1] * (truth.ndim - 2))
    if num_classes > 254 or not checked:
        return (truth == classes).contiguous()
    # Bytes compared into bytes: on a CPU that is many times quicker than mixed dtypes or into bools.
    inside = torch.empty((truth.shape[0], num_classes, *truth.shape[2:]), dtype=torch.uint8, device=truth.device)
    return torch.eq(truth.to(torch.uint8), classes.to(torch.uint8), out=inside).view(torch.bool)


def above(threshold: float, values: Tensor) -> Tensor:
    """Return where values are greater than a threshold, contiguous bool."""
    if values.device.type != "cpu" or values.dtype != torch.float32 or torch.compiler.is_compiling():
        return values.gt(threshold).contiguous()
    return torch.from_numpy(values.detach().contiguous().numpy() > threshold)  # torch takes twice as long


def _check_mask(mask: Tensor, target: Tensor, ndim: int) -> Tensor:
    grid = target.shape[-ndim:]
    allowed = [(target.shape[0], *grid), (target.shape[0], 1, *grid)]  # in a set, traced sizes would become constants
    if not isinstance(mask, Tensor) or tuple(mask.shape) not in allowed:
        came = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"expected `mask` to have one value a voxel, shape {(target.shape[0], *grid)} or "
            f"{(target.shape[0], 1, *grid)}, got {came}"
        )
    return mask.bool().reshape(target.shape[0], 1, *grid)


def _shape_message(input: Tensor, target: Tensor, mode: Mode) -> str:
    batch, channels, *grid = input.shape
    labels = f"a label map of integers, shape {(batch, *grid)} or {(batch, 1, *grid)}"
    memberships = f"class memberships of floats, shape {(batch, channels, *grid)}"
    rule = memberships if mode == "multilabel" else f"{labels}, or {memberships}"
    message = (
        f"expected `target` for {mode} `input` of shape {tuple(input.shape)} to be {rule}, "
        f"got shape {tuple(target.shape)}, {target.dtype}"
    )
    if target.is_floating_point() and target.ndim == input.ndim - 1:
        message += ": pass `target.long()` if it holds labels"
        message += ", or `target.unsqueeze(1)` if it holds memberships" if channels == 1 else ""
    return message
