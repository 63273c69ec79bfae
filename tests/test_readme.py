"""The README's code runs as printed."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from places import REPOSITORY

from sdsnn_lightning.cli import main

TEXT = (REPOSITORY / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_network_yaml_and_strategy_of_the_readme_train(workdir):
    network, strategy, *_ = blocks("python")
    Path("mine.py").write_text(network)
    Path("my_strategy.py").write_text(strategy)
    (experiment,) = blocks("yaml")
    Path("mine.yaml").write_text(experiment)
    tiny = {
        "data": {"init_args": {"simulated_subjects": 6, "simulated_clips": 1, "batch_size": 3}},
        "trainer": {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 2, "accelerator": "cpu",
                    "log_every_n_steps": 1, "enable_progress_bar": False, "enable_model_summary": False},
    }  # fmt: skip
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny))
    mine = {"trainer": {"callbacks+": [{"class_path": "my_strategy.MatchHidden", "init_args": {"weight": 0.1}}]}}
    Path("strategy.yaml").write_text(yaml.safe_dump(mine))
    # The teacher that the demo leaves, which the YAML names; whatever must agree with it does as printed.
    teacher, quick = (str(REPOSITORY / f"experiments/{name}.yaml") for name in ("seye_teacher", "quick"))
    main(["fit", "--config", teacher, "--config", quick, "--config", "tiny.yaml"])
    demo = Path("runs/quick/seye_teacher")
    shutil.copy(demo / "version_0/checkpoints/best.ckpt", demo / "seed1.ckpt")
    main(["fit", "--config", "mine.yaml", "--config", "tiny.yaml", "--config", "strategy.yaml"])
    checkpoint = torch.load("runs/mine/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["adapters.MatchHidden.weight"].shape == (256, 128)
    assert checkpoint["global_step"] == 2
    header = Path("runs/mine/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/MatchHidden_weight", "train/LogitDistillation_weight", "val/UAR"} <= set(header)


def test_data_set_of_the_readme_serves_an_experiment(workdir):
    Path("recordings.py").write_text(blocks("python")[2])
    rng = np.random.default_rng(0)
    for part, number in (("train", 6), ("val", 2), ("test", 3)):
        for label, word in enumerate(("left", "right")):
            Path("mine", part, word).mkdir(parents=True)
            for k in range(number):
                np.save(Path("mine", part, word, f"{k}.npy"), rng.random((20, 8), dtype=np.float32) + label)
    (line,) = re.findall(r"^`(data: .*)` in a YAML uses it\.$", TEXT, flags=re.MULTILINE)
    network = {"class_path": "sdsnn_lightning.networks.SpikingKeyword", "init_args": {"mels": 8, "hidden": 16}}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    model = {"class_path": "sdsnn_lightning.Classifier", "init_args": {"network": network, "optimizer": optimizer}}
    experiment = yaml.safe_load(line) | {
        "name": "recordings",
        "model": model,
        "trainer": {"max_epochs": 8, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
    }
    experiment["data"]["init_args"] = {"root": "mine", "steps": 20, "features": 8, "batch_size": 4}
    Path("mine.yaml").write_text(yaml.safe_dump(experiment))
    main(["fit", "--config", "mine.yaml"])
    main(["test", "--config", "mine.yaml", "--ckpt_path", "best"])
    results = json.loads(Path("runs/recordings/version_0/results.json").read_text())
    assert results["data_source"] == "real"
    assert results["test"]["WAR"] == 1.0  # the classes differ in loudness


def test_every_file_and_experiment_the_readme_names_exists():
    for path in set(re.findall(r"(?:experiments|sdsnn_lightning)/[\w/]+\.\w+", TEXT)):
        assert (REPOSITORY / path).exists(), path
