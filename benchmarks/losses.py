"""Time and memory of every loss, forward and backward, beside the same loss of MONAI, kornia and plain torch.

A peer takes part with its options set to the definition of ours, and is timed only where value and gradient then agree;
where the definitions differ the table says in what. All losses of a row take turns in one process. Each gets the target
as it likes best, made before the clock starts: ours a label map of bytes; peers one of int64, or, for a single channel,
memberships of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import kornia.losses as kornia
import monai.losses as monai
import torch
import torch.nn.functional as F
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import multilevel_loss as ml
from benchmarks.harness import Timing, measure, metadata, peak_memory, write_json
from multilevel_loss import functional as mlf
from multilevel_loss.functional import dice_loss

SHAPES = ["4x1x512x512", "4x3x256x256", "2x1x64x64x64", "2x3x96x96x96"]
RESULTS = Path(__file__).parent / "results" / "losses.json"
LIMIT = 2.0
"""Seconds of its own after which a loss is repeated no more."""
TOLERANCE = 1e-4
"""Greatest relative difference of values, and of gradients relative to the greatest gradient."""


@dataclass(frozen=True)
class Case:
    """A prediction of curved thin organs and its truth.

    Attributes:
        logits: (B, C, *spatial), the truth moved by a few voxels, under noise.
        labels: (B, *spatial) uint8, for ours.
        long_labels: the same in int64, for others.
        memberships: (B, C, *spatial) float32.
        distances: (B, C, *spatial) float32, the signed distance maps.
        image: (B, 1, *spatial) float32.
    """

    logits: Tensor
    labels: Tensor
    long_labels: Tensor
    memberships: Tensor
    distances: Tensor
    image: Tensor

    @property
    def softmax(self) -> bool:
        """Whether the classes exclude each other."""
        return self.logits.shape[1] > 1

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.logits.ndim - 2


Loss = Callable[[Tensor], Tensor]
"""A loss of logits, on the target of a case."""
Build = Callable[[Case], Loss | None]
"""Makes the loss of a case; None where that shape is not taken."""


@dataclass(frozen=True)
class Peer:
    """A loss of someone else; `differs` says why its value is not ours, where it is not."""

    build: Build
    differs: str = ""


def ours(function: Callable[..., Tensor], **options: Any) -> Build:
    """Return one of our losses, function or module."""
    return lambda case: lambda x: function(x, case.labels, **options)


def with_image(function: Callable[..., Tensor]) -> Build:
    """Return one of our losses that looks at the image."""
    return lambda case: lambda x: function(x, case.labels, image=case.image)


def with_boundary(function: Callable[..., Tensor]) -> Build:
    """Return one of our losses of two heads, both given the same logits."""
    return lambda case: lambda x: function(x, case.labels, boundary_input=x)


def of_monai(loss: Callable[..., Any], **options: Any) -> Build:
    """Return a loss of MONAI with its activation."""

    def build(case: Case) -> Loss:
        if case.softmax:
            module = loss(softmax=True, to_onehot_y=True, **options)
            return lambda x: module(x, case.long_labels.unsqueeze(1))
        module = loss(sigmoid=True, **options)
        return lambda x: module(x, case.memberships)

    return build


def of_kornia(loss: Callable[..., Tensor], **options: Any) -> Build:
    """Return a loss of kornia that takes images of several classes."""

    def build(case: Case) -> Loss | None:
        return (lambda x: loss(x, case.long_labels, **options)) if case.ndim == 2 and case.softmax else None

    return build


def for_one(build: Build) -> Build:
    """Return the loss for a single channel alone."""
    return lambda case: None if case.softmax else build(case)


def for_classes(build: Build) -> Build:
    """Return the loss for several classes alone."""
    return lambda case: build(case) if case.softmax else None


def sum_of(*builds: Build) -> Build:
    """Return the sum of losses that take any shape."""

    def build(case: Case) -> Loss:
        losses = [loss for each in builds if (loss := each(case)) is not None]
        return lambda x: torch.stack([loss(x) for loss in losses]).sum()

    return build


def torch_cross_entropy(case: Case) -> Loss:
    """Return torch's cross entropy of classes or of channels."""
    if case.softmax:
        return lambda x: F.cross_entropy(x, case.long_labels)
    return lambda x: F.binary_cross_entropy_with_logits(x, case.memberships)


def torch_topk(case: Case) -> Loss:
    """Return the mean of the hardest tenth of the voxels of each sample."""
    if case.softmax:
        voxels = partial(F.cross_entropy, target=case.long_labels, reduction="none")
    else:
        voxels = partial(F.binary_cross_entropy_with_logits, target=case.memberships, reduction="none")

    def loss(x: Tensor) -> Tensor:
        values = voxels(x).flatten(1)
        return values.topk(values.shape[1] // 10, sorted=False).values.mean()

    return loss


def torch_points(case: Case) -> Loss:
    """Return plain PointRend: 6144 uniform points, the 1536 most uncertain of them and 512 fresh ones."""
    batch, axes = len(case.labels), case.ndim

    def sample(x: Tensor, points: Tensor) -> Tensor:
        grid = (2 * points - 1).view(batch, -1, *[1] * (axes - 1), axes)
        return F.grid_sample(x, grid, align_corners=False).flatten(2)

    def loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            points = torch.rand(batch, 6144, axes, device=x.device)
            logits = sample(x, points)
            best = logits.topk(2, dim=1).values if case.softmax else None
            certainty = logits[:, 0].abs() if best is None else best[:, 0] - best[:, 1]
            chosen = certainty.topk(1536, largest=False).indices
            kept = points.gather(1, chosen.unsqueeze(-1).expand(-1, -1, axes))
            points = torch.cat([kept, torch.rand(batch, 512, axes, device=x.device)], 1)
            truth = sample(case.memberships, points)
        logits = sample(x, points)
        if case.softmax:
            return F.cross_entropy(logits, truth)
        return F.binary_cross_entropy_with_logits(logits, truth)

    return loss


def torch_boundary(case: Case) -> Loss:
    """Return the mean of probability times a given map."""
    return lambda x: ((x.softmax(1) if case.softmax else x.sigmoid()) * case.distances).mean()


def apart(case: Case) -> Tensor:
    """Return distances between classes: 1 from the background, ½ between structures."""
    size = case.logits.shape[1]
    matrix = torch.full((size, size), 0.5).fill_diagonal_(0)
    matrix[0, 1:] = matrix[1:, 0] = 1
    return matrix


def wasserstein(case: Case) -> Loss:
    """Return ours, with its distances."""
    return lambda x: mlf.generalized_wasserstein_dice_loss(x, case.labels, distances=apart(case))


def monai_wasserstein(case: Case) -> Loss:
    """Return MONAI's, with the same distances."""
    loss = monai.GeneralizedWassersteinDiceLoss(dist_matrix=apart(case), smooth_nr=1e-6, smooth_dr=1e-6)
    return lambda x: loss(x, case.long_labels.unsqueeze(1))


def monai_focal(case: Case) -> Loss:
    """Return MONAI's focal loss times C, by which it divides although a voxel has one class."""
    channels = case.logits.shape[1]
    loss = monai.FocalLoss(use_softmax=case.softmax, to_onehot_y=case.softmax)
    target = case.long_labels.unsqueeze(1) if case.softmax else case.memberships
    return lambda x: channels * loss(x, target)


def kornia_focal(case: Case) -> Loss | None:
    """Return kornia's focal loss times C, likewise."""
    channels = case.logits.shape[1]
    return lambda x: channels * kornia.focal_loss(x, case.long_labels, alpha=None, gamma=2.0, reduction="mean")


def monai_dice_focal(case: Case) -> Loss | None:
    """Return MONAI's sum of Dice and focal loss, this times C."""
    return of_monai(monai.DiceFocalLoss, lambda_focal=float(case.logits.shape[1]), **SMOOTH)(case)


def monai_unified(case: Case) -> Loss:
    """Return MONAI's unified focal loss, which takes probabilities."""
    loss = monai.AsymmetricUnifiedFocalLoss(delta=0.6)
    return lambda x: loss(x.sigmoid(), case.memberships)


def kornia_lovasz(case: Case) -> Loss | None:
    """Return kornia's Lovász softmax or hinge."""
    loss = kornia.lovasz_softmax_loss if case.softmax else kornia.lovasz_hinge_loss
    return (lambda x: loss(x, case.long_labels)) if case.ndim == 2 else None


def kornia_erosion(case: Case) -> Loss:
    """Return kornia's Hausdorff loss by erosion, which takes probabilities of two classes at least."""
    loss = kornia.HausdorffERLoss() if case.ndim == 2 else kornia.HausdorffERLoss3D()
    return lambda x: cast(Tensor, loss(x.softmax(1), case.long_labels.unsqueeze(1)))


def given_map(case: Case) -> Loss:
    """Return the multi-level loss, the maps given."""
    loss = ml.MLLoss()
    return lambda x: loss(x, case.labels, distance_map=case.distances)


def network(case: Case) -> Loss:
    """Return the loss of four branches, all of them given the same logits."""
    loss = ml.MLNLoss()
    points = ml.uncertain_grid_points(case.logits, 2048)

    def of_branches(x: Tensor) -> Tensor:
        return cast(Tensor, loss(x, x, ml.sample_points(x, points), x, case.labels, point_coords=points))

    return of_branches


def levels(x: Tensor) -> list[Tensor]:
    """Return predictions of three resolutions."""
    halves = (slice(None), slice(None), *[slice(None, None, 2)] * (x.ndim - 2))
    return [x, x[halves], x[halves][halves]]


def monai_levels(case: Case) -> Loss:
    """Return MONAI's deep supervision of its Dice loss, with our weights; it resizes floating targets alone."""
    dice = monai.DiceLoss(softmax=case.softmax, to_onehot_y=case.softmax, sigmoid=not case.softmax, **SMOOTH)
    loss = monai.DeepSupervisionLoss(dice, weights=[4 / 7, 2 / 7, 1 / 7])
    target = case.long_labels.unsqueeze(1).float()
    return lambda x: loss(levels(x), target)


SMOOTH = {"smooth_nr": 1e-6, "smooth_dr": 1e-6}
DICE_CE = ml.CombinedLoss({"dice": (ml.DiceLoss(), 1.0), "ce": (ml.CrossEntropyLoss(), 1.0)})
MONAI_DICE = Peer(of_monai(monai.DiceLoss, **SMOOTH))
MONAI_DICE_CE = Peer(of_monai(monai.DiceCELoss, **SMOOTH))
MONAI_BOUNDARY = Peer(of_monai(monai.BoundaryLoss))
MONAI_CL_DICE = of_monai(monai.SoftclDiceLoss, smooth=1e-9, **SMOOTH)
OWN_POINTS = "draws points of its own"
OTHER_MAP = "has another map inside"
MONAI_TERMS = Peer(sum_of(MONAI_DICE.build, MONAI_BOUNDARY.build, torch_points), OWN_POINTS)

LOSSES: dict[str, tuple[Build, dict[str, Peer]]] = {
    "DiceLoss": (
        ours(dice_loss),
        {
            "MONAI": MONAI_DICE,
            "kornia": Peer(of_kornia(kornia.dice_loss, average="macro"), "rounds off 1e-4 of its sums"),
        },
    ),
    "DiceLoss(squared=True)": (
        ours(dice_loss, squared=True),
        {"MONAI": Peer(of_monai(monai.DiceLoss, squared_pred=True, **SMOOTH))},
    ),
    "IoULoss": (ours(mlf.iou_loss), {"MONAI": Peer(of_monai(monai.DiceLoss, jaccard=True, **SMOOTH))}),
    "TverskyLoss": (
        ours(mlf.tversky_loss),
        {
            "MONAI": Peer(of_monai(monai.TverskyLoss, alpha=0.3, beta=0.7, **SMOOTH)),
            "kornia": Peer(of_kornia(kornia.tversky_loss, alpha=0.3, beta=0.7)),
        },
    ),
    "GeneralizedDiceLoss": (
        ours(mlf.generalized_dice_loss),
        {"MONAI": Peer(of_monai(monai.GeneralizedDiceLoss, smooth_nr=1e-12, smooth_dr=1e-12))},
    ),
    "GeneralizedWassersteinDiceLoss": (for_classes(wasserstein), {"MONAI": Peer(for_classes(monai_wasserstein))}),
    "FocalTverskyLoss": (ours(mlf.focal_tversky_loss), {}),
    "LogCoshDiceLoss": (ours(mlf.log_cosh_dice_loss), {}),
    "AsymmetricSimilarityLoss": (ours(mlf.asymmetric_similarity_loss), {}),
    "PenaltyLoss": (ours(mlf.penalty_loss), {}),
    "MatthewsCorrelationLoss": (ours(mlf.matthews_correlation_loss), {"MONAI": Peer(of_monai(monai.MCCLoss))}),
    "LovaszLoss": (
        ours(mlf.lovasz_loss),
        {
            "kornia": Peer(kornia_lovasz),
        },
    ),
    "ClDiceLoss": (
        ours(mlf.cl_dice_loss),
        {
            "MONAI": Peer(for_one(MONAI_CL_DICE)),
            "MONAI, classes together": Peer(for_classes(MONAI_CL_DICE), "sums over the classes, too"),
        },
    ),
    "CrossEntropyLoss": (ours(mlf.cross_entropy_loss), {"torch": Peer(torch_cross_entropy)}),
    "TopKLoss": (ours(mlf.topk_loss), {"torch": Peer(torch_topk, "chooses one of two that are equally hard")}),
    "FocalLoss": (
        ours(mlf.focal_loss),
        {"MONAI": Peer(monai_focal), "kornia": Peer(for_classes(kornia_focal))},
    ),
    "UnifiedFocalLoss": (
        ours(mlf.unified_focal_loss),
        {"MONAI": Peer(for_one(monai_unified), "halves the focal term")},
    ),
    "DPCELoss": (ours(mlf.dpce_loss), {}),
    "DiceCELoss": (ours(mlf.dice_ce_loss), {"MONAI": MONAI_DICE_CE}),
    "DiceFocalLoss": (
        ours(mlf.dice_focal_loss, focal_weight=1.0),
        {
            "MONAI": Peer(for_one(monai_dice_focal)),
            "MONAI, sigmoid": Peer(for_classes(monai_dice_focal), "takes sigmoids in the focal term"),
        },
    ),
    "CombinedLoss of Dice and cross entropy": (ours(DICE_CE), {"MONAI": MONAI_DICE_CE}),
    "DeepSupervision of Dice": (
        lambda case: lambda x: ml.DeepSupervision(ml.DiceLoss())(levels(x), case.labels),
        {"MONAI": Peer(monai_levels)},
    ),
    "BoundaryLoss": (ours(mlf.boundary_loss), {"MONAI": replace(MONAI_BOUNDARY, differs=OTHER_MAP)}),
    'BoundaryLoss(boundary="kervadec")': (ours(mlf.boundary_loss, boundary="kervadec"), {"MONAI": MONAI_BOUNDARY}),
    "BoundaryRegressionLoss": (ours(mlf.boundary_regression_loss), {}),
    "SDFRegressionLoss": (ours(mlf.sdf_regression_loss), {}),
    "DiceSDFLoss": (ours(mlf.dice_sdf_loss), {}),
    "HausdorffDTLoss": (
        ours(mlf.hausdorff_dt_loss),
        {"MONAI": Peer(of_monai(monai.HausdorffDTLoss, include_background=True))},
    ),
    "HausdorffDTLoss(log=True)": (
        ours(mlf.hausdorff_dt_loss, log=True),
        {"MONAI": Peer(of_monai(monai.LogHausdorffDTLoss, include_background=True))},
    ),
    "HausdorffERLoss": (ours(mlf.hausdorff_er_loss), {"kornia": Peer(for_classes(kornia_erosion))}),
    "HausdorffCVLoss": (ours(mlf.hausdorff_cv_loss), {}),
    "ActiveBoundaryLoss": (ours(mlf.active_boundary_loss), {}),
    "ContourDiceLoss": (ours(mlf.contour_dice_loss), {}),
    "ElasticInteractionLoss": (ours(mlf.elastic_interaction_loss), {}),
    "ActiveContourLoss": (ours(mlf.active_contour_loss), {}),
    "ChanVeseLoss": (with_image(mlf.chan_vese_loss), {}),
    "MumfordShahLoss": (with_image(mlf.mumford_shah_loss), {}),
    "GeodesicActiveContourLoss": (with_image(mlf.geodesic_active_contour_loss), {}),
    "GeometricallyConstrainedLoss": (ours(mlf.geometrically_constrained_loss), {}),
    "LevelSetLoss": (ours(mlf.level_set_loss), {}),
    "CECELoss": (with_boundary(mlf.ce_ce_loss), {}),
    "NestedLevelSetLoss": (with_boundary(mlf.nested_level_set_loss), {}),
    "UncertainPointLoss": (ours(mlf.uncertain_point_loss), {"torch": Peer(torch_points, OWN_POINTS)}),
    "MLLoss": (
        ours(ml.MLLoss()),
        {"MONAI + torch": replace(MONAI_TERMS, differs=f"{OTHER_MAP}, {OWN_POINTS}")},
    ),
    'MLLoss(boundary=BoundaryLoss(boundary="kervadec"))': (
        ours(ml.MLLoss(boundary=ml.BoundaryLoss(boundary="kervadec"))),
        {"MONAI + torch": MONAI_TERMS},
    ),
    "MLLoss, maps given": (
        given_map,
        {"MONAI + torch": Peer(sum_of(MONAI_DICE.build, torch_boundary, torch_points), OWN_POINTS)},
    ),
    "MLNLoss": (network, {}),
}


def make_case(shape: str, device: torch.device, seed: int = 0) -> Case:
    """Draw a thin arc for each structure of each sample, and a prediction of it that is not quite in place."""
    batch, classes, *size = map(int, shape.split("x"))
    generator = torch.Generator().manual_seed(seed)
    *depth, y, x = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in size], indexing="ij")
    labels = torch.zeros(batch, *size, dtype=torch.long)
    for sample in labels:
        down, right = (torch.rand(2, generator=generator) * 0.4 - 0.2).tolist()
        radius = ((y - down) ** 2 + (x - right) ** 2).sqrt()
        for label in range(1, max(classes, 2)):
            arc = ((radius - 0.2 - 0.25 * label).abs() < 0.06) & (y < down)
            sample[arc & (depth[0].abs() < 0.3) if depth else arc] = label
    memberships = torch.stack([labels == label for label in range(classes)] if classes > 1 else [labels == 1], 1)
    moved = memberships.roll((3, -2), (-2, -1)).float()
    noise = torch.randn(memberships.shape, generator=generator)
    labels, memberships = labels.to(device), memberships.float().to(device)
    return Case(
        logits=(8 * moved - 4 + noise).to(device).requires_grad_(),
        labels=labels.byte(),
        long_labels=labels,
        memberships=memberships,
        distances=ml.signed_distance_map(memberships, boundary="kervadec"),
        image=memberships[:, -1:] + noise[:, :1].to(device) / 4,
    )


@dataclass(frozen=True)
class Row:
    """One loss of one maker on one shape; seconds, and bytes beside those of the logits."""

    loss: str
    maker: str
    shape: str
    timing: Timing
    difference: float | None
    differs: str
    peak: int | None = None
    logits: int = 0


def step_of(case: Case, loss: Loss) -> Callable[[], object]:
    """Return forward and backward."""
    return lambda: torch.autograd.grad(loss(case.logits), case.logits)


def difference(case: Case, loss: Loss, peer: Loss) -> float:
    """Return the greater of the relative differences of two losses, in value and in gradient."""
    value, expected = loss(case.logits), peer(case.logits)
    (gradient,), (slope,) = torch.autograd.grad(value, case.logits), torch.autograd.grad(expected, case.logits)
    by_value = (value - expected).abs() / expected.abs()
    return max(by_value.item(), ((gradient - slope).abs().max() / slope.abs().max()).item())


def makers_of(name: str, case: Case) -> dict[str, tuple[Loss, str]]:
    """Return ours and those peers that take the shape, each with the reason for which its value may differ."""
    build, peers = LOSSES[name]
    every = {"ours": Peer(build), **peers}
    return {maker: (loss, peer.differs) for maker, peer in every.items() if (loss := peer.build(case)) is not None}


def time_losses(name: str, case: Case, shape: str, repeats: int) -> list[Row]:
    """Time ours and its peers in turns; ValueError where one that has to agree does not."""
    makers = makers_of(name, case)
    differences: dict[str, float] = {}
    for maker, (loss, differs) in makers.items():
        if maker != "ours" and not differs:
            differences[maker] = difference(case, makers["ours"][0], loss)
            if not differences[maker] <= TOLERANCE:
                raise ValueError(f"{name} of {maker} on {shape}: differs from ours by {differences[maker]:.2g}")
    timings = measure(
        {maker: step_of(case, loss) for maker, (loss, _) in makers.items()}, repeats, warmup=1, limit=LIMIT
    )
    return [
        Row(name, maker, shape, timings[maker], differences.get(maker), differs, logits=case.logits.nbytes)
        for maker, (_, differs) in makers.items()
    ]


def with_peak(row: Row, case: Case) -> Row:
    """Return the row with its peak memory; what a first call leaves behind does not count."""
    loss, _ = makers_of(row.loss, case)[row.maker]
    step = step_of(case, loss)
    step()
    return replace(row, peak=peak_memory(step, case.logits.device))


def table_of(rows: Sequence[Row], yardstick: float) -> Table:
    """Return the rows of one shape; the `yardstick` is a step of binary cross entropy."""
    shape = rows[0].shape
    table = Table(box=box.SIMPLE_HEAD, title=f"{shape}; BCE with logits {1e3 * yardstick:.2f} ms", title_justify="left")
    for header in ("loss", "maker", "ms", "quartiles", "peer ÷ ours", "× BCE", "peak ÷ logits", "agrees to"):
        table.add_column(header, justify="left" if header in ("loss", "maker", "agrees to") else "right", no_wrap=True)
    own = {row.loss: row.timing.median for row in rows if row.maker == "ours"}
    for row in rows:
        timing, is_ours = row.timing, row.maker == "ours"
        table.add_row(
            row.loss if is_ours else "",
            row.maker,
            f"{1e3 * timing.median:.2f}",
            f"{1e3 * timing.lower:.2f}–{1e3 * timing.upper:.2f}",
            "" if is_ours or row.loss not in own else f"{timing.median / own[row.loss]:.2f}",
            f"{timing.median / yardstick:.2f}",
            "" if row.peak is None else f"{row.peak / row.logits:.2f}",
            row.differs or ("" if row.difference is None else f"{row.difference:.0e}"),
        )
    return table


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    shape: Annotated[
        list[str],
        typer.Option(
            help="B x C x spatial; may be given again.", default_factory=SHAPES.copy, show_default=", ".join(SHAPES)
        ),
    ],
    loss: Annotated[
        list[str],
        typer.Option(
            help="A row of the table; may be given again.", default_factory=lambda: list(LOSSES), show_default="all"
        ),
    ],
    repeats: Annotated[int, typer.Option(min=1)] = 15,
    threads: Annotated[int, typer.Option(min=1)] = torch.get_num_threads(),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    memory: Annotated[bool, typer.Option(help="Measure peak memory too.")] = True,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULTS,
) -> None:
    """Measure forward and backward of every loss and of its peers; print tables and write JSON."""
    for name in loss:
        if name not in LOSSES:
            raise typer.BadParameter(f"expected a row of the table, as 'DiceLoss', got {name!r}", param_hint="--loss")
    torch.set_num_threads(threads)
    on = torch.device(device)
    circumstances = metadata("monai", "kornia", device=on)
    rows: list[Row] = []
    yardsticks: dict[str, float] = {}
    disagreements: list[str] = []
    console = Console(width=max(Console().width, 160), highlight=False)
    for each in shape:
        case = make_case(each, on)
        bce = step_of(case, partial(F.binary_cross_entropy_with_logits, target=case.memberships))
        yardsticks[each] = measure({"BCE": bce}, repeats)["BCE"].median
        for name in loss:
            try:
                rows += time_losses(name, case, each, repeats)
            except ValueError as error:
                disagreements.append(str(error))
    if memory:  # after all timing, which it would disturb
        for each in shape:
            case = make_case(each, on)
            rows = [with_peak(row, case) if row.shape == each else row for row in rows]
    for each in shape:
        console.print(table_of([row for row in rows if row.shape == each], yardsticks[each]))
    write_json(out, {"metadata": circumstances, "bce_seconds": yardsticks, "rows": [asdict(row) for row in rows]})
    for message in disagreements:
        console.print(f"not timed: {message}")
    raise typer.Exit(1 if disagreements else 0)


if __name__ == "__main__":
    app()
