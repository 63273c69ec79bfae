"""`sdsnn report`: compares runs by their results files, never by what somebody typed."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from sdsnn_lightning.charts import COSTS, Cost
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.reports.collect import Group, collect
from sdsnn_lightning.reports.table import markdown, print_table
from sdsnn_lightning.whole import whole_path, write_text


def common_folder(folders: list[Path]) -> Path:
    """The folder that all runs lie in; that of the run where there is but one."""
    return Path(os.path.commonpath([folder.resolve() for folder in folders]))


def from_here(path: Path) -> Path:
    """The shorter way to write a path: relative to the current folder where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def parse(words: list[str]) -> argparse.Namespace:
    """Reads the command line.

    Args:
        words: Command-line words after `report`.

    Returns:
        The options.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn report",
        description="Compare tested runs: mean and standard deviation over seeds, energy by the usual paper rule. "
        "Prints a table and writes a page that needs no network.",
        epilog="example: sdsnn report runs/quick/seye_teacher runs/quick/seye_ce runs/quick/seye",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Run folders, or experiment folders for all their seeds.")
    parser.add_argument("--output", type=Path, help="The page; report.html in the folder all runs lie in by default.")
    parser.add_argument("--table", action="store_true", help="Print a Markdown table, and write no page.")
    parser.add_argument("--command", action="store_true", help="With --table: add the command that trained the run.")
    parser.add_argument("--prefixes", action="store_true", help="With --table: add WAR after growing numbers of steps.")
    parser.add_argument(
        "--pareto", type=Path, metavar="PNG", help="Also draw accuracy against its cost into this file."
    )
    parser.add_argument("--cost", choices=COSTS, default="energy", help="What --pareto takes for the cost.")
    parser.add_argument(
        "--experiments", type=Path, default=Path("experiments"), metavar="FOLDER",
        help="Where the YAMLs are, for the notes (method, paper) of runs that were saved without any.",
    )  # fmt: skip
    return parser.parse_args(words)


def draw_pareto(groups: Sequence[Group], path: Path, cost: Cost = "energy") -> None:
    """Draws accuracy against energy or firing rate of all experiments into a PNG file.

    Args:
        groups: Of one data set, or the picture would compare what cannot be compared.
        path: The file; its folder is made.
        cost: Which of the two.

    Raises:
        ConfigError: If the experiments are of several data sets or without that cost, or the file cannot be written.
    """
    from sdsnn_lightning.charts import pareto_chart
    from sdsnn_lightning.reports.page import cost_points

    sources = dict.fromkeys(group.source for group in groups)
    points = cost_points(groups, cost)
    if len(sources) > 1 or not points:
        what = f"the runs are on {', '.join(sources)}" if len(sources) > 1 else f"no run has its {cost}"
        raise ConfigError(f"--pareto: {what}; name tested runs on one data set")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_path(path, ".png") as aside:
            pareto_chart(points, cost).savefig(aside, dpi=160)
    except OSError as error:
        raise ConfigError(f"--pareto {path}: cannot write ({error.strerror}); name another file") from error


def main(words: list[str]) -> None:
    """Prints the comparison and writes the page.

    Args:
        words: Command-line words after `report`.

    Raises:
        ConfigError: If the page or the picture cannot be written.
    """
    options = parse(words)
    groups = collect(options.runs)
    if options.pareto:
        draw_pareto(groups, options.pareto, options.cost)
    if options.table:
        print(markdown(groups, options.experiments, options.command, options.prefixes))
        return
    print_table(groups)
    path = (options.output or common_folder(options.runs) / "report.html").resolve()
    if path.is_dir():
        raise ConfigError(f"--output {options.output} is a folder; name a file in it")
    from sdsnn_lightning.reports.page import page

    text = page(groups, options.experiments)
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write ({error.strerror}); name another file with --output") from error
    for group in groups:
        for run in group.runs:
            names = sorted(picture.stem for picture in run.folder.glob("pictures/*.png"))
            if names:
                print(f"pictures: {from_here(run.folder)}/pictures/{{{','.join(names)}}}.png")
    print(f"page: {from_here(path)}")
