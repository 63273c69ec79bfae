"""How `sdsnn profile` looks: one table of both networks, then one of the layers of each."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdsnn_lightning.metrics.energy import RULES
from sdsnn_lightning.metrics.energy_table import RULE_NOTES, layer_table, microjoules, short, unseen_note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sdsnn_lightning.profile import NetworkProfile

FILE_WIDTH = 120
"""Columns where the output is no terminal."""


def print_profiles(profiles: list["NetworkProfile"], about: dict[str, Any], console: "Console | None" = None) -> None:
    """Prints the tables: in colour on a terminal, as plain text elsewhere.

    Args:
        profiles: One or two networks, the student first.
        about: `data`, `data_source` and `device`.
        console: Where to; None prints to the standard output.
    """
    from rich.console import Console

    if console is None:
        width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or FILE_WIDTH)
        console = Console(width=width, highlight=False, soft_wrap=False)
    console.print(_overview(profiles))
    console.print()
    samples = profiles[0].report.samples
    console.print(
        f"Per sample, over {samples:,} samples of the test part of {about['data']} ({about['data_source']}); "
        f"time and memory on {about['device']}. Peak memory is beside weights and inputs.",
        style="dim",
    )
    for name in RULES:
        console.print(f"  {name:<8} {RULE_NOTES[name]}", style="dim")
    for profile in profiles:
        if profile.weights == "untrained":
            hint = "give --ckpt_path best" if profile.role != "teacher" else "there is no checkpoint of it"
            console.print(
                f"The {profile.role}'s weights are untrained ({hint}): "
                "its rates, SynOps and energies are not those of a trained network.",
                style="yellow",
            )
    for profile in profiles:
        if profile.report.unseen:
            console.print(f"The {profile.role}: {unseen_note(profile.report)}", style="yellow")
    for profile in profiles:
        console.print(f"\n[bold]{profile.role}[/]: {profile.network}, layer by layer; energy in uJ")
        console.print(layer_table(profile.report, console.width))
    if any(not row.macs and row.op != "neuron" for profile in profiles for row in profile.report.rows):
        console.print("Other modules: normalisation, pooling and activations, which not all rules charge.", style="dim")


def _overview(profiles: list["NetworkProfile"]) -> "Table":
    """One column a network; with two of them the student's share of the teacher's."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1), collapse_padding=True)
    table.add_column("", no_wrap=True)
    for profile in profiles:
        table.add_column(
            profile.role, justify="right", overflow="fold", style="bold" if profile is profiles[0] else None
        )
    if len(profiles) == 2:
        table.add_column("ratio", justify="right", style="cyan", no_wrap=True)

    def words(name: str, value: Callable[["NetworkProfile"], str]) -> None:
        table.add_row(name, *map(value, profiles), *([""] if len(profiles) == 2 else []))

    def numbers(name: str, value: Callable[["NetworkProfile"], float | None], shown: Callable[[float], str]) -> None:
        values = [value(profile) for profile in profiles]
        cells = ["-" if v is None else shown(v) for v in values]
        if len(values) == 2:
            one, other = values
            cells.append(f"{one / other:.2f}" if one is not None and other else "")
        table.add_row(name, *cells)

    words("network", lambda p: p.network)
    words("weights", lambda p: _from_here(p.weights))
    numbers("parameters", lambda p: p.report.parameters, lambda v: f"{v:,.0f}")
    numbers("time steps", lambda p: p.steps, lambda v: f"{v:.0f}")
    table.add_section()
    numbers("dense MACs", lambda p: p.report.totals["dense_macs"], short)
    numbers("MACs on real-valued input", lambda p: p.report.totals["macs"], short)
    numbers("SynOps", lambda p: p.report.totals["synops"], short)
    numbers("mean firing rate", lambda p: p.report.firing_rate, lambda v: f"{v:.3f}")
    table.add_section()
    for rule in RULES:
        numbers(f"energy, {rule} (uJ)", lambda p, rule=rule: p.report.totals[f"energy_{rule}_J"], microjoules)  # type: ignore[misc]
    table.add_section()
    sizes = "/".join(str(size) for size in dict.fromkeys(profile.batch_size for profile in profiles))
    numbers("latency, batch 1 (ms)", lambda p: p.latency_one_s * 1e3, _milli)
    numbers(f"latency a sample, batch {sizes} (ms)", lambda p: p.latency_batch_s * 1e3, _milli)
    numbers(
        f"peak memory, batch {sizes} (MiB)", lambda p: None if p.peak_bytes is None else p.peak_bytes / 2**20, _milli
    )
    return table


def _from_here(path: str) -> str:
    """A path as seen from the current folder, where it lies below it."""
    here = f"{os.getcwd()}{os.sep}"
    return path.removeprefix(here)


def _milli(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
