import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel_loss import (
    BoundaryLoss,
    ChanVeseLoss,
    CombinedLoss,
    DiceLoss,
    HausdorffDTLoss,
    LinearRamp,
    StepAt,
    UncertainPointLoss,
)
from multilevel_loss.functional import boundary_loss, chan_vese_loss, dice_loss, hausdorff_dt_loss


def case() -> dict[str, Tensor]:
    return {"input": torch.randn(2, 3, 8, 9), "target": torch.randint(3, (2, 8, 9))}


def test_is_the_weighted_sum_of_its_terms() -> None:
    given = case()
    loss = CombinedLoss(
        {"dice": (DiceLoss(average="micro"), 0.5), "hausdorff": (HausdorffDTLoss(alpha=1.0), 2)}, return_components=True
    )
    total, terms = loss(**given)
    expected = {"dice": dice_loss(**given, average="micro"), "hausdorff": hausdorff_dt_loss(**given, alpha=1.0)}
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    torch.testing.assert_close(total, 0.5 * expected["dice"] + 2 * expected["hausdorff"])
    torch.testing.assert_close(CombinedLoss({"dice": (DiceLoss(), 3.0)})(**given), 3 * dice_loss(**given))


def test_an_option_goes_to_each_term_that_takes_it() -> None:
    given, image = case(), torch.rand(2, 1, 8, 9)
    mask, class_mask = torch.rand(2, 8, 9) > 0.2, torch.tensor([[1, 1, 0], [1, 1, 1]])
    shared = {"mask": mask, "class_mask": class_mask}
    loss = CombinedLoss(
        {"dice": (DiceLoss(), 1.0), "boundary": (BoundaryLoss(spacing=9.0), 1.0), "fit": (ChanVeseLoss(mu=0.0), 1.0)},
        return_components=True,
    )
    _, terms = loss(**given, **shared, spacing=(2.0, 1.0), image=image)
    torch.testing.assert_close(terms["dice"], dice_loss(**given, **shared))
    torch.testing.assert_close(terms["boundary"], boundary_loss(**given, **shared, spacing=(2.0, 1.0)))
    torch.testing.assert_close(terms["fit"], chan_vese_loss(**given, **shared, mu=0.0, image=image))


def test_mode_and_ignored_label_hold_for_all_terms() -> None:
    logits, target = torch.randn(2, 3, 8, 9), torch.randint(3, (2, 8, 9))
    target[0, :3] = 255
    loss = CombinedLoss({"dice": (DiceLoss(), 1.0), "boundary": (BoundaryLoss(), 1.0)}, ignore_index=255)
    expected = dice_loss(logits, target, ignore_index=255) + boundary_loss(logits, target, ignore_index=255)
    torch.testing.assert_close(loss(logits, target), expected)
    units = torch.randint(2, (2, 3, 8, 9)).float()
    loss = CombinedLoss({"dice": (DiceLoss(), 1.0)}, mode="multilabel")
    torch.testing.assert_close(loss(logits, units), dice_loss(logits, units, mode="multilabel"))


def test_a_term_of_weight_zero_is_not_computed() -> None:
    loss = CombinedLoss({"dice": (DiceLoss(), 1.0), "boundary": (BoundaryLoss(), 0.0)}, return_components=True)
    total, terms = loss(**case(), distance_map=torch.full((2, 3, 8, 9), torch.nan))
    assert terms.keys() == {"dice"}
    assert total.isfinite()


def test_schedules_set_the_weights_and_the_epoch_is_saved() -> None:
    def make() -> CombinedLoss:
        ramp = LinearRamp(0, 1, step=0.2)
        return CombinedLoss({"dice": (DiceLoss(), 1), "boundary": (BoundaryLoss(), ramp), "d": (DiceLoss(), StepAt(2))})

    loss, resumed = make(), make()
    loss.set_epoch(3)
    assert loss.weights == {"dice": 1, "boundary": pytest.approx(0.6), "d": 1}
    resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert resumed.epoch == 3
    assert resumed.weights == loss.weights
    given = case()
    assert resumed(**given) == loss(**given)


def test_a_schedule_never_told_the_epoch_warns_once() -> None:
    loss = CombinedLoss({"dice": (DiceLoss(), 1.0), "boundary": (BoundaryLoss(), LinearRamp(0, 1, step=0.2))})
    with pytest.warns(UserWarning, match="CombinedLoss has a schedule but was never told the epoch"):
        loss(**case())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(**case())


def test_tensor_options_move_with_the_loss() -> None:
    loss = CombinedLoss({"dice": (DiceLoss(weight=torch.tensor([1.0, 2.0, 3.0])), 1.0)})
    assert loss.to(torch.float64).terms["dice"].weight.dtype == torch.float64


def test_compiled_without_graph_breaks_it_is_the_same() -> None:
    torch.compiler.reset()
    given = case()
    loss = CombinedLoss({"hausdorff": (HausdorffDTLoss(), 1.0), "boundary": (BoundaryLoss(), 2.0)})
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**given, spacing=2.0), loss(**given, spacing=2.0))


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({}, ValueError, "expected `terms` to hold at least one loss, got none"),
        ({"bce": (torch.nn.BCEWithLogitsLoss(), 1.0)}, TypeError,
         "expected `terms['bce']` to be a loss module of multilevel_loss, got BCEWithLogitsLoss"),
        ({"dice": (DiceLoss(), float("inf"))}, ValueError, "expected `terms['dice']` to be finite, got inf"),
        ({"dice": (DiceLoss(ignore_index=255), 1.0)}, ValueError,
         "expected `ignore_index`, which all terms share, to be given to CombinedLoss, got it in `terms['dice']`"),
    ],
)  # fmt: skip
def test_bad_terms_say_what_is_wrong(terms: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="expected") as caught:
        CombinedLoss(terms)
    assert str(caught.value) == message


def test_bad_calls_say_what_is_wrong() -> None:
    loss = CombinedLoss({"points": (UncertainPointLoss(), 1.0)})
    with pytest.raises(TypeError, match=r"expected options that a term takes, class_mask, .*; got `image`"):
        loss(**case(), image=torch.rand(2, 1, 8, 9))
    loss = CombinedLoss({"dice": (DiceLoss(), StepAt(2))})
    loss.set_epoch(1)
    with pytest.raises(ValueError, match=r"expected a term whose weight is not 0 in epoch 1, got \{'dice': 0.0\}"):
        loss(**case())
