import copy
import math

import pytest
import torch
from torch import nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.energy import measure_energy
from sdsnn_lightning.networks.spikescr import SIZES, SpikeSCR
from sdsnn_lightning.networks.spikescr_layers import THRESHOLD
from sdsnn_lightning.neurons import Leaky
from sdsnn_lightning.types import Network

SMALL = {"num_classes": 5, "in_channels": 12, "width": 16, "heads": 2, "kernel_size": 7}


def utterances(lengths, channels=12, seed=0):
    """Spike counts `[T, B, C]`, zero in the padding, and their mask `[T, B]`."""
    steps = max(lengths)
    mask = torch.arange(steps)[:, None] < torch.tensor(lengths)
    rates = torch.full((steps, len(lengths), channels), 0.7)
    return torch.poisson(rates, generator=torch.Generator().manual_seed(seed)) * mask[..., None], mask


def settled(seed=0, lengths=(30, 24, 30, 17), **options):
    """A float64 network whose neurons fire in evaluation: its norms know their statistics, its attention is awake."""
    torch.manual_seed(seed)
    network = SpikeSCR(**{**SMALL, **options}).double()
    for block in network.blocks:
        for part in (block.attention.query, block.attention.key, block.attention.value):
            part.norm.bias.data.fill_(0.7)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.momentum = 0.9
    frames, mask = utterances(lengths, network.in_channels)
    for _ in range(3):
        network(frames.double(), mask)
    return network.eval()


@pytest.mark.parametrize(
    ("classes", "options", "expected"),
    [
        (20, SIZES["shd"], 261_632),
        (35, {**SIZES["ssc"], "depth": 1}, 1_709_824),
        (35, SIZES["ssc"], 3_302_400),
    ],
)
@pytest.mark.parametrize("neuron", ["leaky", "relu"])
def test_sizes_are_the_papers(classes, options, expected, neuron):
    network = SpikeSCR(classes, **options, neuron=neuron)
    assert sum(p.numel() for p in network.parameters()) == expected
    assert all(p.requires_grad for p in network.parameters())


def test_it_follows_the_network_contract():
    network = SpikeSCR(**SMALL)
    assert isinstance(network, Network)
    assert network.inputs == ("spikes", "mask")
    audio = SpikeSCR(**SMALL, modality="audio", masked=False)
    assert audio.inputs == ("audio",)
    out = audio(torch.randn(9, 3, 12))
    assert out.logits.shape == (9, 3, 5)
    assert list(out.features) == ["embed", "block1"]
    assert audio.readout(out.logits).shape == (3, 5)
    assert audio.readout(out.logits).sum(-1).tolist() == pytest.approx([9.0] * 3, rel=1e-5)  # T votes
    silent = network(torch.zeros(9, 1, 12), torch.zeros(9, 1))  # as the Distiller looks at shapes: a float mask
    assert not silent.logits.any()


def test_weights_start_xavier_uniform():
    torch.manual_seed(0)
    network = SpikeSCR(20)
    block = network.blocks[0]
    for weight, fans in (
        (network.embed.layer.conv.weight, 3 * 140 + 3 * 128),
        (block.attention.query.layer.weight, 256),
        (block.gated_conv.split.weight, 128 + 256),
        (block.gated_conv.spread.layer.conv.weight, 31 + 31 * 128),
    ):
        bound = math.sqrt(6 / fans)
        assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize("depth", [1, 2])
def test_the_residual_holds_integers_up_to_one_and_four_a_block(depth):
    network = settled(depth=depth, lengths=(60, 50, 60, 40))
    seen = []
    for block in network.blocks:
        for part in (block.attention.query, block.feedforward1, block.gated_conv, block.feedforward2):
            part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    frames, mask = utterances((60, 50, 60, 40), seed=3)
    out = network(frames.double(), mask)
    seen.append(out.features[f"block{depth}"])
    assert len(seen) == 4 * depth + 1
    for most, h in enumerate(seen, start=1):  # a branch more before each
        assert torch.equal(h, h.round())
        assert h.min() == 0
        assert 1 <= h.max() <= most
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.bias.data.fill_(10.0)  # every neuron always fires
    assert network(frames.double(), mask).features[f"block{depth}"].max() == 1 + 4 * depth


def reference(network, frames, mask):
    """SpikeSCR in evaluation, layer by layer and frame by frame; logits `[T, B, K]`."""
    w = network.state_dict()

    def neuron(current):
        v, spikes = torch.zeros_like(current[0]), []
        for x in current:
            v = 0.5 * v + x
            s = (v > THRESHOLD).to(x.dtype)  # `v >= 1` of float32
            v = (1 - s) * v
            spikes.append(s)
        return torch.stack(spikes)

    def norm(name, x):
        x = (x - w[f"{name}.running_mean"]) / (w[f"{name}.running_var"] + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(name, x):
        x = x @ w[f"{name}.weight"].T
        return x + w[f"{name}.bias"] if f"{name}.bias" in w else x

    def unit(name, x):
        return neuron(norm(f"{name}.norm", linear(f"{name}.layer", x)))

    def over_time(weight, x, groups):
        return nn.functional.conv1d(x.permute(1, 2, 0), weight, padding=weight.shape[-1] // 2, groups=groups).permute(
            2, 0, 1
        )

    real = mask[..., None].to(frames.dtype)
    steps, batch, _ = frames.shape
    x = over_time(w["embed.layer.conv.weight"].squeeze(-1), frames, 1) + w["embed.layer.conv.bias"]
    h = neuron(norm("embed.norm", x))
    heads, size = 2, h.shape[-1] // 2
    for i in range(len(network.blocks)):
        name = f"blocks.{i}.attention"
        q, k, v = (unit(f"{name}.{part}", h).view(steps, batch, heads, size) for part in ("query", "key", "value"))
        turned = []
        for x in (q, k):
            y = torch.empty_like(x)
            for t in range(steps):
                for pair in range(size // 2):
                    angle = t * network.frequencies[pair].item()
                    a, b = x[t, ..., 2 * pair], x[t, ..., 2 * pair + 1]
                    y[t, ..., 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                    y[t, ..., 2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)
            turned.append(neuron(y))
        scores = torch.einsum("tbhd,sbhd->bhts", *turned) * mask.T[:, None, None, :]  # columns are keys
        mixed = neuron(torch.einsum("bhts,sbhd->tbhd", scores, v) / math.sqrt(size))
        h = h + unit(f"{name}.project", mixed.flatten(2))
        h = h + unit(f"blocks.{i}.feedforward1.1", unit(f"blocks.{i}.feedforward1.0", h))
        name = f"blocks.{i}.gated_conv"
        x = unit(f"{name}.enter", h) * real
        x = over_time(w[f"{name}.spread.layer.conv.weight"].squeeze(-1), x, h.shape[-1])
        x = neuron(norm(f"{name}.spread.norm", x))
        value, gate = norm(f"{name}.split_norm", linear(f"{name}.split", x)).chunk(2, -1)
        h = h + neuron(value * unit(f"{name}.gate", neuron(gate)))
        h = h + unit(f"blocks.{i}.feedforward2.1", unit(f"blocks.{i}.feedforward2.0", h))
    return linear("head", h) * real


@pytest.mark.parametrize("options", [{}, {"depth": 2, "mlp_ratio": 2}, {"width": 32, "heads": 2}])
def test_it_equals_a_plain_loop_over_frames(options):
    network = settled(**options)
    frames, mask = utterances((30, 21, 30, 12), seed=5)
    rates = []
    network.blocks[-1].attention.mixed.register_forward_hook(lambda _, args, spikes: rates.append(spikes.mean().item()))
    with torch.no_grad():
        logits = network(frames.double(), mask).logits
        torch.testing.assert_close(logits, reference(network, frames.double(), mask), rtol=1e-9, atol=1e-9)
    assert logits.std() > 0.3
    assert 0.1 < rates[0] < 0.9  # the attention has a say


def test_a_sample_does_not_depend_on_its_batch_nor_on_its_padding():
    network = settled()
    lengths = (30, 24, 9, 17)
    frames, mask = utterances(lengths, seed=7)
    frames = frames.double()
    with torch.no_grad():
        together = network(frames, mask).logits
        turned = network(frames.flip(1), mask.flip(1)).logits.flip(1)
        noisy = network(torch.where(mask[..., None], frames, 9.0), mask).logits  # rubbish in the padding
        for i, length in enumerate(lengths):
            alone = network(frames[:length, i : i + 1], mask[:length, i : i + 1]).logits[:, 0]
            for other in (together, turned, noisy):
                torch.testing.assert_close(other[:length, i], alone, rtol=0, atol=1e-12)
                assert not other[length:, i].any()
            # What a softmax over classes makes of the read-out is the same too.
            scores = network.readout(together)[i].log_softmax(-1)
            torch.testing.assert_close(scores, network.readout(alone[:, None])[0].log_softmax(-1), rtol=0, atol=1e-12)


def test_the_mean_readout_leaves_padding_out():
    network = settled(readout="mean")
    frames, mask = utterances((30, 24), seed=7)
    with torch.no_grad():
        both = network.readout(network(frames.double(), mask).logits)
        alone = network.readout(network(frames.double()[:24, 1:], mask[:24, 1:]).logits)
    torch.testing.assert_close(both[1:], alone)
    logits = torch.tensor([[[0.0, math.log(3)]], [[math.log(3), 0.0]], [[0.0, math.log(3)]], [[0.0, 0.0]]])
    assert network.readout(logits)[0].tolist() == pytest.approx([(0.25 + 0.75 + 0.25) / 3, (0.75 + 0.25 + 0.75) / 3])
    plain = SpikeSCR(**SMALL, readout="mean", mask_padding=False)
    assert plain.readout(logits)[0].tolist() == pytest.approx([1.75 / 4, 2.25 / 4])


def test_without_masked_padding_it_leaks_as_in_the_papers_code():
    network = settled(mask_padding=False, kernel_size=31)
    frames, mask = utterances((30, 20), seed=7)
    with torch.no_grad():
        padded = network(frames.double(), mask).logits[:20, 1]
        alone = network(frames.double()[:20, 1:], mask[:20, 1:]).logits[:, 0]
    assert (padded - alone).abs().max() > 0.1


def test_the_official_layout_depends_on_the_batch():
    scrambled = settled(official_layout=True)
    straight = SpikeSCR(**SMALL).double().eval()
    straight.load_state_dict(scrambled.state_dict())
    frames, mask = utterances((30, 30, 30), seed=7)  # no padding: the layout alone
    frames = frames.double()
    with torch.no_grad():
        for network, dependent in ((scrambled, True), (straight, False)):
            together, turned = (
                network(frames, mask).logits,
                network(frames.flip(1), mask).logits.flip(1),
            )
            assert ((together - turned).abs().max() > 0.1) == dependent
        assert (scrambled(frames[:, :1]).logits - straight(frames[:, :1]).logits).abs().max() > 0.1


def test_both_orders_of_the_attention_give_the_same_spikes_and_gradients():
    torch.manual_seed(0)
    first = SpikeSCR(**SMALL, dropout=0.0, attention_order="scores").double()
    second = SpikeSCR(**SMALL, dropout=0.0, attention_order="context").double()
    second.load_state_dict(first.state_dict())
    frames, mask = utterances((50, 40, 50))
    outs = [network(frames.double(), mask) for network in (first, second)]
    assert torch.equal(outs[0].features["block1"], outs[1].features["block1"])
    for network, out in zip((first, second), outs, strict=True):
        network.readout(out.logits)[:, 0].sum().backward()
    for (name, p), q in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("neuron", ["leaky", "relu"])
def test_every_parameter_learns(neuron):
    torch.manual_seed(0)
    network = SpikeSCR(**SMALL, depth=2, neuron=neuron)
    frames, mask = utterances((30, 24, 30, 17))
    assert any(isinstance(module, Leaky) for module in network.modules()) == (neuron == "leaky")
    nn.functional.cross_entropy(network.readout(network(frames, mask).logits), torch.arange(4)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_it_learns_when_a_channel_is_loud():
    torch.manual_seed(0)
    network = SpikeSCR(**{**SMALL, "width": 32}, dropout=0.0)
    target = torch.arange(32) % 4
    frames, mask = utterances([20] * 32)
    for sample, word in enumerate(target.tolist()):  # two groups of channels, early or late
        frames[3 + 8 * (word % 2) : 8 + 8 * (word % 2), sample, 2:5] += 2
        frames[3 + 8 * (word // 2) : 8 + 8 * (word // 2), sample, 8:11] += 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(network.readout(network(frames, mask).logits), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.4  # from above 1.4


def test_state_dicts_go_around():
    network = settled()
    other = SpikeSCR(**SMALL).double().eval()
    frames, mask = utterances((12, 9))
    assert not torch.equal(other(frames.double(), mask).logits, network(frames.double(), mask).logits)
    other.load_state_dict(copy.deepcopy(network.state_dict()))
    assert torch.equal(other(frames.double(), mask).logits, network(frames.double(), mask).logits)
    assert "frequencies" not in network.state_dict()


def test_the_energy_meter_counts_every_product():
    steps = 25
    network = settled(num_classes=20, in_channels=140, width=128, heads=8, kernel_size=31).float()
    frames, mask = utterances((steps, steps), channels=140)
    report = measure_energy(network, (frames, mask))
    products = {row.name: row.macs for row in report.rows if row.op == "matmul"}
    assert list(products.values()) == [steps**2 * 128] * 2  # q k^T and A v
    assert all(name.startswith("blocks.0.attention") for name in products)
    # Per step: 420 D + 4 D^2 + 4 r D^2 + D^2 + 31 D + 2 D^2 + D^2 + D C, with D = 128, r = 1, C = 20.
    by_hand = 420 * 128 + 12 * 128**2 + 31 * 128 + 128 * 20
    assert by_hand == 256_896
    assert report.totals["dense_macs"] == steps * by_hand + 2 * steps**2 * 128
    kinds = {row.name: row.kind for row in report.rows}
    assert kinds["blocks.0.feedforward1.0.layer"] == "integer"  # the residual
    assert kinds["blocks.0.gated_conv.gate.layer"] == "binary"


def test_bad_arguments_are_told_in_one_line():
    for options, key in (
        ({"width": 20, "heads": 4}, "width"),
        ({"depth": 0}, "depth"),
        ({"kernel_size": 30}, "kernel_size"),
        ({"tau": 1.0}, "tau"),
        ({"dropout": 1.0}, "dropout"),
    ):
        with pytest.raises(ConfigError, match=rf"SpikeSCR\.{key} is") as error:
            SpikeSCR(5, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"in_channels is 12, but the data has 700"):
        SpikeSCR(**SMALL)(torch.zeros(3, 1, 700))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_throughout_is_refused(dtype):
    with pytest.raises(ConfigError, match=r"do not fit torch.*; set trainer.precision to bf16-mixed"):
        SpikeSCR(**SMALL).to(dtype)(torch.zeros(3, 1, 12, dtype=dtype))


def test_a_step_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="future frames"):
        SpikeSCR(**SMALL).step(torch.zeros(1, 12))
