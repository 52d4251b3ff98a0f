"""`python -m reference predict`: the segmentation of scans without labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from reference.commands.prepare import parse_window
from reference.config import Precision
from reference.data import Case, Scan, percentile_window, read_scan, resize_slices, write_like
from reference.data.layouts import Reading
from reference.data.scan import SUFFIXES
from reference.inference import Segmentation, Vote, segment
from reference.ranks import Accelerator, choose_device, own_share
from reference.runs import Checkpoint, Run, read_reading, read_run


def predict(
    scans: Annotated[
        list[Path],
        typer.Argument(help="NIfTI, NRRD or MetaImage files, folders of one DICOM series, or folders of such files."),
    ],
    run: Annotated[Path, typer.Option(help="Folder of the trained run.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="File to write (.nii.gz, .nii, .nrrd, .mha); of several scans, a folder for NAME.nii.gz.",
        ),
    ],
    checkpoint: Annotated[Checkpoint, typer.Option(help="Which of the run's models.")] = "best",
    window: Annotated[
        str | None,
        typer.Option(
            help="LO,HI or percentiles: the intensities that become 0 and 1. Without it: those of the training.",
            show_default=False,
        ),
    ] = None,
    channel: Annotated[
        int | None, typer.Option(min=0, help="Of 4-D images, the channel to take.", show_default=False)
    ] = None,
    tmax: Annotated[int, typer.Option(min=0, help="Rounds at most.")] = 10,
    tol: Annotated[float, typer.Option(help="Relative DSC at which to stop.")] = 0.99,
    vote: Annotated[Vote, typer.Option(help="How the views are fused.")] = "mean",
    precision: Annotated[Precision, typer.Option(help="bf16-mixed is quicker where the hardware has it.")] = "32-true",
    accelerator: Annotated[Accelerator, typer.Option(help="Where to compute.")] = "auto",
    shard: Annotated[
        str | None,
        typer.Option(help="i/n: every n-th scan from the i-th on. torchrun's ranks share them out by themselves."),
    ] = None,
) -> None:
    """Segment scans, and write masks on their voxels: 1 inside the organ, 0 elsewhere.

    The masks have the size, order of axes, origin, spacing and direction of the scans. A scan that cannot be segmented
    is named and left out, and the command then ends with 1.
    """
    try:
        paths = find_scans(scans)
        targets = output_paths(paths, out, folder=len(scans) > 1 or paths != scans)
        trained = read_run(run, checkpoint, choose_device(accelerator))
        reading = choose_reading(trained, window, channel)
        mine = own_share(list(zip(paths, targets, strict=True)), shard)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    failed = False
    for path, target in mine:
        try:
            scan = read_scan(path, channel=reading.channel)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                mask, segmentation = predict_scan(
                    trained, scan, reading, tmax=tmax, tol=tol, vote=vote, precision=precision
                )
            write_like(scan, mask, target)
        except (OSError, ValueError) as error:
            typer.echo(f"{path}: {error}", err=True)
            failed = True
            continue
        for warning in caught:
            typer.echo(f"{path}: {warning.message}", err=True)
        millilitres = mask.sum() * math.prod(scan.spacing) / 1000
        typer.echo(
            f"{path}: {mask.sum()} voxels, {millilitres:.1f} ml, {len(segmentation.rdsc)} rounds, "
            f"{segmentation.seconds:.1f} s: {target}"
        )
    if failed:
        raise typer.Exit(1)


def choose_reading(run: Run, window: str | None, channel: int | None) -> Reading:
    """Return how to read scans: as those of the training were, but for what the command line says.

    Raises:
        ValueError: neither the run nor its store says, and no `window` is given; where one is, slices keep their size.
    """
    try:
        reading = read_reading(run)
    except ValueError:
        if window is None:
            raise
        reading = Reading(parse_window(window))
    return Reading(
        reading.window if window is None else parse_window(window),
        reading.labels,
        reading.size,
        reading.channel if channel is None else channel,
    )


def find_scans(paths: Sequence[Path]) -> list[Path]:
    """Return the scans that paths name: a folder that holds volume files stands for them, any other for a DICOM series.

    Raises:
        FileNotFoundError: there is nothing at a path.
    """
    scans = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"expected a scan at {path}, found none")
        files = sorted(file for file in path.glob("*") if file.name.lower().endswith(SUFFIXES)) if path.is_dir() else []
        scans += files or [path]
    return scans


def output_paths(scans: Sequence[Path], out: Path, *, folder: bool) -> list[Path]:
    """Return where the mask of each scan goes.

    Raises:
        ValueError: two scans of one name, or a file to write that is a folder or has no known suffix.
    """
    if not folder:
        if out.is_dir() or not out.name.lower().endswith((".nii.gz", ".nii", ".nrrd", ".mha")):
            raise ValueError(f"expected --out to be a file that ends in .nii.gz, .nii, .nrrd or .mha, got {out}")
        return [out]
    if out.is_file() or out.name.lower().endswith(SUFFIXES):
        raise ValueError(f"expected --out to be a folder for several scans, got {out}")
    names = [_stem(scan.resolve()) for scan in scans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected scans of different names, got {twice[0]} more than once")
    return [out / f"{name}.nii.gz" for name in names]


def predict_scan(
    run: Run,
    scan: Scan,
    reading: Reading,
    *,
    tmax: int = 10,
    tol: float = 0.99,
    vote: Vote = "mean",
    precision: Precision = "32-true",
) -> tuple[NDArray[np.bool_], Segmentation]:
    """Return the mask of a scan, (D, H, W) as its image, and how it came about at the resolution of the training.

    Raises:
        ValueError: the scan has no contrast, or is too small.
    """
    window = percentile_window(scan.image) if reading.window == "percentiles" else reading.window
    nothing = np.zeros(scan.image.shape, dtype=np.bool_)
    case = Case(scan.path.name, scan.path.name, scan.image, nothing, scan.spacing, window)
    if reading.size is not None:
        case = resize_slices(case, reading.size)
    segmentation = segment(run.models, case.intensities(), tmax=tmax, tol=tol, vote=vote, precision=precision)
    if case.image.shape == scan.image.shape:
        return segmentation.mask, segmentation
    _, height, width = scan.image.shape
    planes = [cv2.resize(plane.astype(np.float32), (width, height)) for plane in segmentation.mask]
    return np.stack(planes) >= 0.5, segmentation


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]
