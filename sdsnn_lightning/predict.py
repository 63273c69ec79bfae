"""What `lightning predict` leaves behind: a table, written as the batches come, a picture, and a video if wanted."""

import csv
import os
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from sdsnn_lightning.types import Batch

Item = TypeVar("Item")


class Thinned(Generic[Item]):
    """Keeps an even selection of a stream of unknown length: every n-th item, n doubling when there are too many."""

    def __init__(self, most: int) -> None:
        """Creates the selection.

        Args:
            most: Keeps at most so many items, and more than half as many of a long stream.
        """
        self.most, self.stride, self.seen = most, 1, 0
        self.items: list[Item] = []

    @property
    def wanted(self) -> bool:
        """Whether the next item will be kept: spares making it otherwise."""
        return self.seen % self.stride == 0

    def append(self, item: Item | None) -> None:
        """Takes the next item of the stream; it may be None where it is not `wanted`."""
        if self.wanted and item is not None:
            self.items.append(item)
            if len(self.items) > self.most:
                self.items = self.items[::2]
                self.stride *= 2
        self.seen += 1


class PredictionWriter(Callback):
    """Writes `predictions.csv` and `predictions.png` into the run folder; `predictions.mp4` where the data asks for it.

    One row a sample: where it is (`start_s` and `end_s` for windows of a video, else `sample`, its number), the
    predicted class, the probability of every class, and the confidence, which is the largest of them. Rows are on disk
    after every batch, in `predictions.csv.partial`, which gets its name when the prediction is complete.

    Memory stays constant however many samples there are, provided that the Trainer does not collect the predictions
    (`return_predictions: false`).
    """

    def __init__(self, folder: Path | None = None, thumbnails: int = 12) -> None:
        """Creates the callback.

        Args:
            folder: Where to write; None takes the Trainer's log folder.
            thumbnails: At most so many images of the video in the picture.
        """
        self.folder, self.thumbnails = folder, thumbnails

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the table."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._seconds = getattr(data, "seconds", None)
        self._names: list[str] = list(getattr(data, "class_names", []))
        self._answers: Thinned[tuple[float, NDArray]] = Thinned(1024)
        self._images: Thinned[tuple[float, NDArray]] = Thinned(self.thumbnails)
        self._file: Any = None
        if trainer.is_global_zero:
            folder = self.folder or Path(trainer.log_dir or trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / "predictions.csv"
            self._file = self._path.with_suffix(".csv.partial").open("w", newline="", encoding="utf-8")
            where = ["sample"] if self._seconds is None else ["start_s", "end_s"]
            csv.writer(self._file).writerow([*where, "prediction", *self._names, "confidence"])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Appends the rows of one batch.

        Args:
            trainer: The Trainer.
            pl_module: The module that predicts.
            outputs: `probabilities` `[B, K]`, and `window` `[B]` for windows of a video.
            batch: The batch on the device.
            batch_idx: Its number.
            dataloader_idx: Ignored: there is one loader.
        """
        if self._file is None:
            return
        probabilities = outputs["probabilities"].float().cpu().numpy()
        windows = outputs["window"].tolist() if self._seconds is not None else [None] * len(probabilities)
        table = csv.writer(self._file)
        for row, (window, shares) in enumerate(zip(windows, probabilities, strict=True)):
            sample, best = self._answers.seen, int(shares.argmax())
            where = [sample] if self._seconds is None else [f"{edge:.3f}" for edge in self._seconds(window)]
            table.writerow([*where, self._names[best], *(f"{share:.5f}" for share in shares), f"{shares[best]:.5f}"])
            time = sample if self._seconds is None else sum(self._seconds(window)) / 2
            self._answers.append((time, shares))
            image = _thumbnail(batch, row) if self._images.wanted else None
            self._images.append(None if image is None else (time, image))
        self._file.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the finished table its name and draws the picture."""
        if self._file is None:
            return
        self._file.close()
        os.replace(self._file.name, self._path)
        if self._answers.items:
            from sdsnn_lightning.pictures import prediction_strip

            times, shares = zip(*self._answers.items, strict=True)
            unit = "sample" if self._seconds is None else "seconds"
            figure = prediction_strip(times, np.stack(shares), self._names, self._images.items, unit)
            figure.savefig(self._path.with_suffix(".png"))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draws the answers into the video, where the data module has `annotate` set.

        Only now: drawing shows a progress bar, and the Trainer's is gone by now.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "predict" and trainer.is_global_zero and getattr(data, "annotate", False):
            from sdsnn_lightning.annotated_video import annotate_video, read_answers

            annotate_video(data.predict_set, read_answers(self._path), self._names, self._path.with_suffix(".mp4"))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the unfinished table; what was predicted so far stays in it."""
        if getattr(self, "_file", None) is not None:
            self._file.close()


def _thumbnail(batch: Batch, row: int) -> NDArray | None:
    """The middle frame `[H, W]` of a sample, where its batch has frames."""
    frames = batch.student.get("frames")
    if frames is None or frames.ndim != 5:
        return None
    return frames[row, frames.shape[1] // 2].float().mean(0).cpu().numpy()
