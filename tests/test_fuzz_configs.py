"""Two hundred random mistakes in real experiments, a fixed seed: each is one line that names the place, or it runs."""

import random
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lightning.pytorch import Callback
from places import REPOSITORY
from speech_set import write_speech_set

from sdsnn_lightning.cli import main
from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, write_clip, write_index

ROUNDS, FEW = 200, 12
"""All, and those that every test run does."""
SECONDS = 60
"""Of the processor, so that a busy machine is not taken for a hang."""
MEMORY = 6 * 2**30
NAMES = ("seye_ce", "seye_kd", "keyword", "keyword_ce", "words", "words_kdcl")
STRANGE = (
    None, True, -1, 0, 10**12, -(10**12), 1e400, float("nan"), 0.5, "", "word", "${nowhere}", "${data.init_args.nope}",
    "${", "sdsnn_lightning.Nothing", "no.such.module", "os.system", [], {}, [1, "a", None], {"a": {"b": {"c": []}}},
    {"class_path": "builtins.int"}, {"init_args": {"x": 1}}, "../../etc", "\x00", "yes" * 2000, [[[[[[]]]]]],
)  # fmt: skip
BROKEN = (
    b"", b"\x89PNG\r\n\x1a\n\x00\x01\xff\xfe", b"name: [", b"a: b: c", b"- just\n- a list\n", b"42", b"%YAML 9\n---\n",
    b"x: &a [*a]\n", b"name: toy\n\tmodel: {}\n", b"? {}\n: {}\n", b"{" * 300, b"a: &x {b: 1}\nc: {<<: 3}\n", b"\xff",
    b"!!python/object/apply:os.getcwd []\n",
)  # fmt: skip


def places(node: Any, above: tuple = ()):
    """Every key and list index of a configuration."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


def mutate(content: dict[str, Any], rng: random.Random) -> str:
    """Makes one mistake; says which."""
    path = rng.choice(list(places(content)))
    parent: Any = content
    for key in path[:-1]:
        parent = parent[key]
    key, how = path[-1], rng.choice(("delete", "rename", "strange", "strange", "strange", "add", "nest"))
    if how == "delete":
        del parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice((f"{key}x", str(key)[:-1] or "_", str(key).upper(), f" {key}", "0"))] = parent.pop(key)
    elif how == "add" and isinstance(parent, dict):
        parent[rng.choice(("extra", "class_path", "init_args", "1"))] = rng.choice(STRANGE)
    elif how == "nest":
        parent[key] = {str(key): parent[key]}
    else:
        how = "strange"
        parent[key] = rng.choice(STRANGE)
    return f"{how} {'.'.join(map(str, path))} -> {str(parent.get(key) if isinstance(parent, dict) else parent)[:60]!r}"


def small(name: str) -> dict[str, Any]:
    """A real experiment on little data, without a teacher to train first."""
    content = yaml.safe_load((REPOSITORY / "experiments" / f"{name}.yaml").read_text())
    sizes = {"root": "SEE", "size": 24, "skip": 0, "batch_size": 2, "eval_starts": 1}
    speech = {"root": "words", "batch_size": 2}
    content["data"]["init_args"].update({"source": "real"} | (sizes if name.startswith("seye") else speech))
    for key in ("teacher_checkpoint", "teacher_experiment"):
        content["model"]["init_args"].pop(key, None)
    content["trainer"] |= {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    content["trainer"]["devices"] = 1
    return content | {"width": 0.1}


class Stop(Callback):
    """Ends a run where its first training step would begin."""

    def on_train_start(self, trainer, module):
        raise SystemExit(0)


def write_sets(folder):
    write_speech_set(folder / "words")
    entries = []
    for k in range(12):
        subject, take = divmod(k, 2)
        name = ClipName(k, f"{subject:03d}", "man", 30, "Master", LIGHTINGS[subject % 4], EMOTIONS[k % 7], 8, take)
        images = np.random.default_rng(k).integers(0, 256, (8, 16, 16), dtype=np.uint8)
        write_clip(folder / "SEE", name, images, 255 - images)
        entries.append((name, "testing" if take else "training", (0, 8)))
    write_index(folder / "SEE", list(EMOTIONS), entries)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small set for either kind of experiment."""
    folder = tmp_path_factory.mktemp("configs")
    write_sets(folder)
    return folder


@pytest.fixture
def place(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("good.yaml").write_text(yaml.safe_dump(small("seye_ce")))
    return folder


def late(*_):
    raise TimeoutError(f"no end within {SECONDS} s")


def one_round(number, capsys):
    """Runs one wrong configuration. Returns what went wrong, or None, and whether it was refused."""
    rng = random.Random(number)
    label = f"round {number}"
    if number % 10 == 9:
        Path("bad.yaml").write_bytes(BROKEN[number // 10 % len(BROKEN)])
        words = ["--config", "good.yaml", "--config", "bad.yaml"] if number % 20 == 9 else ["--config", "bad.yaml"]
        label += f": {Path('bad.yaml').read_bytes()[:40]!r}"
    else:
        content = small(rng.choice(NAMES))
        label += f": {content['name']}: {mutate(content, rng)}"
        Path("bad.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        words = ["--config", "bad.yaml"]
    capsys.readouterr()
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        # Whatever the mistake, no set is simulated at length, and no network trained.
        stop = ["--data.init_args.source", "real", "--trainer.callbacks+", "{class_path: test_fuzz_configs.Stop}"]
        main(["fit", *words, *stop])
        return None, False
    except SystemExit as end:
        if end.code in (0, None):
            return None, False
        lines = [line for line in capsys.readouterr().err.strip().splitlines() if line]
        if end.code != 2 or not lines or not lines[-1].startswith("error: "):
            return f"{label}: ends with {end.code}: {lines[-1:]}", True
        if any("Traceback" in line for line in lines) or len(lines[-1]) > 1500:
            return f"{label}: not one line: {lines[-1][:300]}", True
        return None, True
    except BaseException as error:
        return f"{label}: {type(error).__name__}: {str(error)[:300]}", True
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def some_rounds(numbers, monkeypatch, capsys):
    sys.modules["test_fuzz_configs"] = sys.modules[__name__]
    memory = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, memory[1]))  # a number too large must not take the machine down
    faults, refused = [], 0
    try:
        for number in numbers:
            monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
            fault, was_refused = one_round(number, capsys)
            faults += [fault] if fault else []
            refused += was_refused
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, memory)
    assert not faults, "\n".join(faults)
    return refused


@pytest.mark.filterwarnings("ignore")
def test_wrong_configurations_are_refused_in_one_line_or_run(place, monkeypatch, capsys):
    assert some_rounds(range(FEW), monkeypatch, capsys) > FEW // 2


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore")
def test_many_wrong_configurations_are_refused_in_one_line_or_run(place, monkeypatch, capsys):
    refused = some_rounds(range(FEW, ROUNDS), monkeypatch, capsys)
    assert ROUNDS // 2 < refused < ROUNDS - FEW  # most mistakes are seen, and some are none
