"""What `sdsnn doctor` looks at in the installation and the machine."""

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, entry_points, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from sdsnn_lightning.doctor import Finding

DISTRIBUTION = "sdsnn-lightning"
DEVELOPERS = ("dev", "benchmarks")
"""Extras of those who change the package; what they lack is not told."""


def installation() -> Iterator[Finding]:
    """Versions of Python and of every distribution that the package asks for, against what it asks for."""
    where = f"{sys.executable}, {platform.system()} {platform.machine()}"
    yield Finding("ok", f"Python {platform.python_version()} ({where})")
    try:
        yield Finding("ok", f"{DISTRIBUTION} {version(DISTRIBUTION)} ({Path(__file__).parents[1]})")
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield Finding("FAIL", f"{DISTRIBUTION} is not installed, only imported; run pip install -e . in its folder")
        return
    yield from check_requirements(wanted)


def check_requirements(wanted: Iterable[str]) -> Iterator[Finding]:
    """Compares installed versions with requirements.

    Args:
        wanted: As in a distribution's metadata, extras as markers (`ray>=2; extra == "sweeps"`).

    Yields:
        A failure for what is needed and missing or of a wrong version, a note for what an extra lacks.
    """
    for line in wanted:
        requirement = Requirement(line)
        marker = requirement.marker
        needed = marker is None or marker.evaluate({"extra": ""})
        extra = next(
            (e for e in _extras(line) if e not in DEVELOPERS and marker and marker.evaluate({"extra": e})), None
        )
        if not needed and extra is None:
            continue
        cure = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            if needed:
                yield Finding("FAIL", f"{requirement.name} is not installed; {cure}")
            else:
                what = f"pip install '{DISTRIBUTION}[{extra}]'"
                yield Finding("note", f"{requirement.name} is not installed, which `{extra}` needs; {what}")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding("ok", f"{requirement.name} {found}")
        else:
            yield Finding(
                "FAIL" if needed else "note",
                f"{requirement.name} {found} is not within {requirement.specifier}; {cure}",
            )


def _extras(line: str) -> list[str]:
    """The extras that a requirement names in its marker."""
    parts = line.partition(";")[2].replace("'", '"').split('"')
    return [parts[i + 1] for i in range(len(parts) - 1) if parts[i].rstrip().endswith(("extra ==", "extra=="))]


def script() -> Iterator[Finding]:
    """Which `lightning` and `sdsnn` a shell finds, and whose they are."""
    for name in ("lightning", "sdsnn"):
        yield look_at_script(name, shutil.which(name))
    others = [
        entry.dist.name
        for entry in entry_points(group="console_scripts", name="lightning")
        if entry.dist is not None and not entry.value.startswith("sdsnn_lightning.")
    ]
    if others:
        yield Finding("note", f"{others[0]} has a script `lightning`, too; words that are not ours are handed to it")


def look_at_script(name: str, path: str | None) -> Finding:
    """Whose a script is, by what stands in it.

    Args:
        name: Name of the script.
        path: What a shell finds under it; None where there is nothing.
    """
    beside = Path(sys.executable).with_name(name)
    if path is None:
        activate = beside.with_name("activate")
        cure = f"run `. {activate}`, or " if activate.is_file() else ""
        return Finding("note", f"no `{name}` on the PATH; {cure}say python -m sdsnn_lightning instead")
    try:
        ours = b"sdsnn_lightning" in Path(path).read_bytes()[:4096]
    except OSError as error:
        return Finding("note", f"{path} cannot be read ({error.strerror})")
    if not ours:
        return Finding("note", f"{path} is another program's; use sdsnn, or install {DISTRIBUTION} again, as the last")
    if Path(path).resolve().parent != beside.resolve().parent:
        return Finding("note", f"{path} is ours, of another environment than {sys.executable}; activate one of them")
    return Finding("ok", f"{path} is ours")


def devices() -> Iterator[Finding]:
    """Cores, memory of the disk, GPUs and Triton."""
    import torch

    from sdsnn_lightning.cores import usable_cores

    yield Finding("ok", f"cores to use: {usable_cores()}; threads of torch: {torch.get_num_threads()}")
    free = shutil.disk_usage(".").free / 1e9
    yield Finding("ok" if free > 5 else "note", f"{free:.0f} GB free in {Path.cwd()}")
    if torch.backends.mps.is_available():
        yield Finding("ok", "an Apple GPU; the neuron runs on it in plain torch")
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            build = torch.version.cuda or "none"
            cure = "install a torch built for this machine's driver"
            yield Finding(
                "note", f"there is an NVIDIA driver but torch {torch.__version__} (CUDA: {build}) sees no GPU; {cure}"
            )
        else:
            yield Finding("ok", "no CUDA GPU: everything runs on the CPU, the neuron by its compiled kernel")
        return
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        yield Finding(
            "ok", f"GPU {number}: {card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        )
    try:
        yield Finding("ok", f"Triton {distribution('triton').version}: the neuron runs by its Triton kernel")
    except PackageNotFoundError:
        cure = f"pip install '{DISTRIBUTION}[triton]'"
        yield Finding("note", f"Triton is not installed: the neuron runs in plain torch on the GPU, slower; {cure}")


def wandb() -> Iterator[Finding]:
    """Whether runs go online, and whether the server answers where they do."""
    from sdsnn_lightning.errors import ConfigError
    from sdsnn_lightning.loggers import HOSTS, Wandb, logged_in, unreachable

    try:
        mode = Wandb().mode
    except ConfigError as error:
        yield Finding("FAIL", str(error))
        return
    chosen = f" (WANDB_MODE is {os.environ['WANDB_MODE']})" if "WANDB_MODE" in os.environ else ""
    if not logged_in():
        yield Finding("note", f"nobody is logged in: runs are {mode}{chosen}; to have them online: wandb login")
        return
    yield Finding("ok", f"logged in: runs are {mode}{chosen}")
    if mode == "online":
        wrong = unreachable(os.environ.get("WANDB_BASE_URL") or f"https://{HOSTS[0]}")
        if wrong:
            yield Finding("note", f"{wrong}: runs are kept offline until it does")
        else:
            yield Finding("ok", "its server answers")
