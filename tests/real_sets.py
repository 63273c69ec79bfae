"""Small sets in the layouts of the real ones, each in the folder `set`, and experiments that train on them."""

from pathlib import Path

import numpy as np
from speech_set import write_speech_set
from torch import Tensor, nn

from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, write_clip, write_index
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE
from sdsnn_lightning.types import Output


class Flat(nn.Module):
    """One linear layer over all values of a time step."""

    def __init__(self, num_classes: int, of: str, size: int) -> None:
        super().__init__()
        self.inputs = (of,)
        self.head = nn.Linear(size, num_classes)

    def forward(self, x: Tensor) -> Output:
        return Output(self.head(x.flatten(2)), {})

    def readout(self, logits: Tensor) -> Tensor:
        return logits.mean(0)


def write_eyes(root):
    entries = []
    for k in range(24):
        subject, take = divmod(k, 4)
        name = ClipName(k, f"{subject:03d}", "man", 30, "Master", LIGHTINGS[subject % 4], EMOTIONS[k % 7], 8, take)
        images = np.random.default_rng(k).integers(0, 256, (8, 16, 16), dtype=np.uint8)
        write_clip(root, name, images, 255 - images)
        entries.append((name, "testing" if take == 3 else "training", (0, 8)))
    write_index(root, list(EMOTIONS), entries)


def write_recordings(root):
    for number, name in enumerate(("disc", "ring")):
        for k in range(10):
            rng = np.random.default_rng(100 * number + k)
            events = np.empty(800, EVENT_DTYPE)
            events["t"] = 10 * np.arange(800)
            events["x"], events["y"], events["p"] = (rng.integers(0, most, 800) for most in (128, 128, 2))
            (root / name).mkdir(parents=True, exist_ok=True)
            write_aedat(root / name / f"{name}_{k}.aedat", events)


def write_spikes(root):
    root.mkdir()
    rng = np.random.default_rng(0)
    for part, speakers in (("train", (0, 1, 2, 3)), ("test", (4, 5))):
        times = [np.sort(rng.random(40)) * 0.2 for _ in range(6 * len(speakers))]
        samples = [
            SpikeSample(t, rng.integers(0, 700, 40), k % 2, speakers[k // 6], ("one", "two")[k % 2])
            for k, t in enumerate(times)
        ]
        write_spike_file(root / f"shd_{part}.h5", samples, ["one", "two"])


SETS = {
    "eyes": (
        write_eyes,
        "SingleEye, init_args: {size: 16, channels: 1, steps: 2, skip: 0, batch_size: 4",
        "frames",
        256,
    ),
    "events": (write_recordings, "CIFAR10DVS, init_args: {size: 8, steps: 2, batch_size: 4", "events", 128),
    "words": (write_speech_set, "SpeechCommands, init_args: {step_ms: 20.0, batch_size: 2", "audio", 40),
    "spikes": (write_spikes, "SpikingHeidelberg, init_args: {batch_size: 4", "spikes", 140),
}
"""By name: what writes it, its data module, and the modality and number of values that `Flat` takes."""


def make(kind: str) -> None:
    """Writes a set into `set` and its experiment into `flat.yaml`."""
    write, data, of, size = SETS[kind]
    write(Path("set"))
    Path("flat.yaml").write_text(f"""
name: flat
data: {{class_path: sdsnn_lightning.data.{data}, root: set, simulated_root: simulated}}}}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {{class_path: real_sets.Flat, init_args: {{of: {of}, size: {size}}}}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.01}}}}
trainer:
  max_epochs: 2
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  enable_model_summary: false
""")
