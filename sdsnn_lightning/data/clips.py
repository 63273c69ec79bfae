"""Windows of time steps drawn from cached clips: the sampling E_x-S_y of SEEN, and the data sets over it.

E_x-S_y (Zhang et al., SIGGRAPH 2023, section 5) takes x images and skips y between two taken ones, so a window covers
`x + (x - 1) * y` images of 1/30 s. The paper draws a new random window at every look, in training and in testing, and
averages 20 test runs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdsnn_lightning.data.clip_cache import ClipCache
from sdsnn_lightning.errors import DataError

MAX_OFFICIAL_DROP = 4  # leading images the authors' code may drop, whatever the stride


def covered(steps: int, skip: int) -> int:
    """Number of images a window covers, from its first to its last."""
    return steps + (steps - 1) * skip


def sample_windows(counts: Tensor, steps: int, skip: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws one window a clip, every window that fits being equally likely.

    Args:
        counts: Number of images of each clip, int64 `[N]`, at least `covered(steps, skip)` each.
        steps: Images to take, x.
        skip: Images to skip between two taken ones, y.
        generator: Source of chance; torch's own by default, which Lightning seeds in every loader process.

    Returns:
        Image positions within each clip, int64 `[N, steps]`.
    """
    starts = _draw(counts - covered(steps, skip), generator)
    return starts[:, None] + torch.arange(steps) * (skip + 1)


def sample_official_windows(counts: Tensor, steps: int, skip: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws one window a clip with the distribution of the authors' code (`temporal_transforms.py`).

    With a stride above 1 it first drops 0 to 4 leading images, whatever the stride, and keeps every stride-th; then it
    crops `steps` of the n left, starting at 0 to `max(0, n - steps - 1)`, so that the last window is never drawn. If
    fewer than `steps` are left, they are repeated in a cycle.

    Args:
        counts: Number of images of each clip, int64 `[N]`, above 4 each.
        steps: Images to take, x.
        skip: Images to skip between two taken ones, y; the stride is `y + 1`.
        generator: Source of chance; torch's own by default.

    Returns:
        Image positions within each clip, int64 `[N, steps]`.
    """
    stride = skip + 1
    drop = _draw(torch.full_like(counts, MAX_OFFICIAL_DROP if stride > 1 else 0), generator)
    left = torch.div(counts - drop + stride - 1, stride, rounding_mode="floor")
    starts = _draw((left - steps - 1).clamp(min=0), generator)
    return drop[:, None] + (starts[:, None] + torch.arange(steps)) % left[:, None] * stride


def _draw(highest: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform integers from 0 to `highest` inclusive, int64 `[N]`, each with its own bound."""
    chance = torch.rand(highest.shape, generator=generator, dtype=torch.float64)
    return torch.floor(chance * (highest + 1)).long()


class WindowDataset(Dataset):
    """Windows of some clips of a cache.

    Without `runs` (training), item i is a window of clip i, drawn anew at every fetch from torch's generator:
    reproducible from the seed, different in every epoch. With `runs = N` (evaluation) there are N passes over the
    clips, whose windows are drawn once from `seed`: item i is clip `i % clips` in run `i // clips`, the same in every
    epoch.

    Samples are dicts of the cache's modalities, uint8 `[T, 1, size, size]`, and of the ints `target`, `lighting`,
    `clip` (position in the index) and `run`.
    """

    def __init__(
        self,
        cache: ClipCache,
        clips: Sequence[int],
        names: Sequence[str],
        target: Sequence[int],
        lighting: Sequence[int],
        *,
        steps: int,
        skip: int,
        official_offset: bool = False,
        runs: int | None = None,
        seed: int = 0,
    ) -> None:
        """Creates the data set.

        Args:
            cache: Decoded images of the whole index.
            clips: Positions in the index of the clips to serve.
            names: Name of every clip of the index, for messages.
            target: Class of every clip of the index.
            lighting: Light condition of every clip of the index.
            steps: Images in a window, x.
            skip: Images to skip between two, y.
            official_offset: Draw as the authors' code does, see `sample_official_windows`.
            runs: None for training, else the number of passes with fixed windows.
            seed: Seeds the fixed windows.

        Raises:
            DataError: If a clip is too short for a window; the message names it.
        """
        self.cache = cache
        self.clips = torch.as_tensor(clips, dtype=torch.int64)
        self.counts = torch.from_numpy(cache.counts)[self.clips]
        self.offsets = torch.from_numpy(cache.offsets)[self.clips]
        self.target, self.lighting = target, lighting
        self.steps, self.skip = steps, skip
        self.sample = sample_official_windows if official_offset else sample_windows
        needed = MAX_OFFICIAL_DROP + 1 if official_offset else covered(steps, skip)
        short = torch.nonzero(self.counts < needed)
        if len(short):
            i = int(short[0])
            raise DataError(
                f"clip {names[clips[i]]} has {int(self.counts[i])} images, steps: {steps} with skip: {skip} need "
                f"{needed}; lower steps or skip, or take the clip out of the index"
            )
        self.runs = runs
        if runs is not None:
            generator = torch.Generator().manual_seed(seed)
            self.windows = self.sample(self.counts.repeat(runs), steps, skip, generator)

    def __len__(self) -> int:
        return len(self.clips) * (self.runs or 1)

    def __getitem__(self, i: int) -> dict[str, Tensor | int]:
        return self.__getitems__([i])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor | int]]:
        """Fetches a batch with one gather a modality; torch's loader calls this where it exists.

        Args:
            indices: Positions in this data set.

        Returns:
            One sample each.
        """
        wanted = torch.as_tensor(indices)
        runs, local = wanted // len(self.clips), wanted % len(self.clips)
        fixed = self.runs is not None
        windows = self.windows[wanted] if fixed else self.sample(self.counts[local], self.steps, self.skip)
        rows = (self.offsets[local, None] + windows).numpy()  # [B, T]
        # One new array a modality: [B, T, size, size], then the channel axis.
        images = {
            name: torch.from_numpy(np.take(stored, rows, axis=0)).unsqueeze(2)
            for name, stored in self.cache.images.items()
        }
        clips = self.clips[local].tolist()
        return [
            {name: batch[i] for name, batch in images.items()}
            | {"target": self.target[clip], "lighting": self.lighting[clip], "clip": clip, "run": run}
            for i, (clip, run) in enumerate(zip(clips, runs.tolist(), strict=True))
        ]
