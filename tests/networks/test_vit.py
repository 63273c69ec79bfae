import pytest
import torch
from network_checks import check_network, parameters

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.vit import ViT


def test_sizes():
    # timm lists these for vit_tiny_patch16_224 and vit_small_patch16_224.
    assert parameters(ViT(1000, 3, size=224, dim=192, depth=12, heads=3)) == 5_717_416
    assert parameters(ViT(1000, 3, size=224, dim=384, depth=12, heads=6)) == 22_050_664
    dim = 192
    block = 4 * dim + 3 * dim * (dim + 1) + dim * (dim + 1) + 4 * dim * (dim + 1) + dim * (4 * dim + 1)
    by_hand = 2 * 256 * dim + dim + dim + 65 * dim + 6 * block + 2 * dim + 10 * (dim + 1)
    assert parameters(ViT(10)) == by_hand == 2_782_666


@pytest.mark.parametrize("frames", ["each", "mean"])
def test_contract(frames):
    torch.manual_seed(0)
    network = ViT(5, size=16, patch=4, dim=24, depth=2, frames=frames)
    clip = torch.randn(3, 2, 2, 16, 16)
    output = check_network(network, clip, 5, spiking=False, timed=frames == "each")
    leading = (3, 2) if frames == "each" else (2,)
    assert list(output.features) == ["block1", "block2", "pooled"]
    assert output.features["block1"].shape == (*leading, 24, 4, 4)
    assert output.features["pooled"].shape == (*leading, 24)
    assert torch.allclose(network.head(output.features["pooled"]), output.logits)
    if frames == "mean":
        assert torch.allclose(network(clip).logits, network(clip.mean(0, keepdim=True)).logits)


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours = ViT(3, size=8, patch=4, dim=12).blocks[0].attn
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    x = torch.randn(2, 5, 12)
    assert torch.allclose(ours(x), theirs(x, x, x)[0], atol=1e-6)


def test_names_are_those_of_timm():
    names = set(ViT(3).state_dict())
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm.bias", "head.weight"} <= names
    assert {f"blocks.5.{n}.weight" for n in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")} <= names


def test_a_tokens_place_in_the_map():
    network = ViT(3, size=16, patch=4, dim=12, depth=1).eval()
    torch.nn.init.zeros_(network.blocks[0].attn.proj.weight)  # tokens do not mix
    clip = torch.zeros(1, 1, 2, 16, 16)
    changed = clip.clone()
    changed[..., 4:8, 12:16] = 1
    difference = (network(changed).features["block1"] - network(clip).features["block1"])[0, 0].abs().sum(0)
    assert difference.nonzero().tolist() == [[1, 3]]


def test_width_and_wrong_arguments():
    assert ViT(3, width=0.5).head.in_features == 96
    with pytest.raises(ConfigError, match="size is 30; it must be a multiple of patch: 16"):
        ViT(3, size=30)
    with pytest.raises(ConfigError, match="dim is 100; it must be a multiple of heads: 3"):
        ViT(3, dim=100)
    with pytest.raises(ConfigError, match=r"ViT.size is 32 and the frames have \[16, 16\]"):
        ViT(3, size=32)(torch.zeros(1, 1, 2, 16, 16))
