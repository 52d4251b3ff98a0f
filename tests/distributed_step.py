"""One step of distributed training, run by torchrun: each process takes its share of the batch in the file given."""

import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from multilevel_loss import DiceLoss, MLLoss, uncertain_points


def main() -> None:
    given = torch.load(sys.argv[1])
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    network = nn.Conv2d(1, 3, 3, padding=1)
    network.load_state_dict(given["network"])
    parallel = DistributedDataParallel(network)
    image, target, coords = (given[name].chunk(world)[rank] for name in ("image", "target", "point_coords"))

    logits = parallel(image)
    loss = MLLoss(region=DiceLoss(batch=True, sync=True))(logits, target, point_coords=coords)
    loss.backward()
    points = uncertain_points(logits, 8, generator=torch.Generator().manual_seed(rank))
    torch.save(
        {"loss": loss.detach(), "weight": network.weight.grad, "bias": network.bias.grad, "points": points},
        f"{sys.argv[1]}.{rank}",
    )
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
