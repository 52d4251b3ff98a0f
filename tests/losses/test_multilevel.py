import copy
import warnings

import pytest
import torch
from torch._dynamo.utils import counters

from multilevel_loss import BoundaryLoss, DiceLoss, LinearRamp, MLLoss, StepAt, UncertainPointLoss, signed_distance_map
from multilevel_loss.functional import boundary_loss, dice_loss, multilevel_loss, uncertain_point_loss

INTEGERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(2, 1, 12, 10), (2, 2, 9, 11), (1, 2, 7, 8, 6), (1, 1, 5, 6, 7), (2, 1, 20)])
def test_works_at_the_first_try(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits = torch.randn(shape, requires_grad=True)
    target = torch.randint(2, (shape[0], *shape[2:])).to(dtype)
    MLLoss()(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.count_nonzero() > 0


def case() -> dict[str, torch.Tensor]:
    return {
        "input": torch.randn(2, 3, 8, 9),
        "target": torch.randint(3, (2, 8, 9)),
        "point_coords": torch.rand(2, 32, 2),
    }


def test_is_the_weighted_sum_of_its_terms() -> None:
    given = case()
    logits, target, coords = given["input"], given["target"], given["point_coords"]
    expected = {
        "region": dice_loss(logits, target),
        "boundary": boundary_loss(logits, target, normalize="max"),
        "pixel": uncertain_point_loss(logits, target, point_coords=coords),
    }
    total, terms = MLLoss(alpha=0.3, beta=0.7, return_components=True)(**given)
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    torch.testing.assert_close(total, expected["region"] + 0.3 * expected["boundary"] + 0.7 * expected["pixel"])


def test_options_reach_every_term() -> None:
    given = case()
    given["target"][0, 0] = 255
    mask = torch.rand(2, 8, 9) > 0.2
    shared = {
        "ignore_index": 255, "mask": mask, "class_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        "weight": [1.0, 2.0, 3.0], "include_background": False,
    }  # fmt: skip
    logits, target, coords = given["input"], given["target"], given["point_coords"]
    _, terms = multilevel_loss(**given, **shared, spacing=(2.0, 1.0), return_components=True)  # type: ignore[arg-type,misc]
    torch.testing.assert_close(terms["region"], dice_loss(logits, target, **shared))  # type: ignore[arg-type]
    boundary = boundary_loss(logits, target, spacing=(2.0, 1.0), normalize="max", **shared)  # type: ignore[arg-type]
    torch.testing.assert_close(terms["boundary"], boundary)
    torch.testing.assert_close(terms["pixel"], uncertain_point_loss(logits, target, point_coords=coords, **shared))  # type: ignore[arg-type]


def test_other_losses_take_the_places() -> None:
    given = case()
    loss = MLLoss(
        region=DiceLoss(average="micro"),
        boundary=BoundaryLoss(offset="optimal"),
        pixel=UncertainPointLoss(num_points=5),
        return_components=True,
    )
    logits, target = given["input"], given["target"]
    _, terms = loss(logits, target, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(terms["region"], dice_loss(logits, target, average="micro"))
    torch.testing.assert_close(terms["boundary"], boundary_loss(logits, target, offset="optimal"))
    pixel = uncertain_point_loss(logits, target, num_points=5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(terms["pixel"], pixel)


def test_point_input_is_another_grid_of_the_same_image() -> None:
    given = case()
    coarse = torch.randn(2, 3, 2, 3)
    _, terms = MLLoss(return_components=True)(**given, point_input=coarse)
    expected = uncertain_point_loss(coarse, given["target"], point_coords=given["point_coords"])
    torch.testing.assert_close(terms["pixel"], expected)


def test_given_map_is_not_computed_again() -> None:
    given = case()
    given_map = 2 * signed_distance_map(given["target"], num_classes=3)
    _, terms = MLLoss(boundary=BoundaryLoss(), return_components=True)(**given, distance_map=given_map)
    torch.testing.assert_close(terms["boundary"], 2 * boundary_loss(given["input"], given["target"]))


@pytest.mark.parametrize("unit", [1.0, 3.5])
def test_the_unit_of_a_given_map_does_not_matter(unit: float) -> None:
    given = case()
    given_map = unit * signed_distance_map(given["target"], num_classes=3)
    torch.testing.assert_close(MLLoss()(**given, distance_map=given_map), MLLoss()(**given))


@pytest.mark.parametrize(("alpha", "beta", "left"), [(0, 1, "boundary"), (1, 0, "pixel")])
def test_a_term_of_weight_zero_is_not_computed(alpha: float, beta: float, left: str) -> None:
    given = case()
    poison = {"boundary": {"distance_map": torch.full((2, 3, 8, 9), torch.nan)},
              "pixel": {"point_input": torch.full((2, 3, 2, 2), torch.nan)}}  # fmt: skip
    total, terms = MLLoss(alpha=alpha, beta=beta, return_components=True)(**given, **poison[left])
    assert left not in terms
    assert total.isfinite()


def test_schedules_set_the_weights() -> None:
    loss = MLLoss(alpha=LinearRamp(0, 1, step=0.2), beta=StepAt(2))
    seen = []
    for epoch in range(4):
        loss.set_epoch(epoch)
        seen.append(tuple(loss.weights.values()))
    assert seen == [(1, 0, 0), (1, 0.2, 0), (1, 0.4, 1), (1, pytest.approx(0.6), 1)]


def test_the_epoch_is_saved_and_restored() -> None:
    loss = MLLoss(alpha=LinearRamp(0, 1, step=0.2))
    loss.set_epoch(3)
    state = copy.deepcopy(loss.state_dict())
    resumed = MLLoss(alpha=LinearRamp(0, 1, step=0.2))
    resumed.load_state_dict(state)
    assert resumed.epoch == 3
    assert resumed.weights == loss.weights
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed(**case())


def test_a_schedule_never_told_the_epoch_warns_once() -> None:
    loss = MLLoss(beta=StepAt(2))
    with pytest.warns(UserWarning, match=r"call `set_epoch\(epoch\)` at the start of each epoch") as caught:
        loss(**case())
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(**case())


def test_constant_weights_never_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLLoss()(**case())


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_at_volume_scale(precision: torch.dtype) -> None:
    logits = torch.full((1, 2, 64, 64, 64), -80.0, dtype=precision)
    logits[:, 1, 20:24] = 80.0
    logits.requires_grad_()
    target = torch.zeros(1, 64, 64, 64, dtype=torch.uint8)
    target[:, 18:23] = 1
    with torch.autocast("cpu", dtype=precision):
        loss = MLLoss()(logits, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.dtype == precision
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(MLLoss(beta=0)(logits, target), MLLoss(beta=0)(logits.float(), target))


@pytest.mark.parametrize(("channels", "backend"), [(1, "aot_eager"), (3, "inductor")])
def test_compiled_without_graph_breaks_it_is_the_same(channels: int, backend: str) -> None:
    torch.compiler.reset()
    given = case()
    given["input"] = given["input"][:, :channels].clone().requires_grad_()
    given["target"] = given["target"].clamp_max(max(channels - 1, 1))
    eager = MLLoss()
    compiled = torch.compile(eager, fullgraph=True, backend=backend)
    results = [loss(**given) for loss in (eager, compiled)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(result, given["input"])[0] for result in results))


def test_a_schedule_is_not_compiled_anew_for_every_epoch() -> None:
    torch.compiler.reset()
    given = case()
    eager = MLLoss(alpha=LinearRamp(0, 1, step=0.05), beta=StepAt(12))
    compiled = torch.compile(eager, fullgraph=True, backend="eager")
    counters.clear()
    for epoch in range(16):
        eager.set_epoch(epoch)
        torch.testing.assert_close(compiled(**given), eager(**given))
    # Region alone; with the boundary, at any weight; with the points.
    assert counters["stats"]["unique_graphs"] == 3


def test_a_schedule_never_told_the_epoch_warns_when_compiled() -> None:
    torch.compiler.reset()
    compiled = torch.compile(MLLoss(beta=StepAt(2)), fullgraph=True, backend="eager")
    with pytest.warns(UserWarning, match="MLLoss has a schedule but was never told the epoch"):
        compiled(**case())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"region": DiceLoss(weight=[1, 2])}, ValueError,
         "expected `weight`, which all terms share, to be given to MLLoss, got it in `region`"),
        ({"boundary": BoundaryLoss(reduction="none")}, ValueError,
         "expected `reduction`, which all terms share, to be given to MLLoss, got it in `boundary`"),
        ({"region": torch.nn.BCEWithLogitsLoss()}, TypeError,
         "expected `region` to be a loss module of multilevel_loss, got BCEWithLogitsLoss"),
        ({"alpha": float("nan")}, ValueError, "expected `alpha` to be finite, got nan"),
    ],
)  # fmt: skip
def test_bad_options_say_what_is_wrong(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="expected") as caught:
        MLLoss(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_bad_calls_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"expected `epoch` to be at least 0, got -1"):
        MLLoss().set_epoch(-1)
    with pytest.raises(ValueError, match=r"expected `point_input` to have shape \(B, C\) = \(2, 3\) and 2"):
        MLLoss()(**case(), point_input=torch.zeros(2, 1, 4, 4))
