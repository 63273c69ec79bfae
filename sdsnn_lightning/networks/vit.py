"""A small vision transformer without spikes, for teachers (Dosovitskiy et al., ICLR 2021)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.blocks import PerStep
from sdsnn_lightning.networks.resnet import untimed
from sdsnn_lightning.types import Output


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        """Creates the layer.

        Args:
            dim: Channels.
            heads: Heads; a divisor of `dim`.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens `[N, L, D]` to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [N, heads, L, D / heads]
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and added to what comes in."""

    def __init__(self, dim: int, heads: int, ratio: float) -> None:
        """Creates the block.

        Args:
            dim: Channels.
            heads: Heads of the attention.
            ratio: Hidden channels of the perceptron per channel.
        """
        super().__init__()
        hidden = int(dim * ratio)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens `[N, L, D]` to the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class ViT(PerStep):
    """A vision transformer, one image at a time: no exchange between time steps.

    Parameters are named as in timm, so that a state dict of its `VisionTransformer` loads where sizes agree:
    `ViT(1000, 3, size=224, patch=16, dim=384, depth=12, heads=6)` is ViT-S/16 (22,050,664 parameters), BKDSNN's teacher
    on CIFAR. The default is ours, small enough to train on event frames: 2,782,666 parameters at 10 classes.

    Features: `block1` .. (maps of the patches' tokens `[T, B, D, H / patch, W / patch]`) and `pooled` (the class token
    behind the last norm, which the classifier sees, `[T, B, D]`); with `frames="mean"` all of them without T.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 2,
        size: int = 128,
        patch: int = 16,
        dim: int = 192,
        depth: int = 6,
        heads: int = 3,
        ratio: float = 4.0,
        width: float = 1.0,
        frames: Literal["each", "mean"] = "each",
        modality: str = "events",
    ) -> None:
        """Creates the network.

        Args:
            num_classes: Number of classes K.
            channels: Channels of an image; 2 for events.
            size: Side of the square images in pixels, a multiple of the patch.
            patch: Side of a patch in pixels.
            dim: Channels of the tokens at width 1.
            depth: Blocks.
            heads: Heads of the attention.
            ratio: Hidden channels of the perceptrons per channel.
            width: Multiplies `dim`, down to a multiple of the heads.
            frames: Whether it classifies each frame, or their mean over time.
            modality: Name of the input.

        Raises:
            ConfigError: If the size is no multiple of the patch, or dim none of the heads.
        """
        super().__init__(modality)
        if size % patch:
            raise ConfigError(f"size is {size}; it must be a multiple of patch: {patch}")
        if dim % heads:
            raise ConfigError(f"dim is {dim}; it must be a multiple of heads: {heads}")
        dim = max(1, int(dim * width) // heads) * heads
        self.frames, self.size = frames, size
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        for name, parameter in self.named_parameters():
            if name in ("pos_embed", "cls_token") or (parameter.ndim == 2 and name.endswith("weight")):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, events: Tensor) -> Output:
        """Classifies every frame by itself, or the mean of all.

        Args:
            events: Images or event frames `[T, B, C, S, S]`.

        Returns:
            Logits `[T, B, K]` and the features; without T for the mean.

        Raises:
            ConfigError: If the frames are of another size.
        """
        if events.shape[-2:] != (self.size, self.size):
            raise ConfigError(
                f"ViT.size is {self.size} and the frames have {list(events.shape[-2:])}; set it to theirs"
            )
        if self.frames == "mean":
            events = events.mean(0, keepdim=True)
        leading = events.shape[:2]
        grid = self.patch_embed["proj"](events.flatten(0, 1))  # [T*B, D, h, w]
        tokens = torch.cat([self.cls_token.expand(len(grid), -1, -1), grid.flatten(2).transpose(1, 2)], 1)
        x = tokens + self.pos_embed
        features = {}
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            features[f"block{i}"] = x[:, 1:].transpose(1, 2).unflatten(2, grid.shape[2:]).unflatten(0, leading)
        features["pooled"] = self.norm(x)[:, 0].unflatten(0, leading)
        output = Output(self.head(features["pooled"]), features)
        return untimed(output) if self.frames == "mean" else output
