"""Runs every benchmark and prints one table: `python tests/benchmarks/run.py [--quick] [--only leaky,frames]`.

Each `bench_*.py` runs in a process of its own and hands its rows over as JSON, see `measure.main`. A whole run writes
`results.json` beside this file and the table between two marks in `experiments/README.md`; a quick run, or one of some
benchmarks only, writes neither unless it is told where.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import Row, cells

from sdsnn_lightning.whole import write_text

HERE = Path(__file__).parent
README = HERE.parents[1] / "experiments" / "README.md"
MARKS = "<!-- benchmarks: written by make bench -->", "<!-- end of benchmarks -->"
HEAD = ["row", "what", "target", "ratio", "spread", "met"]


def run(path: Path, words: list[str]) -> dict[str, Any]:
    """Runs one benchmark, whose own lines go to the terminal as they come.

    Returns:
        `machine` and `rows` as it wrote them; only `failed`, what went wrong in one line, where it did not.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "rows.json")
        done = subprocess.run([sys.executable, str(path), "--json", str(result), *words])
        if done.returncode or not result.is_file():
            return {"failed": f"{path.name} ended with exit code {done.returncode}"}
        return json.loads(result.read_text())


def load(entry: dict[str, Any]) -> Row:
    """A row as `measure.main` wrote it."""
    return Row(**{key: value for key, value in entry.items() if key != "met"})


def table(rows: list[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sentence(machine: dict[str, Any]) -> str:
    """Names the machine and the versions of what was compared."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"Measured on {machine['processor']} with {machine['cores']} cores{gpu}, {machine['threads']} thread(s) in "
        f"torch unless a row says otherwise; {versions}."
    )


def insert(path: Path, text: str) -> None:
    """Puts text between the two marks of a file; at its end, with the marks, where there are none."""
    content = path.read_text()
    if MARKS[0] not in content:
        content = f"{content.rstrip()}\n\n## Speed and memory\n\n{MARKS[0]}\n{MARKS[1]}\n"
    before, rest = content.split(MARKS[0], 1)
    write_text(path, f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes and few repeats, only to see that all run")
    parser.add_argument("--only", default="", help="names of some benchmarks, with commas: leaky,frames")
    parser.add_argument("--results", type=Path, default=None, help="where to write the rows as JSON")
    parser.add_argument("--readme", type=Path, default=None, help="Markdown file to put the table into")
    parser.add_argument("--processor-time", action="store_true", help="instead of the wall's: for a busy machine")
    options = parser.parse_args()
    whole = not (options.quick or options.only or options.processor_time)
    results = options.results or (HERE / "results.json" if whole else None)
    readme = options.readme or (README if whole else None)
    words = ["--quick"] * options.quick + ["--processor-time"] * options.processor_time

    chosen = {f"bench_{name}.py" for name in options.only.split(",") if name}
    files = [file for file in sorted(HERE.glob("bench_*.py")) if not chosen or file.name in chosen]
    if not files or len(files) < len(chosen):
        raise SystemExit(f"--only {options.only}: there are {[f.stem[6:] for f in sorted(HERE.glob('bench_*.py'))]}")
    machine: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    failed = []
    for number, file in enumerate(files, 1):
        began = time.monotonic()
        print(f"\n[{number}/{len(files)}] {file.name}", flush=True)
        report = run(file, words)
        if "failed" in report:
            failed.append(report["failed"])
        machine = machine or report.get("machine", {})
        entries += report.get("rows", [])
        print(f"      {time.monotonic() - began:.0f} s", flush=True)
    entries.sort(key=lambda entry: entry["row"])
    if entries:
        text = f"{sentence(machine)}\n\n{table([load(entry) for entry in entries])}"
        print(f"\n{text}")
        if results:
            stamp = time.strftime("%Y-%m-%d %H:%M")
            write_text(
                results,
                json.dumps({"made": stamp, "quick": options.quick, "machine": machine, "rows": entries}, indent=1),
            )
        if readme and not failed:  # half a table would look like a whole one
            insert(readme, text)
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    main()
