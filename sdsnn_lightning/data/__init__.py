"""Data modules: one data set a file."""

from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.data.cifar10_dvs import CIFAR10DVS
from sdsnn_lightning.data.eye_video import EyeVideo
from sdsnn_lightning.data.single_eye import SingleEye
from sdsnn_lightning.data.speech_commands import SpeechCommands
from sdsnn_lightning.data.spiking_heidelberg import SpikingHeidelberg
from sdsnn_lightning.data.spiking_speech_commands import SpikingSpeechCommands

__all__ = [
    "CIFAR10DVS", "DataModule", "EyeVideo", "SingleEye", "SpeechCommands", "SpikingHeidelberg", "SpikingSpeechCommands",
]  # fmt: skip
