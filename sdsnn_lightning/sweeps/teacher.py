"""Trains the teacher that an experiment names, and nothing else: once, before the trials that share it."""

import sys

from sdsnn_lightning.errors import UserError


def main(words: list[str]) -> None:
    """Runs `python -m sdsnn_lightning.sweeps.teacher`.

    Args:
        words: The command line of `fit`, without `fit`.
    """
    from sdsnn_lightning.sweeps.check import fit_reader
    from sdsnn_lightning.teacher_first import train_missing_teacher

    train_missing_teacher(fit_reader().dump(words), words)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
