import os
import subprocess
import sys

import pytest
import torch

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.official_spikescr import from_official, load_official
from sdsnn_lightning.networks.spikescr import SpikeSCR

OFFICIAL = os.environ.get("SDSNN_SPIKESCR")
"""The authors' checkout, and where rotary_embedding_torch and a SpikingJelly of mid-2024 are, joined as in PATH."""

THEIR_RUN = """
import sys, types, torch
# Importing the real one needs torchvision, and the model takes a name from it that it never uses.
sys.modules["spikingjelly.datasets"] = types.SimpleNamespace(padded_sequence_mask=None)
from spikingjelly.activation_based import functional, surrogate
from models.spikescr import SpikeDrivenTransformer

cases = []
for width, heads, depth, ratio, lengths in [(128, 8, 1, 1, (100, 71, 90)), (128, 8, 1, 1, (40,)),
                                            (256, 16, 2, 4, (40, 33, 21, 40))]:
    torch.manual_seed(len(cases))
    config = types.SimpleNamespace(
        n_inputs=140, n_hidden_neurons=width, n_outputs=20, num_heads=heads, depths=depth, hidden_dims=ratio * width,
        kernel_size=31, bias=True, use_dw_bias=False, use_bn=True, use_norm=False, use_dp=True, use_ln=False,
        dropout_l=0.0, dropout_p=0.0, spike_mode="lif", attn_mode="v2", init_tau=2.0, v_threshold=1.0,
        surrogate_function=surrogate.ATan(alpha=5.0), detach_reset=True, backend="torch")
    model = SpikeDrivenTransformer(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 0.9
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    x = torch.poisson(torch.full((*mask.shape, 140), 0.4)) * mask[..., None]
    for _ in range(2):
        trained = model(x, mask)
        functional.reset_net(model)
    model.zero_grad()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = model(x, mask)
    (trained.softmax(-1).sum(0)[:, 0]).sum().backward()
    functional.reset_net(model)
    gradient = model.spike_embed.conv.weight.grad
    model.load_state_dict(before)
    model.eval()
    with torch.no_grad():
        logits = model(x, mask)
    cases.append(dict(state=before, x=x, mask=mask, logits=logits, trained=trained.detach(), gradient=gradient))
torch.save(cases, sys.argv[1])
"""


def official_state(width=16, heads=2, depth=2, ratio=3, classes=5, channels=12, kernel=7):
    """Random weights under the authors' names and in their shapes."""
    state = {}

    def weights(name, *shape, bias=False):
        state[f"{name}.weight"] = torch.randn(shape)
        if bias:
            state[f"{name}.bias"] = torch.randn(shape[0])

    def norm(name, size):
        weights(name, size, bias=True)
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.randn(size), torch.rand(size) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    weights("spike_embed.conv", width, channels, 3, bias=True)
    norm("spike_embed.bn", width)
    for block in range(depth):
        name = f"blocks.{block}"
        for part in "q", "k", "v", "proj":
            weights(f"{name}.attn.{part}_conv", width, width, bias=True)
            norm(f"{name}.attn.{part}_bn", width)
        state[f"{name}.attn.rotary_emb.freqs"] = 10000 ** (-torch.arange(0, width // heads, 2) / (width // heads))
        for part in "mlp1", "mlp2":
            weights(f"{name}.{part}.fc1_conv", ratio * width, width)
            norm(f"{name}.{part}.fc1_bn", ratio * width)
            weights(f"{name}.{part}.fc2_conv", width, ratio * width)
            norm(f"{name}.{part}.fc2_bn", width)
        name += ".conformer_module"
        weights(f"{name}.pw1.conv", width, width, 1, bias=True)
        weights(f"{name}.dw.conv", width, 1, kernel)
        weights(f"{name}.pw2.conv", 2 * width, width, 1, bias=True)
        for index, size in enumerate((width, width, 2 * width), start=1):
            norm(f"{name}.bn{index}", size)
        weights(f"{name}.gsu.proj_conv", width, width, bias=True)
        norm(f"{name}.gsu.proj_bn", width)
    weights("head", classes, width)
    return state


def test_every_official_weight_finds_its_place(tmp_path):
    state = official_state()
    torch.save(state, tmp_path / "best.pt")
    network = from_official(tmp_path / "best.pt")
    assert not network.training
    assert network.blocks[0].attention.official_layout
    ours = network.state_dict()
    for mine, theirs in (
        ("embed.layer.conv.weight", "spike_embed.conv.weight"),
        ("blocks.1.attention.key.layer.bias", "blocks.1.attn.k_conv.bias"),
        ("blocks.0.attention.project.norm.running_var", "blocks.0.attn.proj_bn.running_var"),
        ("blocks.1.feedforward2.0.layer.weight", "blocks.1.mlp2.fc1_conv.weight"),
        ("blocks.0.gated_conv.split.weight", "blocks.0.conformer_module.pw2.conv.weight"),
        ("blocks.0.gated_conv.spread.norm.bias", "blocks.0.conformer_module.bn2.bias"),
        ("head.weight", "head.weight"),
    ):
        assert torch.equal(ours[mine].flatten(), state[theirs].flatten()), mine
    # Nothing is left over and nothing is taken twice: all random numbers are there, each once.
    taken = torch.cat([p.flatten() for p in network.parameters()]).sort().values
    given = [v.flatten() for k, v in state.items() if k.endswith((".weight", ".bias"))]
    assert torch.equal(taken, torch.cat(given).sort().values)
    parallel = {f"module.{key}": value for key, value in state.items()}
    frames = torch.rand(10, 2, 12) * 3
    assert torch.equal(from_official(parallel)(frames).logits, network(frames).logits)
    assert from_official(state, official_layout=False, dropout=0.3).dropout.p == 0.3


def test_what_does_not_fit_is_named(tmp_path):
    network = SpikeSCR(5, in_channels=12, width=16, heads=2, depth=2, mlp_ratio=3, kernel_size=7)
    state = official_state()
    load_official(network, state)

    def broken(**changes):
        return {k: v for k, v in {**state, **changes}.items() if v is not None}

    for changed, said in (
        (broken(**{"blocks.1.attn.k_bn.weight": None}), r"blocks\.1\.attn\.k_bn\.weight is missing"),
        (broken(**{"spike_embed.lif.w": torch.zeros(1)}), r"spike_embed\.lif\.w is not known"),
        (broken(**{"head.weight": torch.zeros(7, 16)}), r"head\.weight has shape \(7, 16\)"),
        (broken(**{"blocks.0.attn.rotary_emb.freqs": torch.ones(4)}), "other rotary frequencies"),
        (official_state(depth=1), r"blocks\.1\.attn\.k_bn\.bias is missing.*and \d+ more"),
    ):
        before = {k: v.clone() for k, v in network.state_dict().items()}
        with pytest.raises(ConfigError, match=said) as error:
            load_official(network, changed)
        assert "\n" not in str(error.value)
        assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())
    with pytest.raises(ConfigError, match="head.weight is missing"):
        from_official(broken(**{"head.weight": None}))
    with pytest.raises(ConfigError, match="no.pt.*does not exist"):
        from_official(tmp_path / "no.pt")


@pytest.mark.skipif(OFFICIAL is None, reason="SDSNN_SPIKESCR does not name the authors' code")
def test_logits_equal_those_of_the_official_code(tmp_path):
    environment = {**os.environ, "PYTHONPATH": OFFICIAL or ""}
    subprocess.run([sys.executable, "-c", THEIR_RUN, tmp_path / "out.pt"], check=True, env=environment)
    for case in torch.load(tmp_path / "out.pt", weights_only=True):
        frames, mask = case["x"].transpose(0, 1), case["mask"].T
        network = from_official(case["state"], dropout=0.0)
        with torch.no_grad():
            assert torch.equal(network(frames, mask).logits, case["logits"])
        logits = network.train()(frames, mask).logits
        torch.testing.assert_close(logits, case["trained"])
        network.readout(logits)[:, 0].sum().backward()
        gradient = network.embed.layer.conv.weight.grad.squeeze(-1)
        assert (gradient - case["gradient"]).norm() < 1e-4 * gradient.norm()
