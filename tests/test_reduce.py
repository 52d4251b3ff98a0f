import pytest
import torch

from multilevel_loss._reduce import class_weights, reduce


def test_reductions_of_a_weighted_loss() -> None:
    loss, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 3.0]])
    assert reduce(loss, weight, "none").tolist() == [[1.0, 6.0], [3.0, 12.0]]
    assert reduce(loss, weight, "sum").item() == 22.0
    assert reduce(loss, weight, "mean").item() == 22.0 / 8.0
    assert reduce(loss, None, "mean").item() == 2.5


def test_a_weight_may_be_learned() -> None:
    loss, weight = torch.rand(2, 3, dtype=torch.float64), torch.rand(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: reduce(loss, w, "mean"), weight)


def test_mean_without_weight_is_zero_with_zero_gradient() -> None:
    loss = torch.ones(2, 3, requires_grad=True)
    mean = reduce(loss, torch.zeros(2, 3), "mean")
    mean.backward()
    assert mean.item() == 0
    assert loss.grad is not None
    assert loss.grad.tolist() == [[0.0] * 3] * 2


def test_mean_of_an_empty_batch_is_zero() -> None:
    assert reduce(torch.zeros(0, 3), None, "mean").item() == 0
    assert reduce(torch.zeros(0, 3), torch.ones(1, 3), "mean").item() == 0


def test_class_weights_combine_and_drop_the_background() -> None:
    like = torch.zeros(2, 3, 4)
    class_mask = torch.tensor([[1, 1, 0], [1, 0, 1]])
    assert class_weights(None, None, like) is None
    combined = class_weights([1, 2, 3], class_mask, like, first_class=1)
    assert combined is not None
    assert combined.tolist() == [[2.0, 0.0], [0.0, 3.0]]


@pytest.mark.parametrize(
    ("weight", "class_mask", "message"),
    [
        ([1.0, 2.0], None,
         "expected `weight` to have one value a class, background included, shape (3,), got shape (2,)"),
        (None, torch.ones(3, 2), "expected `class_mask` to have shape (B, C) = (2, 3), got (3, 2)"),
        ([1.0, -1.0, 1.0], None, "expected `weight` to hold values of at least 0, got [1.0, -1.0, 1.0]"),
    ],
)  # fmt: skip
def test_bad_weights_say_what_is_wrong(weight: object, class_mask: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        class_weights(weight, class_mask, torch.zeros(2, 3, 4))  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_unknown_reduction() -> None:
    with pytest.raises(ValueError, match=r"expected `reduction` to be one of 'mean', 'sum', 'none', got 'average'"):
        reduce(torch.zeros(1), None, "average")  # type: ignore[arg-type]
