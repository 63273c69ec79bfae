import math
import pickle

import numpy as np
import pytest
import soundfile
import torch
from places import SHARED
from speech_set import SPEAKERS, write_speech_set

from sdsnn_lightning.data.speech_commands import SpeechCommands
from sdsnn_lightning.data.speech_front_end import LogMel
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.speech import WORDS, write_simulated_commands

needs_recordings = pytest.mark.skipif(
    not (SHARED / "speech_commands_en").is_dir(), reason="set SDSNN_SHARED to the folder of the recordings"
)


@pytest.fixture
def root(tmp_path):
    return write_speech_set(tmp_path / "set")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return str(write_simulated_commands(tmp_path_factory.mktemp("commands") / "simulated"))


def module(root, **args):
    data = SpeechCommands(root=str(root), source="real", batch_size=4, **args)
    data.prepare_data()
    data.setup("fit")
    return data


def test_absent_and_wordless_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        SpeechCommands(root=str(tmp_path / "no"), source="real")
    with pytest.raises(DataError, match="no word folder"):
        SpeechCommands(root=str(tmp_path))


def test_samples_are_the_recordings_and_their_words(root):
    data = module(root)
    assert data.class_names == ["bed", "cat"]
    assert data.num_classes == 2
    assert data.data_source == "real"
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (8, 4, 4)
    sample = data.test_set[3]
    recorded, _ = soundfile.read(root / "cat" / f"{SPEAKERS[0]}_nohash_1.wav", dtype="int16")
    assert sample["target"] == 1
    assert torch.equal(sample["audio"], torch.from_numpy(np.pad(recorded, (0, 4000))))
    again = pickle.loads(pickle.dumps(data.test_set))
    assert torch.equal(again[3]["audio"], sample["audio"])
    swapped = module(root, classes=["cat", "bed"])
    assert swapped.test_set[0]["target"] == 0
    assert torch.equal(swapped.test_set[1]["audio"], sample["audio"])
    assert module(root, classes=["cat"]).num_classes == 1


def test_views_have_their_steps_and_share_the_augmentation(root):
    torch.manual_seed(0)
    data = module(root, step_ms=40, teacher_step_ms=10, n_mels=32, hop=160)
    assert data.input_shapes == {"audio": (25, 32)}
    sample = {"audio": next(iter(data.train_dataloader()))["audio"]}
    student, teacher = data.views(sample, training=False)
    assert student["audio"].shape == (4, 25, 32)
    assert teacher["audio"].shape == (4, 100, 32)
    assert student["audio"].dtype == torch.float32
    assert torch.equal(data.views(sample, training=False)[0]["audio"], student["audio"])

    student, teacher = (view["audio"] for view in data.views(sample, training=True))
    pooled = teacher.unflatten(1, (25, 4)).mean(2)
    assert torch.corrcoef(torch.stack([student.flatten(), pooled.flatten()]))[0, 1] > 0.9
    assert not torch.allclose(data.views(sample, training=True)[0]["audio"], student)

    plain = module(root, augment=False)
    one, two = plain.views(sample, training=True)
    assert one is two
    assert torch.equal(one["audio"], plain.views(sample, training=False)[0]["audio"])


def test_a_view_is_one_frame_a_step_unless_hop_is_fixed(root):
    data = module(root, step_ms=25, teacher_step_ms=10)
    waveform = torch.stack([data.test_set[i]["audio"] for i in range(4)])
    student, teacher = data.views({"audio": waveform}, training=False)
    log_mel = LogMel()
    assert student["audio"].shape == (4, 40, 40)
    assert torch.equal(student["audio"], log_mel(waveform, 400))
    assert torch.equal(teacher["audio"], log_mel(waveform, 160))
    fixed = module(root, step_ms=25, hop=160).views({"audio": waveform}, training=False)[0]["audio"]
    assert torch.equal(fixed, log_mel(waveform, 160, 40))
    assert not torch.equal(fixed, student["audio"])


def test_the_resolution_changes_between_batches(root):
    data = module(root)
    sample = {"audio": next(iter(data.train_dataloader()))["audio"]}
    one, two = data.views(sample, training=True)
    assert one is two
    assert one["audio"].shape == (4, 100, 40)
    data.set_resolution(25.0, 10.0)
    assert data.input_shapes == {"audio": (40, 40)}
    student, teacher = data.views(sample, training=True)
    assert (student["audio"].shape, teacher["audio"].shape) == ((4, 40, 40), (4, 100, 40))
    with pytest.raises(ConfigError, match="teacher_step_ms"):
        data.set_resolution(25.0, 0.01)
    assert (data.step_ms, data.teacher_step_ms) == (25.0, 10.0)


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"step_ms": 10.03}, r"step_ms is 10.03, 160.48 samples at 16000 Hz"),
        ({"step_ms": 0}, "whole number of samples"),
        ({"step_ms": 20, "hop": 400}, "step_ms is 20, 320 samples; set it to 400 to 16000 samples"),
        ({"teacher_step_ms": 50}, "teacher_step_ms is 50, 800 samples; set it to 1 to 512 samples"),
        ({"step_ms": 2000, "hop": 160}, "set it to 160 to 16000"),
        ({"noise_probability": 1.5}, "noise_probability"),
        ({"seconds": 0.0}, "data.init_args.seconds is 0.0; set it to 0.001 to 3600"),
        ({"seconds": 1e7}, "data.init_args.seconds is 10000000.0; set it to 0.001 to 3600"),
        ({"seconds": 0.01, "step_ms": 5, "front_end": "spikescr"}, "is 0.01, less than half a window of 256 samples"),
        ({"seconds": math.nan}, "data.init_args.seconds is nan"),
        ({"n_mels": 0}, "data.init_args.n_mels is 0; set it to at least 1"),
        ({"n_fft": 0}, "data.init_args.n_fft is 0"),
        ({"sample_rate": -1}, "data.init_args.sample_rate is -1"),
        ({"hop": 0}, "data.init_args.hop is 0"),
        ({"front_end": "spikescr", "hop": 80}, "one frame a step"),
        ({"classes": 11}, "classes is 11; set it to 10, 12, 30, 35"),
        ({"classes": ["bed", "bed"]}, "no class twice"),
        ({"classes": ["_silence_"]}, "at least one word"),
        ({"source": "simulated", "download": True}, "needs no download"),
        ({"f_max": 14000.0}, "allow_above_nyquist"),
    ],
)
def test_what_cannot_work_is_refused(root, args, match):
    with pytest.raises(ConfigError, match=match) as error:
        SpeechCommands(root=str(root), **args)
    assert "\n" not in str(error.value)


def test_the_teacher_may_see_the_sound_as_it_was_recorded(root):
    torch.manual_seed(0)
    data = module(root, augment_teacher=False, teacher_step_ms=5)
    sample = {"audio": next(iter(data.train_dataloader()))["audio"]}
    student, teacher = data.views(sample, training=True)
    clean_student, clean_teacher = data.views(sample, training=False)
    assert torch.equal(teacher["audio"], clean_teacher["audio"])
    assert not torch.equal(student["audio"], clean_student["audio"])
    same = module(root, augment_teacher=False)
    student, teacher = same.views(sample, training=True)
    assert not torch.equal(student["audio"], teacher["audio"])


def test_the_front_end_of_spikescr(root):
    torch.manual_seed(0)
    data = module(root, front_end="spikescr", allow_above_nyquist=True, step_ms=25, teacher_step_ms=10)
    assert (data.sample_rate, data.log_mel.sample_rate) == (16000, 8000)
    assert data.input_shapes == {"audio": (41, 140)}
    sample = {"audio": next(iter(data.train_dataloader()))["audio"]}
    assert sample["audio"].shape == (4, 16000)
    student, teacher = (view["audio"] for view in data.views(sample, training=False))
    assert (student.shape, teacher.shape) == ((4, 41, 140), (4, 101, 140))
    assert (teacher[..., 87:] == -100).all()

    data.mask_fill = "zero"
    masked = [view["audio"] for view in data.views(sample, training=True)]
    for plain, view in zip((student, teacher), masked, strict=True):
        changed = view != plain
        assert (view[changed] == 0).all()  # nothing but masks
        assert torch.equal(changed[..., 60:].all(1), changed[:1, :, 60:].all(1).expand(4, -1))  # one band for all
    hidden = [(view == 0).all(2).float().mean(1) for view in masked]
    assert (hidden[0] - hidden[1]).abs().max() <= 1 / 41 + 1 / 101
    assert hidden[0].max() > 0


def test_a_set_without_its_folder_is_simulated_and_says_so(simulated, tmp_path):
    args = {"root": str(tmp_path / "no"), "simulated_root": simulated, "cache_dir": str(tmp_path)}
    with pytest.warns(UserWarning, match="SIMULATED"):
        data = SpeechCommands(**args)
    assert data.data_source == "simulated"
    data.prepare_data()
    data.setup("fit")
    assert data.num_classes == 12
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (384, 96, 96)


def test_background_noise_is_mixed_into_training_only(root):
    soundfile.write(root / "_background_noise_" / "tone.wav", 0.5 * np.sin(np.arange(40000) * 0.3), 16000)
    data = module(root, noise_probability=1.0, augment=False)
    silent = {"audio": torch.zeros(8, 16000, dtype=torch.int16)}
    assert (data.views(silent, training=False)[0]["audio"].abs() < 0.01).all()
    noisy = data.views(silent, training=True)[0]["audio"]
    assert (noisy.mean(1).abs() < 1e-4).all()
    assert (noisy.abs().amax((1, 2)) > 1).all()
    assert module(root, noise_probability=0.0).noise is None
    (root / "_background_noise_" / "tone.wav").unlink()
    with pytest.raises(DataError, match=r"_background_noise_ holds no \.wav"):
        module(root, noise_probability=0.5, cache_dir=str(root / "other"))
    assert not (root / "other").exists()  # said before anything is decoded


def test_the_task_of_twelve_classes_on_the_simulated_set(simulated, tmp_path):
    data = SpeechCommands(source="simulated", simulated_root=simulated, classes=12, cache_dir=str(tmp_path))
    data.prepare_data()
    data.setup("fit")
    words = sorted(WORDS)
    assert data.class_names == [*words[:10], "_unknown_", "_silence_"]
    # Ten words by 8, 2 and 2 speakers with 4 takes each; then a tenth of these for either of the other classes.
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [384, 96, 96]
    count = torch.bincount(torch.tensor([data.test_set[i]["target"] for i in range(96)]))
    assert count.tolist() == [8] * 12
    silent = [i for i in range(96) if data.val_set[i]["target"] == 11]
    for i in silent:
        assert torch.equal(data.val_set[i]["audio"], data.val_set[i]["audio"])
    assert not torch.equal(data.val_set[silent[0]]["audio"], data.val_set[silent[1]]["audio"])
    assert not torch.equal(data.train_set[383]["audio"], data.train_set[383]["audio"])
    batch = next(iter(data.train_dataloader()))
    assert batch["audio"].shape == (64, 16000)
    assert batch["audio"].dtype == torch.int16


@needs_recordings
def test_thirty_real_words_through_loader_processes(tmp_path):
    data = SpeechCommands(
        root=str(SHARED / "speech_commands_en"), cache_dir=str(tmp_path), batch_size=64, num_workers=1
    )
    data.prepare_data()
    data.setup("test")
    assert data.num_classes == 30
    batch = next(iter(data.test_dataloader()))
    assert batch["audio"].shape == (64, 16000)
    audio = data.views(batch, training=False)[0]["audio"]
    assert audio.shape == (64, 100, 40)
    assert audio.isfinite().all()
