"""What every benchmark shares: alternating repeats, rows of the table, the machine's name.

A benchmark is a file `bench_*.py` beside this one, with a generator `rows(options)` and `main(rows, __doc__)` at its
end. `run.py` runs each in a process of its own. Contestants take turns in one process, so that a busy machine slows
them alike, and a ratio is one of medians. A row whose peer is not installed stays empty and says so.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

LEAST = 7
"""Repeats of every contestant; a quick run, whose numbers mean nothing, takes fewer."""
SHORTEST = 0.02  # seconds; what is faster is called several times in a repeat
PEERS = ("torch", "lightning", "snntorch", "spikingjelly", "tonic", "numba", "triton")


class Options(NamedTuple):
    """What the command line of a benchmark says.

    Attributes:
        repeats: Of every contestant, the warm-up not counted.
        quick: Small shapes, to see whether the benchmark runs.
        threads: Of torch.
        clock: Seconds: of the wall, or of the processor where others keep the machine busy.
    """

    repeats: int
    quick: bool
    threads: int
    clock: Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        row: Number of the target.
        what: What is compared, for people.
        target: As in `>= 3`; less than that where there is nothing to reach.
        ratio: What the target is about; None where the peer is missing.
        low: Lowest ratio of a repeat.
        high: Highest ratio of a repeat.
        note: Anything else, the missing peer for instance.
        medians: Of the contestants, in milliseconds unless their names say otherwise.
    """

    row: int
    what: str
    target: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""
    medians: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the ratio is as it should be; None without a ratio or a target."""
        sign, _, bound = self.target.partition(" ")
        if self.ratio is None or not bound:
            return None
        return self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)


def alternate(
    runs: Mapping[str, Callable[[], object]], options: Options, shortest: float = SHORTEST
) -> dict[str, list[float]]:
    """Times contestants in turns, each round in the opposite order of the last.

    Args:
        runs: What to time, by name.
        options: How many rounds, by which clock; two more go before them, to compile and to allocate.
        shortest: Seconds that a repeat lasts at least: fast contestants are called several times in it.

    Returns:
        Milliseconds of one call, by name, one for every round.
    """
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = max(1, min(100, round(1000 * shortest / max(_milliseconds(run, 1, options.clock), 1e-3))))
    return in_turns({n: partial(_milliseconds, run, calls[n], options.clock) for n, run in runs.items()}, options)


def in_turns(runs: Mapping[str, Callable[[], float]], options: Options) -> dict[str, list[float]]:
    """Asks contestants that measure themselves, in turns, each round in the opposite order of the last.

    Args:
        runs: Each does its work once and returns what it measured, milliseconds for instance.
        options: How many rounds.

    Returns:
        What they measured, by name, one for every round.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.repeats):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            taken[name].append(runs[name]())
    return taken


def _milliseconds(run: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(calls):
        run()
    return 1000 * (clock() - began) / calls


def compare(
    row: int, what: str, times: Mapping[str, Sequence[float]], ours: str, peer: str, target: str, note: str = ""
) -> Row:
    """Compares two contestants: `>=` asks how many times as fast ours is, `<=` how many times as long it takes.

    Args:
        row: Number of the target.
        what: What is compared.
        times: Of `alternate`.
        ours: Name of our contestant.
        peer: Name of the other one; of any name that begins so the fastest, and an empty row where there is none.
        target: As in `>= 3` or `<= 1.2`; the sign alone where there is nothing to reach.
        note: See `Row`.
    """
    names = [name for name in times if name.startswith(peer)]
    if not names:
        return Row(row, what, target, note=f"{peer} is not installed")
    best = min(names, key=lambda name: statistics.median(times[name]))
    above, below = (best, ours) if target.startswith(">=") else (ours, best)
    medians = {name: statistics.median(times[name]) for name in (ours, best)}
    each = [a / b for a, b in zip(times[above], times[below], strict=True)]
    return Row(row, what, target, medians[above] / medians[below], min(each), max(each), note, medians)


def spikingjelly() -> Any:
    """The package `spikingjelly.activation_based` with neurons and functions imported, or None."""
    try:
        from spikingjelly import activation_based
        from spikingjelly.activation_based import functional, neuron  # noqa: F401
    except ImportError:
        return None
    return activation_based


def machine(options: Options) -> dict[str, Any]:
    """Names the machine and the versions of all that took part."""
    import torch  # not above: the runner needs rows only

    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    versions = {}
    for name in PEERS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "clock": options.clock.__name__,
        "load": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": versions,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def cells(row: Row) -> list[str]:
    """The columns of a row: number, what, target, ratio, spread, met."""
    number = "" if row.ratio is None else f"{row.ratio:.3g}"
    spread = "" if row.low is None or row.high is None else f"{row.low:.3g} to {row.high:.3g}"
    met = {True: "yes", False: "no", None: ""}[row.met]
    return [
        str(row.row),
        f"{row.what} ({row.note})" if row.note else row.what,
        row.target if " " in row.target else "",
        number,
        spread,
        met,
    ]


def main(rows: Callable[[Options], Iterator[Row]], about: str | None) -> None:
    """The command line of a benchmark: prints its rows as they come, and writes them where `run.py` wants them."""
    import torch

    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=None, help=f"of every contestant; {LEAST} by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; all cores by default")
    parser.add_argument("--quick", action="store_true", help="small shapes and few repeats, only to see that it runs")
    parser.add_argument("--processor-time", action="store_true", help="instead of the wall's: for a busy machine")
    parser.add_argument("--json", type=Path, default=None, help="file to write the rows to")
    words = parser.parse_args()
    clock = time.process_time if words.processor_time else time.perf_counter
    options = Options(words.repeats or (2 if words.quick else LEAST), words.quick, words.threads, clock)
    torch.set_num_threads(options.threads)
    done = []
    for row in rows(options):
        print("  ".join(part for part in cells(row) if part), flush=True)
        for name, median in row.medians.items():
            print(f"      {median:10.3f}  {name}", flush=True)
        done.append({**asdict(row), "met": row.met})
    if words.json:
        words.json.write_text(json.dumps({"machine": machine(options), "rows": done}))
