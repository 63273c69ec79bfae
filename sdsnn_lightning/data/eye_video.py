"""A plain video of one eye, cut into the windows a single-eye network was trained on, for prediction."""

import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.data.see_layout import EMOTIONS
from sdsnn_lightning.data.single_eye import eye_view
from sdsnn_lightning.data.video_windows import Box, VideoWindows
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.types import View


class EyeVideo(DataModule):
    """A video of one eye, to predict on: `lightning predict ... --data EyeVideo --data.root eye.mp4`.

    Images are brought to the form of SEE: grey, square, 30 a second, and normalised with SEE's constants. Arguments
    that `SingleEye` has too are called the same, so they carry over from the experiment.
    """

    def __init__(
        self,
        root: str,
        size: int = 90,
        steps: int = 4,
        skip: int = 3,
        hop: int = 6,
        channels: int = 3,
        eye_box: Box | None = None,
        class_names: list[str] | None = None,
        simulate_events: bool = False,
        event_values: Literal["grey", "ternary"] = "grey",
        annotate: bool = False,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        """Creates the module.

        Args:
            root: The video file.
            size: Height and width of the images, in pixels.
            steps: Images in a window, x of E_x-S_y.
            skip: Images skipped between two, y of E_x-S_y.
            hop: Images from the start of one window to the next, at 30 a second.
            channels: Equal copies of the one grey channel.
            eye_box: Square around the eye in pixels: left, top, side. None takes the largest square in the middle.
            class_names: Classes the checkpoint was trained on, in its order; SEE's seven by default.
            simulate_events: Simulate the events of an event camera, for networks that need them. Simulated from video
                at 30 images a second they are a rough stand-in, and the results say `data_source: simulated`.
            event_values: `grey` or `ternary`, as in `SingleEye`.
            annotate: Also write `predictions.mp4`: the video with the answers drawn beside its frames.
            batch_size: Windows in a batch.
            num_workers: Above 0, one process decodes while the network runs: a stream cannot be shared.

        Raises:
            ConfigError: If an argument is out of its range.
        """
        super().__init__(batch_size, min(num_workers, 1))
        for key, value, least in (
            ("size", size, 1), ("steps", steps, 1), ("skip", skip, 0), ("hop", hop, 1), ("channels", channels, 1)
        ):  # fmt: skip
            if value < least:
                raise ConfigError(f"data.init_args.{key} is {value}; set it to at least {least}")
        self.root, self.data_source = Path(root), "simulated" if simulate_events else "real"
        self.channels, self.event_values, self.annotate = channels, event_values, annotate
        self.window_options: dict[str, Any] = {
            "size": size, "steps": steps, "skip": skip, "hop": hop, "eye_box": eye_box,
            "simulate_events": simulate_events,
        }  # fmt: skip
        self.class_names = list(class_names or EMOTIONS)
        self.modalities = ("frames", "events") if simulate_events else ("frames",)
        self.input_shapes = {name: (steps, channels, size, size) for name in self.modalities}
        self.groups = {"window": []}  # an index that travels with every sample, without names to report on

    def setup(self, stage: str) -> None:
        """Opens the video.

        Args:
            stage: Must be `predict`.

        Raises:
            ConfigError: In any other stage, as a video has no labels.
            DataError: If the file is missing, is no video, or is shorter than a window.
        """
        if stage != "predict":
            raise ConfigError(f"data: EyeVideo has no labels to {stage} with; use it with `lightning predict`")
        if "events" in self.modalities:
            rank_zero_warn(f"{self.root}: the events are SIMULATED from the video's frames.")
        self.predict_set: VideoWindows = VideoWindows(self.root, **self.window_options)

    def predict_dataloader(self) -> DataLoader:
        """Serves the windows in the order of time."""
        # Lightning warns that several loader processes would repeat a stream; here there is never more than one.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return self._loader(self.predict_set, train=False)

    def seconds(self, window: int) -> tuple[float, float]:
        """Start and end of a window in seconds, see `VideoWindows.seconds`."""
        return self.predict_set.seconds(window)

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Normalises the images and copies their channel, exactly as `SingleEye` does.

        Args:
            sample: Modalities uint8 `[B, T, 1, size, size]`.
            training: Ignored.

        Returns:
            float32 `[B, T, channels, size, size]` by modality; the same dict twice.
        """
        view = eye_view({name: sample[name] for name in self.modalities}, self.channels, self.event_values)
        return view, view
