"""The training loader: its order and random numbers are a function of the place in the run, so resuming is exact."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, SequentialSampler, get_worker_info

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


class FixedOrder(Order, SequentialSampler):
    """The same order in every epoch; by its second base the Trainer knows that nothing is left to switch off."""

    def __init__(self, dataset: Dataset, world: int, rank: int) -> None:
        super().__init__(dataset, world, rank)
        self.shuffle = False


class _Places:
    """The batches of an epoch: the place in the run of each, and the indices of its samples."""

    def __init__(self, batches: BatchSampler, order: Order) -> None:
        self.batches, self.order = batches, order

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[tuple[int, int, int], list[int]]]:
        first = self.order.skip // self.batches.batch_size
        for batch, indices in enumerate(self.batches, start=first):
            yield (self.order.epoch, batch, self.order.rank), indices


class _Seeded(Dataset):
    """A data set that, in a loader process, draws what belongs to the place of a batch, whatever came before."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitems__(self, batch: tuple[tuple[int, int, int], list[int]]) -> list[Any]:
        place, indices = batch
        if get_worker_info() is not None:  # in the training process, the loader has done so
            seed_place(*place)
        fetch = getattr(self.dataset, "__getitems__", None)
        return fetch(indices) if fetch else [self.dataset[index] for index in indices]


class TrainLoader(DataLoader):
    """A shuffling loader that goes on where an interrupted epoch was, and seeds every batch by its place in the run.

    Whatever is drawn from one batch on (by the data set, also in loader processes, by the augmentation, by dropout)
    depends on seed, epoch, batch and rank alone. The Trainer's progress says where to go on: nothing else is saved.
    """

    def __init__(
        self, dataset: Dataset, world: int, rank: int, done: Callable[[], int], shuffle: bool = True, **options: Any
    ) -> None:
        """Creates the loader.

        Args:
            dataset: The training part.
            world: Number of processes that train together.
            rank: Which of them this is.
            done: Tells how many batches of the epoch are behind; asked when an epoch starts.
            shuffle: Whether every epoch has an order of its own.
            **options: Of `DataLoader`.
        """
        order = Order if shuffle else FixedOrder
        super().__init__(_Seeded(dataset), sampler=order(dataset, world, rank), **options)
        self.done = done

    @property
    def _index_sampler(self) -> Any:
        """What torch's loader hands to the data set, batch by batch."""
        return _Places(self.batch_sampler, self.sampler)  # type: ignore[arg-type]

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
