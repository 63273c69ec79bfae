"""The LightningCLI of the package: defaults, run folders, loggers and the teacher that is trained first."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any, Optional

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichModelSummary, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import distributed

from sdsnn_lightning import runs, slurm
from sdsnn_lightning.callbacks import EnergyMeter, RunRecord, SpikeActivity
from sdsnn_lightning.checkpoints import LAST, WholeCheckpoints, check_source, usable_checkpoint
from sdsnn_lightning.classifier import Classifier
from sdsnn_lightning.config_checks import check_files, check_names, check_options, check_seed, plain_construction
from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.faults import StopTogether, plain_errors
from sdsnn_lightning.loggers import MetricsFile, Wandb
from sdsnn_lightning.metrics.prefixes import PrefixRecord
from sdsnn_lightning.parser import Parser
from sdsnn_lightning.predict import PredictionWriter
from sdsnn_lightning.run_files import LastCheckpoint, RunCheckpoint, SaveConfig
from sdsnn_lightning.run_pictures import RunPictures
from sdsnn_lightning.teacher_first import config_files, train_missing_teacher
from sdsnn_lightning.wandb_record import WandbRecord


def close_process_group() -> None:
    """Ends the communication threads of a gloo group while the interpreter still lives.

    Left to the exit of the process, a thread that lets go of a Python object then aborts it ("terminate called without
    an active exception", exit code 134), now and then. Lightning closes groups on NCCL by itself.
    """
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        time.sleep(0.2)  # closing waits for those threads with the interpreter locked: let them get rid of theirs first
        distributed.destroy_process_group()


def check_strategy(trainer: Trainer) -> Trainer:
    """Sets what distributed training of spiking students needs, and refuses strategies that shard the networks.

    Buffers are not broadcast at every forward: batch statistics stay those of each process, as its gradients are, and
    the first process's are kept. `trainer.sync_batchnorm: true` pools them over the processes instead.

    Args:
        trainer: Just made.

    Returns:
        The same Trainer.

    Raises:
        ConfigError: If its strategy splits the networks' weights over processes.
    """
    if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
        raise ConfigError(
            f"trainer.strategy: {type(trainer.strategy).__name__} splits weights over processes, for which a frozen "
            "teacher beside a student is not made; use ddp: these networks fit on every device"
        )
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._ddp_kwargs.setdefault("broadcast_buffers", False)
    return trainer


class Experiment(LightningCLI):
    """One experiment: a YAML, read after the packaged defaults, run by Lightning's Trainer."""

    def __init__(self, args: list[str] | None = None, out: Path | None = None, **kwargs: Any) -> None:
        self.words = sys.argv[1:] if args is None else args
        check_files(config_files(self.words))
        self.out = out
        self.run_folder: Path | None = None
        self.earlier: Path | None = None
        self.steps = 0
        self.stop = StopTogether()
        super().__init__(
            args=args,
            model_class=Classifier,
            datamodule_class=DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            parser_class=Parser,
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what every experiment has beside model, data and trainer."""
        parser.add_argument("--name", type=str, default="run", help="Name of the experiment; names its run folder.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder that all run folders lie in.")
        parser.add_argument("--version", type=Optional[int], default=None, help="Number of the run folder.")  # noqa: UP045
        parser.add_argument("--width", type=float, default=1.0, help="Width multiplier, for ${width} in an experiment.")
        parser.add_argument("--notes", type=Optional[dict[str, str]], default=None, help="Of reports: method, paper.")  # noqa: UP045
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_class_arguments(Wandb, "wandb")
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")

    @property
    def options(self) -> Any:
        """The parsed configuration of the running subcommand."""
        return self.config[self.subcommand]

    def _parse_ckpt_path(self) -> None:
        """Leaves the command line as it is: Lightning would lay a checkpoint's hyper-parameters over it."""

    def _set_seed(self) -> None:
        """Seeds everything, unless the generators would not take the seed."""
        check_seed(self.options.seed_everything)
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Resolves `--ckpt_path best|last` to the newest run of the experiment, and evaluates on one device.

        Several would be given some samples twice, to have equally many each: the scores would not be those of the set.
        """
        options = self.options
        check_names(options.name, options.runs, options.version)
        check_options(options, self.subcommand == "fit")
        slurm.leave_shells_alone()
        if self.subcommand == "fit":
            self.earlier = slurm.earlier_folder(Path(options.runs), options.name, options.version, self.words)
            if self.earlier is not None and (self.earlier / "checkpoints" / LAST).is_file():
                options.ckpt_path = str(self.earlier / "checkpoints" / LAST)
        if options.get("ckpt_path") in ("best", "last"):
            options.ckpt_path = str(runs.newest_checkpoint(Path(options.runs), options.name, options.ckpt_path))
        if self.subcommand == "fit" and options.get("ckpt_path"):  # an evaluation is of the very file asked for
            options.ckpt_path = str(usable_checkpoint(Path(options.ckpt_path)))
        if options.get("weights_only") is None:
            options.weights_only = True  # no code from a checkpoint is run
        if self.subcommand in ("validate", "test"):
            options.verbose = False  # a hundred lines; the record holds them, and says the important ones
        if self.subcommand != "fit":
            devices = options.trainer.devices  # one that is named stays that one
            options.trainer.devices = devices[:1] if isinstance(devices, list) else 1
            options.trainer.num_nodes, options.trainer.strategy = 1, "auto"
            if options.get("ckpt_path") is None:
                rank_zero_warn(f"no --ckpt_path is given: {self.subcommand} runs on untrained weights; try `best`")
        if self.subcommand == "predict":
            options.return_predictions = False  # the writer streams them to a file; keeping them would fill the memory

    def instantiate_classes(self) -> None:
        """Makes data, networks and Trainer; a constructor that fails is told in one line."""
        with plain_construction():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the Trainer with this run's folder, loggers, progress bar and record.

        By now data and networks exist, so their mistakes have been told. A missing teacher is trained first, before
        anything of this run is written.
        """
        options = self.options
        fits_in_job = self.subcommand == "fit" and slurm.job() is not None
        if fits_in_job:
            self.stop = slurm.Requeue(self.words)
        if self.subcommand == "fit":
            self.steps = self._steps_done(options.get("ckpt_path"))
            train_missing_teacher(self._parser(self.subcommand).dump(options, skip_none=False), self.words)
        if self.subcommand == "fit" and "source" in options.data.get("init_args", {}):
            # The saved config says which data it really was, and reproduces exactly that.
            options.data.init_args.source = self.datamodule.data_source
        self.save_config_callback = SaveConfig if self.subcommand == "fit" else None
        trainer_options = self._get(self.config_init, "trainer", default={})
        given = trainer_options.get("logger"), trainer_options.get("default_root_dir")
        unlogged = self.subcommand == "fit" and given == (False, None)
        if given[0] is None or unlogged:
            loggers = self._loggers(options)  # reserves the run folder
            kwargs["logger"] = False if unlogged else loggers
        extra: list[Any] = [
            LastCheckpoint(),
            self.stop,
            EnergyMeter(self._folder),  # ahead of what else watches the network, which it may run once more
            SpikeActivity(),
            RunRecord(None if self.subcommand == "fit" else self._folder, self._command),
            WandbRecord(),
        ]
        if self.subcommand == "test":
            extra += [PrefixRecord(self._folder), RunPictures(self._folder)]
        if trainer_options.get("enable_progress_bar") is not False:
            extra.append(RichProgressBar())
        if trainer_options.get("enable_model_summary") is not False:
            extra.append(RichModelSummary(max_depth=1))
        if self.subcommand == "predict":
            extra.append(PredictionWriter(self._folder))  # after the bar, so that its own comes when that one is gone
        self.trainer_defaults = {"callbacks": extra}
        if trainer_options.get("plugins") is None:
            kwargs["plugins"] = WholeCheckpoints()
        if (fits_in_job or unlogged) and self.run_folder is not None and given[1] is None:
            # Without a logger, all is written here: over the last run's files, were it the current folder. In a job,
            # Lightning goes on from any hpc_ckpt_*.ckpt it finds here; in the current folder that is another run's.
            kwargs["default_root_dir"] = str(self.run_folder)
        try:
            return slurm.check_tasks(check_strategy(super().instantiate_trainer(**kwargs)))
        except (ValueError, TypeError, MisconfigurationException, ConfigError) as error:
            if self.run_folder is not None:
                runs.release(self.run_folder)
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"trainer: {error} (all keys: lightning {self.subcommand} --help)") from error

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs the Trainer; a full disk ends it in one line."""
        # Where `max_steps` is set, Lightning would take the finished epoch of a checkpoint for one to go on with.
        self.trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        try:
            with plain_errors(Path(self.options.runs, self.options.name)):
                super()._run_subcommand(subcommand)
        except SIGTERMException:
            if isinstance(self.stop, slurm.Requeue):
                self.stop.queue_anew()
            raise
        finally:
            close_process_group()
            runs.unclaim()
            if self.run_folder is not None and self.trainer.fast_dev_run and self.trainer.is_global_zero:  # type: ignore[attr-defined]
                runs.release(self.run_folder)  # nothing is kept of a trial run

    @property
    def _command(self) -> str:
        """What trains this run again; with --version, as of teachers and trials, its own words would write over it."""
        if self.options.version is None or self.run_folder is None:
            return shlex.join(["lightning", *self.words])
        return shlex.join(["lightning", "fit", "--config", str(self.run_folder / "config.yaml")])

    @property
    def _folder(self) -> Path:
        """Where an evaluation writes: beside the checkpoint it evaluates."""
        return self.out or runs.run_folder(self.options.get("ckpt_path"), Path(self.options.runs), self.options.name)

    def _steps_done(self, resumed: str | None) -> int:
        """Optimizer steps behind the checkpoint that a fit goes on from, if any.

        With `source: auto`, a folder that has vanished since would let a run on real data go on with simulated data.
        """
        if not resumed:
            return 0
        checkpoint = WholeCheckpoints().load_checkpoint(resumed, weights_only=True)
        what, cure = f"the checkpoint (--ckpt_path {resumed})", "restore the data, or start without --ckpt_path"
        check_source(checkpoint, getattr(self.datamodule, "data_source", None), what, cure)
        return int(checkpoint.get("global_step", 0))

    def _loggers(self, options: Any) -> list[Any]:
        """Files and W&B for a fit; an evaluation writes its results beside the checkpoint it evaluates."""
        wandb = self._get(self.config_init, "wandb")
        if self.subcommand == "fit":
            with plain_errors(Path(options.runs, options.name)):
                version, resumed = options.version, options.get("ckpt_path")
                if version is None and self.earlier is not None:
                    version = int(self.earlier.name.removeprefix("version_"))
                if version is None and resumed:
                    version = runs.version_of(Path(resumed), Path(options.runs), options.name)
                if version is None:  # only the first rank writes; the others' number is of no consequence
                    version = runs.reserve(Path(options.runs), options.name) if runs.process_rank() == 0 else 0
                files = MetricsFile(options.runs, options.name, version, self.steps)
                self.run_folder = Path(files.log_dir)
                if runs.process_rank() == 0:
                    runs.claim(self.run_folder)
                return [files, *wandb.loggers(files.log_dir, options.name)]
        return wandb.loggers(str(self._folder), options.name, self.subcommand)
