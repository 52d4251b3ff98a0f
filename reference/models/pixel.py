"""The pixel branch's modules: from the features of uncertain points to features that know of one another."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head self-attention among the points of a sample, with 8 heads where `channels` has that divisor.

    Source: Vaswani et al., Attention is all you need, 2017.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = math.gcd(8, channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)

    def forward(self, points: Tensor) -> Tensor:
        """Return features (B, P, channels) of such features."""
        query, key, value = self.query_key_value(points).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.projection(attended.transpose(1, 2).flatten(2))
        return projected


class PointTransformer(nn.Module):
    """The non-local transformer and the shared MLP of the pixel branch.

    The points' features are widened to `channels`; self-attention and a pointwise MLP, four times as wide in between,
    follow, each with a residual connection and layer normalization; then the MLP shared by all points.

    Args:
        in_channels: channels of the points' features.
        channels: channels of the result.

    Note:
        Points are a set: nothing tells the attention where they lie but their features.

    Source: §3.3, which leaves the widths open; normalization after the sum as in Vaswani et al., 2017.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(in_channels, channels)
        self.attention = SelfAttention(channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.mlp_norm = nn.LayerNorm(channels)
        self.shared_mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU())

    def forward(self, points: Tensor) -> Tensor:
        """Return features (B, P, channels) of features (B, P, in_channels)."""
        points = self.embedding(points)
        points = self.attention_norm(points + self.attention(points))
        points = self.mlp_norm(points + self.mlp(points))
        features: Tensor = self.shared_mlp(points)
        return features


class SharedMLPs(nn.Sequential):
    """Four MLPs that each point passes by itself: what Table 9 compares the transformer with.

    Args:
        in_channels: channels of the points' features.
        channels: channels of the result, half of those in between.

    Source: Kirillov et al., PointRend, CVPR 2020. The paper gives no width; this one has about as many parameters as
        the transformer, as its Table 9 says.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        widths = [in_channels, 2 * channels, 2 * channels, 2 * channels, channels]
        layers = [(nn.Linear(before, after), nn.ReLU()) for before, after in pairwise(widths)]
        super().__init__(*(module for layer in layers for module in layer))
