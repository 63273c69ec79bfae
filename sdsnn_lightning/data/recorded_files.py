"""One file to predict on, prepared as the data a run was trained on: sound, spike trains, event recordings."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from sdsnn_lightning.data.audio import check_samples, read_header, to_int16, to_mono
from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.data.cifar10_dvs import CIFAR10DVS
from sdsnn_lightning.data.event_recordings import SUFFIXES, list_files
from sdsnn_lightning.data.event_windows import FrameRule, cut_recording
from sdsnn_lightning.data.speech_commands import SpeechCommands
from sdsnn_lightning.data.spike_files import SpikeFile
from sdsnn_lightning.data.spiking_speech import SpikingSpeech
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.types import View


class SoundWindows(IterableDataset):
    """Windows of a sound file, read as a stream: memory holds one window, whatever the length.

    Samples are `audio` int16 `[S]`, `window` (its number) and `target` (0). Windows begin every `hop` seconds until one
    reaches the end of the sound, or the next would begin after it; the last is padded with silence.
    """

    def __init__(self, path: Path, sample_rate: int, samples: int, hop: float) -> None:
        """Looks at the length of the file.

        Args:
            path: A file libsndfile reads, of any rate and number of channels.
            sample_rate: Wanted rate in Hz; each window is resampled by itself, as recordings of a set are.
            samples: Samples S of a window at that rate.
            hop: Seconds from the start of one window to the next.

        Raises:
            DataError: If the file cannot be read, breaks off or is empty.

        Warns:
            If it is stereo or of another rate.
        """
        import soundfile

        self.path, self.sample_rate, self.samples, self.hop = path, sample_rate, samples, hop
        try:
            facts = read_header(path)
        except (soundfile.SoundFileError, OSError) as error:
            raise DataError(f"{path} cannot be read as audio ({error}); give a wav, flac or ogg file") from None
        self.rate, self.frames = facts.samplerate, facts.frames
        if facts.samplerate != sample_rate or facts.channels > 1:
            rank_zero_warn(
                f"{path} has {facts.channels} x {facts.samplerate} Hz and is converted to mono at {sample_rate} Hz"
            )

    def __len__(self) -> int:
        """Number of windows."""
        most = math.ceil(self.frames / self.rate / self.hop - 1e-9)  # that begin within the sound
        rest = self.frames / self.rate - self.samples / self.sample_rate
        return max(1, min(most, 1 + math.ceil(rest / self.hop - 1e-9)))

    def seconds(self, window: int) -> tuple[float, float]:
        """Start and end of a window in seconds; the padding of the last counts."""
        return window * self.hop, window * self.hop + self.samples / self.sample_rate

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import soundfile

        length = math.ceil(self.samples * self.rate / self.sample_rate)
        with soundfile.SoundFile(str(self.path)) as file:
            for window in range(len(self)):
                try:
                    file.seek(min(round(window * self.hop * self.rate), self.frames))
                    sound = file.read(length, dtype="float32", always_2d=True)
                except (soundfile.SoundFileError, OSError) as error:
                    raise DataError(f"{self.path} cannot be decoded ({error}); give a whole file") from None
                check_samples(self.path, sound)
                mono = to_mono(sound, self.rate, self.sample_rate, self.samples)
                yield {"audio": torch.from_numpy(to_int16(mono)), "window": window, "target": 0}


class SpikeTrains(IterableDataset):
    """The recordings of an HDF5 file in the layout of SHD, one after another: memory holds one batch."""

    def __init__(self, path: Path) -> None:
        """Checks the layout of the file."""
        self.file = SpikeFile(path)
        self.count = len(self.file)

    def __len__(self) -> int:
        """Number of recordings."""
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(self.count):
            sample = self.file[index]
            yield {"times": torch.from_numpy(sample.times), "units": torch.from_numpy(sample.units), "target": 0}


class EventWindows(IterableDataset):
    """The samples of an event recording, or of a folder of them: memory holds one recording.

    Samples are `events` uint8 `[T, 2, S, S]` and `target` (0), whole recordings or windows, as the run was trained.
    """

    def __init__(self, path: Path, rule: FrameRule) -> None:
        """Lists the recordings.

        Raises:
            DataError: If there is none.
        """
        self.files = list_files(path) if path.is_dir() else [path]
        self.rule = rule
        if not self.files:
            raise DataError(f"{path} holds no event recording ({', '.join(SUFFIXES)}); give another folder")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for file in self.files:
            for frames in cut_recording(file, self.rule).frames:
                yield {"events": torch.from_numpy(frames), "target": 0}


class RecordedFile(DataModule):
    """One file, to predict on: sound for `SpeechCommands`, spike trains for `SpikingSpeech`, events for `CIFAR10DVS`.

    `sdsnn predict` makes it. The views are those of the run's own data module, by its own code.
    """

    def __init__(
        self,
        root: str,
        run: str,
        class_names: list[str],
        hop_s: float | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        """Creates the module.

        Args:
            root: The file; for events also a folder of recordings.
            run: Run folder, whose saved configuration says how the data are prepared.
            class_names: Classes the checkpoint was trained on, in its order.
            hop_s: Seconds from one window of sound to the next; half a window by default.
            batch_size: Samples in a batch.
            num_workers: Above 0, one process reads while the network runs: a stream cannot be shared.

        Raises:
            ConfigError: If the run was trained on other data than these three, or `hop_s` is not positive.
        """
        from sdsnn_lightning.trained import build_data, find_trained

        super().__init__(batch_size, min(num_workers, 1))
        if hop_s is not None and hop_s <= 0:
            raise ConfigError(f"data.init_args.hop_s is {hop_s}; set it to a number of seconds above 0")
        files = find_trained(Path(run))
        self.root, self.hop_s, self.class_names = Path(root), hop_s, list(class_names)
        self.recipe: Any = build_data(files)
        self.options: dict[str, Any] = files.config["data"].get("init_args") or {}
        if not isinstance(self.recipe, SpeechCommands | SpikingSpeech | CIFAR10DVS):
            raise ConfigError(f"{files.folder / 'config.yaml'}: single files are not known for data {files.data_class}")
        self.data_source, self.input_shapes = "real", self.recipe.input_shapes
        self.collate = self.recipe.collate
        if isinstance(self.recipe, SpeechCommands):
            self.groups = {"window": []}  # an index that travels with every sample, without names to report on
            self.seconds = lambda window: self.predict_set.seconds(window)

    def setup(self, stage: str) -> None:
        """Opens the file.

        Args:
            stage: Must be `predict`.

        Raises:
            ConfigError: In any other stage, as there are no labels.
            DataError: If the file is missing or broken.
        """
        if stage != "predict":
            raise ConfigError(f"data: RecordedFile has no labels to {stage} with; use it with `sdsnn predict`")
        if not self.root.exists():
            raise DataError(f"{self.root} does not exist; give a file to predict on")
        recipe = self.recipe
        if isinstance(recipe, SpeechCommands):
            hop = recipe.samples / recipe.sample_rate / 2 if self.hop_s is None else self.hop_s
            self.predict_set: Any = SoundWindows(self.root, recipe.sample_rate, recipe.samples, hop)
        elif isinstance(recipe, SpikingSpeech):
            self.predict_set = SpikeTrains(self.root)
        else:  # what describes the real set was put aside when the recipe was built without it
            window_ms = self.options.get("window_ms")
            rule = recipe.rule._replace(
                window_us=0 if window_ms is None else max(1, round(window_ms * 1000)),
                window_events=self.options.get("window_events") or 0,
                transpose=bool(self.options.get("transpose")),
            )
            self.predict_set = EventWindows(self.root, rule)

    def predict_dataloader(self) -> DataLoader:
        """Serves the samples in order."""
        # Lightning warns that several loader processes would repeat a stream; here there is never more than one.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return self._loader(self.predict_set, train=False)

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """The run's own views, without augmentation."""
        return self.recipe.views(sample, False)
