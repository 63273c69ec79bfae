"""`sdsnn profile`: what a network costs, the student next to its teacher, on the test part of an experiment's data."""

import copy
import json as json_format
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from sdsnn_lightning.checkpoints import WholeCheckpoints, check_state, load_network_state
from sdsnn_lightning.classifier import network_inputs
from sdsnn_lightning.cli import DEFAULTS, example, program
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.experiment import Experiment
from sdsnn_lightning.faults import plain_errors
from sdsnn_lightning.memory import keep_freed_memory
from sdsnn_lightning.metrics.cost import device_name, latency, peak_memory
from sdsnn_lightning.metrics.energy import RULES, EnergyReport, EnergyScore
from sdsnn_lightning.metrics.padding import own_lengths
from sdsnn_lightning.quiet import keep_quiet
from sdsnn_lightning.run_files import LastCheckpoint
from sdsnn_lightning.strategies.kdcl import TimeStepCurriculum
from sdsnn_lightning.types import Batch
from sdsnn_lightning.whole import write_text


@dataclass
class NetworkProfile:
    """What one network costs.

    Attributes:
        role: `student`, `teacher`, or `network` where there is but one.
        network: Its class.
        weights: The file its weights are from, or `untrained`.
        steps: Time steps of the first batch; batches of recordings are as long as their longest one.
        batch_size: Samples of the first batch, which has the most.
        report: Operations and energy per sample, over the test part.
        latency_one_s: Seconds for one sample by itself, of those of the first batch the one of middle length.
        latency_batch_s: Seconds a sample in a batch of `batch_size`.
        peak_bytes: Memory of a pass over that batch beside weights and inputs; None where it is not known.
    """

    role: str
    network: str
    weights: str
    steps: int = 0
    batch_size: int = 0
    report: EnergyReport = field(default_factory=lambda: EnergyReport([], 0, 0))
    latency_one_s: float = 0.0
    latency_batch_s: float = 0.0
    peak_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for a JSON file; energies in joules per sample."""
        layers = [
            {**vars(row), "energy_J": {name: rule(row) for name, rule in RULES.items()}} for row in self.report.rows
        ]
        plain = {key: value for key, value in vars(self).items() if key != "report"}
        plain["not_counted"] = self.report.unseen
        measured = {"samples": self.report.samples, "firing_rate": self.report.firing_rate, **self.report.totals}
        return {**plain, **measured, "layers": layers}


class ProfileMeter(Callback):
    """Measures the networks of a Classifier or Distiller in the passes of one test."""

    def __init__(self) -> None:
        super().__init__()
        self.profiles: dict[str, NetworkProfile] = {}
        self.networks: dict[str, nn.Module] = {}
        self.scores: dict[str, EnergyScore] = {}
        self.kept: dict[str, tuple[Tensor, ...]] = {}
        self.device = ""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the networks and where their weights are from; loads the teacher's if they are there."""
        module: Any = pl_module
        teacher = getattr(module, "teacher", None)
        weights = {"teacher": "untrained"}
        if teacher is not None and Path(module.teacher_checkpoint or "").is_file():
            module._load_teacher()  # with all its checks: architecture, classes, data source and split
            weights["teacher"] = str(module.teacher_checkpoint)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TimeStepCurriculum) and len(callback.stages) > 1:
                teacher, file = last_teacher(callback, trainer, module.network)
                weights["teacher"] = str(file or "untrained")
        role = "network" if teacher is None else "student"
        weights[role] = str(trainer.ckpt_path or "untrained")
        self.networks = {role: module.network} | ({} if teacher is None else {"teacher": teacher})
        for name, network in self.networks.items():
            self.profiles[name] = NetworkProfile(name, type(network).__name__, weights[name])
            self.scores[name] = EnergyScore(network).to(module.device)
        self.device = device_name(module.device)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Counts both networks on their views of the same samples, and keeps the first batch, which has the most."""
        module: Any = pl_module
        for name, network in self.networks.items():
            inputs = network_inputs(network, batch.teacher if name == "teacher" else getattr(batch, module.view))
            self.kept.setdefault(name, inputs)
            score = self.scores[name]
            with torch.inference_mode(), trainer.precision_plugin.test_step_context():
                (score.count if name == "teacher" else score.follow)(*inputs)  # the test itself runs the other one

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Stops counting until the next batch."""
        next(iter(self.scores.values())).detach()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes latency and memory, while the networks still are on the device."""
        for name, network in self.networks.items():
            profile, inputs = self.profiles[name], self.kept.get(name)
            if inputs is None:
                continue
            profile.report = self.scores[name].compute()
            profile.steps, profile.batch_size = max(x.shape[0] for x in inputs), inputs[0].shape[1]
            by_length = list(own_lengths(network, inputs))
            one = tuple(x[:, :1].contiguous() for x in by_length[len(by_length) // 2])
            with torch.inference_mode(), trainer.precision_plugin.test_step_context():
                profile.latency_one_s = latency(network, one)
                profile.latency_batch_s = latency(network, inputs) / profile.batch_size
                profile.peak_bytes = peak_memory(network, inputs)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        for score in self.scores.values():
            score.detach()


def last_teacher(curriculum: TimeStepCurriculum, trainer: Any, student: nn.Module) -> tuple[nn.Module, Path | None]:
    """The teacher of a curriculum's last stage: the student that was promoted before it.

    Sets the data to the time steps of that stage.

    Args:
        curriculum: Has more than one stage.
        trainer: Tests a checkpoint of the run.
        student: The network of the run.

    Returns:
        The teacher, and the file its weights are from: beside the checkpoint that is tested. None where there is none.
    """
    trainer.datamodule.set_resolution(*curriculum.steps(len(curriculum.stages) - 1))
    teacher = copy.deepcopy(student)
    file = Path(trainer.ckpt_path or "untrained").with_name(f"stage{len(curriculum.stages) - 1}.ckpt")
    if trainer.ckpt_path is None or not file.is_file():
        return teacher, None
    what = f"the teacher of the curriculum's last stage {file}"
    weights, _ = load_network_state(file, what)
    check_state(teacher.state_dict(), weights, what)
    teacher.load_state_dict(weights)
    return teacher, file


class Profiler(Trainer):
    """A Trainer that can also profile: one test, measured."""

    def profile(
        self,
        model: LightningModule,
        datamodule: Any = None,
        ckpt_path: Optional[str] = None,  # noqa: UP045 (the parser shows it so)
        weights_only: Optional[bool] = None,  # noqa: UP045
        json: Optional[str] = None,  # noqa: UP045
    ) -> list[NetworkProfile]:
        """Measure operations, firing rates, energy, latency and memory on the test part.

        Args:
            model: The Classifier or Distiller.
            datamodule: Its data.
            ckpt_path: Weights of the network: `best`, `last` or a checkpoint. A teacher takes its own,
                model.init_args.teacher_checkpoint.
            weights_only: Load nothing but weights.
            json: File to write everything into.

        Returns:
            One profile a network, the student's first.
        """
        from sdsnn_lightning.profile_table import print_profiles

        meter = ProfileMeter()
        self.callbacks.append(meter)  # type: ignore[attr-defined]
        self.test(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only, verbose=False)
        profiles = list(meter.profiles.values())
        if not meter.kept:
            raise ConfigError("profile needs at least one test batch; set trainer.limit_test_batches to 1 or more")
        about = {
            "data": type(datamodule).__name__,
            "data_source": getattr(datamodule, "origin", None),
            "device": meter.device,
        }
        print_profiles(profiles, about)
        if json is not None:
            _write(Path(json), {**about, "networks": {profile.role: profile.as_dict() for profile in profiles}})
            print(f"everything in {json}")
        return profiles


def _write(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file in one step."""
    with plain_errors(path):
        write_text(path, json_format.dumps(content, indent=2) + "\n")


class ProfileExperiment(Experiment):
    """An experiment that is profiled: the same words, files and errors as `test`, and no run folder."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one subcommand, with the arguments that are not words of the command line."""
        return {"profile": {"model", "datamodule"}}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the Trainer without loggers and records."""
        self.save_config_callback = None
        options = self._get(self.config_init, "trainer", default={})
        bar = options.get("enable_progress_bar") is not False and sys.stderr.isatty()
        self.trainer_defaults = {"callbacks": [LastCheckpoint(), *([RichProgressBar()] if bar else [])]}
        kwargs |= {"logger": False, "enable_model_summary": False, "enable_progress_bar": bar}
        if options.get("plugins") is None:
            kwargs["plugins"] = WholeCheckpoints()
        try:
            return LightningCLI.instantiate_trainer(self, **kwargs)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise ConfigError(f"trainer: {error} (all keys: sdsnn profile --help)") from error


def main(words: list[str]) -> None:
    """Profiles one experiment and prints the tables.

    Args:
        words: Command-line words after `profile`.
    """
    keep_quiet()
    keep_freed_memory()
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    modes: dict[str, Any] = {"parser_mode": "omegaconf+"}
    subcommand = {"profile": {"default_config_files": [str(DEFAULTS)], "epilog": example("profile"), **modes}}
    parsers = {**modes, **subcommand, "prog": program()}
    ProfileExperiment(args=["profile", *words], parser_kwargs=parsers, trainer_class=Profiler)
