"""`sdsnn doctor`: looks at the machine, the installation and the data, and says what to do about what is wrong."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["ok", "note", "FAIL"]
_COLOURS: dict[str, str] = {"ok": "green", "note": "yellow", "FAIL": "bold red"}


class Finding(NamedTuple):
    """One line of the doctor's.

    Attributes:
        kind: `ok`; `note`: something is missing that the package does without; `FAIL`: something does not work.
        text: What was found, and the cure where one is needed.
    """

    kind: Kind
    text: str


Check = Callable[[], Iterator[Finding]]


def main(words: list[str]) -> None:
    """Runs all checks and prints what they found.

    Args:
        words: Command-line words after `doctor`.

    Raises:
        SystemExit: With code 1, if something that must work does not.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn doctor",
        description="Look at the installation, the machine, W&B, the data of every experiment and the caches, and "
        "train one tiny step. Exit code 1 if something does not work.",
        epilog="example: sdsnn doctor --experiments experiments",
    )
    parser.add_argument(
        "--experiments", type=Path, default=Path("experiments"), metavar="FOLDER",
        help="The YAMLs whose data is looked for; experiments by default.",
    )  # fmt: skip
    parser.add_argument("--no-self-test", action="store_true", help="Leave out the tiny training and the neuron.")
    options = parser.parse_args(words)
    from sdsnn_lightning.doctor import data, machine, self_test

    checks: dict[str, Check] = {
        "installation": machine.installation,
        "the name lightning": machine.script,
        "devices": machine.devices,
        "W&B": machine.wandb,
        "data": lambda: data.data_found(options.experiments),
        "caches": lambda: data.cache_sizes(options.experiments),
    }
    if not options.no_self_test:
        checks["self-test"] = self_test.self_test
    failures = examine(checks)
    if failures:
        print(f"{failures} {'thing does' if failures == 1 else 'things do'} not work")
        raise SystemExit(1)
    print("everything works")


def examine(checks: dict[str, Check]) -> int:
    """Runs checks and prints their findings; a check that breaks is a finding, and the others go on.

    Args:
        checks: By the headline they are printed under.

    Returns:
        Number of failures.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)  # in a file: no colour, and lines as long as they are
    watcher = Console(stderr=True)
    failures = 0
    for headline, check in checks.items():
        console.print(Text(headline, style="bold"))
        findings = check()
        while True:
            try:
                if watcher.is_terminal and sys.stdout.isatty():
                    with watcher.status(f"{headline} ..."):
                        finding = next(findings)
                else:
                    finding = next(findings)
            except StopIteration:
                break
            except Exception as error:  # whatever is broken here is what the doctor is asked about
                line = " ".join(str(error).split()) or "no message"
                finding = Finding("FAIL", f"{type(error).__name__}: {line}")
                findings = iter(())
            failures += finding.kind == "FAIL"
            console.print(Text.assemble("  ", (f"{finding.kind:<5}", _COLOURS[finding.kind]), finding.text))
    return failures
