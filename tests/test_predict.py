"""The table and the picture that a prediction leaves."""

import csv
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.predict import PredictionWriter, Thinned


class Windows(DataModule):
    """Fifty windows a tenth of a second apart; the image of window i is all i / 50."""

    def __init__(self, timed=True):
        super().__init__(batch_size=8)
        self.class_names, self.groups = ["angry", "fear"], {"window": []}
        if timed:
            self.seconds = lambda window: (window / 10, window / 10 + 0.2)

    def views(self, sample, training):
        return sample, sample

    def predict_dataloader(self):
        samples = [{"frames": torch.full((3, 1, 6, 6), i / 50), "target": 0, "window": i} for i in range(50)]
        return DataLoader(samples, batch_size=8)


class Model(LightningModule):
    """Says `fear` with the brightness of the image as its probability."""

    fails_at: ClassVar[int] = 99

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.fails_at:
            raise RuntimeError("power cut")
        fear = batch.student["frames"].mean((1, 2, 3, 4))
        return {"probabilities": torch.stack([1 - fear, fear], 1), **batch.groups}


def predict(model, folder, data):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[PredictionWriter(folder)],
    )
    trainer.predict(model, datamodule=data, return_predictions=False)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_and_picture(tmp_path):
    predict(Model(), tmp_path / "run", Windows())
    table = rows(tmp_path / "run/predictions.csv")
    assert list(table[0]) == ["start_s", "end_s", "prediction", "angry", "fear", "confidence"]
    assert len(table) == 50
    assert table[12] == {
        "start_s": "1.200",
        "end_s": "1.400",
        "prediction": "angry",
        "angry": "0.76000",
        "fear": "0.24000",
        "confidence": "0.76000",
    }
    assert [row["prediction"] for row in table].index("fear") == 26
    assert Image.open(tmp_path / "run/predictions.png").width > 1000
    assert not list(tmp_path.rglob("*.partial"))


def test_samples_without_times_are_numbered(tmp_path):
    predict(Model(), tmp_path, Windows(timed=False))
    assert [row["sample"] for row in rows(tmp_path / "predictions.csv")] == [str(i) for i in range(50)]


def test_interrupted_prediction_keeps_its_rows_under_another_name(tmp_path):
    model = Model()
    model.fails_at = 3
    with pytest.raises(RuntimeError, match="power cut"):
        predict(model, tmp_path, Windows())
    assert not (tmp_path / "predictions.csv").exists()
    assert len(rows(tmp_path / "predictions.csv.partial")) == 24


def test_thinned_is_even_and_bounded():
    kept = Thinned(8)
    for i in range(1000):
        kept.append(i if kept.wanted else None)
        assert len(kept.items) <= 8
    assert kept.items == list(range(0, 1000, 128))
