import pytest
import torch
from network_checks import check_network, parameters

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.blocks import neuron_maker
from sdsnn_lightning.networks.spikingformer import SpikingAttention, Spikingformer


@pytest.mark.parametrize(
    ("logged", "classes", "options"),
    [  # what the authors' training logs print, arguments of their configurations
        (2_568_714, 10, dict()),
        (9_326_266, 10, dict(channels=3, patch=4, dim=384, depth=4, heads=12, beta=0.5)),
        (9_360_916, 100, dict(channels=3, patch=4, dim=384, depth=4, heads=12, beta=0.5)),
        (16_828_312, 1000, dict(channels=3, dim=384, depth=8, heads=8, beta=0.5)),
    ],
)
def test_sizes_of_the_authors_logs(logged, classes, options):
    network = Spikingformer(classes, **options)
    unused = 4 * options.get("dim", 256) * options.get("depth", 2)  # two layer norms a block that never run
    assert parameters(network) == logged - unused


@pytest.mark.parametrize("downsampling", ["cml", "spikes"])
@pytest.mark.parametrize("neuron", ["lif", "plif", "leaky"])
def test_contract(downsampling, neuron):
    torch.manual_seed(0)
    network = Spikingformer(5, dim=32, heads=4, patch=4, downsampling=downsampling, neuron=neuron)
    output = check_network(network, torch.randn(3, 2, 2, 16, 16) * 2, 5)
    assert list(output.features) == ["embed", "block1", "block2", "pooled"]
    assert output.features["block2"].shape == (3, 2, 32, 4, 4)
    assert output.features["pooled"].shape == (3, 2, 32)
    mean = network.head(output.features["pooled"].mean(0))
    assert torch.allclose(network.readout(output.logits), mean, atol=1e-6)


@pytest.mark.parametrize("downsampling", ["cml", "spikes"])
@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_patches(patch, downsampling):
    network = Spikingformer(3, dim=16, heads=2, depth=1, patch=patch, downsampling=downsampling)
    assert network(torch.randn(1, 2, 2, 32, 32)).features["embed"].shape[-2:] == (32 // patch, 32 // patch)


def test_pooling_places():
    cml = [not isinstance(layer.after, torch.nn.Identity) for layer in Spikingformer(3, patch=4).embed]
    assert cml == [False, False, True, True, False]  # as in the authors' CIFAR code
    first = Spikingformer(3, downsampling="spikes").embed
    assert [not isinstance(layer.before, torch.nn.Identity) for layer in first] == [False, True, True, True, True]


@pytest.mark.parametrize("side", [1, 2, 5])
def test_attention_by_hand_in_both_orders(side):
    torch.manual_seed(0)
    layer = SpikingAttention(8, 2, neuron_maker("lif", 0.5)).eval()
    for name in ("q", "k", "v"):
        torch.nn.init.normal_(layer.get_submodule(f"{name}_conv").weight, std=2)
    kept = {}
    for name in ("q_lif", "k_lif", "v_lif", "attn_lif"):
        layer.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: kept.update({name: (i[0], o)}))
    out = layer(torch.rand(2, 1, 8, side, side) * 6)
    assert out.shape == (2, 1, 8, side, side)
    q, k, v = (kept[f"{name}_lif"][1] for name in "qkv")  # [T, B, C, N]
    assert 0 < torch.stack([q, k, v]).mean() < 1
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        scores = torch.einsum("tbcn,tbcm->tbnm", q[:, :, rows], k[:, :, rows])
        expected = 0.125 * torch.einsum("tbnm,tbcm->tbcn", scores, v[:, :, rows])
        assert torch.equal(kept["attn_lif"][0][:, :, rows], expected)


def test_attention_neuron_fires_at_its_threshold():
    neuron = SpikingAttention(8, 2, neuron_maker("lif", 0.5)).attn_lif
    assert neuron(torch.full((1, 1, 1), 1.0)).item() == 1  # 8 coincidences: 8 * 0.125 / tau = 0.5
    assert neuron(torch.full((1, 1, 1), 0.875)).item() == 0


def test_official_weights_fit():
    """Names as in the authors' code; their count is checked against their log."""
    dim, state = 256, {}

    def norm(name, size):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{leaf}"] = torch.rand(size)
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    sizes = (2, 32, 64, 128, 256, 256)
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        name = f"patch_embed.proj{i or ''}"
        state[f"{name}_conv.weight"] = torch.randn(fan_out, fan_in, 3, 3)
        norm(f"{name}_bn", fan_out)
    for block in ("block.0", "block.1"):
        for name in ("norm1", "norm2"):
            state |= {f"{block}.{name}.weight": torch.ones(dim), f"{block}.{name}.bias": torch.zeros(dim)}
        for name in ("q", "k", "v", "proj"):
            state[f"{block}.attn.{name}_conv.weight"] = torch.randn(dim, dim, 1)
            norm(f"{block}.attn.{name}_bn", dim)
        state[f"{block}.attn.proj_conv.bias"] = torch.randn(dim)
        for name, fan_in, fan_out in (("mlp1", dim, 4 * dim), ("mlp2", 4 * dim, dim)):
            state[f"{block}.mlp.{name}_conv.weight"] = torch.randn(fan_out, fan_in, 1, 1)
            state[f"{block}.mlp.{name}_conv.bias"] = torch.randn(fan_out)
            norm(f"{block}.mlp.{name}_bn", fan_out)
    state |= {"head.weight": torch.randn(10, dim), "head.bias": torch.randn(10)}
    assert sum(v.numel() for k, v in state.items() if k.endswith(("weight", "bias"))) == 2_568_714
    network = Spikingformer(10)
    network.load_official({f"module.{k}": v for k, v in state.items()})
    assert torch.equal(network.embed[3].conv.weight, state["patch_embed.proj3_conv.weight"])
    assert torch.equal(network.blocks[1].mlp2.bn.running_var, state["block.1.mlp.mlp2_bn.running_var"])
    assert torch.equal(network.blocks[0].attn.proj_conv.bias, state["block.0.attn.proj_conv.bias"])
    del state["block.0.attn.q_conv.weight"]
    with pytest.raises(RuntimeError, match=r"blocks\.0\.attn\.q_conv\.weight"):
        network.load_official(state)


def test_width_and_wrong_arguments():
    assert Spikingformer(3, width=0.3).head.in_features == 80  # 76.8 to the next multiple of 16
    with pytest.raises(ConfigError, match="dim is 250; 16 heads and the tokenizer need a multiple of 16"):
        Spikingformer(3, dim=250)
    with pytest.raises(ConfigError, match="patch is 5"):
        Spikingformer(3, patch=5)
