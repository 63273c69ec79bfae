"""What `sdsnn doctor` looks at on the disk: the data of every experiment, and the caches."""

import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from sdsnn_lightning.data_commands.catalogue import SETS, how_to_get, set_of_module
from sdsnn_lightning.doctor import Finding
from sdsnn_lightning.errors import UserError, one_line

DECIDES = ("prefix", "validation", "val_speakers", "classes", "class_from", "train_match", "test_match", "modalities")
"""Arguments of a data module that say which files it needs."""


class Use(NamedTuple):
    """Data that experiments name.

    Attributes:
        module: Class of the data module.
        root: Folder of the real set.
        decides: What else says which files are needed, of the first experiment that names the folder.
        experiments: Names of the files, without their ending.
    """

    module: str
    root: Path
    decides: dict[str, Any]
    experiments: list[str]


def read_uses(folder: Path) -> list[Use]:
    """Finds the data that the experiments of a folder name; overlays name none.

    Args:
        folder: Holds `*.yaml`.

    Returns:
        One entry a module and folder of data.
    """
    from omegaconf import OmegaConf

    uses: dict[tuple[str, Path], Use] = {}
    for file in sorted(folder.glob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(file))
        data = content.get("data") if isinstance(content, dict) else None
        module = data.get("class_path") if isinstance(data, dict) else None
        if not module or not isinstance(data, dict):
            continue
        options = data.get("init_args") or {}
        known = set_of_module(module)
        root = options.get("root") or (str(SETS[known].root) if known else None)
        if root is None:
            continue
        decides = {key: value for key, value in options.items() if key in DECIDES}
        uses.setdefault((module, Path(root)), Use(module, Path(root), decides, [])).experiments.append(file.stem)
    return list(uses.values())


def data_found(folder: Path) -> Iterator[Finding]:
    """Whether the data of every experiment is here and, as far as its index and names tell, whole.

    Args:
        folder: The experiments.

    Yields:
        A note for a set that is not here, as a stand-in is simulated then; a failure for one that `fit` would refuse.
    """
    uses = read_uses(folder) if folder.is_dir() else []
    if not uses:
        yield Finding("note", f"{folder} holds no experiment; name another folder by --experiments")
    for use in uses:
        yield look_at(use)


def look_at(use: Use) -> Finding:
    """Whether one folder of data is there and can be used.

    Args:
        use: What the experiments name.
    """
    named = ", ".join(use.experiments[:3]) + (", ..." if len(use.experiments) > 3 else "")
    known = set_of_module(use.module)
    if not use.root.exists():
        cure = how_to_get(known, use.root) if known else f"put the data of {use.module} there"
        if use.decides.get("prefix", known) != known and known in ("shd", "ssc"):
            cure = "sdsnn data to-spikes makes it from recordings"
        elif known and use.root != SETS[known].root and not SETS[known].fetched:
            cure = f"put recordings there, in the layout of {known}"
        return Finding("note", f"{use.root} is not here: {named} simulate a stand-in; {cure}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols and missing pieces: a fit tells them
            module, _, name = use.module.rpartition(".")
            made = getattr(import_module(module), name)(root=str(use.root), source="real", **use.decides)
    except (UserError, ImportError, AttributeError, TypeError) as error:
        check = f"; to read every file: sdsnn data verify {known} {use.root}" if known else ""
        return Finding("FAIL", f"{named}: {one_line(error)}{check}")
    return Finding("ok", f"{use.root} is here, {made.num_classes} classes: {named}")


def cache_sizes(folder: Path) -> Iterator[Finding]:
    """How much the caches of data sets hold; they are built anew when they are deleted.

    Args:
        folder: The experiments.
    """
    uses = read_uses(folder) if folder.is_dir() else []
    roots = {use.root for use in uses} | {path for found in SETS.values() for path in (found.root, found.simulated)}
    caches = [root / ".cache" for root in sorted(roots)] + [Path.home() / ".cache" / "sdsnn_lightning"]
    there = [cache for cache in caches if cache.is_dir()]
    if not there:
        yield Finding("ok", "no caches yet")
    total = 0
    for cache in there:
        size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        total += size
        yield Finding("ok", f"{cache}: {size / 1e6:.1f} MB")
    if total > 10e9:
        yield Finding("note", f"caches hold {total / 1e9:.1f} GB; those of sets that are no longer used may be deleted")
