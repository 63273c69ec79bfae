"""Classification scores of the emotion papers: WAR, UAR, recall per class, accuracy per group, repeated evaluation."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sdsnn_lightning.errors import ConfigError

RUN = "run"
"""The grouping that tells repeated evaluations of the same samples apart."""


def war_uar(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted and unweighted average recall of a confusion matrix.

    WAR weighs every class by its samples, which makes it plain accuracy. UAR is the mean recall of the classes that
    occur; on a test set with all classes this is SEEN's mean over seven (SIGGRAPH 2023, section 5).

    Args:
        confusion: Counts `[..., K, K]`, rows are the true classes.

    Returns:
        WAR and UAR, `[...]` float64 in [0, 1]; nan where there is no sample.
    """
    counts = confusion.double()
    hits, samples = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1)
    recall = torch.where(samples > 0, hits / samples, torch.nan)
    return hits.sum(-1) / samples.sum(-1), recall.nanmean(-1)


class ClassificationScores(Metric):
    """WAR, UAR, recall per class and accuracy per group, from counts that add up exactly.

    All state is integer counts reduced by a sum, so results do not depend on the batch size, on a smaller last batch
    or on the number of processes.

    When `groups` has a grouping called `run`, the evaluation was repeated with fresh random starts and the run of each
    sample is known: WAR and UAR are then computed for every run and averaged, as SEEN does over 20 runs, and their
    standard deviation over runs is reported.

    Attributes:
        class_names: Class names in index order.
        groups: Names of the groups by grouping, in index order.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor

    def __init__(
        self, num_classes: int, class_names: list[str], groups: dict[str, list[str]] | None = None, **kwargs: Any
    ) -> None:
        """Creates the metric.

        Args:
            num_classes: Number of classes K.
            class_names: K names in index order.
            groups: Names of the groups by grouping, for instance `{"lighting": ["normal", "HDR"]}`.
            **kwargs: Passed to `torchmetrics.Metric`.

        Raises:
            ConfigError: If there are not K class names.
        """
        super().__init__(**kwargs)
        if len(class_names) != num_classes:
            raise ConfigError(f"class_names: {len(class_names)} names for {num_classes} classes; give one name a class")
        self.num_classes, self.class_names, self.groups = num_classes, list(class_names), dict(groups or {})
        self.runs = len(self.groups.get(RUN, ["all"]))
        self.groupings = [name for name in self.groups if name != RUN]
        self.add_state("counts", torch.zeros(self.runs, num_classes, num_classes, dtype=torch.long), "sum")
        for name in self.groupings:  # [G, 2]: wrong and right answers
            self.add_state(f"answers_{name}", torch.zeros(len(self.groups[name]), 2, dtype=torch.long), "sum")

    def update(self, scores: Tensor, target: Tensor, groups: dict[str, Tensor] | None = None) -> None:
        """Counts a batch.

        Args:
            scores: Class scores `[B, K]`; the largest is the answer.
            target: Class indices `[B]`, int64.
            groups: Group indices `[B]`, int64, for every grouping the metric was created with; others are ignored.

        Raises:
            ConfigError: If a grouping of the metric is missing from the batch.
        """
        groups = groups or {}
        missing = [name for name in self.groups if name not in groups]
        if missing:
            raise ConfigError(f"data.groups: the batch has no group index {missing[0]!r}; put it into every sample")
        answer, size = scores.argmax(dim=-1), self.num_classes
        run = groups[RUN] if self.runs > 1 else torch.zeros_like(target)
        cell = (run * size + target) * size + answer
        self.counts += torch.bincount(cell, minlength=self.counts.numel()).view_as(self.counts)
        for name in self.groupings:
            state = getattr(self, f"answers_{name}")
            state += torch.bincount(groups[name] * 2 + (answer == target), minlength=state.numel()).view_as(state)

    @property
    def confusion(self) -> Tensor:
        """Counts `[K, K]` over all runs, int64, rows are the true classes."""
        return self.counts.sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Returns the scores, scalars in [0, 1].

        Returns:
            `WAR`, `UAR`, with repeated evaluation `WAR_sd`, `UAR_sd` (sample standard deviation over runs),
            `recall/<class>` and `<grouping>/<name>` over all runs. Classes and groups without samples are left out, so
            that no nan reaches a logger.
        """
        seen = self.counts[self.counts.sum((1, 2)) > 0]
        per_run = torch.stack(war_uar(seen))  # [2, runs]
        scores = {"WAR": per_run[0].mean(), "UAR": per_run[1].mean()}
        if len(seen) > 1:
            scores |= {"WAR_sd": per_run[0].std(), "UAR_sd": per_run[1].std()}
        hits, samples = self.confusion.diagonal(), self.confusion.sum(1)
        parts = [("recall", name, hits[i], samples[i]) for i, name in enumerate(self.class_names)]
        for grouping in self.groupings:
            answers = getattr(self, f"answers_{grouping}")
            parts += [
                (grouping, name, *(row[1], row.sum())) for name, row in zip(self.groups[grouping], answers, strict=True)
            ]
        scores |= {f"{kind}/{name}": hit / total for kind, name, hit, total in parts if total > 0}
        return {name: value.float() for name, value in scores.items()}
