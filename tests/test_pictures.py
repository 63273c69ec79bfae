"""Pictures say the right numbers, in words, without colour."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sdsnn_lightning import pictures

NAMES = ["angry", "fear", "neutral"]


def texts(figure):
    """Every text of a figure that is written, ticks included."""
    import matplotlib.text

    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_confusion_shows_percent_of_the_true_class():
    found = texts(pictures.confusion_picture(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), NAMES))
    assert {"75", "25", "100"} <= set(found)
    assert "0" not in found
    assert "angry (4)" in found
    assert "WAR 83.3 %, UAR 87.5 %" in found  # 5 of 6; mean of 3/4 and 1, the third class does not occur


def test_many_classes_have_no_numbers_in_cells():
    figure = pictures.confusion_picture(np.eye(35), [f"word {k}" for k in range(35)])
    assert len(figure.axes[0].texts) == 0


def test_recall_bars_have_a_panel_a_grouping():
    scores = {"WAR": 0.5, "UAR": 0.6, "recall/angry": 0.25, "recall/fear": 1.0, "lighting/HDR": torch.tensor(0.5)}
    figure = pictures.recall_bars(scores)
    assert [axes.get_title() for axes in figure.axes] == ["recall per class", "accuracy per lighting"]
    assert {"25.0", "100.0", "50.0", "HDR"} <= set(texts(figure))
    hatches = {patch.get_hatch() for axes in figure.axes for patch in axes.patches}
    assert len(hatches) == 2  # the panels differ without colour


def test_raster_states_the_rate_of_all_neurons():
    spikes = torch.zeros(4, 1000, dtype=torch.bool)
    spikes[1, :100] = True
    figure = pictures.raster_picture({"conv1": spikes, "fc1": spikes[:, :50]})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "conv1: 2.5 % fire a step (128 of 1000 neurons shown)"
    assert titles[1] == "fc1: 25.0 % fire a step (all 50 neurons shown)"


@pytest.mark.parametrize(("steps", "events"), [(4, True), (40, False)])
def test_clip_strip_names_answer_and_truth(steps, events):
    images = torch.rand(steps, 20, 20)
    shares = torch.tensor([0.1, 0.7, 0.2]).expand(steps, 3)
    spikes = {"conv1": torch.ones(steps, 30)}
    figure = pictures.clip_strip(images, images if events else None, spikes, shares, NAMES, "neutral")
    assert "predicted: fear (70 %), true: neutral (wrong)" in texts(figure)
    assert "true > neutral" in texts(figure)
    assert len(figure.axes) == min(steps, pictures.STEPS_SHOWN) * (2 if events else 1) + 2


def test_clip_strip_shows_an_image_that_does_not_change_once():
    shares = torch.full((4, 3), 1 / 3)
    figure = pictures.clip_strip(torch.rand(1, 20, 20), torch.rand(4, 20, 20), {}, shares, NAMES)
    assert len(figure.axes) == 1 + 4 + 1


def test_prediction_strip_labels_thumbnails_with_the_answer_at_their_time():
    shares = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    figure = pictures.prediction_strip([0.0, 1.0, 2.0], shares, NAMES, [(0.1, np.ones((8, 8))), (1.9, np.ones((8, 8)))])
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["angry", "neutral"]
    assert figure.axes[1].get_title() == "1.9 s"


def test_saved_pictures_are_grey_and_not_empty(tmp_path):
    clip = pictures.clip_strip(torch.rand(3, 9, 9), None, {}, torch.full((3, 3), 1 / 3), NAMES)
    spikes = {"conv1": torch.ones(3, 5)}
    paths = pictures.save_run_pictures(
        tmp_path / "run", torch.eye(3), NAMES, {"recall/fear": 1.0}, spikes, {"clip": clip}
    )
    assert [path.name for path in paths] == ["confusion.png", "recall.png", "raster.png", "clip.png"]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.ptp(pixels) > 100
        # Hinting may tint hatches by a few levels; nothing is told apart by colour.
        assert np.abs(pixels - pixels.mean(-1, keepdims=True)).max() < 16


def test_matplotlib_is_imported_on_use_only():
    import subprocess

    code = "import sys, sdsnn_lightning.pictures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
