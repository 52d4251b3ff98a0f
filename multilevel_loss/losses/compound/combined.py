"""A weighted sum of losses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from multilevel_loss._checks import Mode
from multilevel_loss._module import Loss
from multilevel_loss._targets import prepare
from multilevel_loss.losses._scheduled import ScheduledLoss, check_term, check_weight, weighted_sum
from multilevel_loss.losses.region.cross_entropy import CrossEntropyLoss
from multilevel_loss.losses.region.focal import FocalLoss
from multilevel_loss.schedules import Schedule

_SHARED = ("mode", "ignore_index", "mask", "reduction")


class CombinedLoss(ScheduledLoss):
    r"""Weighted sum of any losses, by name.

    .. math:: \sum_i w_i \, E_i

    The target is prepared, and the activation taken, once for all terms.

    Args:
        terms: the loss module and the weight of each term by its name; a weight is a number or a schedule, a function
            of the epoch. Options are the term's own, but for those below.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        ignore_index: label of voxels that do not count.
        return_components: return also the terms by name, before they are weighted.

    Raises:
        TypeError: a term is not a loss module of this library.
        ValueError: there is no term, a weight is not finite, or a term was given an option that all terms share.

    Note:
        A term of weight 0 is not computed. With a schedule, call :meth:`set_epoch` at the start of each epoch; the
        epoch is part of ``state_dict()``. A schedule that is used without ever having been told the epoch warns, once.

    Example:
        >>> import torch
        >>> from multilevel_loss import DiceLoss, HausdorffDTLoss, LinearRamp
        >>> loss = CombinedLoss(
        ...     {"dice": (DiceLoss(), 1.0), "hausdorff": (HausdorffDTLoss(log=True), LinearRamp(0, 1, step=0.1))},
        ...     return_components=True,
        ... )
        >>> loss.set_epoch(5)
        >>> loss.weights
        {'dice': 1.0, 'hausdorff': 0.5}
        >>> total, terms = loss(torch.randn(1, 3, 8, 8), torch.randint(3, (1, 8, 8)), spacing=(1.5, 1.0))
        >>> torch.allclose(total, terms["dice"] + 0.5 * terms["hausdorff"])
        True
    """

    def __init__(
        self,
        terms: Mapping[str, tuple[Loss[...], float | Schedule]],
        *,
        mode: Mode | None = None,
        ignore_index: int | None = None,
        return_components: bool = False,
    ) -> None:
        if not terms:
            raise ValueError("expected `terms` to hold at least one loss, got none")
        super().__init__({name: check_weight(f"terms[{name!r}]", weight) for name, (_, weight) in terms.items()})
        self.terms = nn.ModuleDict(
            {name: check_term(f"terms[{name!r}]", term, "CombinedLoss", _SHARED) for name, (term, _) in terms.items()}
        )
        self.mode = mode
        self.ignore_index = ignore_index
        self.return_components = return_components
        self._known = {name: set(inspect.signature(type(term)).parameters) for name, term in self.terms.items()}

    def forward(
        self, input: Tensor, target: Tensor, *, mask: Tensor | None = None, **options: Any
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the loss.

        Args:
            input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
            target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
                (B, C, *spatial), floating in [0, 1].
            mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
            options: `spacing`, `distance_map`, `image`, `class_mask` or any other option; it goes to each term that
                takes it, in place of the term's own.

        Returns:
            A float32 (float64 for float64 input) scalar; with `return_components` a pair of it and a dictionary of
            the terms that were computed.

        Raises:
            TypeError: no term takes an option, or `input` or `target` is not a tensor, or `input` is not floating.
            ValueError: all weights are 0, or as the terms do.
        """
        known = set().union(*self._known.values()).difference(_SHARED)
        if unknown := set(options) - known:
            raise TypeError(f"expected options that a term takes, {', '.join(sorted(known))}; got `{min(unknown)}`")
        weights = self.weights_in_use()
        if not any(weights.values()):
            raise ValueError(f"expected a term whose weight is not 0 in epoch {self.epoch}, got {weights}")
        prepared = prepare(input, target, mode=self.mode, ignore_index=self.ignore_index, mask=mask)
        # Cross entropies first: the sums that they are made of hold those of the overlap losses.
        first = [name for name, term in self.terms.items() if isinstance(term, (CrossEntropyLoss, FocalLoss))]
        made = {
            name: self.terms[name](prepared, target, **{o: options[o] for o in options if o in self._known[name]})
            for name in dict.fromkeys([*first, *self.terms.keys()])
            if weights[name] != 0
        }
        components = {name: made[name] for name in self.terms if name in made}
        return weighted_sum(components, weights, self.return_components)
