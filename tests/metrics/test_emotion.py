"""WAR, UAR and group accuracies, against hand counts and against the released results of SEEN."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.emotion import ClassificationScores, war_uar

EMOTIONS = ["angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
LIGHTING = ["normal", "Overexposed", "Low", "HDR"]


def update(metric, answers, targets, **groups):
    scores = F.one_hot(torch.tensor(answers), metric.num_classes).float()
    metric.update(scores, torch.tensor(targets), {name: torch.tensor(index) for name, index in groups.items()})


def test_hand_counted_scores():
    metric = ClassificationScores(3, ["a", "b", "c"], {"lighting": ["HDR", "Low", "dark"]})
    update(metric, [0, 0, 1, 1], [0, 0, 0, 1], lighting=[0, 0, 1, 1])
    scores = metric.compute()
    assert metric.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert {name: round(value.item(), 4) for name, value in scores.items()} == {
        "WAR": 0.75,
        "UAR": 0.8333,  # (2/3 + 1) / 2: class c does not occur
        "recall/a": 0.6667,
        "recall/b": 1.0,
        "lighting/HDR": 1.0,
        "lighting/Low": 0.5,  # no `lighting/dark`: no sample
    }


def test_runs_are_scored_one_by_one():
    metric = ClassificationScores(2, ["a", "b"], {"run": ["0", "1"]})
    update(metric, [0, 1, 0], [0, 1, 1], run=[0, 0, 0])  # WAR 2/3, UAR 3/4
    update(metric, [0, 1, 1, 1], [0, 1, 1, 0], run=[1, 1, 1, 1])  # WAR 3/4, UAR 3/4
    scores = metric.compute()
    assert scores["WAR"].item() == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert scores["WAR_sd"].item() == pytest.approx((3 / 4 - 2 / 3) / 2**0.5)
    assert scores["UAR"].item() == pytest.approx(0.75)
    assert scores["UAR_sd"].item() == pytest.approx(0.0)
    assert not [name for name in scores if name.startswith("run/")]


def test_batching_does_not_change_the_scores():
    generator = torch.Generator().manual_seed(0)
    scores, target = torch.randn(101, 7, generator=generator), torch.randint(7, (101,), generator=generator)
    lighting = torch.randint(4, (101,), generator=generator)
    whole = ClassificationScores(7, EMOTIONS, {"lighting": LIGHTING})
    whole.update(scores, target, {"lighting": lighting})
    parts = ClassificationScores(7, EMOTIONS, {"lighting": LIGHTING})
    for part in torch.arange(101).split(17):  # the last part is smaller
        parts.update(scores[part], target[part], {"lighting": lighting[part]})
    assert whole.compute() == parts.compute()
    ranks = [ClassificationScores(7, EMOTIONS, {"lighting": LIGHTING}) for _ in range(2)]
    for rank, part in zip(ranks, (slice(0, 64), slice(64, 101)), strict=True):  # as two processes sum their states
        rank.update(scores[part], target[part], {"lighting": lighting[part]})
    ranks[0].merge_state(ranks[1])
    assert whole.compute() == ranks[0].compute()
    parts.reset()
    assert parts.confusion.sum() == 0


def test_no_sample_is_nan_not_zero():
    war, uar = war_uar(torch.zeros(2, 2, dtype=torch.long))
    assert war.isnan()
    assert uar.isnan()


def test_missing_grouping_and_wrong_names_are_errors():
    metric = ClassificationScores(2, ["a", "b"], {"lighting": LIGHTING})
    with pytest.raises(ConfigError, match="lighting"):
        metric.update(torch.eye(2), torch.tensor([0, 1]), {})
    with pytest.raises(ConfigError, match="3 names for 2 classes"):
        ClassificationScores(2, ["a", "b", "c"])


def test_released_results_of_seen():
    """SEEN's 20 released runs of E4-S3 score WAR 83.64, UAR 84.11 (paper, table 1).

    The files carry no licence, so they are read from a clone of the authors' repository.
    """
    folder = Path(os.environ.get("SDSNN_SEEN_RESULTS", "no/such/folder"))
    files = sorted(folder.glob("test_epoch_163_*.json"))
    if len(files) != 20:
        pytest.skip("set SDSNN_SEEN_RESULTS to ours_results/E4_S3 of the authors' repository to run this test")
    metric = ClassificationScores(7, EMOTIONS, {"lighting": LIGHTING, "run": [str(run) for run in range(20)]})
    for run, file in enumerate(files):
        results = json.loads(file.read_text())["results"]
        fields = [name.split("_") for name in results]  # lighting and emotion stand in the sequence's name
        update(
            metric,
            [EMOTIONS.index(answers[0]["label"]) for answers in results.values()],
            [EMOTIONS.index(field[6]) for field in fields],
            lighting=[LIGHTING.index(field[5]) for field in fields],
            run=[run] * len(fields),
        )
    scores = metric.compute()
    assert round(100 * scores["WAR"].item(), 2) == 83.64
    assert round(100 * scores["UAR"].item(), 2) == 84.11
    assert round(100 * scores["WAR_sd"].item(), 2) == 0.99
    assert metric.confusion.sum(1).tolist() == [20 * n for n in (119, 124, 113, 89, 92, 100, 130)]
    assert round(100 * scores["recall/disgust"].item(), 1) == 76.7
