"""LaSNN: layer-wise distillation from an artificial to a spiking network, at several stages."""

from sdsnn_lightning.strategies.kdsnn import FeatureDistillation


class StageDistillation(FeatureDistillation):
    """LaSNN's form: KDSNN's feature term at several stages, each with an alignment of its own.

    `L = weight * sum_l ||align_l(mean_t S_l,t) - F_l||_F^2 / B`, four stages by default. This is the baseline of that
    name in BKDSNN's code, weight included; there the alignments stand in a plain list and never train, here they do.

    Arguments are those of `FeatureDistillation`. Without `taps`, the last four maps that both networks call the same,
    or their last four maps; one pair of features where a network has no maps.
    """

    stages = 4
