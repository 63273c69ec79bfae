"""Distil spiking neural networks with PyTorch Lightning.

The names below are the public interface. They are imported on first use, so that the command line starts fast.

A spiking network is a plain module. Its neuron takes the current of all time steps `[T, B, ...]` and gives the spikes:

    >>> import torch
    >>> from sdsnn_lightning import Leaky
    >>> neuron = Leaky(beta=0.5)  # threshold 1, the threshold is subtracted one step after a spike
    >>> current = torch.tensor([0.8, 0.8, 0.2, 0.9]).reshape(4, 1, 1)
    >>> neuron(current).flatten().tolist()  # membrane 0.8, 1.2, -0.2, 0.8
    [0.0, 1.0, 0.0, 0.0]

`step` runs the same neuron online, one frame at a time:

    >>> spikes, state = neuron.step(current[0])
    >>> spikes, state = neuron.step(current[1], state)
    >>> spikes.item(), round(state.item(), 4)
    (1.0, 1.2)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdsnn_lightning.classifier import Classifier
    from sdsnn_lightning.data.base import DataModule
    from sdsnn_lightning.distiller import Distiller
    from sdsnn_lightning.neurons import Leaky
    from sdsnn_lightning.online import OnlineClassifier
    from sdsnn_lightning.segments import SegmentedClassifier
    from sdsnn_lightning.strategies.base import Strategy
    from sdsnn_lightning.strategies.schedules import Schedule
    from sdsnn_lightning.types import Batch, Network, Output, Step

__all__ = [
    "Batch", "Classifier", "DataModule", "Distiller", "Leaky", "Network", "OnlineClassifier", "Output",
    "Schedule", "SegmentedClassifier", "Step", "Strategy",
]  # fmt: skip
__version__ = "0.1.0"

_HOMES = {
    "Classifier": "classifier",
    "DataModule": "data.base",
    "Distiller": "distiller",
    "Leaky": "neurons",
    "OnlineClassifier": "online",
    "Schedule": "strategies.schedules",
    "SegmentedClassifier": "segments",
    "Strategy": "strategies.base",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sdsnn_lightning' has no attribute '{name}'")
    return getattr(import_module(f"sdsnn_lightning.{_HOMES.get(name, 'types')}"), name)
