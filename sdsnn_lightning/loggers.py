"""W&B without ceremony: online where the user is logged in, offline otherwise, files in the run folder.

One run folder is one run of W&B: a resumed fit and the evaluations of its checkpoints go on under the id that the
folder holds. Nothing that W&B does or fails to do ends a training.
"""

import netrc
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from sdsnn_lightning.errors import ConfigError, first_line
from sdsnn_lightning.runs import metric_rows, process_rank
from sdsnn_lightning.whole import write_text

Mode = Literal["auto", "online", "offline", "disabled"]
KNOWN_MODES = ("auto", "online", "offline", "disabled", "dryrun", "run", "shared")
"""What WANDB_MODE may be: ours, and the words of wandb."""
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Where `wandb login` goes by default: older versions of wandb, and those from 0.31."""
ID_FILE = "wandb_id.txt"
"""Holds the id of a run folder's run at W&B."""
ANSWER_SECONDS, START_SECONDS, FINISH_SECONDS = 5.0, 30.0, 60.0
"""How long to wait for the server: to answer at all, to take a run, and to take what is left of it at its end."""


def logged_in() -> bool:
    """Whether W&B credentials exist for this user; looks at files and environment only, never at the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    given = os.environ.get("WANDB_BASE_URL")
    hosts = [urlparse(given).hostname or ""] if given else HOSTS
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        file = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(file.authenticators(host) is not None for host in hosts)


class MetricsFile(CSVLogger):
    """Lightning's `metrics.csv`; that of a resumed run goes on where its checkpoint was taken."""

    def __init__(self, runs: str, name: str, version: int, steps: int = 0) -> None:
        """Creates the logger.

        Args:
            runs: Folder that all run folders lie in.
            name: Name of the experiment.
            version: Number of the run folder.
            steps: Optimizer steps that the run resumes from. Rows of later steps will be logged again, so they go.
        """
        super().__init__(runs, name=name, version=version)
        self.steps = steps

    @property
    def experiment(self) -> Any:
        """The writer, which is given the rows of the steps before it deletes the file that they are in."""
        if self._experiment is None and self.steps and process_rank() == 0:
            rows = [row for row in metric_rows(Path(self.log_dir, "metrics.csv")) if int(row["step"]) < self.steps]
            writer = super().experiment
            writer.metrics = rows
            writer.save()
            return writer
        return super().experiment


class Wandb:
    """The `wandb:` section of an experiment."""

    def __init__(
        self,
        project: str = "sdsnn",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: Mode = "auto",
        log_model: bool = False,
    ) -> None:
        """Creates the settings.

        Args:
            project: W&B project.
            entity: W&B team or user; None takes the user's default.
            group: Groups runs, for instance those of one sweep.
            tags: Added to the run beside its data source.
            mode: `auto` goes online where the user is logged in. The environment variable WANDB_MODE wins over it.
            log_model: Keep the weights of the best network, without teacher, adapters and optimizer, as an artifact.

        Raises:
            ConfigError: If WANDB_MODE is none of its words.
        """
        self.project, self.entity, self.group, self.tags = project, entity, group, list(tags or [])
        self.log_model = log_model
        chosen = os.environ.get("WANDB_MODE", mode)
        if chosen not in KNOWN_MODES:
            raise ConfigError(f"the variable WANDB_MODE is '{chosen}'; set it to online, offline or disabled")
        if chosen == "auto":
            chosen = "online" if logged_in() else "offline"
        self.mode = {"dryrun": "offline", "run": "online"}.get(chosen, chosen)

    def loggers(self, folder: str, name: str, evaluation: str | None = None) -> list[WandbLogger]:
        """Makes the logger of one run; nothing is started before the first value is logged.

        Args:
            folder: The run folder; W&B writes its files below it. A run that is noted there is gone on with.
            name: Display name of the run.
            evaluation: The evaluating command, if it is one. Where the folder holds no run, as for a checkpoint from
                elsewhere, its values go into a run of its own, `<name>-<command>`.

        Returns:
            The logger, or nothing where W&B is disabled.
        """
        if self.mode == "disabled":
            return []
        # Without a console writer wandb would print its banner over the progress bar.
        os.environ.setdefault("WANDB_SILENT", "true")
        file = Path(folder, ID_FILE)
        known = file.read_text().strip() if file.is_file() else None
        options: dict[str, Any] = {"entity": self.entity, "group": self.group, "mode": self.mode}
        if evaluation is None:
            # `wandb agent` names the run that it wants in the variable.
            options |= {"tags": self.tags, "id": known or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)}
        elif known:
            options |= {"id": known}
        else:
            name, options = f"{name}-{evaluation}", options | {"tags": self.tags}
        if process_rank() == 0:
            Path(folder).mkdir(parents=True, exist_ok=True)
        logger = RunLogger(name=name, project=self.project, save_dir=folder, **options)
        logger.id_file = file if evaluation is None else None
        logger.keeps_model = self.log_model
        return [logger]


class RunLogger(WandbLogger):
    """Lightning's W&B logger that ends its run when the Trainer does, and that no network can stop or hold up.

    Attributes:
        id_file: Where to note the run's id; None does not.
        keeps_model: Whether the weights of the best network are wanted as an artifact.
    """

    id_file: Path | None = None
    keeps_model = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous", None)  # no longer known to wandb, which would say so on every run
        self.broken = False

    @property
    def experiment(self) -> Any:
        """The run. Started here, at the first access: online if the server answers, else offline, which is said."""
        if self._experiment is None and process_rank() == 0:
            self._start()
        return super().experiment

    def _start(self) -> None:
        import wandb

        limits: dict[str, Any] = {
            "init_timeout": START_SECONDS,
            "x_graphql_timeout_seconds": START_SECONDS,  # else giving up waits for what was asked last
            "finish_timeout": FINISH_SECONDS,
            "finish_timeout_raises": True,
        }
        known = {key: value for key, value in limits.items() if key in wandb.Settings.model_fields}
        self._wandb_init["settings"] = wandb.Settings(**known)
        reason = None
        if self._wandb_init["mode"] not in ("offline", "disabled"):
            server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
            reason = unreachable(server)
            if reason is None:
                try:
                    _ = super().experiment
                except (wandb.Error, OSError) as error:
                    reason = f"W&B at {server} takes no run ({first_line(error)})"
                    wandb.teardown()  # its process would hold the id of the run that did not start
        if reason is not None:
            self._wandb_init["mode"] = "offline"
        if self._wandb_init["mode"] == "offline":
            self._wandb_init.pop("resume", None)  # wandb warns that it asks no server; the id is what counts
            wandb.setup().settings.mode = "offline"  # else it sends its own statistics, and waits for an answer
        try:
            run = super().experiment
        except (wandb.Error, OSError, ValueError) as error:
            raise ConfigError(f"wandb: {first_line(error)}; correct the section or set wandb.mode: disabled") from error
        if reason is not None:
            rank_zero_info(f"{reason}: the run is kept in {self.save_dir}; to send it later: {self._sync(run.id)}")
        if self.id_file is not None:
            write_text(self.id_file, f"{run.id}\n")

    def _sync(self, run: str) -> str:
        """The command that sends what is kept of a run, in the order of its parts."""
        return f"wandb sync {self.save_dir}/wandb/*run-*-{run}"

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs values; if W&B's process is gone, says so once and lets the training go on.

        Args:
            metrics: Values by name.
            step: Optimizer steps done.
        """
        if not self.broken:
            with self._guarded():
                super().log_metrics(metrics, step)

    def summarise(self, values: dict[str, Any]) -> None:
        """Sets values of W&B's summary.

        Args:
            values: By name.
        """
        with self._guarded():
            self.experiment.summary.update(values)

    def keep_weights(self, file: Path, facts: dict[str, Any]) -> None:
        """Hands a file of weights to W&B as the artifact `weights-<run id>` of type `model`.

        Args:
            file: Copied before this returns.
            facts: Metadata.
        """
        import wandb

        with self._guarded():
            artifact = wandb.Artifact(f"weights-{self.experiment.id}", type="model", metadata=facts)
            artifact.add_file(str(file), name=file.name)
            self.experiment.log_artifact(artifact, aliases=["best"])

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Lets the training go on where W&B's process is gone; says so once."""
        import wandb

        try:
            yield
        except (wandb.Error, OSError) as error:
            if not self.broken:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.broken = True
        rank_zero_warn(f"W&B takes no more values ({first_line(error)}): the run goes on; metrics.csv has them all")

    def finalize(self, status: str) -> None:
        """Ends the W&B run; W&B files are whole from here on. A server that is gone is not waited for long."""
        super().finalize(status)
        run, self._experiment = self._experiment, None
        if run is None or not hasattr(run, "finish"):
            return
        with self._guarded():
            try:
                run.finish(exit_code=0 if status == "success" else 1)
            except TimeoutError:
                rank_zero_info(f"W&B did not take all of the run; it is kept: {self._sync(run.id)} sends the rest")


def unreachable(server: str) -> str | None:
    """Asks a W&B server whether it is there, through the proxies of the environment, for a few seconds at most.

    Args:
        server: Its address.

    Returns:
        None if it answers, whatever it answers; else what is wrong, in a few words.
    """
    try:
        # Any answer will do: what this asks for need not exist.
        with urlopen(Request(f"{server.rstrip('/')}/healthz", method="HEAD"), timeout=ANSWER_SECONDS):
            return None
    except HTTPError:
        return None
    except (OSError, HTTPException, ValueError) as error:
        return f"W&B at {server} does not answer ({first_line(getattr(error, 'reason', None) or error)})"
