"""Training in several processes, started by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from multilevel_loss import DiceLoss, MLLoss
from multilevel_loss.functional import dice_loss

SCRIPT = Path(__file__).with_name("distributed_step.py")


def step(folder: Path, processes: int, given: dict[str, object]) -> list[dict[str, torch.Tensor]]:
    """Return what each process says of one step."""
    path = folder / "given.pt"
    torch.save(given, path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    result = subprocess.run(
        [*command, str(SCRIPT), str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [torch.load(f"{path}.{rank}") for rank in range(processes)]


@pytest.mark.parametrize("processes", [1, 2])
def test_synchronized_processes_equal_one_with_the_whole_batch(tmp_path: Path, processes: int) -> None:
    network = nn.Conv2d(1, 3, 3, padding=1)
    image, target, coords = torch.randn(4, 1, 12, 10), torch.randint(3, (4, 12, 10)), torch.rand(4, 30, 2)
    given = {"network": network.state_dict(), "image": image, "target": target, "point_coords": coords}
    reports = step(tmp_path, processes, given)

    loss = MLLoss(region=DiceLoss(batch=True))(network(image), target, point_coords=coords)
    loss.backward()
    torch.testing.assert_close(torch.stack([report["loss"] for report in reports]).mean(), loss.detach())
    for report in reports:
        torch.testing.assert_close(report["weight"], network.weight.grad)
        torch.testing.assert_close(report["bias"], network.bias.grad)
    if processes == 2:
        assert not reports[0]["points"].equal(reports[1]["points"])


def test_without_processes_synchronizing_changes_nothing() -> None:
    logits, target = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
    plain = dice_loss(logits, target, batch=True)
    torch.testing.assert_close(dice_loss(logits, target, batch=True, sync=True), plain, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"expected `batch` to be True where `sync` is, got False"):
        dice_loss(logits, target, sync=True)
