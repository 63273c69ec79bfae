"""Mixup of whole batches: two samples, both views and both labels blended alike (Zhang et al., ICLR 2018)."""

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import one_hot

from sdsnn_lightning.types import Batch, View


def mix_batch(batch: Batch, num_classes: int, concentration: float) -> Batch:
    """Blends every sample with another of its batch: `lambda x + (1 - lambda) x'`, labels too.

    `lambda ~ Beta(a, a)`, one a batch, as in the paper's code; time steps and views of a sample get the same partner.
    Drawn from torch's generator of the processor whatever the device, so that a seed gives the same batches everywhere.

    Args:
        batch: `target` holds class indices `[B]`.
        num_classes: Number of classes K.
        concentration: a, positive. 0.2 to 0.4 in the paper, 0.5 in codes on CIFAR10-DVS.

    Returns:
        The blended batch; `target` float32 `[B, K]`, every row a distribution. Groups stay those of the first sample.
    """
    share = Beta(concentration, concentration).sample().item()
    partner = torch.randperm(len(batch.target)).to(batch.target.device)

    def blend(x: Tensor) -> Tensor:
        return share * x + (1.0 - share) * x[partner]

    def blend_view(view: View) -> View:
        return {name: blend(x) for name, x in view.items()}

    student = blend_view(batch.student)
    teacher = student if batch.teacher is batch.student else blend_view(batch.teacher)
    return Batch(student, teacher, blend(one_hot(batch.target, num_classes).float()), batch.groups)
