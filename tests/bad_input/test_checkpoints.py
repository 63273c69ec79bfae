"""Checkpoints that are damaged or of something else: one line with the file and a cure."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny_see import DISTILLED, STUDENT, edit_index, refused

from sdsnn_lightning.cli import main


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


def change_weight(change):
    def damage(content):
        key = next(key for key, value in content["state_dict"].items() if value.is_floating_point())
        content["state_dict"][key] = change(content["state_dict"][key])

    return edit_checkpoint(damage)


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
        (change_weight(lambda weight: "a word"), " is a str. ", "Use the configuration it was trained with"),
        (change_weight(lambda weight: weight.to(torch.int8)), "is torch.int8 instead of torch.float32", "or another"),
        (change_weight(lambda weight: weight * torch.nan), " that are not finite; ", "train it anew"),
        (edit_checkpoint(lambda content: content.update(state_dict=None)), "holds no state dict", "give another path"),
        (
            lambda path: torch.save(torch.nn.Linear(1, 1), path),
            "it holds Python objects, which may run code",
            "give another path",
        ),
        (lambda path: path.unlink() or path.mkdir(), " is no file; ", "give another path"),
    ],
    ids=[
        "truncated",
        "empty",
        "more classes",
        "other order",
        "other source",
        "other shape",
        "word",
        "quantised",
        "not finite",
        "no state dict",
        "objects",
        "folder",
    ],  # fmt: skip
)
def test_a_teacher_that_does_not_fit(place, teacher, capsys, damage, named, cure):
    damage(teacher)
    said = refused(capsys, "fit", *DISTILLED)
    assert f"teacher_checkpoint: {teacher}" in said
    assert named in said
    assert cure in said


def test_a_teacher_of_another_architecture_names_the_first_keys(place, teacher, capsys):
    main(["fit", *STUDENT])
    shutil.copy("runs/seye_ce/version_0/checkpoints/best.ckpt", teacher)
    shutil.rmtree("runs/seye_ce")
    said = refused(capsys, "fit", *DISTILLED)
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
        said = refused(capsys, word, *STUDENT, "--ckpt_path", str(path))
        assert "(--ckpt_path) knows 7 classes but the data has 6; use the same classes" in said
    truncate(path)
    assert "cannot be read as a checkpoint" in refused(capsys, "test", *STUDENT, "--ckpt_path", str(path))
