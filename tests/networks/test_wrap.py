import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.wrap import Wrapped


class Foreign(nn.Module):
    """Stands for any network of single images."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((-2, -1)))


def test_folds_time_and_taps_layers():
    torch.manual_seed(0)
    foreign = Foreign()
    network = Wrapped(3, foreign, inputs=("events",), taps=("body.0", "head"))
    clip = torch.randn(5, 2, 2, 8, 8)
    out = network(clip)
    assert network.inputs == ("events",)
    assert out.logits.shape == (5, 2, 3)
    assert torch.allclose(out.logits[3], foreign(clip[3]), atol=1e-6)
    assert out.features["body.0"].shape == (5, 2, 4, 8, 8)
    assert torch.equal(out.features["head"], out.logits)
    out.features["body.0"].sum().backward()
    assert foreign.body[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("readout", "expected"), [("mean", [2.0, 3.0]), ("sum", [4.0, 6.0]), ("last", [3.0, 4.0])])
def test_readouts(readout, expected):
    network = Wrapped(2, nn.Identity(), readout=readout)
    assert network.readout(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))[0].tolist() == expected
    assert network.readout(torch.tensor([[5.0, 6.0]]))[0].tolist() == [5.0, 6.0]


def test_without_time():
    network = Wrapped(3, Foreign(), taps=("body",), time="none")
    out = network(torch.randn(6, 2, 8, 8))
    assert out.logits.shape == (6, 3)
    assert out.features["body"].shape == (6, 4, 8, 8)


def test_a_tap_is_what_the_layer_returned():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True))
    x = torch.randn(2, 5, 4)
    out = Wrapped(3, layers, taps=("0",))(x)
    assert torch.allclose(out.features["0"], layers[0](x), atol=1e-6)
    assert out.features["0"].min() < 0
    out.features["0"].sum().backward()
    assert layers[0].bias.grad.tolist() == [10.0, 10.0, 10.0]


def test_unknown_tap_lists_the_layers():
    with pytest.raises(ConfigError, match=r"no layer 'body\.7'; it has body, body\.0, body\.1, head"):
        Wrapped(3, Foreign(), taps=("body.7",))


def test_wrong_classes_are_named():
    with pytest.raises(ConfigError, match="returns 3 classes where 7"):
        Wrapped(7, Foreign())(torch.zeros(1, 1, 2, 8, 8))


def test_nothing_of_a_batch_survives_even_an_error():
    network = Wrapped(3, Foreign(), taps=("body.0",))
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 1, 5, 8, 8))
    out = network(torch.randn(2, 1, 2, 8, 8))
    activation = weakref.ref(out.features["body.0"])
    del out
    gc.collect()
    assert activation() is None
    assert not any(module._forward_hooks for module in network.modules())


def test_copies_are_independent():
    network = Wrapped(3, Foreign(), taps=("body.0",)).eval()
    clip = torch.randn(2, 1, 2, 8, 8)
    for clone in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with torch.no_grad():
            clone.network.body[0].weight.zero_()
            clone.network.body[0].bias.fill_(0.5)
        assert (clone(clip).features["body.0"] == 0.5).all()
        assert not (network(clip).features["body.0"] == 0.5).any()
    assert set(network.state_dict()) == {f"network.{key}" for key in Foreign().state_dict()}
