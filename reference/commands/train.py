"""`python -m reference train`: a model for each view of a store's cases, and the curves of their training."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer

from reference.config import (
    CONFIG,
    VIEWS,
    RunConfig,
    View,
    changed_options,
    option_help,
    parse_option,
    read_options,
    write_config,
    write_option,
)
from reference.data import SliceUnits, read_store
from reference.history import JSON, read_history
from reference.models import CoarseToFine, build_model
from reference.plots import draw_curves
from reference.runs import keep_reading
from reference.training import LAST, make_fabric
from reference.training import train as train_view


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with an option of the command line for every one of a run, in place of its `**options`."""
    defaults = RunConfig(Path()).as_dict()
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = {each.name for each in own}
    for name, text in option_help().items():
        if name not in taken:
            option = typer.Option(help=text, metavar="YAML", show_default=write_option(defaults[name]))
            kind = Annotated[str | None, option]
            own.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    command.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return command


@with_options
def train(
    store: Annotated[
        Path | None, typer.Argument(help="Folder that the prepare command wrote.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run: config.yaml, curves.png, axis0, axis1, axis2.")],
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of options, such as a run's own config.yaml. Options given here go before its."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last whole epoch, with the run's own options.")
    ] = False,
    **options: str | None,
) -> None:
    """Train a model for each view.

    The options below have the names and the values of config.yaml; what neither sets is the paper's for the model (the
    defaults shown are MLL's). Several devices: --devices, or start this by torchrun or `fabric run`. The views of one
    run may be trained one after the other or at once, in one folder.
    """
    given = {name: parse_option(text) for name, text in options.items() if text is not None}
    try:
        run = choose_run(out, config, given if store is None else given | {"store": str(store)})
        train_run(run, out, resume=resume)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def train_run(run: RunConfig, out: Path, *, resume: bool) -> None:
    """Train a model for each view of a run, keep its options in `out`, and draw its curves.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: an option does not fit the store, the model, or the run that `out` holds, which `resume` would go
            on with.
    """
    check_unchanged(run, out)
    for view in run.views:
        if not resume and (folder(out, view) / LAST).exists():
            raise ValueError(f"expected no training in {folder(out, view)}, found one: --resume goes on with it")
    split = run.split(read_store(run.store))
    untrained = first_model(run)
    fabric = make_fabric(run.training)
    if fabric.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
        write_config(with_earlier_views(run, out), out / CONFIG)
        keep_reading(run, out)
    for view in run.views:
        units = SliceUnits(split.train, VIEWS[view], run.keep), SliceUnits(split.validation, VIEWS[view], keep=1.0)
        if fabric.is_global_zero:
            typer.echo(f"{view}: {len(units[0])} units to train on, {len(units[1])} to validate")
        train_view(deepcopy(untrained), *units, run.training, folder(out, view), resume=resume, fabric=fabric)
    if fabric.is_global_zero:
        summarize(out, f"{run.store.name}: {run.model}")


def choose_run(out: Path, config: Path | None, given: dict[str, Any]) -> RunConfig:
    """Return the run of the options given, before those of `config` or else of the run that `out` holds.

    Raises:
        ValueError: an option is unknown or of the wrong kind.
    """
    path = out / CONFIG if config is None else config
    return RunConfig.of((read_options(path) if config is not None or path.exists() else {}) | given)


def check_unchanged(run: RunConfig, out: Path) -> None:
    """Check that `run` is that of `out`, if that holds one.

    Raises:
        ValueError: an option is another.
    """
    if (out / CONFIG).exists():
        changed = changed_options(RunConfig.of(read_options(out / CONFIG)).as_dict(), run.as_dict())
        if changed:
            raise ValueError(f"expected the options of the run in {out}, got {', '.join(changed)}")


def with_earlier_views(run: RunConfig, out: Path) -> RunConfig:
    """Return `run` with the views, too, that the run in `out` has trained or trains elsewhere."""
    earlier = RunConfig.of(read_options(out / CONFIG)).views if (out / CONFIG).exists() else ()
    return replace(run, views=tuple(view for view in get_args(View) if view in earlier + run.views))


def summarize(out: Path, title: str) -> None:
    """Draw the curves of all views that a run has trained, here or elsewhere, and say what came of them."""
    histories = {str(view): read_history(folder(out, view)) for view in VIEWS if (folder(out, view) / JSON).exists()}
    draw_curves(out / "curves.png", {view: history for view, history in histories.items() if history}, title)
    for view, history in histories.items():
        best = max((record.fine_dsc for record in history), default=0.0)
        typer.echo(f"{view}: {len(history)} epochs, best DSC in validation {best:.4f}")


def first_model(run: RunConfig) -> CoarseToFine:
    """Return the model that the training of every view starts from.

    Raises:
        ValueError: an option of the model is unknown or wrong, or the ImageNet weights do not fit it.
    """
    generator = torch.Generator().manual_seed(run.training.seed)
    points = run.training.num_points
    try:
        model = build_model(run.model, width=run.width, num_points=points, **run.model_options, generator=generator)
    except TypeError as error:
        raise ValueError(f"expected `model_options` to be options of build_model: {error}") from error
    if run.imagenet is not None:
        model.load_imagenet(None if run.imagenet == "hub" else run.imagenet)
    return model


def folder(out: Path, view: View) -> Path:
    """Return where the training of a view lies in a run."""
    return out / f"axis{VIEWS[view]}"
