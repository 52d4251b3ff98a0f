import pytest
import torch

from multilevel_loss import DiceLoss
from multilevel_loss.functional import dice_loss

# Probabilities 0.9 and 0.1 exactly enough.
SURE = torch.logit(torch.tensor(0.9)).item()


def test_binary_by_hand() -> None:
    # p = (.9, .9, .1, .1), v = (1, 0, 0, 0): 1 − 2·0.9 / (2 + 1).
    logits = torch.tensor([[[SURE, SURE, -SURE, -SURE]]])
    assert dice_loss(logits, torch.tensor([[1, 0, 0, 0]])).item() == pytest.approx(1 - 1.8 / 3)
    # Squared: Σp² = 2·0.81 + 2·0.01.
    squared = dice_loss(logits, torch.tensor([[1, 0, 0, 0]]), squared=True)
    assert squared.item() == pytest.approx(1 - 1.8 / (1.64 + 1), abs=1e-6)


def test_classes_samples_and_averages_by_hand() -> None:
    # Two classes, certain predictions; sample 0 overlaps 1 of 2 voxels, sample 1 all 4.
    predicted = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    truth = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])
    logits = 200.0 * torch.stack([1 - predicted, predicted], 1)
    per_class = torch.tensor([[1 - 4 / 5, 1 - 2 / 3], [0.0, 0.0]])
    torch.testing.assert_close(dice_loss(logits, truth, reduction="none"), per_class, atol=1e-5, rtol=0)
    assert dice_loss(logits, truth).item() == pytest.approx(per_class.mean().item(), abs=1e-5)
    assert dice_loss(logits, truth, include_background=False).item() == pytest.approx(1 / 6, abs=1e-5)
    # Over the batch: foreground 2·5 / (6 + 5). Over the classes of sample 0: 2·3 / (4 + 4).
    over_batch = dice_loss(logits, truth, batch=True, include_background=False, reduction="none")
    torch.testing.assert_close(over_batch, torch.tensor([[1 - 10 / 11]]), atol=1e-5, rtol=0)
    over_classes = dice_loss(logits, truth, average="micro", reduction="none")
    torch.testing.assert_close(over_classes, torch.tensor([[1 / 4], [0.0]]), atol=1e-5, rtol=0)


def test_class_weights_are_relative() -> None:
    logits, truth = torch.randn(2, 3, 5, 7), torch.randint(3, (2, 5, 7))
    none = dice_loss(logits, truth, reduction="none")
    expected = (none * torch.tensor([1.0, 2.0, 5.0])).sum() / (2 * 8)
    for scale in (1.0, 10.0):
        weight = [scale * w for w in (1, 2, 5)]
        torch.testing.assert_close(dice_loss(logits, truth, weight=weight), expected)


def test_class_mask_leaves_classes_out() -> None:
    logits, truth = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
    none = dice_loss(logits, truth, reduction="none")
    class_mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    expected = none[class_mask.bool()].mean()
    torch.testing.assert_close(dice_loss(logits, truth, class_mask=class_mask), expected)
    # What is not labelled must not count in a sum over the batch either.
    half = torch.tensor([[1, 1, 1], [0, 0, 0]])
    torch.testing.assert_close(
        dice_loss(logits, truth, class_mask=half, batch=True), dice_loss(logits[:1], truth[:1], batch=True)
    )


@pytest.mark.parametrize("smooth", [0.0, 1e-6])
def test_empty_truth_and_empty_prediction_is_no_loss(smooth: float) -> None:
    for extreme in (-80.0, -200.0):
        logits = torch.full((1, 1, 6, 6), extreme, requires_grad=True)
        loss = dice_loss(logits, torch.zeros(1, 6, 6, dtype=torch.long), smooth_nr=smooth, smooth_dr=smooth)
        (gradient,) = torch.autograd.grad(loss, logits)
        if smooth or extreme == -200:  # at −80 a sum of 1e-35 is still no empty prediction without smoothing
            assert loss.item() == pytest.approx(0, abs=1e-6)
        assert gradient.isfinite().all()


def test_empty_skip_leaves_absent_classes_out_of_the_mean() -> None:
    logits, truth = torch.randn(1, 3, 8), torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0]])
    none = dice_loss(logits, truth, reduction="none")
    torch.testing.assert_close(dice_loss(logits, truth, empty="skip"), none[0, :2].mean())
    assert dice_loss(logits[:, :1], torch.zeros(1, 8, dtype=torch.long), empty="skip").item() == 0


def test_numerator_smoothing_may_not_pass_the_denominators() -> None:
    with pytest.raises(ValueError, match=r"expected `smooth_nr` to be at most `smooth_dr`, 0.0, got 1.0"):
        dice_loss(torch.zeros(1, 1, 4), torch.zeros(1, 4, dtype=torch.long), smooth_nr=1.0, smooth_dr=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": "weighted"}, "expected `average` to be one of 'macro', 'micro', got 'weighted'"),
        ({"empty": "nan"}, "expected `empty` to be one of 'score', 'skip', got 'nan'"),
        ({"smooth_nr": -1.0}, "expected `smooth_nr` to be at least 0, got -1.0"),
        ({"smooth_dr": float("nan")}, "expected `smooth_dr` to be at least 0, got nan"),
    ],
)
def test_bad_options_say_what_is_wrong(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        dice_loss(torch.zeros(1, 1, 4), torch.zeros(1, 4, dtype=torch.long), **options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_agrees_with_monai() -> None:
    monai = pytest.importorskip("monai.losses", exc_type=ImportError)
    logits, truth = torch.randn(2, 3, 7, 9, dtype=torch.float64), torch.randint(3, (2, 1, 7, 9))
    for background in (True, False):
        for squared in (True, False):
            for batch in (True, False):
                theirs = monai.DiceLoss(
                    include_background=background, to_onehot_y=True, softmax=True, squared_pred=squared, batch=batch
                )
                ours = DiceLoss(
                    include_background=background, squared=squared, batch=batch, smooth_nr=1e-5, smooth_dr=1e-5
                )
                torch.testing.assert_close(ours(logits, truth), theirs(logits, truth))
