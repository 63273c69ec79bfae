"""Two seeds of one small experiment and one of another, fitted and tested once for all tests of reports."""

import os
import sys
from pathlib import Path

import pytest

from sdsnn_lightning.cli import main

sys.path.insert(0, str(Path(__file__).parent))
EXPERIMENT = """
name: maps
notes: {method: "ours <script>alert(1)</script>", paper: "WAR 83.6 | SEE"}
data: {class_path: toy_strategies.ToyEvents}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {class_path: toy_strategies.SpikingMaps}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""
OTHER = "{name: wide, notes: null, model: {init_args: {network: {init_args: {width: 6}}}}, trainer: {max_epochs: 1}}"


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """The folder of the runs `maps/version_0`, `maps/version_1` (seeds 1 and 2) and `wide/version_0`."""
    folder, here = tmp_path_factory.mktemp("report"), Path.cwd()
    os.chdir(folder)
    try:
        Path("maps.yaml").write_text(EXPERIMENT)
        Path("wide.yaml").write_text(OTHER)
        for seed, overlay in (("1", ()), ("2", ()), ("1", ("--config", "wide.yaml"))):
            words = ["--config", "maps.yaml", *overlay, "--seed_everything", seed]
            main(["fit", *words])
            main(["test", *words, "--ckpt_path", "best"])
    finally:
        os.chdir(here)
        os.environ.pop("PL_GLOBAL_SEED", None)
    return folder / "runs"


@pytest.fixture(scope="session")
def folders(fitted):
    """What is given to the command."""
    return [fitted / "maps", fitted / "wide"]
