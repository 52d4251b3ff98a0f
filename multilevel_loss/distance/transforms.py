"""Signed distance maps added to the samples of a data set, before augmentation and cropping."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .maps import signed_distance_map


class MapDataset(Protocol):
    """What :class:`DistanceMapDataset` wraps: a data set with a length and an index."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one sample."""


class DistanceMapDataset(Dataset[Any]):
    """The samples of a data set with the signed distance map of their label added.

    Args:
        dataset: yields tuples, to which the map is appended, or mappings, to which it is added under
            "<label>_distance_map".
        compute: `signed_distance_map`, the same with options bound by :func:`functools.partial`, or a
            :class:`DistanceMapCache`.
        label: position or key of the label in a sample: a label map of the spatial axes alone, any integer or bool
            dtype, or floating one-hot (C, *spatial); tensor or array. Labels with a channel axis, (1, *spatial), as
            MONAI has them, are for :class:`SignedDistanceMapd`.
        spacing: position or key of the sample's spacing in mm, one value or one for each axis (D, H, W); None leaves
            it to `compute`.

    Example:
        >>> dataset = [(torch.zeros(1, 6), torch.tensor([0, 0, 1, 1, 1, 0]))]
        >>> image, label, distance_map = DistanceMapDataset(dataset)[0]
        >>> distance_map
        tensor([[ 2.,  1.,  0., -1.,  0.,  1.]])
    """

    def __init__(
        self,
        dataset: MapDataset,
        compute: Callable[..., Tensor] = signed_distance_map,
        *,
        label: int | str = 1,
        spacing: int | str | None = None,
    ) -> None:
        self.dataset = dataset
        self.compute = compute
        self.label = label
        self.spacing = spacing

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return a sample and its map (C, *spatial), float32."""
        sample = self.dataset[index]
        options = {} if self.spacing is None else {"spacing": sample[self.spacing]}
        distance = self.compute(torch.as_tensor(sample[self.label])[None], **options)[0]
        if isinstance(sample, Mapping):
            return {**sample, f"{self.label}_distance_map": distance}
        return (*sample, distance)


class SignedDistanceMapd:
    """A dictionary transform in MONAI's calling convention that adds the signed distance maps of labels.

    Args:
        keys: of the labels, (C, *spatial), tensor or array. One channel is a label map of whole numbers, whatever its
            dtype; several are one-hot.
        compute: `signed_distance_map`, the same with options bound by :func:`functools.partial`, or a
            :class:`DistanceMapCache`.
        output_keys: of the maps, as many as `keys`; None means "<key>_distance_map".
        spacing_key: of the spacing in mm, one value or one for each axis of the label; or of a MONAI `MetaTensor`, such
            as the label itself, whose `pixdim` it is. None leaves the spacing to `compute`.
        allow_missing_keys: True passes over the keys that a sample does not have.

    Raises:
        ValueError: `output_keys` are not as many as `keys`.

    Note:
        Put it after the transforms that resample or pad, and before flips, rotations by 90° and crops, which then
        take the map among their `keys`. The map of a `MetaTensor` is one with the same metadata.

    Example:
        >>> transform = SignedDistanceMapd("label")
        >>> transform({"label": torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]])})["label_distance_map"]
        tensor([[ 2.,  1.,  0., -1.,  0.,  1.]])
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        compute: Callable[..., Tensor] = signed_distance_map,
        *,
        output_keys: str | Sequence[str] | None = None,
        spacing_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        self.keys = _as_tuple(keys)
        self.output_keys = tuple(f"{key}_distance_map" for key in self.keys)
        if output_keys is not None:
            self.output_keys = _as_tuple(output_keys)
        if len(self.output_keys) != len(self.keys):
            raise ValueError(f"expected `output_keys` to be as many as `keys`, {self.keys}, got {self.output_keys}")
        self.compute = compute
        self.spacing_key = spacing_key
        self.allow_missing_keys = allow_missing_keys

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary with the maps (C, *spatial), float32, in it."""
        result = dict(data)
        for key, output_key in zip(self.keys, self.output_keys, strict=True):
            if key in data or not self.allow_missing_keys:
                result[output_key] = _with_metadata(self._map(data, key), data[key])
        return result

    def _map(self, data: Mapping[Hashable, Any], key: str) -> Tensor:
        target = torch.as_tensor(data[key]).as_subclass(Tensor)
        options = {}
        if self.spacing_key is not None:
            spacing = data[self.spacing_key]
            # Before MONAI 1.6 it has three values even where the image has two axes.
            options["spacing"] = spacing.pixdim[: target.ndim - 1] if hasattr(spacing, "pixdim") else spacing
        one_hot = target if target.is_floating_point() else target.float()
        return self.compute(whole_labels(target) if len(target) == 1 else one_hot[None], **options)[0]


def whole_labels(labels: Tensor) -> Tensor:
    """Return labels stored as floating-point numbers, as many file formats do, in an integer dtype.

    Raises:
        ValueError: a value is not a whole number.
    """
    if not labels.is_floating_point():
        return labels
    whole = labels.to(torch.int32)
    if not torch.equal(whole.to(labels.dtype), labels):
        fractional = labels[whole != labels][0].item()
        raise ValueError(f"expected a label map to hold whole numbers, got {fractional:g}")
    return whole


def _as_tuple(keys: str | Sequence[str]) -> tuple[str, ...]:
    return (keys,) if isinstance(keys, str) else tuple(keys)


def _with_metadata(distance: Tensor, label: Any) -> Any:
    """Return a map as a `MetaTensor` with the metadata of its label, where the label is one."""
    if not hasattr(label, "copy_meta_from"):
        return distance
    result = type(label)(distance)
    result.copy_meta_from(label)
    return result
