"""What every vision network must hold, checked by each one's own tests."""

import torch

from sdsnn_lightning.metrics.energy import measure_energy


def parameters(network):
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def check_network(network, clip, classes, spiking=True, timed=True, features=()):
    """Shapes, finite gradients, T = 1, batch independence, energy; returns the output in training mode."""
    steps, batch = clip.shape[:2]
    leading = (steps, batch) if timed else (batch,)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one pass sets the statistics, so that evaluation sees the same currents
    network.train()
    output = network(clip)
    assert output.logits.shape == (*leading, classes)
    assert network.readout(output.logits).shape == (batch, classes)
    assert set(features) <= set(output.features)
    for name, feature in output.features.items():
        assert feature.shape[: len(leading)] == leading, name
    output.logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    network.eval()
    with torch.no_grad():
        whole, alone = network(clip).logits, network(clip[:, 1:]).logits
        near = 1e-4 * whole.abs().max().item() + 1e-6
        assert torch.allclose(whole[..., 1:, :], alone, atol=near)  # the batch does not matter
        first = network(clip[:1]).logits
        assert first.shape == ((1, batch, classes) if timed else (batch, classes))
        if timed:
            assert torch.allclose(first[0], whole[0], atol=near)  # nor does the future
    report = measure_energy(network, (clip,))
    assert report.totals["dense_macs"] > 0
    if spiking:
        assert 0 < report.firing_rate < 0.6
        assert report.totals["synops"] > 0
        assert report.totals["energy_paper_J"] < report.totals["energy_dense_J"]
    else:
        assert report.firing_rate is None
    return output
