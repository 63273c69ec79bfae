"""`Leaky` against stepping `snntorch.Leaky`, against a hand-written loop, and as a module."""

import copy
import itertools
import pickle

import pytest
import snntorch
import torch
from snntorch import surrogate as stock

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.neurons import ATan, FastSigmoid, Leaky, Rectangular, cpu

torch.set_num_threads(1)

SURROGATES = [ATan(2.0), FastSigmoid(5.0), Rectangular(1.0)]
RESETS = [(reset, delay) for reset in ("subtract", "zero", "none") for delay in (True, False)]


@pytest.fixture(params=["kernel", "reference"])
def backend(request, monkeypatch):
    if request.param == "reference":
        monkeypatch.setattr(cpu, "usable", lambda x: False)
    return request.param


def constants(per_channel):
    """Beta, one of them outside [0, 1] to meet the clamp, and threshold, one of them negative."""
    if not per_channel:
        return torch.tensor(0.8).double(), torch.tensor(0.7).double()
    return torch.tensor([0.5, 0.9, 1.2])[:, None].double(), torch.tensor([0.4, 1.0, -0.3])[:, None].double()


def stepped(neuron, current):
    """Spikes and membrane of a plain snnTorch neuron, step by step from zero state."""
    mem = torch.zeros_like(current[0])
    rows = []
    for x in current:
        spk, mem = neuron(x, mem)
        rows.append((spk, mem))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def gradients(run, neuron, current, cotangents):
    """Gradients of current and parameters under fixed cotangents of spikes and membrane, and the outputs."""
    current = current.detach().requires_grad_()
    out = run(neuron, current)
    leaves = [current, *neuron.parameters()]
    loss = sum((o * c).sum() for o, c in zip(out, cotangents, strict=True))
    return out, torch.autograd.grad(loss, leaves, allow_unused=True)


def assert_same(ours, theirs, tolerance=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            scale = b.abs().max().clamp(min=1.0) if b.numel() else 1.0
            assert a.shape == b.shape
            assert ((a - b).abs() / scale <= tolerance).all()


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("reset", "delay"), RESETS)
@pytest.mark.parametrize("spike_grad", SURROGATES, ids=lambda s: s.kind)
def test_equals_stepping_snntorch(backend, spike_grad, reset, delay, per_channel):
    beta, threshold = constants(per_channel)
    # Every kind of gradient with one surrogate, both at once with the others: each combination compiles a kernel.
    learn = itertools.product([False, True], repeat=2) if spike_grad.kind == "atan" else [(True, True)]
    for learn_beta, learn_threshold in learn:
        args = {
            "beta": beta,
            "threshold": threshold,
            "spike_grad": spike_grad,
            "learn_beta": learn_beta,
            "learn_threshold": learn_threshold,
            "reset_mechanism": reset,
            "reset_delay": delay,
            "output": True,
        }
        ours, theirs = Leaky(**copy.deepcopy(args)), snntorch.Leaky(**copy.deepcopy(args))
        for steps in (1, 2, 17):
            torch.manual_seed(steps)
            current = torch.randn(5, 3, steps, 2, dtype=torch.float64).permute(2, 3, 1, 0) * 0.8 + 0.3  # not contiguous
            cotangents = torch.randn(2, *current.shape, dtype=torch.float64).unbind()
            out, grads = gradients(lambda n, x: n(x), ours, current, cotangents)
            expected, expected_grads = gradients(stepped, theirs, current, cotangents)
            assert torch.equal(out[0], expected[0])
            assert torch.equal(out[1], expected[1])
            assert_same(grads, expected_grads)
        assert 0 < out[0].mean() < 1


def by_hand(neuron, current):
    """The same neuron written out, with the gradient through the reset gate."""
    beta, thr, fire = neuron.beta.clamp(0, 1), neuron.threshold, neuron.spike_grad
    m = torch.zeros_like(current[0])
    spikes, mems = [], []
    for x in current:
        r = fire(m - thr)
        if neuron.reset_mechanism == "subtract":
            v = beta * m + x - r * thr
        elif neuron.reset_mechanism == "zero":
            v = beta * ((1 - r) * m) + x
        else:
            v = beta * m + x
        s = fire(v - thr)
        m = v
        if not neuron.reset_delay and neuron.reset_mechanism == "subtract":
            m = v - (s - r) * thr
        elif not neuron.reset_delay and neuron.reset_mechanism == "zero":
            m = v - (s - r) * v
        spikes.append(s)
        mems.append(m)
    return torch.stack(spikes), torch.stack(mems)


@pytest.mark.parametrize("spike_grad", SURROGATES, ids=lambda s: s.kind)
@pytest.mark.parametrize(("reset", "delay"), RESETS)
def test_gradient_through_the_reset_gate(backend, reset, delay, spike_grad):
    beta, threshold = constants(per_channel=True)
    neuron = Leaky(
        beta,
        threshold,
        spike_grad,
        learn_beta=True,
        learn_threshold=True,
        reset_mechanism=reset,
        reset_delay=delay,
        output=True,
        detach_reset=False,
    )
    torch.manual_seed(0)
    current = torch.randn(9, 2, 3, 5, dtype=torch.float64)
    cotangents = torch.randn(2, *current.shape, dtype=torch.float64).unbind()
    out, grads = gradients(lambda n, x: n(x), neuron, current, cotangents)
    expected, expected_grads = gradients(by_hand, neuron, current, cotangents)
    assert torch.equal(out[0], expected[0])
    assert_same(grads, expected_grads)
    neuron.detach_reset = True
    detached = gradients(lambda n, x: n(x), neuron, current, cotangents)[1][0]
    assert torch.allclose(grads[0], detached) == (reset == "none")


@pytest.mark.parametrize(
    "options",
    [
        {"spike_grad": stock.sigmoid(4)},
        {"spike_grad": torch.nn.Identity()},
        {"graded_spikes_factor": 1.7},
        {"graded_spikes_factor": 1.0, "learn_graded_spikes_factor": True, "reset_delay": False},
        {"surrogate_disable": True},
        {"state_quant": torch.round},
        {"inhibition": True, "reset_mechanism": "zero"},
    ],
)
@pytest.mark.filterwarnings("ignore:Inhibition")
def test_options_that_are_not_fused(options):
    args = {"beta": torch.tensor(0.8), "learn_beta": True, "output": True, **options}
    ours, theirs = Leaky(**copy.deepcopy(args)), snntorch.Leaky(**copy.deepcopy(args))
    assert not ours._fused
    current = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    cotangents = torch.ones(6, 4, 5), torch.ones(6, 4, 5)
    out, grads = gradients(lambda n, x: n(x), ours, current, cotangents)
    expected, expected_grads = gradients(stepped, theirs, current, cotangents)
    assert torch.equal(out[0], expected[0])
    assert torch.equal(out[1], expected[1])
    assert_same(grads, expected_grads)
    assert ours.mem.numel() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("reset", "delay"), RESETS)
def test_step_equals_forward(backend, reset, delay, dtype):
    neuron = Leaky(0.9, reset_mechanism=reset, reset_delay=delay, output=True)
    current = torch.randn(20, 4, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
    spikes, mems = neuron(current)
    assert spikes.dtype == mems.dtype == dtype
    state = None
    for t, x in enumerate(current):
        (spk, mem), state = neuron.step(x, state)
        assert torch.equal(spk, spikes[t])
        assert torch.equal(mem, mems[t])
        assert state.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_state_dict_is_that_of_snntorch():
    beta = torch.tensor([[0.3], [0.6]])
    ours = Leaky(beta, learn_beta=True, threshold=0.5)
    theirs = snntorch.Leaky(torch.zeros(2, 1), learn_beta=True)
    assert isinstance(ours, snntorch.Leaky)
    ours(torch.randn(3, 4, 2, 5))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(theirs.beta, beta)
    assert theirs.threshold == 0.5
    back = Leaky(torch.zeros(2, 1), learn_beta=True)
    back.load_state_dict(theirs.state_dict(), strict=True)
    current = torch.randn(3, 4, 2, 5)
    assert torch.equal(back(current), ours(current))
    with pytest.raises(RuntimeError, match="reset_mechanism='zero'"):
        Leaky(torch.zeros(2, 1), learn_beta=True, reset_mechanism="zero").load_state_dict(ours.state_dict())


def test_copies_and_pickles():
    neuron = Leaky(0.9, spike_grad=Rectangular(0.6), learn_beta=True, detach_reset=False)
    current = torch.randn(5, 3, 4, requires_grad=True)
    neuron(current).sum().backward()
    for twin in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert twin.spike_grad == Rectangular(0.6)
        assert twin.state_function.__self__ is twin
        assert twin.beta is not neuron.beta
        assert torch.equal(twin(current), neuron(current))
    assert pickle.loads(pickle.dumps(Leaky(0.9))).spike_grad == ATan(2.0)


def test_keeps_no_state_and_joins_no_list():
    before = list(snntorch.SpikingNeuron.instances)
    neuron = Leaky(0.9, output=True)
    assert len(snntorch.SpikingNeuron.instances) == len(before)
    current = torch.randn(4, 2, 3)
    first = neuron(current)
    assert torch.equal(neuron(current)[1], first[1])
    neuron.step(current[0])
    assert neuron.mem.numel() == 0
    assert all(buffer.numel() <= 1 for buffer in neuron.buffers())


def test_refusals():
    with pytest.raises(ConfigError, match="init_hidden"):
        Leaky(0.9, init_hidden=True)
    with pytest.raises(ConfigError, match=r"Leaky.beta: shape \[3\] does not broadcast"):
        Leaky(torch.ones(3))(torch.zeros(2, 1, 4))
    x = torch.randn(3, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(Leaky(0.9)(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        grad.sum().backward()


def test_gradient_modes(backend):
    neuron = Leaky(torch.tensor(0.9), learn_beta=True, output=True)
    current = torch.randn(6, 3, 8)
    expected = neuron(current)[0].detach()
    with torch.no_grad():
        assert torch.equal(neuron(current)[0], expected)
    with torch.inference_mode():
        assert torch.equal(neuron(current)[0], expected)
    neuron(current)[1].sum().backward()  # beta alone, through the membrane alone
    assert neuron.beta.grad != 0
    neuron.output = False
    neuron(current).sum().backward()
    frozen = Leaky(0.9)
    assert not frozen(current).requires_grad


@pytest.mark.parametrize("shape", [(4, 0, 3), (0, 2, 3), (3, 2)])
def test_odd_sizes(backend, shape):
    neuron = Leaky(torch.tensor(0.9), learn_beta=True, output=True)
    current = torch.randn(shape, requires_grad=True)
    spikes, mem = neuron(current)
    (spikes.sum() + mem.sum()).backward()
    assert spikes.shape == mem.shape == current.grad.shape == shape
    assert neuron.beta.grad.isfinite()


@pytest.mark.parametrize("per_channel", [False, True])
def test_channels_last_is_kept(backend, per_channel):
    beta = torch.rand(6, 1, 1, generator=torch.Generator().manual_seed(0)) if per_channel else 0.7
    neuron = Leaky(beta, threshold=0.5)
    current = torch.randn(5 * 2, 6, 4, 4)
    last = current.to(memory_format=torch.channels_last).unflatten(0, (5, 2)).requires_grad_()
    plain = current.unflatten(0, (5, 2)).requires_grad_()
    spikes = neuron(last)
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(spikes, neuron(plain))
    weight = torch.randn(spikes.shape)
    (spikes * weight).sum().backward()
    (neuron(plain) * weight).sum().backward()
    assert torch.equal(last.grad, plain.grad)


@pytest.mark.filterwarnings("ignore")
def test_compiled_graph_has_no_break():
    neuron = Leaky(torch.tensor(0.9), learn_beta=True)
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    current = torch.randn(6, 3, 8)
    eager = neuron(current)
    assert torch.equal(compiled(current), eager)
    compiled(current).sum().backward()
    grad = neuron.beta.grad.clone()
    neuron.beta.grad = None
    eager.sum().backward()
    assert torch.equal(neuron.beta.grad, grad)


@pytest.mark.parametrize(
    "options", [{}, {"reset_mechanism": "zero"}, {"reset_delay": False}, {"inhibition": True}], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["kernel", "plain"])
def test_a_gain_is_what_multiplying_afterwards_gives(monkeypatch, backend, dtype, options):
    if backend == "plain":
        monkeypatch.setattr(cpu, "usable", lambda x: False)
    torch.manual_seed(0)
    neuron = Leaky(0.8, 0.6, learn_beta=True, learn_threshold=True, output=True, **options).to(dtype)
    results = []
    for fused in (True, False):
        current = torch.randn(9, 3, 37, dtype=dtype, generator=torch.Generator().manual_seed(1), requires_grad=True)
        gain = torch.rand(37, dtype=dtype, generator=torch.Generator().manual_seed(2), requires_grad=True)
        spikes, mem = neuron(current, gain) if fused else neuron(current)
        spikes = spikes if fused else spikes * gain.detach()
        weight = torch.linspace(-1, 1, spikes.numel(), dtype=dtype).view_as(spikes)
        leaves = current, neuron.beta, neuron.threshold
        results.append([spikes, mem, *torch.autograd.grad((weight * (spikes + mem)).sum(), leaves)])
        assert gain.grad is None
    assert 0 < (results[0][0] != 0).float().mean() < 0.5
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)
    with (
        pytest.raises(ConfigError, match=r"Leaky\.gain: shape \[2\]") if neuron._fused else pytest.raises(RuntimeError)
    ):
        neuron(torch.randn(9, 3, 37, dtype=dtype), torch.ones(2, dtype=dtype))
