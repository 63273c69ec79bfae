"""Every command of the README runs as printed, on a tiny overlay where it would train for hours."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from places import REPOSITORY
from test_experiments import overlay
from test_readme import blocks

from sdsnn_lightning.cli import main

NEEDS_NETWORK = ["--data.init_args.download"]
COMMANDS = [
    shlex.split(line, comments=True)
    for block in blocks("sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def test_the_readme_has_commands_of_every_kind():
    assert {"make", "lightning", "sdsnn", "sbatch"} == {words[0] for words in COMMANDS}


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "make"], ids=" ".join)
def test_targets_of_make_exist(words):
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(words[1:]) <= set(targets)


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "sbatch"], ids=" ".join)
def test_batch_files_are_those_of_the_cluster_tests(words):
    script, argument = [word for word in words if word.startswith("experiments/")]
    assert (REPOSITORY / argument).is_file()
    subprocess.run(["bash", "-n", str(REPOSITORY / script)], check=True)


def prepared(words, folder):
    """The words of a command, with the overlay that makes its run tiny."""
    if words[0] in ("fit", "validate", "test", "predict") and "--config" in words:
        experiment = REPOSITORY / words[words.index("--config") + 1]
        return [*words, "--config", str(overlay(experiment, folder))]
    if words[0] == "profile":
        return [*words, "--config", str(overlay(REPOSITORY / words[words.index("--config") + 1], folder))]
    return [*words, "--list"] if words[0] == "sweep" else words  # its trials run in the tests of sweeps


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_run_one_after_another(tmp_path, monkeypatch, capsys):
    from test_predict_file import write_video

    monkeypatch.chdir(tmp_path)
    Path("experiments").symlink_to(REPOSITORY / "experiments")
    write_video(Path("eye.mp4"), 40)
    for word in ("yes", "no"):
        for take in range(3):
            Path("wav_folder", word).mkdir(parents=True, exist_ok=True)
            sound = np.random.default_rng(take).normal(0, 0.1, 16000).astype("float32")
            soundfile.write(Path("wav_folder", word, f"{take}_nohash_0.wav"), sound, 16000)
    # What a reader has done by then: `make demo`, and one run of seye.yaml itself.
    for name in ("seye", "seye_ce"):
        demo = ["--config", f"experiments/{name}.yaml", "--config", "experiments/quick.yaml"]
        main(prepared(["fit", *demo], tmp_path))
        main([*prepared(["test", *demo], tmp_path), "--ckpt_path", "best"])
    teacher = ["--config", "experiments/seye_teacher.yaml", "--config", "experiments/quick.yaml"]
    main([*prepared(["test", *teacher], tmp_path), "--ckpt_path", "best"])
    main(prepared(["fit", "--config", "experiments/seye.yaml"], tmp_path))
    ran = 0
    for program, *words in COMMANDS:
        if program not in ("lightning", "sdsnn"):
            continue
        if set(words) & set(NEEDS_NETWORK):
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main([*words, "--print_config"])
            assert end.value.code in (0, None)
            assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["download"] is True
        else:
            try:
                main(prepared(words, tmp_path))
            except SystemExit as end:
                assert end.code in (0, None), (words, capsys.readouterr().err[-500:])  # noqa: PT017 (says which)
        ran += 1
    assert ran >= 15
    capsys.readouterr()
    exec(blocks("python")[3], {})  # reads the student that a command above has exported
    assert capsys.readouterr().out.strip() in json.loads(Path("exported/card.json").read_text())["classes"]
