from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference.models.crop import (
    BACKGROUND_LOGIT,
    MARGIN,
    MIN_SIDE,
    Box,
    Margins,
    bounding_box,
    crop,
    image_coords,
    inside,
    jittered_margins,
    uncrop,
)


def test_box_of_the_union_over_slices() -> None:
    mask = torch.zeros(3, 100, 120, dtype=torch.bool)
    mask[0, 40, 50] = True
    mask[2, 45:49, 60:70] = True
    assert bounding_box(mask, Margins(0, 0, 0, 0)) == Box(40, 49, 50, 70)
    assert bounding_box(mask) == Box(20, 69, 30, 90)
    assert bounding_box(mask, Margins(1, 2, 3, 4)) == Box(39, 51, 47, 74)


def test_box_is_clipped_to_the_image() -> None:
    mask = torch.zeros(1, 3, 30, 41, dtype=torch.bool)
    mask[..., 2, 40] = True
    assert bounding_box(mask) == Box(0, 23, 20, 41)


def test_empty_mask_has_no_box() -> None:
    assert bounding_box(torch.zeros(3, 8, 8, dtype=torch.bool)) is None


@pytest.mark.parametrize("position", [0, 13, 29])
def test_box_sides_have_a_minimum(position: int) -> None:
    mask = torch.zeros(3, 30, 5, dtype=torch.bool)
    mask[0, position, 2] = True
    box = bounding_box(mask, Margins(0, 0, 0, 0))
    assert box is not None
    assert box.size == (MIN_SIDE, 5)
    assert box.top <= position < box.bottom


def test_coordinates_of_a_crop_in_the_image() -> None:
    """A crop of 4×10 pixels at row 6, column 20 of 16×40: its corners move in to the centres of its corner pixels."""
    coords = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [0.25, 0.75], [1.0, 1.0]]])
    expected = torch.tensor([[[20.5 / 40, 6.5 / 16], [25 / 40, 8 / 16], [22.5 / 40, 9 / 16], [29.5 / 40, 9.5 / 16]]])
    torch.testing.assert_close(image_coords(coords, Box(6, 10, 20, 30), (16, 40)), expected)


def test_inside_is_zero_outside() -> None:
    expected = torch.zeros(2, 5, 6)
    expected[:, 1:4, 2:3] = 7
    assert inside(torch.full((2, 5, 6), 7.0), Box(1, 4, 2, 3)).equal(expected)


def test_background_logit_fits_half_precision() -> None:
    logit = torch.tensor(BACKGROUND_LOGIT)
    assert logit.half().float() == logit == logit.bfloat16().float()
    assert logit.sigmoid() < 1e-12


def test_jitter_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [jittered_margins(generator) for _ in range(2000)]
    fixed = sum(margins == Margins(MARGIN, MARGIN, MARGIN, MARGIN) for margins in draws)
    assert 900 < fixed < 1100
    sides = Counter(side for margins in draws for side in margins if margins != Margins())
    assert set(sides) == set(range(2 * MARGIN + 1))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int], Box]:
    height, width = draw(st.integers(1, 23)), draw(st.integers(1, 23))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return (height, width), Box(top, draw(st.integers(top + 1, height)), left, draw(st.integers(left + 1, width)))


@given(boxes())
def test_uncrop_undoes_crop(sized: tuple[tuple[int, int], Box]) -> None:
    size, box = sized
    image = torch.arange(float(2 * size[0] * size[1])).view(2, *size)
    part = crop(image, box)
    assert part.shape[1:] == box.size
    field = uncrop(part, box, size, fill=-1.0)
    assert torch.equal(crop(field, box), part)
    assert int((field == -1).sum()) == 2 * (size[0] * size[1] - box.size[0] * box.size[1])


@given(boxes(), st.tuples(*[st.integers(0, 6)] * 4))
def test_box_holds_the_mask_and_its_margins(sized: tuple[tuple[int, int], Box], sides: tuple[int, ...]) -> None:
    (height, width), inner = sized
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[inner.top : inner.bottom, inner.left : inner.right] = True
    box = bounding_box(mask, Margins(*sides))
    assert box is not None
    assert 0 <= box.top <= max(inner.top - sides[0], 0)
    assert height >= box.bottom >= min(inner.bottom + sides[1], height)
    assert 0 <= box.left <= max(inner.left - sides[2], 0)
    assert width >= box.right >= min(inner.right + sides[3], width)
    assert box.size[0] >= min(MIN_SIDE, height)
    assert box.size[1] >= min(MIN_SIDE, width)
