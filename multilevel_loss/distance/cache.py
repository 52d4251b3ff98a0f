"""Signed distance maps kept on disk, so that a label map read again needs no second computation."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._checks import Spacing, check_choice, check_spacing
from .maps import Boundary, signed_distance_map

# Part of every key: raise it whenever the same key would otherwise name other bytes, be it the layout of an entry or
# the values of a map.
_FORMAT = 1
_CHECKSUM_BYTES = 4
_LONGEST_HEADER = 1024


class DistanceMapCache:
    r"""Signed distance maps computed once and then read from a directory, one file for each sample.

    cache(target, spacing) = signed_distance_map(target, spacing=spacing, …), rounded to `dtype`

    Args:
        directory: where the entries lie; made if absent. Any number of processes and machines may share it.
        dtype: of the stored values, torch.float32 or torch.float16. float16 halves the size and rounds a distance to
            11 significant bits: exact for whole distances up to 2048, otherwise off by at most 1/2048 of itself, 0.03
            at 64 and 0.25 at 512. Beyond ±65504 it stores ±65504.
        num_classes: as in `signed_distance_map`, like the options below.
        spacing: mm, for the calls that give none; None measures in voxels.
        boundary: where the map is 0.
        normalize: "max" or None.
        clip: largest absolute distance kept.
        ignore_index: label whose voxels belong to no class.

    Raises:
        ValueError: `dtype` is another. What `signed_distance_map` raises comes from the call.

    Note:
        An entry is named by a hash of the labels, their shape, the spacing, the options and the format of the cache,
        so nothing needs clearing when any of them changes, and the integer dtype of a label map makes no difference. It
        appears in one atomic step, and a checksum is verified at every read: a damaged entry is computed and written
        again. Files of an interrupted write (``.*.tmp.npy``) are never read and may be deleted.

    Example:
        >>> from tempfile import mkdtemp
        >>> cache = DistanceMapCache(mkdtemp(), boundary="midpoint")
        >>> cache(torch.tensor([[0, 0, 1, 1, 1, 0]]))
        tensor([[[ 1.5000,  0.5000, -0.5000, -1.5000, -0.5000,  0.5000]]])
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        num_classes: int | None = None,
        spacing: Spacing | None = None,
        boundary: Boundary = "inner",
        normalize: Literal["max"] | None = None,
        clip: float | None = None,
        ignore_index: int | None = None,
    ) -> None:
        check_choice("dtype", dtype, (torch.float32, torch.float16))
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.dtype = dtype
        self.spacing = spacing
        self._compute = functools.partial(
            signed_distance_map,
            num_classes=num_classes,
            boundary=boundary,
            normalize=normalize,
            clip=clip,
            ignore_index=ignore_index,
        )

    def __call__(self, target: Tensor, spacing: Spacing | None = None) -> Tensor:
        """Return the maps of a batch, reading those that are stored and storing those that are not.

        Args:
            target: label map (B, *spatial) or floating one-hot (B, C, *spatial), as `signed_distance_map` takes it.
            spacing: mm, one value, one for each axis (D, H, W) or one row for each sample (B, D); None takes that of
                the cache.

        Returns:
            float32 (B, C, *spatial) on the device of `target`, equal whether computed or read.
        """
        spacing = self.spacing if spacing is None else spacing
        is_target = isinstance(target, Tensor) and 2 <= target.ndim - target.is_floating_point() <= 4
        if not is_target or len(target) == 0:
            return self._compute(target, spacing=spacing)  # an empty batch, or the error that names the rule
        ndim = target.ndim - 1 - target.is_floating_point()
        steps = check_spacing(spacing, len(target), ndim)
        rows = [None] * len(target) if steps is None else steps.tolist()
        maps = [self._sample(sample, row) for sample, row in zip(target.detach().cpu(), rows, strict=True)]
        # A batch of one, as a data set makes it, is not copied.
        batch = maps[0][None] if len(maps) == 1 else torch.stack(maps)
        return batch.to(target.device, torch.float32)

    def _sample(self, sample: Tensor, spacing: list[float] | None) -> Tensor:
        entry = self.directory / f"{self._key(sample, spacing)}.npy"
        stored = _read(entry)
        if stored is not None:
            return torch.from_numpy(stored)
        distance = stored_as(self._compute(sample[None], spacing=spacing)[0], self.dtype)
        _write(entry, distance.numpy())
        return distance

    def _key(self, sample: Tensor, spacing: list[float] | None) -> str:
        one_hot = sample.is_floating_point()
        labels = sample.gt(0.5) if one_hot else sample
        values = (labels.byte() if labels.dtype == torch.bool else labels).numpy()
        if values.dtype != np.uint8 and values.size:  # the narrowest dtype, for the labels alone to count
            narrow = np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max()))
            values = values.astype(narrow)
        options = sorted(self._compute.keywords.items())
        head = (_FORMAT, str(self.dtype), one_hot, values.dtype.str, values.shape, spacing, options)
        digest = hashlib.blake2b(repr(head).encode(), digest_size=20)
        digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


def stored_as(distance: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a map in the dtype it is stored in, a distance beyond the range of the dtype as its largest number."""
    if dtype == distance.dtype:
        return distance
    largest = torch.finfo(dtype).max
    return distance.clamp(-largest, largest).to(dtype)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, which takes the place of `path` when the block succeeds."""
    # Not from `tempfile`, whose files only their owner may read. Some writers choose the format by the suffix.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp{''.join(path.suffixes)}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, values: NDArray[Any]) -> None:
    """Write an array as a `.npy` file with the CRC-32 of it all appended, which readers of `.npy` do not mind."""
    values = np.ascontiguousarray(values)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(values))
    checksum = zlib.crc32(values.data, zlib.crc32(header.getvalue()))
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(header.getvalue())
        file.write(values.data)
        file.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))


def _read(path: Path) -> NDArray[Any] | None:
    """Return the array that `_write` wrote, or None where there is none or it is damaged."""
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        return None
    body, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if not body.size or zlib.crc32(body.data) != int.from_bytes(checksum.tobytes(), "little"):
        return None
    header = io.BytesIO(body[:_LONGEST_HEADER].tobytes())
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    # A view: to copy a volume takes longer than to read it.
    return body[header.tell() :].view(dtype).reshape(shape)
