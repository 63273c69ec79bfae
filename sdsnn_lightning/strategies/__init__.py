"""Distillation strategies: one method a file, each a Lightning callback that adds one loss term."""

from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.kdcl import Stage, TimeStepCurriculum
from sdsnn_lightning.strategies.logits import LogitDistillation
from sdsnn_lightning.strategies.mskd import HitConsistency, TemporalConsistency
from sdsnn_lightning.strategies.schedules import Constant, Cosine, Linear, Schedule, WarmupCosine

__all__ = [
    "Constant", "Cosine", "HitConsistency", "Linear", "LogitDistillation", "Schedule", "Stage", "Strategy",
    "TemporalConsistency", "TimeStepCurriculum", "WarmupCosine",
]  # fmt: skip
