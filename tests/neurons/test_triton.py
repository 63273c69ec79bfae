"""The Triton kernels against the CPU path: on the GPU where there is one, else in Triton's interpreter."""

import importlib
import sys

import pytest
import torch

from sdsnn_lightning import neurons
from sdsnn_lightning.neurons import ATan, FastSigmoid, Leaky, Rectangular, cpu, fused, gpu, reference

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RESETS = [("subtract", True), ("subtract", False), ("zero", True), ("zero", False), ("none", True)]


@pytest.fixture(scope="module", autouse=True)
def _interpreted():
    """Without a GPU the kernels are decorated anew, for the interpreter, and those before are put back."""
    if DEVICE == "cuda":
        yield
        return
    name = "sdsnn_lightning.neurons.triton_kernels"
    before = sys.modules.pop(name, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        kernels = importlib.import_module(name)
        patch.setattr(gpu, "_kernels", lambda: kernels)
        yield
    del sys.modules[name], neurons.triton_kernels
    if before is not None:
        sys.modules[name] = neurons.triton_kernels = before


def options_of(per_channel, dtype=torch.float64):
    """Beta and threshold of three channels, or of all neurons."""
    if not per_channel:
        return torch.tensor(0.8, dtype=dtype), torch.tensor(0.7, dtype=dtype)
    channels = torch.tensor([0.5, 0.9, 1.0], dtype=dtype), torch.tensor([0.4, 1.0, -0.3], dtype=dtype)
    return tuple(value[:, None, None].expand(2, 3, 5, 10) for value in channels)


def inputs(dtype=torch.float64, steps=7):
    torch.manual_seed(0)
    return torch.randn(3, steps, 2, 3, 5, 10).to(dtype).unbind()  # 300 neurons: two whole blocks and a part of one


def on(device, *tensors):
    return [t.to(device) if isinstance(t, torch.Tensor) else t for t in tensors]


@pytest.mark.parametrize(
    ("dtype", "per_channel"), [(torch.float64, True), (torch.float32, False), (torch.float32, True)]
)
@pytest.mark.parametrize(("reset", "delay"), RESETS)
def test_spikes_and_membrane_are_those_of_the_cpu_bit_by_bit(reset, delay, dtype, per_channel):
    x, *_ = inputs(dtype)
    beta, threshold = options_of(per_channel, dtype)
    spikes, mem = gpu.forward(*on(DEVICE, x, beta, threshold), reset, delay, True)
    expected, expected_mem = cpu.forward(x, beta, threshold, reset, delay, True)
    assert (spikes.cpu() != expected).sum() == 0
    assert torch.equal(mem.cpu(), expected_mem)
    assert 0.05 < spikes.mean() < 0.6
    assert gpu.forward(*on(DEVICE, x, beta, threshold), reset, delay, False)[1].numel() == 0


@pytest.mark.parametrize(
    ("dtype", "tolerance", "surrogate", "detach"),
    [
        (torch.float64, 1e-13, ATan(2.0), False),
        (torch.float64, 1e-13, Rectangular(1.0), True),
        (torch.float32, 1e-6, FastSigmoid(25.0), False),
        (torch.float32, 1e-6, ATan(2.0), True),
    ],
    ids=str,
)
@pytest.mark.parametrize(("reset", "delay"), RESETS)
def test_gradients_are_those_of_the_cpu(reset, delay, dtype, tolerance, surrogate, detach):
    x, *grads = inputs(dtype)
    per_channel = surrogate.kind == "atan"
    # Plain torch, not numba, which would compile a kernel for each; tests/neurons/test_cpu.py compares the two.
    given = grads[0], grads[1] if detach else None, x, *options_of(per_channel, dtype)
    rest = reset, delay, detach, surrogate.kind, surrogate.param, True
    ours, theirs = gpu.backward(*on(DEVICE, *given), *rest), reference.backward(*given, *rest)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == dtype
        assert (a.cpu() - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_a_float32_membrane(dtype):
    x, *grads = inputs(dtype, steps=40)
    constants = options_of(True, torch.float32)
    spikes, mem = gpu.forward(*on(DEVICE, x, *constants), "subtract", True, True)
    expected, expected_mem = reference.forward(x.float(), *constants, "subtract", True, True)
    assert spikes.dtype == mem.dtype == dtype
    assert (spikes.cpu().float() != expected).sum() == 0
    # A GPU rounds to the nearest number of half precision; the interpreter may cut off instead.
    assert torch.allclose(mem.cpu(), expected_mem.to(dtype), rtol=2**-7 if DEVICE == "cpu" else 0.0, atol=0.0)
    rest = "subtract", True, True, "atan", 2.0, True
    ours = gpu.backward(*on(DEVICE, *grads, x, *constants), *rest)
    theirs = reference.backward(*(g.float() for g in grads), x.float(), *constants, *rest)
    assert [g.dtype for g in ours] == [dtype, torch.float32, torch.float32]
    assert torch.allclose(ours[0].cpu().float(), theirs[0].to(dtype).float(), rtol=2**-7, atol=1e-6)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert (a.cpu() - b).abs().max() <= 1e-6 * b.abs().max()


@pytest.mark.parametrize("shape", [(1, 1), (3,), (3, 1, 1), (2, 1, 5, 1), (2, 3, 5, 10)])
def test_numbers_of_a_neuron_without_a_copy(shape):
    value = torch.rand(shape).expand(2, 3, 5, 10) if len(shape) > 1 else torch.rand(3, 1, 1).expand(2, 3, 5, 10)
    numbers, inner, count = gpu.per_neuron(value)
    n = torch.arange(value.numel())
    assert torch.equal(numbers.flatten()[n // inner % count], value.flatten())
    assert numbers.numel() == count == (300 if shape == (2, 1, 5, 1) else max(1, torch.Size(shape).numel()))


@pytest.mark.parametrize("output", [False, True])
def test_neurons_run_on_the_kernels_whole(monkeypatch, output):
    """The module, its learnable numbers and strides, by the way that `Leaky` takes on a GPU."""
    beta, threshold = torch.rand(3, 1, 1), torch.rand(3, 1, 1)
    neuron = Leaky(beta, threshold, learn_beta=True, learn_threshold=True, output=output)
    current = torch.randn(5 * 2, 3, 4, 6).to(memory_format=torch.channels_last).unflatten(0, (5, 2))

    def run():
        neuron.zero_grad()
        x = current.detach().clone().to(DEVICE if launches else "cpu").requires_grad_()
        out = neuron.to(x.device)(x)
        (sum(out) if output else out).mul(
            torch.arange(5.0, device=x.device)[:, None, None, None, None]
        ).sum().backward()
        return [t.detach().cpu().clone() for t in (*out, x.grad, neuron.beta.grad, neuron.threshold.grad)]

    launches = []
    expected = run()
    launch = gpu._launch
    monkeypatch.setattr(gpu, "_launch", lambda *a, **k: (launches.append(a[0]), launch(*a, **k)))
    monkeypatch.setattr(gpu, "usable", lambda x: True)
    launches.append(None)
    found = run()
    assert len(launches) == 3  # one forward, one backward
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)
    assert fused.gpu is gpu


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1)])
def test_empty_sequences(shape):
    x = torch.ones(shape, device=DEVICE)
    beta, threshold = torch.tensor([0.5, 0.4], device=DEVICE)
    spikes, mem = gpu.forward(x, beta, threshold, "subtract", True, True)
    grads = gpu.backward(x, x, x, beta, threshold, "subtract", True, True, "atan", 2.0, True)
    assert spikes.shape == mem.shape == grads[0].shape == shape
    assert (spikes == 1).all()
