"""The losses inside torch's engines: shapes, export, determinism; other default dtypes, devices, kinds of tensors."""

import pytest
import torch
from torch import nn

import multilevel_loss as mll
from benchmarks.losses import LOSSES, make_case
from multilevel_loss import MLLoss


@pytest.mark.parametrize("given", ["points", "mask"])
def test_one_compilation_serves_many_shapes(given: str) -> None:
    torch.compiler.reset()
    eager = MLLoss()
    compiled = torch.compile(eager, fullgraph=True, dynamic=True, backend="aot_eager")
    # Sizes that are equal at first are taken for one, so none is that of the axes of a point.
    for batch, grid, stance in ((4, (9, 11), "default"), (5, (8, 14), "fail_on_recompile")):
        logits, target = torch.randn(batch, 3, *grid, requires_grad=True), torch.randint(3, (batch, *grid))
        coords, mask = torch.rand(batch, 17, 2), torch.rand(batch, *grid) > 0.3
        options = {"point_coords": coords} if given == "points" else {"mask": mask}
        results = []
        for loss in (eager, compiled):
            torch.manual_seed(0)  # where points are drawn, they are the same
            with torch.compiler.set_stance(stance):
                results.append(loss(logits, target, **options))
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*(torch.autograd.grad(result, logits)[0] for result in results))


class Step(nn.Module):
    """A network with its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Conv2d(1, 3, 3, padding=1)
        self.loss = MLLoss()

    def forward(self, image: torch.Tensor, target: torch.Tensor, point_coords: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.loss(self.network(image), target, point_coords=point_coords)
        return loss


def test_a_step_is_exported() -> None:
    step = Step()
    given = torch.randn(2, 1, 12, 10), torch.randint(3, (2, 12, 10)), torch.rand(2, 20, 2)
    exported = torch.export.export(step, given).module()
    torch.testing.assert_close(exported(*given), step(*given))


def test_deterministic_algorithms_are_at_hand(device: torch.device) -> None:
    logits = torch.randn(2, 3, 9, 9, device=device, requires_grad=True)
    target, coords = torch.randint(3, (2, 9, 9), device=device), torch.rand(2, 500, 2, device=device)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            torch.autograd.grad(MLLoss()(logits, target, point_coords=coords), logits)[0] for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert first.equal(second)


def test_vmap_is_refused_by_torch() -> None:
    # Labels are checked by value, and the map of distances is an operator of whole batches: there is nothing to gain.
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(MLLoss())(torch.randn(2, 1, 3, 5), torch.randint(3, (2, 1, 5)))


# A meta tensor has no values: to read one back, for which a CPU would wait for its GPU, is an error.
META = torch.device("meta")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", ["2x1x19x17", "2x3x32x32x32"])
def test_no_loss_waits_for_its_device(name: str, shape: str) -> None:
    case = make_case(shape, META)
    loss = LOSSES[name][0](case)
    if loss is None:
        pytest.skip("for several classes alone")
    value = loss(case.logits)
    (gradient,) = torch.autograd.grad(value, case.logits)
    assert value.device == gradient.device == META


@pytest.mark.parametrize("grid", [(19, 17), (64, 64, 16)], ids=str)
def test_no_option_waits_for_its_device(grid: tuple[int, ...]) -> None:
    logits = torch.randn(2, 3, *grid, device=META, dtype=torch.bfloat16, requires_grad=True)
    target = torch.randint(3, (2, *grid), device=META)
    loss = MLLoss(
        region=mll.DiceFocalLoss(),
        boundary=mll.BoundaryLoss(offset="optimal", normalize="max", clip=20),
        weight=torch.ones(3, device=META),
        ignore_index=255,
        include_background=False,
    )
    coarse = {"point_input": logits[..., ::4, ::4], "coarse_input": logits, "spacing": (1.0,) * len(grid)}
    counts = {"mask": target > 0, "class_mask": torch.ones(2, 3, device=META)}
    for options in (coarse, counts, {"distance_map": logits.detach()}):
        (gradient,) = torch.autograd.grad(loss(logits, target, **options), logits)
        assert gradient.device == META
        assert gradient.dtype == logits.dtype


every_kind = pytest.mark.parametrize(
    "name", ["MLLoss", "DiceLoss", "DiceCELoss", "TopKLoss", "LovaszLoss", "HausdorffDTLoss"]
)
small_and_large = pytest.mark.parametrize("grid", [(9, 9), (64, 64, 16)], ids=["torch", "kernels"])


@every_kind
@small_and_large
def test_the_default_dtype_does_not_matter(name: str, grid: tuple[int, ...]) -> None:
    logits, target = torch.randn(2, 3, *grid), torch.randint(3, (2, *grid))
    expected = value_and_gradient(name, logits, target)
    torch.set_default_dtype(torch.float64)
    try:
        found = value_and_gradient(name, logits, target)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@every_kind
@small_and_large
def test_tensors_of_monai_are_as_good_as_plain_ones(name: str, grid: tuple[int, ...]) -> None:
    meta_tensor = pytest.importorskip("monai.data").MetaTensor
    logits, target = torch.randn(2, 3, *grid), torch.randint(3, (2, 1, *grid))
    for given in ((logits, target), (logits, target, torch.rand(2, 1, *grid) > 0.3)):
        found = value_and_gradient(name, *map(meta_tensor, given))
        expected = value_and_gradient(name, *given)
        torch.testing.assert_close([each.as_subclass(torch.Tensor) for each in found], expected, rtol=1e-6, atol=0)


def value_and_gradient(
    name: str, logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    logits = logits.detach().requires_grad_()
    loss = getattr(mll, name)()(logits, target, mask=mask)
    return [loss.detach(), *torch.autograd.grad(loss, logits)]
