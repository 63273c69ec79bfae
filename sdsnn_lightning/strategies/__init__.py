"""Distillation strategies: one method a file, each a Lightning callback that adds one loss term."""

from sdsnn_lightning.strategies.activity import ActivityRegularisation, LogitRegularisation, ResponseDistillation
from sdsnn_lightning.strategies.attention import AttentionTransfer
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.bkd import BlurredFeatureDistillation
from sdsnn_lightning.strategies.dist import RelationalDistillation
from sdsnn_lightning.strategies.dkd import DecoupledDistillation
from sdsnn_lightning.strategies.features import FeatureStrategy
from sdsnn_lightning.strategies.hdkd import WeightedStageDistillation
from sdsnn_lightning.strategies.hsd import HybridStepwiseDistillation
from sdsnn_lightning.strategies.hta_kl import HeadTailDistillation
from sdsnn_lightning.strategies.kdcl import Stage, TimeStepCurriculum
from sdsnn_lightning.strategies.kdsnn import FeatureDistillation
from sdsnn_lightning.strategies.lasnn import StageDistillation
from sdsnn_lightning.strategies.logits import LogitDistillation
from sdsnn_lightning.strategies.mgd import MaskedGenerativeDistillation
from sdsnn_lightning.strategies.mskd import HitConsistency, TemporalConsistency
from sdsnn_lightning.strategies.samd import ActivationMapDistillation, NoiseSmoothedLogits
from sdsnn_lightning.strategies.schedules import Constant, Cosine, Linear, Schedule, WarmupCosine
from sdsnn_lightning.strategies.seal import SelectiveAlignment
from sdsnn_lightning.strategies.self_distillation import TemporalSelfDistillation
from sdsnn_lightning.strategies.similarity import SimilarityPreserving
from sdsnn_lightning.strategies.spectral import SpectralDistillation
from sdsnn_lightning.strategies.temporal_logits import TemporalLogits
from sdsnn_lightning.strategies.tet import TemporalEfficientTraining
from sdsnn_lightning.strategies.tks import TemporalKnowledgeSharing
from sdsnn_lightning.strategies.tser import TemporalSeparation
from sdsnn_lightning.strategies.tssd import TemporalSpatialSelfDistillation
from sdsnn_lightning.strategies.wsld import WeightedSoftLabelDistillation

__all__ = [
    "ActivationMapDistillation", "ActivityRegularisation", "AttentionTransfer", "BlurredFeatureDistillation",
    "Constant", "Cosine", "DecoupledDistillation", "FeatureDistillation", "FeatureStrategy", "HeadTailDistillation",
    "HitConsistency", "HybridStepwiseDistillation", "Linear", "LogitDistillation", "LogitRegularisation",
    "MaskedGenerativeDistillation", "NoiseSmoothedLogits", "RelationalDistillation", "ResponseDistillation",
    "Schedule", "SelectiveAlignment", "SimilarityPreserving", "SpectralDistillation", "Stage", "StageDistillation",
    "Strategy", "TemporalConsistency", "TemporalEfficientTraining", "TemporalKnowledgeSharing", "TemporalLogits",
    "TemporalSelfDistillation", "TemporalSeparation", "TemporalSpatialSelfDistillation", "TimeStepCurriculum",
    "WarmupCosine", "WeightedSoftLabelDistillation", "WeightedStageDistillation",
]  # fmt: skip
