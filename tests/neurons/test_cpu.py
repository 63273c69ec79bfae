"""The compiled kernels against plain torch, over threads, forks and missing numba."""

import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from sdsnn_lightning.neurons import ATan, FastSigmoid, Leaky, Rectangular, cpu, reference


@pytest.fixture
def threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("surrogate", [ATan(2.0), FastSigmoid(25.0), Rectangular(1.0)], ids=lambda s: s.kind)
@pytest.mark.parametrize(("reset", "delay"), [("subtract", True), ("subtract", False), ("zero", True), ("zero", False)])
def test_float32_spikes_are_those_of_plain_torch_bit_by_bit(reset, delay, surrogate):
    torch.manual_seed(0)
    x = torch.randn(20, 32, 3000)  # 1.9 million decisions; not a whole number of blocks
    beta, threshold = torch.rand(32, 3000), torch.rand(()) + 0.5
    options = x, beta, threshold, reset, delay
    spikes, mem = cpu.forward(*options, True)
    expected, expected_mem = reference.forward(*options, True)
    assert (spikes != expected).sum() == 0
    assert torch.equal(mem, expected_mem)
    assert 0.02 < spikes.mean() < 0.5
    grads = torch.randn_like(x), torch.randn_like(x)
    rest = *options, False, surrogate.kind, surrogate.param, True
    for ours, theirs in zip(cpu.backward(*grads, *rest), reference.backward(*grads, *rest), strict=True):
        assert ours.shape == theirs.shape
        close = torch.isclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().mean().item())
        assert close.float().mean() > 0.9999  # an undelayed reset amplifies last digits without bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "neurons", [5, 64, 1000, 2000]
)  # less than a tile, whole tiles, and some whose rows fill no line
@pytest.mark.parametrize("steps", [3, 40])
def test_rows_past_the_caches_are_the_same(monkeypatch, threads, dtype, neurons, steps):
    monkeypatch.setattr(cpu, "SMALL", 0)
    torch.manual_seed(0)
    x, grads = torch.randn(steps, neurons, dtype=dtype), torch.randn(2, steps, neurons, dtype=dtype)
    options = x, torch.rand(neurons, dtype=dtype), torch.tensor(0.7, dtype=dtype), "subtract", True
    rest = *options, False, "atan", 2.0, True
    expected = *cpu.forward(*options, True), *cpu.backward(*grads, *rest)
    assert torch.equal(expected[0], reference.forward(*options, True)[0])
    monkeypatch.setattr(cpu, "LARGE", 0)
    for count in (1, 2):
        threads(count)
        for ours, theirs in zip((*cpu.forward(*options, True), *cpu.backward(*grads, *rest)), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_not_finite_currents_propagate_as_in_plain_torch():
    x = torch.randn(6, 4, 5)
    x[1, 0, 0], x[2, 1, 1], x[2, 2, 2] = float("nan"), float("inf"), -float("inf")
    for reset in ("subtract", "zero"):
        options = x, torch.tensor(0.9), torch.tensor(1.0), reset, True, True
        for ours, theirs in zip(cpu.forward(*options), reference.forward(*options), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_any_number_of_threads_gives_the_same_numbers(threads):
    neuron = Leaky(torch.tensor(0.9), learn_beta=True, learn_threshold=True)
    results = []
    for count in (1, 2, 3):
        threads(count)
        current = torch.randn(11, 7, 5003, generator=torch.Generator().manual_seed(0), requires_grad=True)
        spikes = neuron(current)
        neuron.zero_grad()
        (spikes * torch.linspace(-1, 1, 5003)).sum().backward()
        results.append((spikes, current.grad, neuron.beta.grad.clone(), neuron.threshold.grad.clone()))
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])
        torch.testing.assert_close(other[2:], results[0][2:], rtol=1e-4, atol=0)  # torch's own sum over threads


class SpikesInWorker(Dataset):
    """Runs the neuron, with threads, in the loader's process."""

    def __init__(self, current):
        self.current = current

    def __len__(self):
        return 2

    def __getitem__(self, index):
        torch.set_num_threads(2)
        return Leaky(0.9)(self.current)


@pytest.mark.timeout(60)
def test_works_in_a_fork_after_use_in_the_parent(threads):
    threads(2)
    current = torch.randn(10, 4, 5000)
    expected = Leaky(0.9)(current)
    loader = DataLoader(SpikesInWorker(current), batch_size=None, num_workers=2, multiprocessing_context="fork")
    for spikes in loader:
        assert torch.equal(spikes, expected)
    assert torch.equal(Leaky(0.9)(current), expected)


def test_runs_alone_where_torch_has_no_openmp_team(monkeypatch, threads):
    threads(2)
    current = torch.randn(10, 4, 5000)
    expected = Leaky(0.9)(current)
    monkeypatch.setattr(cpu, "_team", lambda: None)
    assert torch.equal(Leaky(0.9)(current), expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_tensors_without_numbers_go_through_the_operator():
    with FakeTensorMode() as mode:
        current = mode.from_tensor(torch.randn(5, 2, 3)).requires_grad_()
        spikes = Leaky(0.9)(current)
        assert spikes.shape == (5, 2, 3)
        assert torch.autograd.grad(spikes.sum(), current)[0].shape == (5, 2, 3)
    traced = torch.jit.trace(Leaky(0.9), torch.zeros(5, 2, 3))
    current = torch.full((5, 2, 3), 0.6)
    assert torch.equal(traced(current), Leaky(0.9)(current))


def test_falls_back_to_plain_torch_without_numba(monkeypatch):
    current = torch.randn(5, 3, 4)
    expected = Leaky(0.9)(current)
    for module in [name for name in sys.modules if name.endswith("neurons.cpu_kernels")]:
        monkeypatch.delitem(sys.modules, module)
    import sdsnn_lightning.neurons as package

    monkeypatch.delattr(package, "cpu_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    cpu._kernels.cache_clear()
    try:
        with pytest.warns(UserWarning, match="plain torch") as warned:
            spikes = [Leaky(0.9)(current) for _ in range(2)]
        assert len(warned) == 1
        assert torch.equal(spikes[0], expected)
        assert torch.equal(spikes[1], expected)
    finally:
        cpu._kernels.cache_clear()


def test_importing_the_neuron_does_not_import_numba():
    code = "import sys, sdsnn_lightning.neurons; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_trains_under_ddp(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), Leaky(torch.tensor(0.9), learn_beta=True)))
        for batch in (3, 5):
            network(torch.randn(6, batch, 4)).mean().backward()
        assert network.module[1].beta.grad.isfinite()
        assert network.module[0].weight.grad.abs().sum() > 0
    finally:
        time.sleep(0.2)  # gloo's threads may still hold Python objects, and closing waits for them with the lock held
        torch.distributed.destroy_process_group()


def test_comes_from_a_yaml():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(nn.Module, "neuron")
    surrogate = {"class_path": "sdsnn_lightning.neurons.Rectangular", "init_args": {"width": 0.8}}
    spec = {"class_path": "sdsnn_lightning.neurons.Leaky", "init_args": {"beta": 0.5, "spike_grad": surrogate}}
    neuron = parser.instantiate_classes(parser.parse_object({"neuron": spec})).neuron
    assert neuron.spike_grad == Rectangular(0.8)
    assert neuron.beta == 0.5


def test_a_default_device_at_the_first_call_is_not_kept():
    grad = ATan(1.234)  # met for the first time, so its constants are made here
    current = torch.randn(5, 3, requires_grad=True)
    with torch.device("meta"):
        cpu._scales("atan", grad.alpha, torch.float32)
    Leaky(0.9, spike_grad=grad)(current).sum().backward()
    assert current.grad.abs().sum() > 0
