"""`sdsnn predict RUN INPUT`: every kind of file, from a run folder alone, whatever the length."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image
from refusal import refusal

from sdsnn_lightning.cli import main
from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.recorded_files import SoundWindows
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file
from sdsnn_lightning.networks import SEWDVS, PlainStudent, SpikeSCR, SpikingKeyword
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

OPTIMIZER = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}


def make_run(folder, data, network, options, names):
    """A run folder as `fit` leaves it, of an untrained network: its configuration and a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    student = {"class_path": f"sdsnn_lightning.networks.{type(network).__name__}", "init_args": options}
    model = {"class_path": "sdsnn_lightning.Distiller", "init_args": {"student": student, "optimizer": OPTIMIZER}}
    content = {"name": folder.parent.name, "data": data, "model": model, "trainer": {"accelerator": "cpu"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    state["adapters.Weak.linear.weight"] = torch.zeros(2, 2)  # of a strategy that is not there now
    about = {"class_names": names, "data_source": "real", "split": {}}
    checkpoint = {"state_dict": state, "sdsnn": about, "pytorch-lightning_version": "2.6.0", "epoch": 0}
    torch.save(checkpoint | {"global_step": 0, "callbacks": {}}, folder / "checkpoints/best.ckpt")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    eye = {"class_path": "sdsnn_lightning.data.SingleEye", "init_args": {"root": "gone", "source": "real", "size": 32}}
    words = {
        "class_path": "sdsnn_lightning.data.SpeechCommands",
        "init_args": {"root": "gone", "source": "real", "step_ms": 20.0, "hop": 160},
    }
    spikes = {"class_path": "sdsnn_lightning.data.SpikingHeidelberg", "init_args": {"root": "gone", "source": "real"}}
    events = {
        "class_path": "sdsnn_lightning.data.CIFAR10DVS",
        "init_args": {"root": "gone", "source": "real", "size": 48, "window_ms": 50.0},
    }
    seven = ["happy", "sad", "angry", "fear", "surprise", "disgust", "neutral"]
    small = {"in_channels": 140, "width": 32, "heads": 2}
    return {
        "eye": make_run(root / "eye/version_0", eye, PlainStudent(7, width=0.25), {"width": 0.25}, seven),
        "words": make_run(
            root / "words/version_0", words, SpikingKeyword(3, hidden=16), {"hidden": 16}, ["yes", "no", "up"]
        ),
        "spikes": make_run(root / "spikes/version_0", spikes, SpikeSCR(4, **small), small, list("abcd")),
        "events": make_run(root / "events/version_0", events, SEWDVS(2, size=48, width=0.125),
                           {"size": 48, "width": 0.125}, ["cat", "dog"]),
    }  # fmt: skip


def predict(run, source, out, *more):
    main(["predict", str(run), str(source), "--out", str(out), *more, "--trainer.enable_progress_bar", "false"])
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_images(folder, count):
    folder.mkdir()
    for k in range(count):
        Image.fromarray(np.full((40, 60), 5 * k % 256, np.uint8)).save(folder / f"eye_{k}.png")
    return folder


def write_recording(path, count=4000):
    rng = np.random.default_rng(0)
    events = np.empty(count, EVENT_DTYPE)
    events["t"] = np.linspace(0, 160_000, count).astype(np.int64)
    events["x"], events["y"], events["p"] = rng.integers(0, 128, (2, count)).tolist() + [rng.integers(0, 2, count)]
    write_aedat(path, events)
    return path


def test_a_folder_of_images(runs, tmp_path):
    rows = predict(runs["eye"], write_images(tmp_path / "eye", 40), tmp_path / "out")
    # 13 images a window, 6 from one to the next: windows begin at 0, 6, ..., 24
    assert [row["start_s"] for row in rows] == ["0.000", "0.200", "0.400", "0.600", "0.800"]
    assert list(rows[0])[3:-1] == ["happy", "sad", "angry", "fear", "surprise", "disgust", "neutral"]
    assert sum(float(rows[0][name]) for name in list(rows[0])[3:-1]) == pytest.approx(1, abs=1e-3)
    assert Image.open(tmp_path / "out/predictions.png").width > 500


def test_a_video_with_the_answers_drawn_in(runs, tmp_path, capsys):
    import av

    write_video(tmp_path / "eye.mp4", 45, height=48, width=64)
    rows = predict(runs["eye"], tmp_path / "eye.mp4", tmp_path / "out", "--video")
    assert len(rows) == (45 - 13) // 6 + 1
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out/predictions.mp4")
    with av.open(str(tmp_path / "out/predictions.mp4")) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].average_rate == 30
    assert len(frames) == 45
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "predictions.csv", "predictions.png", "predictions.mp4"
    }  # fmt: skip


def test_a_sound_is_cut_in_windows_and_prepared_as_in_training(runs, tmp_path):
    sound = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)  # 2.5 s
    soundfile.write(tmp_path / "a.wav", sound, 16000, subtype="FLOAT")
    rows = predict(runs["words"], tmp_path / "a.wav", tmp_path / "out")
    assert [(row["start_s"], row["end_s"]) for row in rows] == [
        ("0.000", "1.000"), ("0.500", "1.500"), ("1.000", "2.000"), ("1.500", "2.500"),
    ]  # fmt: skip
    # The third window by hand: same front-end, same network.
    from sdsnn_lightning.data.speech_front_end import LogMel
    from sdsnn_lightning.trained import load_trained

    network = load_trained(runs["words"]).network
    stored = torch.from_numpy(np.clip(np.rint(sound[16_000:32_000] * 32768), -32768, 32767).astype(np.int16))[None]
    view = LogMel()(stored, 160, 50)
    with torch.no_grad():
        shares = network.readout(network(view.transpose(0, 1)).logits).softmax(-1)[0]
    assert [float(rows[2][name]) for name in ("yes", "no", "up")] == pytest.approx(shares.tolist(), abs=2e-5)


def test_sound_windows_cover_everything(tmp_path):
    for seconds, count in ((0.3, 1), (1.0, 1), (1.01, 2), (1.5, 2), (10.0, 19)):
        soundfile.write(tmp_path / "a.wav", np.ones(round(8000 * seconds)) / 4, 8000)
        windows = SoundWindows(tmp_path / "a.wav", 16000, 16000, 0.5)
        assert len(windows) == len(list(windows)) == count
        assert windows.seconds(count - 1)[1] >= seconds - 1e-6


def test_no_sound_window_begins_after_the_end(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(8000 * 29 // 10) / 4, 8000)
    for hop, starts in ((3.0, [0]), (2.9, [0]), (2.0, [0, 2]), (1.45, [0, 1.45])):
        windows = SoundWindows(tmp_path / "a.wav", 8000, 8000, hop)
        assert [windows.seconds(k)[0] for k in range(len(windows))] == starts
        assert all(sample["audio"].abs().max() > 8000 for sample in windows)


def test_spike_trains(runs, tmp_path):
    rng = np.random.default_rng(0)
    samples = [
        SpikeSample(np.sort(rng.random(200) * 0.5), rng.integers(0, 700, 200), k % 4, 0, "abcd"[k % 4])
        for k in range(5)
    ]
    write_spike_file(tmp_path / "a.h5", samples, list("abcd"))
    rows = predict(runs["spikes"], tmp_path / "a.h5", tmp_path / "out", "--data.init_args.batch_size", "2")
    assert [row["sample"] for row in rows] == ["0", "1", "2", "3", "4"]


def test_an_event_recording_is_cut_as_in_training(runs, tmp_path):
    rows = predict(runs["events"], write_recording(tmp_path / "a" / "a.aedat"), tmp_path / "out")
    assert len(rows) == 3  # 160 ms in windows of 50
    (tmp_path / "a" / "._a.aedat").write_bytes(b"no recording")  # as macOS leaves them
    assert predict(runs["events"], tmp_path / "a", tmp_path / "folder") == rows
    assert set(rows[0]) == {"sample", "prediction", "cat", "dog", "confidence"}


@pytest.mark.parametrize(
    ("run", "name", "said"),
    [
        ("words", "a.mp4", "is of the kind 'video', but"),
        ("eye", "a.wav", "give a video or a folder of images"),
        ("spikes", "a.aedat", "give a HDF5 file of spike trains"),
        ("eye", "none.mp4", "does not exist"),
        ("eye", "a.xyz", "'.xyz' is no known ending"),
        ("eye", "empty", "holds no image"),
        ("words", "broken.wav", "cannot be read as audio"),
        ("spikes", "broken.h5", "cannot be read as HDF5"),
        ("eye", "broken.mp4", "is not a video"),
        ("words", "broken.wav --video", "--video draws answers into a video or a folder of images, and"),
    ],
)
def test_the_wrong_file_is_one_line(runs, tmp_path, capsys, run, name, said):
    name, *more = name.split()
    for file in ("a.mp4", "a.wav", "a.aedat", "a.xyz", "broken.wav", "broken.h5", "broken.mp4"):
        (tmp_path / file).write_bytes(b"what is this")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as end:
        main(["predict", str(runs[run]), str(tmp_path / name), "--out", str(tmp_path / "out"), *more])
    assert end.value.code == 2
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert text.startswith("error: ")
    assert said in text


def test_a_damaged_sound_is_one_line_and_a_converted_one_is_said(runs, tmp_path, capsys):
    sound = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(16000) == 9000, np.nan, sound), 16000, subtype="FLOAT")
    for name in ("short.wav", "short.flac"):
        soundfile.write(tmp_path / name, sound, 16000)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:9000])
    for name, said in (
        ("nan.wav", "NaN or infinite"),
        ("short.wav", "breaks off"),
        ("short.flac", "cannot be decoded"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["predict", str(runs["words"]), str(tmp_path / name), "--out", str(tmp_path / "out")])
        assert end.value.code == 2
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
        assert not list((tmp_path / "out").glob("*.csv"))
    soundfile.write(tmp_path / "stereo.wav", np.stack([sound, sound], 1), 44100)
    with pytest.warns(UserWarning, match=r"stereo\.wav has 2 x 44100 Hz and is converted to mono"):
        predict(runs["words"], tmp_path / "stereo.wav", tmp_path / "stereo")


@pytest.mark.parametrize("key", ["model", "data"])
def test_a_class_of_the_run_that_is_not_here_is_named(runs, tmp_path, capsys, key):
    run = shutil.copytree(runs["eye"], tmp_path / "run")
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["data"]["init_args"]["modalities"] = ["frames", "events"]  # as a real run has it
    place = content["data"] if key == "data" else content["model"]["init_args"]["student"]
    place["class_path"] = "mine_of_another_folder.Mine"
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    said = refusal(capsys, "predict", run, write_images(tmp_path / "eye", 20), alone=True)
    assert f"{run}/config.yaml: {key}" in said
    assert "mine_of_another_folder.Mine cannot be imported (No module named 'mine_of_another_folder')" in said
    assert "start in the folder" in said


MEASURE = """
import resource, sys
from sdsnn_lightning.cli import main
eye, words, folder = sys.argv[1:]
for length in ("short", "long"):
    for run, file, more in ((eye, f"{length}.mp4", ["--video"]), (words, f"{length}.wav", [])):
        main(["predict", run, f"{folder}/{file}", "--out", f"{folder}/{file}.out", "--trainer.enable_progress_bar",
              "false", "--data.init_args.batch_size", "4", *more])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # kB
"""


def write_video(path, count, height=240, width=320):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(count):
            image = np.full((height, width), 60 + k % 100, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "gray").reformat(format="yuv420p")))
        container.mux(stream.encode())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_length(runs, tmp_path):
    for name, images, seconds in (("short", 60, 3), ("long", 700, 150)):
        write_video(tmp_path / f"{name}.mp4", images)
        with soundfile.SoundFile(str(tmp_path / f"{name}.wav"), "w", 48000, 2) as file:
            for _ in range(seconds):
                file.write(np.zeros((48000, 2), np.float32))
    words = [sys.executable, "-c", MEASURE, str(runs["eye"]), str(runs["words"]), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    short, long = (int(line) / 1024 for line in done.stdout.split() if line.isdigit())
    rows = {file: len((tmp_path / f"{file}.out/predictions.csv").read_text().splitlines()) - 1
            for file in ("long.mp4", "long.wav")}  # fmt: skip
    assert rows == {"long.mp4": (700 - 13) // 6 + 1, "long.wav": 1 + 149 * 2}
    # The images of the long video are 54 MB once decoded and 970 MB once drawn, the long sound 58 MB.
    assert long - short < 30
