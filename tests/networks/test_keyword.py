import pytest
import torch

from sdsnn_lightning.networks.keyword import KeywordConvNet, SpikingKeyword, integrate
from sdsnn_lightning.types import Network


def parameters(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_student_gives_a_membrane_every_step_and_binary_spikes(steps):
    torch.manual_seed(0)
    network = SpikingKeyword(12)
    assert isinstance(network, Network)
    assert network.inputs == ("audio",)
    out = network(torch.randn(steps, 3, 40) * 3)
    assert out.logits.shape == (steps, 3, 12)
    assert network.readout(out.logits).shape == (3, 12)
    assert list(out.features) == ["layer1", "layer2", "layer3"]
    for spikes in out.features.values():
        assert spikes.shape == (steps, 3, 160)
        assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("beta", [0.95, 1.0])
def test_integration_is_the_recurrence_for_a_thousand_steps(beta):
    current = torch.randn(1000, 2, 3, generator=torch.Generator().manual_seed(0))
    membrane, expected = torch.zeros(2, 3, dtype=torch.float64), []
    for current_t in current.double():
        membrane = beta * membrane + current_t
        expected.append(membrane)
    torch.testing.assert_close(integrate(current, beta).double(), torch.stack(expected), atol=1e-3, rtol=1e-4)


def test_sizes_stay_small():
    # Convolutions 40*160*5 + 2*160*160*5, norms 3*2*160, decays 3*160, head 161*12.
    assert parameters(SpikingKeyword(12)) == 32_000 + 256_000 + 960 + 480 + 1_932
    assert parameters(SpikingKeyword(35, mels=64, hidden=64, layers=2, kernel=3)) < 35_000
    assert parameters(KeywordConvNet(12)) < 300_000


def test_student_is_causal_and_keeps_no_state():
    torch.manual_seed(0)
    network = SpikingKeyword(5, hidden=32, dropout=0.0)
    audio = torch.randn(20, 2, 40)
    for _ in range(30):  # the norms must know their statistics, or the deeper layers stay silent
        network(audio)
    network.eval()
    changed = audio.clone()
    changed[12:] = torch.randn(8, 2, 40)
    first, second = network(audio).logits, network(changed).logits
    assert torch.equal(first[:12], second[:12])
    assert not torch.equal(first[12:], second[12:])
    assert torch.equal(network(audio).logits, first)


def test_every_parameter_of_the_student_learns():
    torch.manual_seed(0)
    network = SpikingKeyword(4, hidden=32)
    network.readout(network(torch.randn(20, 8, 40)).logits).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_teacher_has_no_time_axis_and_takes_any_number_of_steps_and_mels():
    network = KeywordConvNet(12).eval()
    assert isinstance(network, Network)
    for steps, mels in ((100, 40), (50, 40), (8, 64)):
        out = network(torch.randn(steps, 3, mels))
        assert out.logits.shape == (3, 12)
        assert network.readout(out.logits) is out.logits
        assert out.features["embedding"].shape == (3, 96)


@pytest.mark.parametrize("network", [SpikingKeyword(4, hidden=48), KeywordConvNet(4, width=8)])
def test_they_learn_where_in_time_a_tone_lies(network):
    torch.manual_seed(0)
    target = torch.arange(32) % 4
    audio = torch.randn(20, 32, 40) * 0.5
    for sample, word in enumerate(target.tolist()):  # two tones in either order, at either end
        audio[3 + 8 * (word % 2) : 6 + 8 * (word % 2), sample, 5:10] += 2
        audio[3 + 8 * (word // 2) : 6 + 8 * (word // 2), sample, 25:30] += 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(network.readout(network(audio).logits), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
