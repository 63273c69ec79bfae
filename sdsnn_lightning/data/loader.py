"""The training loader: its order and random numbers are a function of the place in the run, so resuming is exact."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset, DistributedSampler

from sdsnn_lightning.seeding import seed_place


class Order(DistributedSampler):
    """The order of the samples: a permutation by seed and epoch, every rank its own share.

    One process and several see the same global batches, so that their gradients agree. Lightning calls `set_epoch`.
    """

    skip = 0
    """Samples at the start of the next pass that an interrupted run has seen already."""

    def __init__(self, dataset: Dataset, world: int, rank: int) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        super().__init__(dataset, world, rank, shuffle=True, seed=seed, drop_last=len(dataset) >= world)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank's samples in this epoch."""
        return islice(super().__iter__(), self.skip, None)


class TrainLoader(DataLoader):
    """A shuffling loader that goes on where an interrupted epoch was, and seeds every batch by its place in the run.

    Whatever is drawn from one batch on (by the data set without loader processes, by the augmentation, by dropout)
    depends on seed, epoch, batch and rank alone. The Trainer's progress says where to go on: nothing else is saved.
    """

    def __init__(self, dataset: Dataset, world: int, rank: int, done: Callable[[], int], **options: Any) -> None:
        """Creates the loader.

        Args:
            dataset: The training part.
            world: Number of processes that train together.
            rank: Which of them this is.
            done: Tells how many batches of the epoch are behind; asked when an epoch starts.
            **options: Of `DataLoader`.
        """
        super().__init__(dataset, sampler=Order(dataset, world, rank), **options)
        self.done = done

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yields the batches of one epoch. As a generator it starts with the first one, when the epoch is known."""
        order: Order = self.sampler  # type: ignore[assignment]
        batch = self.done()
        order.skip = batch * (self.batch_size or 1)
        seed_place(order.epoch, batch, order.rank)  # loader processes are seeded from here
        batches = super().__iter__()
        while True:
            seed_place(order.epoch, batch, order.rank)
            try:
                samples = next(batches)
            except StopIteration:
                return
            yield samples
            batch += 1

    def state_dict(self) -> dict[str, Any]:
        """Tells Lightning that the loader can resume; there is nothing to save."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes nothing: the Trainer's progress is asked."""
