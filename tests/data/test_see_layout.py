import json

import numpy as np
import pytest
from PIL import Image
from places import SHARED

from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, read_index, write_clip, write_index
from sdsnn_lightning.errors import DataError

NAME = "1_001_man_24_Master_normal_angry_45_take000"


def test_parses_the_authors_example():
    name = ClipName.parse(NAME)
    assert name == ClipName(1, "001", "man", 24, "Master", "normal", "angry", 45, 0)
    assert str(name) == NAME


def test_every_real_name_makes_a_round_trip():
    path = SHARED / "see_test_clip_names.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not here; set SDSNN_SHARED to the folder of recordings")
    texts = path.read_text().split()
    names = [ClipName.parse(text) for text in texts]
    assert [str(name) for name in names] == texts
    # The counts of the official test part.
    assert len(names) == 767
    assert sum(name.length for name in names) == 40266
    assert len({name.subject for name in names}) == 89
    assert [sum(n.lighting == light for n in names) for light in LIGHTINGS] == [196, 201, 189, 181]
    assert [sum(n.emotion == emotion for n in names) for emotion in EMOTIONS] == [119, 124, 113, 89, 92, 100, 130]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1_001_man_24_Master_normal_angry_45", ["8 fields"]),
        ("1_001_man_24_Master_normal_angry_45_take000_x", ["10 fields"]),
        ("1_001_man_24_Master_dark_angry_45_take000", ["lighting", "'dark'", "Overexposed"]),
        ("1_001_man_24_Master_normal_neutraL_45_take000", ["emotion", "'neutraL'", "surprise"]),
        ("1_001_man_24_Master_normal_angry_4x_take000", ["length", "'4x'"]),
        ("1_001_man_old_Master_normal_angry_45_take000", ["age", "'old'"]),
        ("1_001_man_24_Master_normal_angry_45_000", ["take", "'000'"]),
    ],
)
def test_a_bad_name_is_named_with_its_field(text, words):
    with pytest.raises(DataError) as caught:
        ClipName.parse(text)
    message = str(caught.value)
    assert text in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_written_set_reads_back(make_see):
    root = make_see(subjects=2, per_subject=3, length=5)
    index = read_index(root)
    assert index.labels == list(EMOTIONS)
    assert index.path == root / "emotion.json"
    assert len(index.clips) == 6
    clip = index.clips[5]
    assert (clip.subject, clip.lighting, clip.label, clip.subset) == ("001", "Overexposed", "sadness", "testing")
    assert (clip.start, clip.stop, clip.length) == (0, 5, 5)
    with Image.open(clip.frames / "00003.jpg") as image:
        assert image.mode == "L"
        assert np.unique(np.asarray(image)).tolist() == [5 * 40 + 3]
    assert [path.name for path in sorted(clip.events.iterdir())] == [f"{i:05d}.jpg" for i in range(5)]


def test_writing_again_replaces_and_leaves_nothing_beside(tmp_path):
    name = ClipName.parse("1_001_man_24_Master_normal_angry_3_take000")
    for value in (10, 20):
        images = np.full((3, 16, 16), value, np.uint8)
        write_clip(tmp_path, name, images, images)
    assert [path.name for path in (tmp_path / "frame" / "angry").iterdir()] == [str(name)]
    with Image.open(tmp_path / "frame" / "angry" / str(name) / "00000.jpg") as image:
        assert np.asarray(image)[0, 0] == 20
    with pytest.raises(DataError, match="uint8"):
        write_clip(tmp_path, name, images[:2], images)


def test_the_second_names_of_index_tree_and_neutral(tmp_path):
    name = ClipName.parse("1_001_man_24_Master_normal_neutral_3_take000")
    images = np.zeros((3, 8, 8), np.uint8)
    write_clip(tmp_path, name, images, images)
    write_index(tmp_path, list(EMOTIONS), [(name, "training", (0, 3))], filename="emotion_new_adjust2.json")
    (tmp_path / "event").rename(tmp_path / "event_30")
    for tree in ("event_30", "frame"):
        (tmp_path / tree / "neutral").rename(tmp_path / tree / "neutraL")
    (clip,) = read_index(tmp_path).clips
    assert clip.label == "neutral"
    assert clip.events == tmp_path / "event_30" / "neutraL" / str(name)
    assert clip.events.is_dir()
    assert clip.frames.is_dir()


def edit(root, change):
    path = root / "emotion.json"
    content = json.loads(path.read_text())
    change(content, next(iter(content["database"].values())))
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content, clip: clip["annotations"].update(label="bored"), ["'bored'", "0_000_man"]),
        (lambda content, clip: content["labels"].remove("angry"), ["'angry'", "0_000_man"]),
        (lambda content, clip: clip["annotations"].update(label="fear"), ["'fear'", "'angry'"]),
        (lambda content, clip: clip.update(subset="extra"), ["'extra'", "testing"]),
        (lambda content, clip: clip["annotations"].update(segment=[0, 9]), ["[0, 9)", "5 images"]),
        (lambda content, clip: clip.pop("annotations"), ["broken index", "annotations"]),
        (lambda content, clip: content["database"].clear(), ["no clip"]),
    ],
)
def test_a_broken_index_is_named(make_see, change, words):
    root = make_see(subjects=1, per_subject=2, length=5)
    edit(root, change)
    with pytest.raises(DataError) as caught:
        read_index(root)
    assert str(root / "emotion.json") in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_clips_with_an_empty_segment_are_left_out_and_said(make_see):
    root = make_see(subjects=1, per_subject=2, length=5)
    edit(root, lambda content, clip: clip["annotations"].update(segment=[0, 0]))
    with pytest.warns(UserWarning, match="left out 1 clips"):
        assert len(read_index(root).clips) == 1


def test_no_index_and_cut_off_json(tmp_path):
    with pytest.raises(DataError, match="emotion.json does not exist"):
        read_index(tmp_path)
    (tmp_path / "emotion.json").write_text('{"labels": [')
    with pytest.raises(DataError, match="broken index"):
        read_index(tmp_path)


def test_manifests_fill_the_same_records(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "frames,events,label,subset,subject,lighting,length,segment\n"
        "a/f,a/e,sad,training,s1,dim,9,\n"
        "b/f,b/e,glad,testing,s2,bright,,2:8\n",
        encoding="utf-8-sig",  # with the mark that spreadsheets begin it with
    )
    from_csv = read_index(tmp_path)
    assert from_csv.labels == ["glad", "sad"]
    first, second = from_csv.clips
    assert (first.frames, first.events) == (tmp_path / "a/f", tmp_path / "a/e")
    assert (first.start, first.stop, first.length) == (0, 9, 9)
    assert (second.start, second.stop, second.length) == (2, 8, None)
    rows = [
        {"frames": "a/f", "events": "a/e", "label": "sad", "subset": "training", "subject": "s1"}
        | {"lighting": "dim", "length": 9},
        {"frames": "b/f", "events": "b/e", "label": "glad", "subset": "testing", "subject": "s2"}
        | {"lighting": "bright", "segment": [2, 8]},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"labels": ["sad", "glad"], "clips": rows}))
    from_json = read_index(tmp_path)
    assert from_json.labels == ["sad", "glad"]
    assert from_json.clips == from_csv.clips
    del rows[1]["segment"]
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="b/f has neither a length nor a segment"):
        read_index(tmp_path)
