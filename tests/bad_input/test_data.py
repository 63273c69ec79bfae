"""Damaged recordings: one line with the file and a cure, and no cache that looks good."""

import shutil
from pathlib import Path

import pytest
from tiny_see import DISTILLED, STUDENT, edit_index, refused

from sdsnn_lightning.cli import main


def caches():
    return [path for path in Path("SEE/.cache").glob("*") if path.is_dir()]


def clip(tree, number=3):
    return next(Path("SEE", tree).glob(f"*/{number}_*"))


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
    said = refused(capsys, "fit", *STUDENT)
    assert named in said
    assert cure in said
    assert not caches()


def test_damage_after_a_run_is_seen_although_the_cache_is_there(place, teacher, capsys):
    main(["fit", *STUDENT])
    (cache,) = caches()
    facts = (cache / "index.json").read_text()
    shutil.rmtree("runs/seye_ce")
    cut_image()
    assert "00002.jpg cannot be decoded" in refused(capsys, "fit", *DISTILLED)
    assert (cache / "index.json").read_text() == facts  # the old cache stays that of the old files, and is not used


def test_a_clip_shorter_than_the_window(place, capsys):
    said = refused(capsys, "fit", *STUDENT, "--data.init_args.skip", "3")
    assert "clip 0_000_man_30_Master_normal_angry_8_take000 has 8 images, steps: 4 with skip: 3 need 13" in said
    assert "lower steps or skip" in said
