"""Multi-step spiking neurons."""

from sdsnn_lightning.neurons.leaky import Leaky
from sdsnn_lightning.neurons.surrogate import ATan, FastSigmoid, Rectangular

__all__ = ["ATan", "FastSigmoid", "Leaky", "Rectangular"]
