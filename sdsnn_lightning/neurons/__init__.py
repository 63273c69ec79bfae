"""Multi-step spiking neurons."""

from sdsnn_lightning.neurons.leaky import Leaky
from sdsnn_lightning.neurons.plif import PLIF
from sdsnn_lightning.neurons.sltt import SpatialLeaky
from sdsnn_lightning.neurons.surrogate import ATan, FastSigmoid, Rectangular

__all__ = ["PLIF", "ATan", "FastSigmoid", "Leaky", "Rectangular", "SpatialLeaky"]
