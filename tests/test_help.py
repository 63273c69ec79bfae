"""`--help` of every command shows an example, and the examples work."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from places import REPOSITORY
from refusal import refusal

from sdsnn_lightning.cli import EXAMPLES, OWN_COMMANDS, TRAINER_WORDS, main
from sdsnn_lightning.examples import FOLDER

DATA = ("list", "download", "simulate", "verify", "to-spikes", "to-events")
COMMANDS = [
    *([word] for word in (*TRAINER_WORDS, *OWN_COMMANDS)),
    *(["data", word] for word in DATA),
    ["predict", "RUN", "INPUT"],
]
SMALL = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
         "--trainer.accelerator=cpu"]  # fmt: skip


def help_of(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def example_of(words, capsys):
    """The words of the first example in the help of a command, without the program."""
    text = help_of(words, capsys).partition("example")[2]
    start = re.search(r"\b(?:lightning|sdsnn) (?=[a-z])", text)
    command = text[start.end() :]
    return shlex.split(re.split(r" \(`| ?; |, two rounds| a folder <| a set with", command)[0])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_an_example_of_the_command(words, capsys):
    text = help_of(words, capsys)
    assert "example" in text
    command = example_of(words, capsys)
    assert (
        command[: 1 + (words[0] == "data" and len(words) > 1)] == words[: 1 + (words[0] == "data" and len(words) > 1)]
    )
    for option in (word for word in command if word.startswith("--")):
        assert option in text


def test_the_main_help_names_every_command(capsys):
    text = help_of([], capsys)
    assert all(word in text for word in (*TRAINER_WORDS, *OWN_COMMANDS))
    assert EXAMPLES["fit"] in text


def test_without_a_word_it_says_what_there_is(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    assert EXAMPLES["fit"] in " ".join(capsys.readouterr().out.split())


def test_examples_are_copied_whole_once(workdir, capsys):
    main(["examples"])
    assert "eye.yaml: A first run" in capsys.readouterr().out
    main(["examples", "mine"])
    assert (
        capsys.readouterr().out.splitlines()[-1] == "to run the first one: cd mine && lightning fit --config eye.yaml"
    )
    assert {path.name for path in Path("mine").iterdir()} == {path.name for path in FOLDER.glob("*.yaml")}
    assert yaml.safe_load(Path("mine/eye.yaml").read_text())["name"] == "eye"
    assert "mine/eye.yaml exists; name another folder" in refusal(capsys, "examples", "mine")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_example_works(workdir, capsys, monkeypatch):
    def run(*words, extra=(), instead=()):
        command = example_of(list(words), capsys)
        for old, new in instead:
            command = [word.replace(old, new) for word in command]
        main([*command, *extra])  # a failure ends in SystemExit, which fails the test
        return capsys.readouterr().out

    run("examples")
    assert Path("eye.yaml").is_file()
    run("fit", extra=SMALL)
    assert Path("runs/eye/version_0/checkpoints/best.ckpt").is_file()
    for word in ("validate", "test", "predict"):
        run(word, extra=SMALL)
    assert Path("runs/eye/version_0/predictions.csv").is_file()
    assert "student" in run("profile", extra=SMALL[1:])
    run("report", instead=[("runs/quick/seye_teacher", "runs/eye"), ("runs/quick/seye_ce", "runs/eye"),
                           ("runs/quick/seye", "runs/eye")])  # fmt: skip
    assert list(Path("runs").rglob("report.html"))
    run("export", instead=[("runs/quick/seye_ce", "runs/eye")])
    assert Path("seye_export/card.json").is_file()
    clip = sorted(Path("data/see-simulated/frame/angry").iterdir())[0]
    shutil.copytree(clip, "eye.mp4")  # a folder of images stands for the video
    run("predict", "RUN", "INPUT", instead=[("runs/quick/seye_ce", "runs/eye")])
    assert Path("answers/predictions.csv").is_file()

    shutil.rmtree("data/see-simulated")
    run("data", "simulate")
    assert " 0 damaged" in run("data", "verify")
    assert "found in data/see-simulated" in run("data", "list")
    run("doctor", extra=["--no-self-test"])
    monkeypatch.chdir(REPOSITORY)
    assert "--trainer" in run("sweep", extra=["--list", "--trainer.max_epochs=1"])
