import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from sdsnn_lightning.data.see_layout import EMOTIONS, read_index
from sdsnn_lightning.data.single_eye import SingleEye, normalise, split_subjects, ternary_events
from sdsnn_lightning.errors import ConfigError, DataError


def ready(root, **options):
    module = SingleEye(str(root), **({"size": 8, "batch_size": 4} | options))
    module.prepare_data()
    module.setup("fit")
    return module


def subjects(module, dataset):
    clips = read_index(module.root).clips
    return {clips[i].subject for i in dataset.clips.tolist()}


def test_normalised_values_by_hand():
    # (127 / 255 - 0.22616537) / 0.118931554, and so on; the authors' constants.
    frames = normalise(torch.tensor([0, 127, 255], dtype=torch.uint8), 0.22616537, 0.118931554)
    assert frames.tolist() == pytest.approx([-1.901643, 2.285969, 6.506557], abs=1e-5)
    events = normalise(torch.tensor([0, 128, 255], dtype=torch.uint8), 0.504413, 0.06928615)
    assert events.tolist() == pytest.approx([-7.280142, -0.035393, 7.152757], abs=1e-5)


@pytest.mark.parametrize(("mean", "std"), [(0.22616537, 0.118931554), (0.504413, 0.06928615)])
def test_normalised_values_are_rounded_like_those_of_the_authors(mean, std):
    single = np.float32  # one operation at a time on single numbers, as `ToTensor` and `Normalize` of torchvision do
    expected = [(single(k) / single(255) - single(mean)) / single(std) for k in range(256)]
    assert normalise(torch.arange(256, dtype=torch.uint8), mean, std).tolist() == expected


def test_polarities_by_threshold():
    grey = torch.tensor([0, 63, 64, 127, 191, 192, 255], dtype=torch.uint8)
    assert ternary_events(grey).tolist() == [-1, -1, 0, 0, 0, 1, 1]


def test_a_batch_of_views(make_see):
    module = ready(make_see(), steps=4, skip=3, channels=3)
    assert module.data_source == "real"
    assert module.class_names == list(EMOTIONS)
    assert module.num_classes == 7
    assert module.input_shapes == {"frames": (4, 3, 8, 8), "events": (4, 3, 8, 8)}
    assert module.groups["lighting"] == ["normal", "Overexposed", "Low", "HDR"]
    raw = next(iter(module.val_dataloader()))
    frames = raw["frames"]
    assert frames.shape == (4, 4, 1, 8, 8)
    assert frames.dtype == torch.uint8
    batch = module.on_after_batch_transfer(dict(raw), 0)
    assert batch.student is batch.teacher
    assert {name: tuple(x.shape[1:]) for name, x in batch.student.items()} == module.input_shapes
    grey = frames[1, 2, 0, 0, 0].item()
    assert batch.student["frames"][1, 2, :, 0, 0].tolist() == pytest.approx(
        [(grey / 255 - 0.22616537) / 0.118931554] * 3
    )
    # What the images show says which clip they are of: value 40 * clip + moment, moments 4 apart.
    clips = read_index(module.root).clips
    for i, clip in enumerate(raw["clip"].tolist()):
        moments = (frames[i, :, 0, 0, 0].int() - 40 * clip) % 256
        assert (moments - moments[0]).tolist() == [0, 4, 8, 12]
        assert batch.target[i] == EMOTIONS.index(clips[clip].label)
        assert batch.groups["lighting"][i] == module.groups["lighting"].index(clips[clip].lighting)


def test_classes_follow_the_index_not_the_alphabet(make_see):
    root = make_see(subjects=3)
    content = json.loads((root / "emotion.json").read_text())
    content["labels"].reverse()
    (root / "emotion.json").write_text(json.dumps(content))
    module = ready(root)
    assert module.class_names == list(EMOTIONS)[::-1]
    clips = read_index(root).clips
    for batch in module.train_dataloader():
        assert [module.class_names[t] for t in batch["target"]] == [clips[c].label for c in batch["clip"]]


def test_official_split_with_validation_by_subject(make_see):
    module = ready(make_see(), val_fraction=0.3, eval_starts=2)
    clips = read_index(module.root).clips
    train, val, test = (part.clips.tolist() for part in (module.train_set, module.val_set, module.test_set))
    assert test == [i for i, clip in enumerate(clips) if clip.subset == "testing"]
    assert sorted(train + val) == [i for i, clip in enumerate(clips) if clip.subset == "training"]
    assert not subjects(module, module.train_set) & subjects(module, module.val_set)
    assert len(val) == 6  # two of six subjects: the first reaches 3 of 18 clips, below 0.3
    again = ready(module.root, val_fraction=0.3)
    assert again.val_set.clips.tolist() == val
    others = [ready(module.root, val_fraction=0.3, seed=seed).val_set.clips.tolist() for seed in range(1, 5)]
    assert any(other != val for other in others)


def test_subject_split_shares_no_subject(make_see):
    module = ready(make_see(subjects=10, per_subject=3), split="subject", val_fraction=0.2)
    parts = [subjects(module, part) for part in (module.train_set, module.val_set, module.test_set)]
    assert [len(part) for part in parts] == [4, 2, 4]  # 0.32 of 30 clips is 9.6, so 4 subjects; 0.2 of 18 is 3.6, so 2
    assert len(set.union(*parts)) == 10


def test_the_authors_protocol_validates_on_test_and_says_so(make_see):
    root = make_see()
    with pytest.warns(UserWarning, match="TEST part"):
        module = ready(root, val_fraction=0)
    assert module.val_set.clips.tolist() == module.test_set.clips.tolist()
    assert len(module.train_set) == 18


def test_split_never_takes_all_subjects(make_see):
    clips = read_index(make_see(subjects=2)).clips
    first, second = split_subjects(clips, range(8), 0.99, 0)
    assert len(first) == len(second) == 4
    with pytest.raises(DataError, match="1 subject"):
        split_subjects(clips, range(4), 0.5, 0)


def test_evaluation_repeats_and_training_does_not(make_see, monkeypatch):
    module = ready(make_see(), eval_starts=5)
    assert module.groups["run"] == ["0", "1", "2", "3", "4"]
    assert len(module.test_set) == 5 * 6
    monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("an image was opened"))
    torch.manual_seed(0)

    def epoch(loader):
        return torch.cat([batch["frames"][..., 0, 0].squeeze(-1) for batch in loader])

    first, second = (epoch(module.test_dataloader()) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[:6], first[6:12])  # run 0 and run 1 have other windows
    assert torch.equal(first, epoch(ready(module.root, eval_starts=5, num_workers=1).test_dataloader()))
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")

    def train_epoch(number):
        loader = module.train_dataloader()
        loader.sampler.set_epoch(number)
        return epoch(loader).sort(0).values

    assert torch.equal(train_epoch(0), train_epoch(0))
    assert not torch.equal(train_epoch(0), train_epoch(1))  # other windows of the same clips
    runs = torch.cat([batch["run"] for batch in module.test_dataloader()])
    assert runs.tolist() == [run for run in range(5) for _ in range(6)]


def test_frames_alone(make_see):
    root = make_see(subjects=3)
    (root / "event").rename(root.parent / "away")
    with pytest.raises(DataError, match=r"event/.* does not exist.*modalities"):
        ready(root)
    module = ready(root, modalities=("frames",), channels=1)
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert {name: x.shape[1:] for name, x in batch.student.items()} == {"frames": (4, 1, 8, 8)}


def test_ternary_events(make_see):
    module = ready(make_see(subjects=3), event_values="ternary")
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert set(batch.student["events"].unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_a_manifest_with_its_own_parts_and_words(make_see):
    root = make_see(subjects=3, per_subject=3)
    rows = []
    for clip in read_index(root).clips:
        row = {"frames": str(clip.frames.relative_to(root)), "events": str(clip.events.relative_to(root))}
        row |= {"label": "calm" if clip.subject == "000" else "tense", "lighting": f"lamp{clip.subject}"}
        subset = {"000": "training", "001": "validation", "002": "testing"}[clip.subject]
        rows.append(row | {"subset": subset, "subject": clip.subject, "length": clip.length})
    (root / "emotion.json").unlink()
    header = list(rows[0])
    lines = [",".join(header)] + [",".join(str(row[key]) for key in header) for row in rows]
    (root / "manifest.csv").write_text("\n".join(lines))
    module = ready(root, eval_starts=1)
    assert module.class_names == ["calm", "tense"]
    assert module.groups == {"lighting": ["lamp000", "lamp001", "lamp002"]}
    parts = [subjects(module, part) for part in (module.train_set, module.val_set, module.test_set)]
    assert parts == [{"000"}, {"001"}, {"002"}]
    batch = module.on_after_batch_transfer(next(iter(module.test_dataloader())), 0)
    assert batch.target.tolist() == [1, 1, 1]
    assert batch.groups["lighting"].tolist() == [2, 2, 2]


def test_bad_input_is_named_before_training(make_see, tmp_path):
    root = make_see(subjects=2, length=10)
    with pytest.raises(DataError, match="[04]_00[01]_man.* has 10 images, steps: 4 with skip: 3 need 13"):
        ready(root)
    ready(root, official_offset=True)
    with pytest.raises(DataError, match="prepare_data"):
        SingleEye(str(root), size=9).setup("fit")
    with pytest.raises(DataError, match="does not exist"):
        SingleEye(str(tmp_path / "nowhere"), source="real")
    for option, value in {"steps": 0, "skip": -1, "val_fraction": 1.0, "eval_starts": 0, "modalities": ()}.items():
        with pytest.raises(ConfigError, match=f"data.init_args.{option}"):
            SingleEye(str(root), **{option: value})
    (root / "emotion.json").unlink()
    with pytest.raises(DataError, match="emotion.json does not exist"):
        SingleEye(str(root))


def test_an_index_without_test_clips_is_named(make_see):
    root = make_see(subjects=3)
    text = (root / "emotion.json").read_text()
    (root / "emotion.json").write_text(text.replace("testing", "training"))
    with pytest.raises(DataError, match="no clip is left for the test part"):
        ready(root)


def test_simulated_is_known_before_it_is_made(tmp_path):
    missing = str(tmp_path / "SEE")
    with pytest.warns(UserWarning, match="SIMULATED"):
        module = SingleEye(missing, simulated_root=str(tmp_path / "sim"))
    assert (module.data_source, module.num_classes) == ("simulated", 7)
    assert module.input_shapes["frames"] == (4, 3, 90, 90)
    assert math.prod(module.input_shapes["events"]) == 4 * 3 * 90 * 90
    assert not (tmp_path / "sim").exists()


@pytest.mark.slow
def test_the_simulated_set_is_served_end_to_end(tmp_path):
    options = {"simulated_root": str(tmp_path / "sim"), "simulated_subjects": 4, "simulated_clips": 1}
    module = ready(tmp_path / "nowhere", size=45, eval_starts=2, **options)
    assert (len(module.train_set), len(module.val_set), len(module.test_set)) == (14, 2 * 7, 2 * 7)
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert batch.student["frames"].shape == (4, 4, 3, 45, 45)
    assert batch.student["events"].std() > 0.1  # something moves
