"""Spectra over time against scipy and numpy, and across numbers of steps."""

import numpy
import pytest
import scipy.fft
import torch

from sdsnn_lightning.losses.spectral import common_bands, time_spectrum


def test_dct_is_scipys_in_other_units():
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = scipy.fft.dct(x.numpy(), axis=0, norm="ortho") / numpy.sqrt(6)
    assert numpy.allclose(time_spectrum(x).numpy(), theirs)
    assert torch.equal(time_spectrum(x, bands=2), time_spectrum(x)[:2])
    assert torch.allclose(time_spectrum(x).square().sum(0), x.square().mean(0))  # Parseval


def test_fft_is_numpys_in_other_units():
    steps = 7
    x = torch.randn(steps, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = numpy.fft.rfft(x.numpy(), axis=0) / steps
    theirs *= numpy.exp(-1j * numpy.pi * numpy.arange(4) / steps)[:, None]  # time counts from the window's begin
    theirs[1:] *= numpy.sqrt(2)
    ours = time_spectrum(x, "fft").numpy()
    assert ours.shape == (7, 4)
    assert numpy.allclose(ours[:4], theirs.real)
    assert numpy.allclose(ours[4:], theirs.imag[1:])


@pytest.mark.parametrize("transform", ["dct", "fft"])
def test_a_slow_signal_has_the_same_spectrum_at_any_number_of_steps(transform):
    def wave(steps):
        t = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        return (0.3 + torch.cos(2 * torch.pi * t))[:, None]

    coarse, fine = (time_spectrum(wave(n), transform, 3) for n in (8, 32))
    assert torch.allclose(coarse, fine)
    assert coarse[0].item() == pytest.approx(0.3)
    assert coarse[2 if transform == "dct" else 1].item() == pytest.approx(0.5**0.5)


def test_common_bands():
    assert common_bands(4, 16) == 4
    assert common_bands(4, 16, "fft") == 2
    assert common_bands(4, 1) == common_bands(4, 1, "fft") == 1
    assert common_bands(8, 8, bands=3) == 3
