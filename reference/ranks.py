"""Which device a process computes on, and which share of the cases is its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch

Accelerator = Literal["auto", "cpu", "cuda"]
T = TypeVar("T")


def choose_device(accelerator: Accelerator) -> torch.device:
    """Return the device of this process: of several GPUs the one that torchrun's LOCAL_RANK names.

    Raises:
        ValueError: there is no GPU for "cuda".
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a GPU that CUDA can use, found none")
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def own_share(items: Sequence[T], shard: str | None) -> list[T]:
    """Return every n-th of `items`, from the i-th.

    Args:
        items: in an order that all processes agree on.
        shard: "i/n", i from 0; None takes torchrun's RANK and WORLD_SIZE, or everything where it did not start us.

    Raises:
        ValueError: `shard` is something else.
    """
    if shard is None:
        shard = f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}"
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"expected `shard` to be i/n with i from 0 to n − 1, got {shard!r}")
    return list(items[int(match[1]) :: int(match[2])])
