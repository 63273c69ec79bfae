"""Tables of operations and energy: colours on a terminal, plain text in a file."""

import io
from typing import TYPE_CHECKING

from sdsnn_lightning.metrics.layers import LayerOperations

if TYPE_CHECKING:
    from rich.table import Table

    from sdsnn_lightning.metrics.energy import EnergyReport

RULE_NOTES = {
    "paper": "0.9 pJ a SynOp, 4.6 pJ a MAC on real-valued input",
    "syops": "as syops-counter 0.0.5 counts, at the same prices",
    "lemaire": "arithmetic, memory and addressing (arXiv 2210.13107)",
    "dense": "the same layers without spikes, 4.6 pJ a MAC",
}
"""What each rule charges, in a line. All at 45 nm."""


def short(count: float) -> str:
    """`1234567` -> `1.23M`, three digits."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size * 0.9995:
            return f"{_digits(count / size)}{unit}"
    return _digits(count)


def _digits(value: float) -> str:
    """Three digits without an exponent; what would need one is `<0.001`."""
    if value and abs(value) < 0.001:
        return "<0.001"
    if value >= 999.5:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.4f}"


def microjoules(joules: float) -> str:
    """Energy in microjoules, three digits."""
    return _digits(joules * 1e6)


def _cut(name: str, width: int) -> str:
    """Shortens modules to letter and number, from the outermost on, until a dotted name fits; then cuts the middle."""
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if len(".".join(parts)) <= width:
            break
        parts[index] = part[:1] + part[len(part.rstrip("0123456789")) :]  # layer2 -> l2
    name = ".".join(parts)
    if len(name) <= width:
        return name
    tail = (width - 1) * 2 // 3
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def layer_table(report: "EnergyReport", width: int) -> "Table":
    """One line a layer: operations, what arrives at it and its energy by every rule, in microjoules per sample.

    Modules without products, which only some rules charge, share a line.

    Args:
        report: What was measured.
        width: Columns there are; long names are cut to fit.

    Returns:
        A rich table.
    """
    from rich import box
    from rich.table import Table

    from sdsnn_lightning.metrics.energy import RULES

    rules = {name: rule for name, rule in RULES.items() if name != "dense"}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1), collapse_padding=True)
    wide = width >= 100
    name_width = max(13, min(max([len(row.name) for row in report.rows] + [13]), width - (71 if wide else 63)))
    table.add_column("layer", no_wrap=True, width=name_width)
    for head in (["kind"] if wide else []) + ["input"]:
        table.add_column(head, no_wrap=True, style="cyan")
    for head in ("rate", "MACs", "SynOps", *rules):
        table.add_column(head, justify="right", no_wrap=True, style="bold" if head == "paper" else None)
    small = [row for row in report.rows if not row.macs and row.op != "neuron"]

    def add(name: str, op: str, kind: str, cells: list[str], rows: list[LayerOperations]) -> None:
        energies = [microjoules(sum(map(rule, rows))) for rule in rules.values()]
        table.add_row(_cut(name, name_width), *([op] if wide else []), kind, *cells, *energies)

    for row in report.rows:
        if row in small:
            continue
        if row.op == "neuron":
            add(row.name, "neuron", "neurons", [f"{row.rate:.3f}", "", ""], [row])
        else:
            add(
                row.name,
                row.op,
                row.kind,
                [f"{row.rate:.3f}", short(row.macs), "-" if row.kind == "analogue" else short(row.synops)],
                [row],
            )
    if small:
        add("other modules", "", "", ["", "", ""], small)
    table.add_section()
    totals = ["", short(report.totals["dense_macs"]), short(report.totals["synops"])]
    add("total", "", "", totals, report.rows)
    return table


def as_text(table: "Table", width: int) -> str:
    """A table as plain text of at most `width` columns."""
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width, color_system=None, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())


def unseen_note(report: "EnergyReport") -> str:
    """Says which modules the figures of a report leave out."""
    return f"Not counted, as the products of these modules cannot be seen: {', '.join(report.unseen)}."


def summary(report: "EnergyReport") -> list[str]:
    """The lines below a table: totals, and what every rule charges."""
    from sdsnn_lightning.metrics.energy import RULES

    sums = report.totals
    lines = [
        f"{short(sums['dense_macs'])} dense MACs, of which {short(sums['macs'])} on real-valued input, and "
        f"{short(sums['synops'])} SynOps per sample;",
        f"{short(sums['parameters'])} parameters; measured on {report.samples:,} samples.",
        "Energy per sample at 45 nm (in the table: uJ), by rule:",
    ]
    for name in RULES:
        lines.append(f"  {name:<8}{microjoules(sums[f'energy_{name}_J']):>8} uJ  {RULE_NOTES[name]}")
    if report.unseen:
        lines.append(unseen_note(report))
    if any(not row.macs and row.op != "neuron" for row in report.rows):
        lines.append("Other modules: normalisation, pooling and activations, which not all rules charge.")
    return lines
