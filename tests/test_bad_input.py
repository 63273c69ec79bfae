"""What a person sees when something is wrong: one line with the file or key and a cure, and nothing half-written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from places import REPOSITORY

from sdsnn_lightning.cli import main
from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, write_clip, write_index

LENGTH = 8
OVERLAY = {
    "width": 0.1,
    "data": {"init_args": {"root": "SEE", "source": "real", "size": 24, "skip": 1, "batch_size": 2, "eval_starts": 1}},
    "trainer": {
        "max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
        "log_every_n_steps": 1,
    },
}  # fmt: skip
STUDENT = ["--config", "experiments/seye_ce.yaml", "--config", "tiny.yaml"]
DISTILLED = ["--config", "experiments/seye.yaml", "--config", "tiny.yaml"]
TEACHER = ["--config", "experiments/seye_teacher.yaml", "--config", "tiny.yaml"]
LR = "--model.init_args.optimizer.init_args.lr"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole set of 6 subjects with 2 clips each, and a trained teacher of it."""
    place = tmp_path_factory.mktemp("whole")
    entries = []
    for i in range(12):
        subject, take = divmod(i, 2)
        name = ClipName(i, f"{subject:03d}", "man", 30, "Master", LIGHTINGS[subject % 4], EMOTIONS[i % 7], LENGTH, take)
        images = np.random.default_rng(i).integers(0, 256, (LENGTH, 16, 16), dtype=np.uint8)
        write_clip(place / "SEE", name, images, 255 - images)
        entries.append((name, "testing" if take else "training", (0, LENGTH)))
    write_index(place / "SEE", list(EMOTIONS), entries)
    (place / "experiments").symlink_to(REPOSITORY / "experiments")
    (place / "tiny.yaml").write_text(yaml.safe_dump(OVERLAY))
    before = Path.cwd()
    os.chdir(place)
    try:
        torch.set_num_threads(1)
        main(["fit", *TEACHER])
    finally:
        os.chdir(before)
    (place / "runs/seye_teacher/version_0/checkpoints/best.ckpt").rename(place / "teacher.ckpt")
    shutil.rmtree(place / "runs")
    shutil.rmtree(place / "SEE/.cache")
    return place


@pytest.fixture
def place(whole, workdir):
    """A fresh folder with that set, as a user has it."""
    shutil.copytree(whole / "SEE", "SEE")
    Path("experiments").symlink_to(REPOSITORY / "experiments")
    shutil.copy(whole / "tiny.yaml", "tiny.yaml")
    return workdir


@pytest.fixture
def teacher(whole, place):
    """The trained teacher where seye.yaml looks for it."""
    path = Path("runs/seye_teacher/seed1.ckpt")
    path.parent.mkdir(parents=True)
    shutil.copy(whole / "teacher.ckpt", path)
    return path


def refusal(capsys, *words):
    """The one line a command says before it ends with exit code 2, and nothing to be taken for a result."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(words))
    lines = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2, lines
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in lines)
    assert nothing_written()
    return lines[-1]


def nothing_written(runs="runs"):
    """No checkpoint of the student and no part of one."""
    return not [*Path(runs).glob("seye*/version_*/checkpoints/*"), *Path(runs).glob("seye*/version_*/checkpoints/.*")]


def caches():
    return [path for path in Path("SEE/.cache").glob("*") if path.is_dir()]


def clip(tree, number=3):
    return next(Path("SEE", tree).glob(f"*/{number}_*"))


def edit_index(change):
    path = Path("SEE/emotion.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first_entry(content):
    return next(iter(content["database"].values()))


def drop_frame():
    (clip("frame") / "00004.jpg").unlink()


def drop_clip():
    shutil.rmtree(clip("event"))


def cut_image():
    path = clip("event") / "00002.jpg"
    path.write_bytes(path.read_bytes()[:200])


def add_event_image():
    shutil.copy(clip("event") / "00007.jpg", clip("event") / "00008.jpg")


def rename_light():
    path = Path("SEE/emotion.json")
    path.write_text(path.read_text().replace("_Overexposed_", "_Dusk_"))


def unknown_label():
    edit_index(lambda content: first_entry(content)["annotations"].update(label="bored"))


def unknown_subset():
    edit_index(lambda content: first_entry(content).update(subset="spare"))


def long_segment():
    edit_index(lambda content: first_entry(content)["annotations"].update(segment=[0, 99]))


def cut_index():
    Path("SEE/emotion.json").write_text('{"labels": ["angry", ')


@pytest.mark.parametrize(
    ("damage", "named", "cure"),
    [
        (drop_frame, "00004.jpg is missing", "restore the file"),
        (drop_clip, "SEE/event/happiness/3_001", "restore the clip"),
        (cut_image, "00002.jpg cannot be decoded", "restore the file"),
        (add_event_image, "holds 9 images, its name or manifest says 8", "restore the clip"),
        (rename_light, "2_001_man_30_Master_Dusk_fear_8_take000: unknown lighting 'Dusk'", "rename the clip"),
        (unknown_label, "emotion.json: clip 0_000_man_30_Master_normal_angry_8_take000 has the label", "correct one"),
        (unknown_subset, "has the subset 'spare'", "set it to one of training"),
        (long_segment, "has the segment [0, 99) of 8 images", "correct it"),
        (cut_index, "SEE/emotion.json: broken index", "restore the file"),
        (lambda: Path("SEE/emotion.json").unlink(), "SEE/emotion.json does not exist", "put the set's index there"),
        (lambda: Path("SEE").rename("away"), "data.init_args.root: SEE does not exist", "source: simulated"),
    ],
)
def test_damaged_data(place, capsys, damage, named, cure):
    damage()
    said = refusal(capsys, "fit", *STUDENT)
    assert named in said
    assert cure in said
    assert not caches()


def test_damage_after_a_run_is_seen_although_the_cache_is_there(place, teacher, capsys):
    main(["fit", *STUDENT])
    (cache,) = caches()
    facts = (cache / "index.json").read_text()
    shutil.rmtree("runs/seye_ce")
    cut_image()
    assert "00002.jpg cannot be decoded" in refusal(capsys, "fit", *DISTILLED)
    assert (cache / "index.json").read_text() == facts  # the old cache stays that of the old files, and is not used


def test_a_clip_shorter_than_the_window(place, capsys):
    said = refusal(capsys, "fit", *STUDENT, "--data.init_args.skip", "3")
    assert "clip 0_000_man_30_Master_normal_angry_8_take000 has 8 images, steps: 4 with skip: 3 need 13" in said
    assert "lower steps or skip" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--data.init_args.sise", "3"], "'sise' is not accepted"),
        (["--data.init_args.size", "big"], "key \"size\": Expected a <class 'int'>. Got value: big"),
        (["--data.init_args.size", "0"], "data.init_args.size is 0; set it to at least 1"),
        (["--data.init_args.batch_size", "0"], "data.init_args.batch_size is 0; set it to at least 1"),
        (["--data.init_args.num_workers", "-1"], "data.init_args.num_workers is -1; set it to at least 0"),
        (["--data.init_args.modalities", "[frame]"], 'key "modalities": Expected a typing.Literal'),
        (["--model", "sdsnn_lightning.Distiler"], "'sdsnn_lightning' has no attribute 'Distiler'"),
        (["--model.init_args.network", "sdsnn_lightning.networks.SEENN"], "has no attribute 'SEENN'"),
        (["--model.init_args.network.init_args.preset", "x"], "'preset' is not accepted"),
        (["--model.init_args.optimizer", "torch.optim.SDG"], "'torch.optim' has no attribute 'SDG'"),
        (["--model.init_args.label_smoothing", "3"], "label_smoothing is 3.0; set it to at least 0 and below 1"),
        ([LR, "fast"], 'key "lr"'),
        ([LR, "-1"], "model.init_args.optimizer: Invalid learning rate: -1.0; correct its init_args"),
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--trainer.accelerator", "tpux"], "trainer: You selected an invalid accelerator name"),
        (["--trainer.callbacks", "[{class_path: sdsnn_lightning.strategies.HitConsistancy}]"], "HitConsistancy"),
        (
            ["--trainer.callbacks", "[{class_path: sdsnn_lightning.strategies.HitConsistency}]"],
            "needs a Distiller; set",
        ),
        (["--ckpt_path", "none.ckpt"], "(--ckpt_path none.ckpt) does not exist; train it first or give another path"),
        (["--ckpt_path", "tiny.yaml"], "(--ckpt_path tiny.yaml) cannot be read as a checkpoint"),
        (["--runs", "tiny.yaml"], ": cannot write (Not a directory); free space there"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_a_mistake_on_the_command_line(place, capsys, words, named):
    said = refusal(capsys, "fit", *STUDENT, *words)
    assert named in said
    assert "Union subtypes" not in said


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nmae: x", "'nmae'"),
        ("trainer: {max_epoch: 1}", "'trainer.max_epoch'"),
        ("data: {init_args: {sise: 3}}", "'sise' is not accepted"),
        ("model: {init_args: {student: {init_args: {sise: 3}}}}", "'sise' is not accepted"),
        ("trainer: {max_epochs: 1", "parsing a flow mapping"),
        ("just words", "Unexpected config: just words"),
    ],
)
def test_a_mistake_in_a_file(place, capsys, text, named):
    Path("overlay.yaml").write_text(text)
    said = refusal(capsys, "fit", *DISTILLED, "--config", "overlay.yaml")
    assert named in said
    assert "all keys: " in said


def test_a_wrong_monitor_is_named(place, capsys):
    said = refusal(capsys, "fit", *STUDENT, "--checkpoint.monitor", "val/WRA")
    assert "monitor='val/WRA'" in said
    assert "'val/WAR'" in said


def test_a_loss_that_is_not_finite(place, teacher, capsys):
    said = refusal(capsys, "fit", *STUDENT, LR, ".inf")
    assert re.match(r"error: loss term 'task' is (nan|inf) at step \d+; lower the learning rate", said)
    assert "model.init_args.optimizer.init_args.lr" in said
    strategy = "{class_path: sdsnn_lightning.strategies.HitConsistency, init_args: {weight: .inf}}"
    said = refusal(capsys, "fit", *DISTILLED, "--trainer.callbacks", f"[{strategy}]")
    assert "at step 0; lower the learning rate" in said
    assert "or the term's weight" in said


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def edit_checkpoint(change):
    def damage(path):
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return damage


def cut_weight(content):
    key = next(iter(content["state_dict"]))
    content["state_dict"][key] = content["state_dict"][key][:-1]


@pytest.mark.parametrize(
    ("damage", "named", "cure"),
    [
        (truncate, "cannot be read as a checkpoint", "delete it or give another path"),
        (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint", "delete it or give another path"),
        (
            edit_checkpoint(lambda content: content["sdsnn"]["class_names"].insert(2, "horror")),
            "knows 8 classes but the data has 7",
            "use the same classes",
        ),
        (
            edit_checkpoint(lambda content: content["sdsnn"]["class_names"].sort(reverse=True)),
            "has 'surprise' as class 0 but the data has 'angry'",
            "use the same classes",
        ),
        (
            edit_checkpoint(lambda content: content["sdsnn"].update(data_source="simulated")),
            "was trained on simulated data but this run uses real data",
            "train it anew",
        ),
        (edit_checkpoint(cut_weight), "has shape", "Use the configuration it was trained with"),
    ],
    ids=["truncated", "empty", "more classes", "other order", "other source", "other shape"],
)
def test_a_teacher_that_does_not_fit(place, teacher, capsys, damage, named, cure):
    damage(teacher)
    said = refusal(capsys, "fit", *DISTILLED)
    assert f"teacher_checkpoint: {teacher}" in said
    assert named in said
    assert cure in said


def test_a_teacher_of_another_architecture_names_the_first_keys(place, teacher, capsys):
    main(["fit", *STUDENT])
    shutil.copy("runs/seye_ce/version_0/checkpoints/best.ckpt", teacher)
    shutil.rmtree("runs/seye_ce")
    said = refusal(capsys, "fit", *DISTILLED)
    assert re.search(r"is of another architecture: \S+ is missing; \S+ is missing; .* and \d+ more\. Use the", said)


def test_a_checkpoint_with_more_classes_than_the_data(place, capsys):
    main(["fit", *STUDENT])
    path = Path("runs/seye_ce/version_0/checkpoints/best.ckpt").rename("seven.ckpt")
    shutil.rmtree("runs")

    def six(content):
        content["labels"].remove("surprise")
        kept = {k: v for k, v in content["database"].items() if v["annotations"]["label"] != "surprise"}
        content["database"] = kept

    edit_index(six)
    for word in ("test", "fit"):
        said = refusal(capsys, word, *STUDENT, "--ckpt_path", str(path))
        assert "(--ckpt_path) knows 7 classes but the data has 6; use the same classes" in said
    truncate(path)
    assert "cannot be read as a checkpoint" in refusal(capsys, "test", *STUDENT, "--ckpt_path", str(path))


@pytest.fixture
def disk(place):
    """A disk of its own at ./disk; gives a function that changes its size and rights."""
    folder = place / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)

    yield remount
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(("options", "reason"), [("size=64k", "No space left"), ("ro", "Read-only file system")])
def test_a_disk_that_takes_no_cache(place, disk, capsys, options, reason):
    disk(options)
    words = ["fit", *STUDENT, "--data.init_args.cache_dir", "disk/cache"]
    said = refusal(capsys, *words)
    assert re.search(rf"disk/cache/clips-24-\w+: cannot write the cache of 0 MB \({reason}", said)
    assert "free space there or set data.init_args.cache_dir to another folder" in said
    assert not list(Path("disk").rglob("*.npy"))
    disk("rw,size=4m")
    main(words)
    assert len(list(Path("runs").glob("seye_ce/version_*/checkpoints/best.ckpt"))) == 1


def test_a_disk_that_takes_no_run(place, disk, capsys):
    words = ["fit", *STUDENT, "--runs", "disk/runs"]
    said = refusal(capsys, *words)
    assert re.search(r"disk/runs/seye_ce\S*: cannot write.*\(No space left", said)
    assert "another folder with --runs" in said
    assert nothing_written("disk/runs")
    disk("ro")
    assert "(Read-only file system)" in refusal(capsys, *words)
    disk("rw,size=32m")
    main(words)
    assert len(list(Path("disk/runs").glob("seye_ce/version_*/checkpoints/best.ckpt"))) == 1


FILL = """
import os
from pathlib import Path

from lightning.pytorch import Callback


class Fill(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            space = os.statvfs("disk")
            Path("disk/filler").write_bytes(bytes(space.f_bavail * space.f_frsize - 2**16))
"""


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_whole(place, disk, capsys):
    disk("size=80m")
    Path("fill.py").write_text(FILL)
    words = ["fit", *STUDENT, "--runs", "disk/runs", "--trainer.max_epochs", "2"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--trainer.callbacks", "[{class_path: fill.Fill}]"])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(r"error: \S+\.ckpt: cannot write the checkpoint of \d+\.\d MB \(No space left", said)
    assert "another folder with --runs" in said
    folder = Path("disk/runs/seye_ce/version_0/checkpoints")
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert [torch.load(path, weights_only=True)["epoch"] for path in folder.iterdir()] == [0, 0]
    Path("disk/filler").unlink()
    main([*words, "--ckpt_path", "last"])


TELL = """
import time
from pathlib import Path

from lightning.pytorch import Callback


class Tell(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 0 and not Path("second_epoch").exists():
            Path("second_epoch").touch()
            time.sleep(2.0)
"""


def stop_in_second_epoch(number, words):
    """Starts a command, sends it a signal in the middle of its second epoch; gives its exit code and stderr."""
    command = [sys.executable, "-m", "sdsnn_lightning", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        # As from a terminal: a shell starts background commands, and all their children, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while not Path("second_epoch").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_an_interruption_keeps_a_state_to_continue_from(place, number, code):
    Path("tell.py").write_text(TELL)
    words = ["fit", *STUDENT, "--trainer.max_epochs", "4", "--trainer.callbacks", "[{class_path: tell.Tell}]"]
    found, said = stop_in_second_epoch(number, words)
    assert found == code, said
    assert "Traceback" not in said
    assert "repeat the command with --ckpt_path" in said
    folder = Path("runs/seye_ce/version_0/checkpoints")
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    epoch = torch.load(folder / "best.ckpt", weights_only=True)["global_step"]
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1
    assert state["global_step"] == epoch + 1
    main([*words, "--ckpt_path", "last"])
    state = torch.load("runs/seye_ce/version_0/checkpoints/last.ckpt", weights_only=True)
    assert (state["epoch"], state["global_step"]) == (3, 4 * epoch)
