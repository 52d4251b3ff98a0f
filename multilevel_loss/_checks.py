"""Argument checks shared by every public function; each error names the argument, the rule and what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Mode = Literal["binary", "multiclass", "multilabel"]
Reduction = Literal["mean", "sum", "none"]
Spacing = float | Sequence[float] | Tensor

_AXES = {1: "W", 2: "H, W", 3: "D, H, W"}


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    allowed = tuple(choices)
    if value not in allowed:
        raise ValueError(f"expected `{name}` to be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_number(name: str, value: float, *, minimum: float = -math.inf, above: float = -math.inf) -> None:
    """Raise ValueError unless `value` is finite, at least `minimum` and greater than `above`."""
    rule = f"greater than {above:g}" if above > -math.inf else f"at least {minimum:g}"
    # Comparisons, which a NaN fails, and not math.isfinite, which cannot be traced.
    if not (-math.inf < value < math.inf and value >= minimum and value > above):
        bounded = above > -math.inf or minimum > -math.inf
        raise ValueError(f"expected `{name}` to be {rule if bounded else 'finite'}, got {value!r}")


def check_input(input: Tensor) -> int:
    """Return the number of spatial dimensions of logits (B, C, *spatial), 1 to 3."""
    if not isinstance(input, Tensor):
        raise TypeError(f"expected `input` to be a tensor of logits (B, C, *spatial), got {type(input).__name__}")
    if not input.is_floating_point():
        raise TypeError(f"expected `input` to be floating-point logits, got {input.dtype}")
    if not 3 <= input.ndim <= 5 or input.shape[1] == 0:
        raise ValueError(
            f"expected `input` to be logits of shape (B, C, *spatial) with 1 to 3 spatial dimensions, "
            f"got shape {tuple(input.shape)}"
        )
    return input.ndim - 2


def resolve_mode(mode: Mode | None, num_channels: int) -> Mode:
    """Return the mode meant by `mode=None` (binary for one channel, multiclass otherwise), or the checked `mode`."""
    if mode is None:
        return "binary" if num_channels == 1 else "multiclass"
    check_choice("mode", mode, get_args(Mode))
    if mode == "binary" and num_channels != 1:
        raise ValueError(f"expected `input` to have 1 channel when `mode` is 'binary', got {num_channels}")
    if mode == "multiclass" and num_channels < 2:
        raise ValueError("expected `input` to have at least 2 channels when `mode` is 'multiclass', got 1")
    return mode


def check_spacing(spacing: Spacing | None, batch: int, ndim: int, device: torch.device | str = "cpu") -> Tensor | None:
    """Return `spacing` as a float64 tensor (B, D) in mm on `device`, or None when it is None.

    Args:
        spacing: one value for all axes, one value per axis in the tensor's own order, or one row per sample (B, D).
        batch: B, the number of samples.
        ndim: D, the number of spatial axes.
        device: where the result lives. A tensor already there is not read back, so its values stay unchecked
            unless it is on the CPU.
    """
    if spacing is None:
        return None
    rule = f"expected `spacing` to have {ndim} positive values ({_AXES[ndim]} in mm), one positive value, or shape "
    rule += f"(B, {ndim}) = ({batch}, {ndim})"
    if isinstance(spacing, Tensor):
        values = spacing
    else:
        try:
            values = torch.as_tensor(spacing, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{rule}, got {spacing!r}") from error
    if tuple(values.shape) not in {(), (1,), (ndim,), (batch, ndim)}:
        raise ValueError(f"{rule}, got {_describe(spacing)}")
    readable = values.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable and not bool((torch.isfinite(values) & (values > 0)).all()):
        raise ValueError(f"{rule}, got {_describe(spacing)}")
    return values.to(device=device, dtype=torch.float64).expand(batch, ndim)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" + (f": {value.tolist()}" if value.numel() <= 16 else "")
    return repr(value)


def check_labels(name: str, labels: Tensor, num_classes: int) -> None:
    """Raise ValueError unless all labels lie in 0…`num_classes`−1.

    CPU tensors are checked at once. On other devices reading a value would stall the queue, so the check is a
    device-side assertion, as in torch's own cross entropy. Traced code is not checked.
    """
    if labels.dtype == torch.bool or labels.numel() == 0 or torch.compiler.is_compiling():
        return
    lowest, highest = labels.aminmax()
    rule = f"expected `{name}` to hold labels 0…{num_classes - 1}"
    if labels.device.type != "cpu":
        torch._assert_async((lowest >= 0) & (highest < num_classes), rule)
        return
    least, most = int(lowest), int(highest)
    if least < 0 or most >= num_classes:
        hint = ""
        if most == 255:
            hint = f"; for a 0/255 mask pass `{name} > 127`, for ignored voxels `ignore_index=255`"
        raise ValueError(f"{rule}, got values from {least} to {most}{hint}")


def check_memberships(name: str, memberships: Tensor) -> None:
    """Raise ValueError unless all class memberships lie in [0, 1]; where it is checked, see :func:`check_labels`."""
    if memberships.dtype == torch.bool or memberships.numel() == 0 or torch.compiler.is_compiling():
        return
    lowest, highest = memberships.aminmax()
    rule = f"expected `{name}` to hold class memberships in [0, 1]"
    if memberships.device.type != "cpu":
        torch._assert_async((lowest >= 0) & (highest <= 1), rule)
    elif not (lowest >= 0 and highest <= 1):
        hint = f"; for a 0/255 mask pass `{name} > 127`" if highest == 255 else ""
        raise ValueError(f"{rule}, got values from {float(lowest):g} to {float(highest):g}{hint}")
