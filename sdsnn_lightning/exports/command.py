"""`sdsnn export`: a trained student as files that need neither Lightning nor this package."""

import argparse
import sys
from pathlib import Path
from typing import Any

from sdsnn_lightning.errors import ConfigError

FORMATS = ("weights", "program", "nir")


def export_run(
    path: Path, formats: tuple[str, ...] | None = None, out: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Exports the trained network of a run; programs and graphs are compared with it before they get their names.

    Args:
        path: A run folder or one of its checkpoints, see `trained.find_trained`.
        formats: Some of `FORMATS`. None tries all; what does not fit is left out, with the reason in the card.
        out: Folder to write into; `export` in the run folder if None.

    Returns:
        The folder and the card.

    Raises:
        ConfigError: If the network cannot be exported in a format that was asked for.
    """
    from sdsnn_lightning.exports.card import make_card, write_card
    from sdsnn_lightning.exports.program import example_inputs
    from sdsnn_lightning.faults import plain_errors
    from sdsnn_lightning.trained import load_trained

    trained = load_trained(path)
    network: Any = trained.network
    card = make_card(trained) | {"left_out": {}}
    inputs = example_inputs(trained.data.input_shapes, tuple(network.inputs))
    folder = trained.files.folder / "export" if out is None else out
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part in FORMATS if formats is None else formats:
            try:
                card[part] = _WRITERS[part](network, inputs, folder, card)
            except ConfigError as error:
                if formats is not None:
                    raise
                card["left_out"][part] = " ".join(str(error).split())
        write_card(card, folder / "card.json")
    return folder, card


def _weights(network: Any, inputs: Any, folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    from sdsnn_lightning.exports.card import save_weights

    return {"file": save_weights(network, folder).name, "batch_norm": "kept"}


def _program(network: Any, inputs: Any, folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    from sdsnn_lightning.exports.program import save_program

    agreement, state, names = save_program(network, inputs, folder / "step.pt2")
    states = [
        {"name": name, "shape": list(entry.shape[1:]), "start": float(entry.flatten()[0]) if entry.numel() else 0.0}
        for name, entry in zip(names, state, strict=True)
    ]
    return {"file": "step.pt2", "batch_norm": "kept", "state": states, "compared": agreement._asdict()}


def _nir(network: Any, inputs: Any, folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    from sdsnn_lightning.exports.nir_graph import save_nir

    return save_nir(network, inputs, folder / "network.nir", card["time_step_ms"])


_WRITERS = {"weights": _weights, "program": _program, "nir": _nir}


def main(words: list[str]) -> None:
    """Exports one run and says what was written.

    Args:
        words: Command-line words after `export`.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn export",
        description="Export a trained student: plain weights, a torch.export program of its streaming step, a NIR "
        "graph, and a JSON card. Program and graph are compared with the network before they get their names.",
        epilog="example: sdsnn export runs/quick/seye_ce/version_0 --to weights program --out seye_export",
    )
    parser.add_argument("run", type=Path, help="Run folder, experiment folder (its newest run), or checkpoint.")
    parser.add_argument(
        "--to", nargs="+", choices=FORMATS, metavar="FORMAT", help=f"Of {', '.join(FORMATS)}; all that fit by default."
    )
    parser.add_argument("--out", type=Path, help="Folder to write into; export/ in the run folder by default.")
    options = parser.parse_args(words)
    from sdsnn_lightning.quiet import keep_quiet

    keep_quiet()
    folder, card = export_run(options.run, tuple(dict.fromkeys(options.to)) if options.to else None, options.out)
    for part in FORMATS:
        if part in card:
            compared = card[part].get("compared")
            said = ""
            if compared:
                said = (
                    f", compared over {compared['steps']} steps: logits differ by {compared['different']:.1e} at most"
                )
            print(f"{part}: {folder / card[part]['file']}{said}")
    print(f"card: {folder / 'card.json'}")
    for part, reason in card["left_out"].items():
        print(f"left out: {part}: {reason}", file=sys.stderr)
    if card["accuracy"] is None:
        print("the card has no accuracy and energy yet: run `lightning test --ckpt_path best` first", file=sys.stderr)
