"""Row 12: what a user waits for: `lightning --help`, and the first training step of `experiments/seye.yaml`.

Both stand against the import of a bare LightningCLI program, each a process of its own. The first step also stands
against that of such a program on Lightning's demo module: whatever it does before its first step is Lightning's.
The simulated clips, their cache and the teacher are there already, as from the second run on.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from measure import Options, Row, compare, in_turns, main

ROOT = Path(__file__).parents[2]
BARE = "from lightning.pytorch.cli import LightningCLI"
DEMO = f"""
{BARE}
from lightning.pytorch.demos.boring_classes import BoringModel, BoringDataModule
LightningCLI(BoringModel, BoringDataModule)
"""
OURS = [sys.executable, "-m", "sdsnn_lightning"]
PREPARE = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]
ONE_STEP = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]


def process(words: list[str], folder: Path, options: Options) -> float:
    """Milliseconds of a whole process by the clock asked for; one that fails ends the benchmark with its last words."""
    env = {**os.environ, "WANDB_MODE": "disabled", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    wall = options.clock is time.perf_counter
    began = time.perf_counter() if wall else _children()
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    taken = (time.perf_counter() if wall else _children()) - began
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr[-500:]}")
    return 1000 * taken


def _children() -> float:
    """Seconds of processor that ended children have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rows(options: Options) -> Iterator[Row]:
    """Help, and the first step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "demo.py").write_text(DEMO)
        (folder / "experiments").symlink_to(ROOT / "experiments")
        small = {"simulated_subjects": 6, "simulated_clips": 1, "batch_size": 8}
        train = [*OURS, "fit", "--config", "experiments/seye.yaml", "--config", "experiments/quick.yaml"]
        train += [word for key, value in small.items() for word in (f"--data.init_args.{key}", str(value))]
        runs = {
            "--help": partial(process, [*OURS, "--help"], folder, options),
            "import of a bare program": partial(process, [sys.executable, "-c", BARE], folder, options),
        }
        if not options.quick:
            process(
                [*train, *PREPARE], folder, options
            )  # makes the clips and their cache, trains and keeps the teacher
            runs["fit of one step"] = partial(process, [*train, *ONE_STEP], folder, options)
            runs["one step of the bare program"] = partial(
                process, [sys.executable, "demo.py", "fit", *ONE_STEP], folder, options
            )
        for run in runs.values():  # fills the disk's cache
            run()
        times = in_turns(runs, options)
        yield compare(12, "`lightning --help` against the import of a bare LightningCLI program", times, "--help",
                      "import of", "<= 1.2")  # fmt: skip
        if options.quick:
            return
        yield compare(
            12, "`fit` of one step of seye.yaml against that import", times, "fit of one step", "import of", "<= 1.2"
        )
        yield compare(12, "`fit` of one step of seye.yaml against that of a bare program on Lightning's demo", times,
                      "fit of one step", "one step of", "<= 1.2")  # fmt: skip


if __name__ == "__main__":
    main(rows, __doc__)
