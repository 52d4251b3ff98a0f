import pytest

from multilevel_loss.schedules import LinearRamp, StepAt


def test_ramp_up_and_down() -> None:
    up = LinearRamp(0, 1, step=0.2)
    assert [up(epoch) for epoch in range(8)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    down = LinearRamp(1, 0.5, step=0.3)
    assert [down(epoch) for epoch in range(4)] == pytest.approx([1, 0.7, 0.5, 0.5])


def test_step() -> None:
    step = StepAt(2, before=0.1, after=0.9)
    assert [step(epoch) for epoch in range(4)] == [0.1, 0.1, 0.9, 0.9]


def test_bad_step_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"expected `step` to be greater than 0, got 0"):
        LinearRamp(0, 1, step=0)
