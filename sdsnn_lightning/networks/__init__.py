"""Networks: one architecture a file, time-first inside."""

from sdsnn_lightning.networks.dvs_sew import SEWDVS, SEWDVSTwin
from sdsnn_lightning.networks.keyword import KeywordConvNet, SpikingKeyword
from sdsnn_lightning.networks.resnet import ResNet
from sdsnn_lightning.networks.seen import SEEN
from sdsnn_lightning.networks.sew_resnet import SEWResNet
from sdsnn_lightning.networks.single_eye import (
    EventTeacher,
    FrameTeacher,
    PlainStudent,
    SEWStudent,
    SingleEyeStudent,
    SingleEyeTeacher,
)
from sdsnn_lightning.networks.spikescr import SpikeSCR
from sdsnn_lightning.networks.spiking_resnet import SpikingResNet
from sdsnn_lightning.networks.spikingformer import Spikingformer
from sdsnn_lightning.networks.vgg_snn import VGGSNN
from sdsnn_lightning.networks.vit import ViT
from sdsnn_lightning.networks.wrap import Wrapped

__all__ = [
    "SEEN", "SEWDVS", "VGGSNN", "EventTeacher", "FrameTeacher", "KeywordConvNet", "PlainStudent", "ResNet",
    "SEWDVSTwin", "SEWResNet", "SEWStudent", "SingleEyeStudent", "SingleEyeTeacher", "SpikeSCR", "SpikingKeyword",
    "SpikingResNet", "Spikingformer", "ViT", "Wrapped",
]  # fmt: skip
