"""Distillation strategies: one method a file, each a Lightning callback that adds one loss term."""

from sdsnn_lightning.strategies.attention import AttentionTransfer
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.bkd import BlurredFeatureDistillation
from sdsnn_lightning.strategies.dist import RelationalDistillation
from sdsnn_lightning.strategies.dkd import DecoupledDistillation
from sdsnn_lightning.strategies.features import FeatureStrategy
from sdsnn_lightning.strategies.hdkd import WeightedStageDistillation
from sdsnn_lightning.strategies.kdcl import Stage, TimeStepCurriculum
from sdsnn_lightning.strategies.kdsnn import FeatureDistillation
from sdsnn_lightning.strategies.lasnn import StageDistillation
from sdsnn_lightning.strategies.logits import LogitDistillation
from sdsnn_lightning.strategies.mgd import MaskedGenerativeDistillation
from sdsnn_lightning.strategies.mskd import HitConsistency, TemporalConsistency
from sdsnn_lightning.strategies.schedules import Constant, Cosine, Linear, Schedule, WarmupCosine
from sdsnn_lightning.strategies.similarity import SimilarityPreserving
from sdsnn_lightning.strategies.wsld import WeightedSoftLabelDistillation

__all__ = [
    "AttentionTransfer", "BlurredFeatureDistillation", "Constant", "Cosine", "DecoupledDistillation",
    "FeatureDistillation", "FeatureStrategy", "HitConsistency", "Linear", "LogitDistillation",
    "MaskedGenerativeDistillation", "RelationalDistillation", "Schedule", "SimilarityPreserving", "Stage",
    "StageDistillation", "Strategy", "TemporalConsistency", "TimeStepCurriculum", "WarmupCosine",
    "WeightedSoftLabelDistillation", "WeightedStageDistillation",
]  # fmt: skip
