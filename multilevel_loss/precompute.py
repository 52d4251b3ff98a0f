"""The command ``python -m multilevel_loss.precompute LABELS OUT``: signed distance maps of a folder of label files."""

from __future__ import annotations

import argparse
import functools
import hashlib
import inspect
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from .distance.cache import replacing, stored_as
from .distance.maps import Boundary, signed_distance_map
from .distance.transforms import whole_labels

try:
    import SimpleITK
    from tqdm import tqdm
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: precomputing needs the extra dependencies, pip install 'multilevel-loss[precompute]'",
        name=error.name,
    ) from error

# Part of every record: raise it when maps already written no longer hold what this version would write.
_FORMAT = 1
_NIFTI = (".nii.gz", ".nii")
_SUFFIXES = (*_NIFTI, ".npy")

Outcome = Literal["written", "kept"]


class LabelFile(NamedTuple):
    """Labels (*spatial), their spacing in mm in the same axis order, and the image that holds the geometry."""

    labels: NDArray[Any]
    spacing: tuple[float, ...] | None
    image: Any  # SimpleITK.Image or None: SimpleITK is typed in part only


def precompute(source: Path, output: Path, *, dtype: str, voxels: bool, options: Mapping[str, Any]) -> Outcome:
    """Write the signed distance map of one label file, unless it is there already.

    Args:
        source: label file, ``.nii``, ``.nii.gz`` or ``.npy``.
        output: file of the map, in a format of the same list; ``<output>.json`` is written beside it and records
            what the map was computed from, and its digest.
        dtype: "float32", or "float16" for a `.npy` output.
        voxels: True leaves the spacing of NIfTI headers aside.
        options: of `signed_distance_map`, but `spacing`.

    Returns:
        "kept" when the record shows that the output is whole and was computed from this file with these options.

    Raises:
        ValueError: the file does not hold a label map of 1 to 3 dimensions, or a label is not a class.
        OSError, RuntimeError: the file cannot be read, or the map not written.
    """
    record = {"format": _FORMAT, "labels_blake2b": _digest(source), "dtype": dtype, "voxels": voxels, **options}
    record_file = output.with_name(f"{output.name}.json")
    if _is_whole(output, record_file, record):
        return "kept"
    file = read_labels(source)
    labels = whole_labels(torch.from_numpy(file.labels))
    spacing = None if voxels else file.spacing
    distance = signed_distance_map(labels[None], spacing=spacing, **options)[0]
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        write_map(temporary, stored_as(distance, getattr(torch, dtype)).numpy(), file.image)
        digest = _digest(temporary)
    with replacing(record_file) as temporary:
        temporary.write_text(json.dumps({**record, "map_blake2b": digest}, indent=1) + "\n")
    return "written"


def read_labels(path: Path) -> LabelFile:
    """Read a label file; a `.npy` file has neither spacing nor geometry."""
    image: Any = None if path.name.endswith(".npy") else SimpleITK.ReadImage(str(path))
    labels = np.load(path, allow_pickle=False) if image is None else SimpleITK.GetArrayFromImage(image)
    channels = 1 if image is None else image.GetNumberOfComponentsPerPixel()
    if not 1 <= labels.ndim <= 3 or channels != 1 or labels.dtype.kind not in "biuf":
        raise ValueError(
            f"expected a label map of 1 to 3 axes, one number a voxel, got shape {labels.shape} of {labels.dtype}"
        )
    # SimpleITK orders spacings x, y, z and arrays z, y, x.
    spacing = None if image is None else image.GetSpacing()[::-1]
    return LabelFile(labels.astype(labels.dtype.newbyteorder("="), copy=False), spacing, image)


def write_map(path: Path, distance: NDArray[Any], geometry: Any) -> None:
    """Write a map (C, *spatial): as it is in a `.npy` file, with C as the voxels' components in a NIfTI file."""
    if path.name.endswith(".npy"):
        with path.open("xb") as file:
            np.save(file, distance)
        return
    several = len(distance) > 1
    image: Any = SimpleITK.GetImageFromArray(np.moveaxis(distance, 0, -1) if several else distance[0], isVector=several)
    image.CopyInformation(geometry)
    SimpleITK.WriteImage(image, str(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 1 when a file failed; wrong usage exits with 2."""
    parser = _parser()
    given = parser.parse_args(arguments)
    options = {name: getattr(given, name) for name in ("num_classes", "boundary", "normalize", "clip", "ignore_index")}
    try:
        signed_distance_map(torch.zeros(0, 1, dtype=torch.uint8), **options)  # so that a wrong option fails at once
        pairs = _pairs(given.labels, given.out, npy=given.npy, dtype=given.dtype)
    except ValueError as error:
        parser.error(str(error))
    shard, num_shards = given.shard
    jobs = pairs[shard - 1 :: num_shards]
    work = functools.partial(precompute, dtype=given.dtype, voxels=given.voxels, options=options)
    outcomes, failed = _run(work, jobs, given.workers)
    tqdm.write(f"{outcomes['written']} written, {outcomes['kept']} kept, {len(failed)} failed")
    for source in failed:
        tqdm.write(f"failed: {source}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    default = {name: option.default for name, option in inspect.signature(signed_distance_map).parameters.items()}
    parser = argparse.ArgumentParser(
        prog="python -m multilevel_loss.precompute",
        description="Compute the signed distance maps of all label files in a folder and its subfolders. A map that is "
        "there and whole, and was made of the same file with the same options, is kept.",
    )
    parser.add_argument("labels", type=Path, metavar="LABELS", help="folder of label maps: .nii, .nii.gz, .npy")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the maps, named as their label files")
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="C",
        default=default["num_classes"],
        help="one map for each label 0 ... C - 1; without it labels are 0 and 1, with one map",
    )
    parser.add_argument(
        "--boundary", choices=get_args(Boundary), default=default["boundary"], help="where maps are 0 (%(default)s)"
    )
    parser.add_argument(
        "--normalize", choices=["max"], default=default["normalize"], help="divide each side by its own maximum"
    )
    parser.add_argument("--clip", type=float, default=default["clip"], help="largest absolute distance kept")
    parser.add_argument(
        "--ignore-index", type=int, default=default["ignore_index"], help="label whose voxels belong to no class"
    )
    parser.add_argument(
        "--voxels", action="store_true", help="measure NIfTI files in voxels, not in the mm of their headers"
    )
    parser.add_argument("--npy", action="store_true", help="write .npy files for NIfTI labels too")
    parser.add_argument(
        "--dtype", choices=["float32", "float16"], default="float32", help="of the stored values (%(default)s)"
    )
    parser.add_argument("--workers", type=_count, default=_num_cpus(), help="processes (%(default)s)")
    parser.add_argument(
        "--shard", type=_shard, default=(1, 1), metavar="i/n", help="do the i-th of n parts of the files, i from 1"
    )
    return parser


def _pairs(labels: Path, out: Path, *, npy: bool, dtype: str) -> list[tuple[Path, Path]]:
    """Return every label file under `labels` with the file its map goes to."""
    if not labels.is_dir():
        raise ValueError(f"expected LABELS to be a folder, got {labels}")
    if out.resolve().is_relative_to(labels.resolve()):
        raise ValueError(f"expected OUT to lie outside LABELS, whose files are taken for labels, got {out}")
    # Hidden files are none of ours: macOS leaves "._case.nii.gz" beside "case.nii.gz".
    found = (path for path in labels.rglob("[!.]*") if path.name.endswith(_SUFFIXES) and path.is_file())
    pairs = []
    for source in sorted(found):
        suffix = next(suffix for suffix in _SUFFIXES if source.name.endswith(suffix))
        name = source.name.removesuffix(suffix) + (".npy" if npy else suffix)
        pairs.append((source, out / source.relative_to(labels).with_name(name)))
    if not pairs:
        raise ValueError(f"expected label files ({', '.join(_SUFFIXES)}) in LABELS, found none in {labels}")
    if dtype == "float16" and any(output.name.endswith(_NIFTI) for _, output in pairs):
        raise ValueError("expected --npy with --dtype float16, which NIfTI files cannot hold")
    output, count = Counter(output for _, output in pairs).most_common(1)[0]
    if count > 1:
        raise ValueError(f"expected label files to differ in more than their suffix, got {count} for {output}")
    return pairs


def _run(
    work: Callable[[Path, Path], Outcome], jobs: Sequence[tuple[Path, Path]], workers: int
) -> tuple[Counter[Outcome], list[Path]]:
    """Do the jobs in parallel; return how many had which outcome, and the files that failed, reported as they do."""
    outcomes: Counter[Outcome] = Counter()
    failed = []
    threads = max(1, _num_cpus() // workers)
    # Spawned, since a forked process may inherit a lock that no thread of its own will ever release.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        futures: dict[Future[Outcome], Path] = {pool.submit(work, *job): job[0] for job in jobs}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="file", disable=None):
                error = future.exception()
                if error is None:
                    outcomes[future.result()] += 1
                else:
                    failed.append(futures[future])
                    reason = str(error).strip().splitlines() or [type(error).__name__]
                    tqdm.write(f"{futures[future]}: {reason[-1]}", file=sys.stderr)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes, sorted(failed)


def _is_whole(output: Path, record_file: Path, record: Mapping[str, Any]) -> bool:
    try:
        recorded = json.loads(record_file.read_text())
        return bool(recorded == {**record, "map_blake2b": _digest(output)})
    except (FileNotFoundError, ValueError):  # never written, or damaged
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _num_cpus() -> int:
    # Cluster schedulers limit the CPUs of a job by its affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    shard, slash, count = text.partition("/")
    if not (slash and shard.isdecimal() and count.isdecimal() and 1 <= int(shard) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected i/n with 1 <= i <= n, got {text!r}")
    return int(shard), int(count)


if __name__ == "__main__":
    sys.exit(main())
