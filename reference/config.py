"""What a run trains and how: the paper's settings by name, options from YAML and the command line."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

import yaml

from multilevel_loss import LinearRamp, StepAt
from reference.data import Case, Split, split_by_patient
from reference.data.splits import Protocol, folds, paper_folds
from reference.files import replacing
from reference.models import ModelName, Stage

CONFIG = "config.yaml"
"""Name of the file in a run that holds its options."""

View = Literal["axial", "coronal", "sagittal"]
VIEWS: dict[View, int] = {"axial": 0, "coronal": 1, "sagittal": 2}
"""View → axis of a volume (D, H, W) that is cut into slices."""

Weight: TypeAlias = float | LinearRamp | StepAt
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class TrainingConfig:
    """How one view is trained; the defaults are the paper's for MLL (§4.1.1, §4.3.1). Epochs count from 0.

    Args:
        epochs: passes over the training units.
        joint_epoch: where stage S ends and I begins.
        coarse_box_epoch: where stage I ends and J begins.
        learning_rate: Adam's, at first.
        halving_epoch: first epoch of half the learning rate.
        halving_period: epochs from one halving to the next.
        reset_epoch: where the learning rate starts again, to be halved each `halving_period`; None never.
        alpha: weight of the boundary term, a number or a schedule.
        beta: weight of the uncertain points, likewise.
        gamma: weight of the fused branches, likewise; only a model that has them (MLN) reads it. While this and `beta`
            are 0, neither the pixel branch nor the fusion is computed.
        num_points: uncertain points a unit; the paper gives none. Here the loss draws them; a model with a pixel branch
            (MLN) is built with its own number, which the `train` command takes from this.
        jitter: whether the crop's margins are random.
        patience: epochs without a better validation DSC after which training stops; None trains all epochs.
        seed: of the order of the units, the jitter, the points and RSTN's dropout.
        accelerator: as Fabric names it: "auto", "cpu", "cuda", ...
        devices: processes a machine, one device each; where torchrun or `fabric run` starts them, their number counts.
        num_nodes: machines, likewise.
        precision: as Fabric names it.
        channels_last: whether activations lie in memory channels last.
        workers: processes that read units ahead, a device.

    Raises:
        ValueError: a number that must be positive is not.
    """

    epochs: int = 20
    joint_epoch: int = 2
    coarse_box_epoch: int = 8
    learning_rate: float = 1e-5
    halving_epoch: int = 8
    halving_period: int = 2
    reset_epoch: int | None = 12
    alpha: Weight = field(default_factory=lambda: LinearRamp(0, 1, step=0.2))
    beta: Weight = field(default_factory=lambda: StepAt(12))
    gamma: Weight = 0.0
    num_points: int = 2048
    jitter: bool = True
    patience: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: Precision = "32-true"
    channels_last: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("epochs", "halving_period", "num_points", "devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected `{name}` to be positive, got {getattr(self, name)}")

    @classmethod
    def paper(cls, model: ModelName) -> TrainingConfig:
        """Return the paper's settings for a model: MLL, MLN, or RSTN with its region loss alone."""
        if model == "mln":
            return cls(epochs=25, alpha=1.0, gamma=StepAt(12))
        return cls(alpha=0.0, beta=0.0) if model == "rstn" else cls()

    def stage(self, epoch: int) -> Stage:
        """Return the stage of an epoch; see :class:`CoarseToFine`."""
        return "S" if epoch < self.joint_epoch else "I" if epoch < self.coarse_box_epoch else "J"

    def learning_rate_in(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        if self.reset_epoch is not None and epoch >= self.reset_epoch:
            halvings = (epoch - self.reset_epoch) // self.halving_period
        else:
            halvings = max(0, (epoch - self.halving_epoch) // self.halving_period + 1)
        return self.learning_rate * 0.5**halvings

    def as_dict(self) -> dict[str, Any]:
        """Return the options as YAML and JSON hold them; a schedule is a mapping of its own options."""
        return asdict(self)


LATER = ("epochs", "patience", "accelerator", "devices", "num_nodes", "workers", "store", "views")
"""Options that a resumption may change: a store may have moved, a view be added."""


def changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the options that are not as they were though they must be, as "name new instead of old"."""
    names = sorted(name for name in old.keys() | new.keys() if name not in LATER and old.get(name) != new.get(name))
    return [f"{name} {new.get(name)!r} instead of {old.get(name)!r}" for name in names]


@dataclass(frozen=True)
class RunConfig:
    """What a run trains: a model for each view, on the cases of a store that its fold leaves.

    Args:
        store: folder that the `prepare` command wrote.
        model: as :func:`build_model` names it.
        width: channels of the model's first block; 64 is the paper's.
        model_options: what else :func:`build_model` takes.
        imagenet: file with torchvision's ImageNet weights of `resnet18`, for RSTN of `vgg16`, or "hub" to download
            them; None starts at random.
        views: axial, coronal, sagittal: a model for each.
        protocol: data set of the paper whose splits to take: nih, isicdm or spleen. None makes `folds` equal ones.
        folds: number of folds where the protocol gives none.
        fold: which fold is tested, and therefore left out, counted from 0; None trains on all cases.
        validation: share of the training patients to choose the best epoch by.
        keep: share of the organ-holding slices to train on, those with most organ.
        training: how.
    """

    store: Path
    model: ModelName = "mll"
    width: int = 64
    model_options: dict[str, Any] = field(default_factory=dict)
    imagenet: str | None = None
    views: tuple[View, ...] = ("axial", "coronal", "sagittal")
    protocol: Protocol | None = None
    folds: int = 4
    fold: int | None = 0
    validation: float = 0.1
    keep: float = 0.98
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Check the views."""
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError(
                f"expected `views` to name at least one view, each once, got {', '.join(self.views) or 'none'}"
            )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RunConfig:
        """Return the run of options as YAML holds them, those of the training among them.

        What is left out is the paper's for the model.

        Raises:
            ValueError: an option is unknown, missing or of the wrong kind; the message names it.
        """
        kinds = option_kinds()
        unknown = sorted(options.keys() - kinds.keys())
        if unknown:
            raise ValueError(f"expected options among {', '.join(kinds)}, got {', '.join(map(repr, unknown))}")
        values = {name: _read(name, kinds[name], value) for name, value in options.items()}
        if "store" not in values:
            raise ValueError("expected `store` to be the folder that the prepare command wrote, got none")
        own = {name: value for name, value in values.items() if name in {each.name for each in fields(cls)}}
        paper = TrainingConfig.paper(values.get("model", "mll"))
        return cls(**own, training=replace(paper, **{name: values[name] for name in values.keys() - own.keys()}))

    def split(self, cases: Sequence[Case]) -> Split:
        """Return the cases of a store to train on, to validate and to test; the same for every seed.

        Raises:
            ValueError: there is no such fold, or the cases are not those of the protocol, or too few.
        """
        if self.fold is None:
            return split_by_patient(cases, validation=self.validation, test=0)
        if self.protocol is None:
            splits = folds(cases, self.folds, validation=self.validation)
        else:
            splits = paper_folds(cases, self.protocol, validation=self.validation)
        if not 0 <= self.fold < len(splits):
            raise ValueError(f"expected `fold` to be 0 to {len(splits) - 1}, got {self.fold}")
        return splits[self.fold]

    def as_dict(self) -> dict[str, Any]:
        """Return every option as YAML holds it, such that ``RunConfig.of`` returns this run again."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "training"}
        return own | {"store": str(self.store), "views": list(self.views)} | self.training.as_dict()


def option_kinds() -> dict[str, Any]:
    """Return the options of a run, those of its training among them, and the type of each."""
    kinds = get_type_hints(RunConfig) | get_type_hints(TrainingConfig)
    del kinds["training"]
    return kinds


def option_help() -> dict[str, str]:
    """Return what the docstrings say of each option, as the command line has it."""
    docs = "\n".join(inspect.getdoc(each) or "" for each in (RunConfig, TrainingConfig))
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", re.sub(r":\w+:(?=`)", "", docs), re.MULTILINE)
    help_of = {name: re.sub(r"\bNone\b", "null", " ".join(text.split())) for name, text in entries}
    return {name: help_of[name] for name in option_kinds()}


def read_options(path: Path) -> dict[str, Any]:
    """Return the options that a YAML file sets.

    Raises:
        ValueError: the file is not a mapping.
    """
    options = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(options, dict):
        raise ValueError(f"expected {path} to hold a mapping of options, got {options!r}")
    return options


def parse_option(text: str) -> Any:
    """Return the value of an option of the command line, which is written as in YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def write_option(value: Any) -> str:
    """Return the text that :func:`parse_option` reads as `value`."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def write_config(config: RunConfig, path: Path) -> None:
    """Write every option of a run to a YAML file that :meth:`RunConfig.of` reads."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.as_dict(), sort_keys=False), encoding="utf-8")


def _read(name: str, kind: Any, value: Any) -> Any:
    """Return `value`, as YAML gives it, as `kind`."""
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for choice in choices:
        try:
            return _convert(choice, value)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    raise ValueError(f"expected `{name}` to be {' or '.join(map(_describe, choices))}, got {value!r}")


def _convert(kind: Any, value: Any) -> Any:
    """Return `value` as `kind`; raise one of several errors where that cannot be."""
    if get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_convert(get_args(kind)[0], item) for item in items)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast(Any, kind)(**{name: _convert(hints[name], item) for name, item in value.items()})
    if kind is float and not isinstance(value, bool):
        return float(value)  # also of a text: 1e-5 is one to YAML
    if kind is Path and isinstance(value, str):
        return Path(value)
    if value in get_args(kind) if get_origin(kind) is Literal else type(value) is (get_origin(kind) or kind):
        return value
    raise TypeError


def _describe(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"a list of {_describe(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if is_dataclass(kind):
        return f"{{{', '.join(f'{each.name}: …' for each in fields(kind))}}}"
    words = {float: "a number", int: "an integer", bool: "true or false", NoneType: "null", dict: "a mapping"}
    return words.get(get_origin(kind) or kind, "text")
