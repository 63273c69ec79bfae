"""`sdsnn examples`: the experiments that come with the package, to copy and change."""

import argparse
from pathlib import Path

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.whole import write_text

FOLDER = Path(__file__).parent


def main(words: list[str]) -> None:
    """Lists the examples, or copies them into a folder.

    Args:
        words: Command-line words after `examples`.

    Raises:
        DataError: If a file of that name is in the folder, or it cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn examples",
        description="List the experiments that come with the package, or copy them into a folder to run and change.",
        epilog="example: sdsnn examples .",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER", help="Where to copy them; lists them without."
    )
    folder = parser.parse_args(words).folder
    files = sorted(FOLDER.glob("*.yaml"))
    if folder is None:
        for file in files:
            print(f"{file.name}: {file.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        print("to copy them here: sdsnn examples .")
        return
    copy_examples(folder)
    for file in files:
        print(folder / file.name)
    where = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    print(f"to run the first one: {where}lightning fit --config {files[0].name}")


def copy_examples(folder: Path) -> None:
    """Copies the examples, each whole or not at all.

    Args:
        folder: Made if it does not exist.

    Raises:
        DataError: If one of the files is there already, or cannot be written.
    """
    files = sorted(FOLDER.glob("*.yaml"))
    there = [folder / file.name for file in files if (folder / file.name).exists()]
    if there:
        raise DataError(f"{there[0]} exists; name another folder, or delete it")
    try:
        for file in files:
            write_text(folder / file.name, file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}); name another folder") from error
