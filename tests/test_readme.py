"""The README's code runs as printed."""

import re
from pathlib import Path

import torch
import yaml
from places import REPOSITORY

from sdsnn_lightning.cli import main

TEXT = (REPOSITORY / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_network_yaml_and_strategy_of_the_readme_train(workdir):
    network, strategy = blocks("python")
    Path("mine.py").write_text(network)
    Path("my_strategy.py").write_text(strategy)
    (experiment,) = blocks("yaml")
    Path("mine.yaml").write_text(experiment)
    data = {"size": 32, "simulated_subjects": 3, "simulated_clips": 1, "batch_size": 3, "val_fraction": 0.4}
    tiny = {
        "data": {"init_args": data},
        "model": {"init_args": {"teacher_checkpoint": None, "student": {"init_args": {"size": 32}}}},
        "trainer": {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 2, "accelerator": "cpu",
                    "log_every_n_steps": 1,
                    "enable_progress_bar": False, "enable_model_summary": False,
                    "callbacks+": [{"class_path": "my_strategy.MatchHidden", "init_args": {"weight": 0.1}}]},
    }  # fmt: skip
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny))
    main(["fit", "--config", "mine.yaml", "--config", "tiny.yaml"])
    checkpoint = torch.load("runs/mine/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["adapters.MatchHidden.weight"].shape == (256, 128)
    assert checkpoint["global_step"] == 2
    header = Path("runs/mine/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/MatchHidden_weight", "train/LogitDistillation_weight", "val/UAR"} <= set(header)


def test_every_file_and_experiment_the_readme_names_exists():
    for path in set(re.findall(r"(?:experiments|sdsnn_lightning)/[\w/]+\.\w+", TEXT)):
        assert (REPOSITORY / path).exists(), path
