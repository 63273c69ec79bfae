"""The base of every data module: sources, views, loaders."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdsnn_lightning.data.loader import TrainLoader
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.once import STAMP
from sdsnn_lightning.types import Batch, View

Source = Literal["auto", "real", "simulated"]


class DataModule(LightningDataModule):
    """One data set: finds or simulates it, splits it honestly, and serves `Batch`es with two views over time.

    A data set is one subclass that

    * sets `class_names` and `input_shapes` in its constructor, and calls `find_source`,
    * builds its caches in `prepare_data` (one process), and the data sets in `setup` (every process),
    * returns samples as dicts of tensors: modalities `[T, ...]`, `target` (int), and one int per name in `groups`,
    * overrides `views` where augmentation, normalisation or two time resolutions are wanted; it runs on the device.

    Attributes:
        class_names: Class names in index order.
        input_shapes: Shape of every modality of the student's view without the batch axis, `[T, ...]`.
        groups: Names of the groups metrics are also reported for, by grouping, for instance `{"lighting": [...]}`.
        data_source: Which of the two sources it is, `real` or `simulated`.
        root: The folder the data is read from.

    Example:
        >>> import torch
        >>> from sdsnn_lightning import DataModule
        >>> class Noise(DataModule):
        ...     def __init__(self, batch_size=2):
        ...         super().__init__(batch_size)
        ...         self.class_names, self.input_shapes = ["left", "right"], {"x": (4, 6)}
        ...         self.data_source = "simulated"
        ...     def setup(self, stage):
        ...         self.train_set = [{"x": torch.randn(4, 6), "target": k % 2} for k in range(8)]
        ...     def views(self, sample, training):
        ...         return sample, sample  # student and teacher see the same
        >>> data = Noise()
        >>> data.setup("fit")
        >>> data.num_classes, next(iter(data.train_dataloader()))["x"].shape
        (2, torch.Size([2, 4, 6]))
    """

    class_names: list[str]
    input_shapes: dict[str, tuple[int, ...]]
    groups: dict[str, list[str]]
    data_source: Literal["real", "simulated"]
    root: Path
    collate: Callable[[list[Any]], Any] | None = None
    """Makes a batch of samples where stacking their tensors would not do."""
    train_set: Dataset
    val_set: Dataset
    test_set: Dataset
    predict_set: Dataset

    def __init__(self, batch_size: int = 32, num_workers: int = 0) -> None:
        """Creates the module.

        Args:
            batch_size: Samples in a batch, per process.
            num_workers: Loader processes; 0 loads in the training process, the fastest for cached data on few cores.

        Raises:
            ConfigError: If a number is out of its range.
        """
        super().__init__()
        for key, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ConfigError(f"data.init_args.{key} is {value}; set it to at least {least}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.groups = {}

    @property
    def split_key(self) -> dict[str, Any]:
        """The arguments that decide which samples are in which part, by name; noted in every checkpoint.

        A teacher that was trained on another split may have seen what its student is evaluated on, and is refused.
        """
        return {}

    @property
    def mixes(self) -> bool:
        """Whether training batches blend samples, so that their targets are probabilities."""
        return False

    @property
    def origin(self) -> Literal["real", "simulated"] | None:
        """What every result says of the data: `simulated` also where the folder of the real ones holds simulated ones.

        The commands that simulate data leave their stamp there, or above, where `root` is one part of a split.
        """
        root = getattr(self, "root", None)
        stamped = root is not None and any((folder / STAMP).is_file() for folder in (root, *root.absolute().parents))
        return "simulated" if stamped else getattr(self, "data_source", None)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    def find_source(self, root: str | Path, source: Source, simulated_root: str | Path) -> None:
        """Decides between the real and the simulated data, once, and says so.

        `auto` takes the real data when its folder exists, however incomplete (the reader then names what is missing),
        and the simulated data only when the folder does not exist at all. The two are never mixed.

        Args:
            root: Folder of the real data.
            source: `auto`, `real` or `simulated`.
            simulated_root: Folder the simulated data is generated into.

        Raises:
            DataError: If `source` is `real` and `root` does not exist.
        """
        root = Path(root)
        if source == "real" and not root.is_dir():
            raise DataError(f"data.init_args.root: {root} does not exist; put the data there, or set source: simulated")
        if source == "simulated" or not root.is_dir():
            if source == "auto":
                rank_zero_warn(
                    f"{root} does not exist: training on SIMULATED data in {simulated_root}. "
                    "Results are marked data_source: simulated."
                )
            self.data_source, self.root = "simulated", Path(simulated_root)
        else:
            self.data_source, self.root = "real", root

    def set_resolution(self, step_ms: float, teacher_step_ms: float) -> None:
        """Sets the time step of both views, from the next batch on; a curriculum calls this between its stages.

        Args:
            step_ms: Duration of one time step of the student's view in milliseconds.
            teacher_step_ms: The same of the teacher's view.

        Raises:
            ConfigError: If this data set cannot be regrouped in time, which is so unless a subclass says otherwise.
        """
        raise ConfigError(
            f"{type(self).__name__} has one time resolution; use a data module with step_ms, or take the curriculum out"
        )

    @abstractmethod
    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Turns a collated batch on the device into the student's and the teacher's view.

        Args:
            sample: Modalities `[B, T, ...]` as stored (usually uint8).
            training: Whether to augment.

        Returns:
            The student's and the teacher's view, float tensors `[B, T, ...]`; twice the same dict where both networks
            see the same steps.
        """

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Builds the views on the device; Lightning calls this after moving the batch."""
        training = bool(self.trainer and self.trainer.training)
        target = batch.pop("target")
        groups = {name: batch.pop(name) for name in self.groups}
        with torch.no_grad():
            student, teacher = self.views(batch, training)
        if self.trainer is not None:  # to the floating-point type of `trainer.precision`
            convert = self.trainer.precision_plugin.convert_input
            shared = teacher is student
            student = convert(student)
            teacher = student if shared else convert(teacher)
        return Batch(student, teacher, target, groups)

    def _loader(self, dataset: Dataset, train: bool) -> DataLoader:
        """One way to make a loader: shuffled and without a ragged last batch for training, every sample once else."""
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        options: dict[str, Any] = {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": self.collate,
        }
        if train:
            drop_last = len(dataset) // world > self.batch_size  # type: ignore[arg-type]
            shuffle = not getattr(self.trainer, "overfit_batches", 0)  # then the same batches in every epoch
            return TrainLoader(dataset, world, rank, self._batches_done, shuffle, drop_last=drop_last, **options)
        # Not the sampler that Lightning would take: it repeats samples to give all ranks equally many.
        sampler = UnrepeatedDistributedSampler(dataset, world, rank, shuffle=False) if world > 1 else None
        return DataLoader(dataset, sampler=sampler, **options)

    def _batches_done(self) -> int:
        """Batches of the epoch that are behind; more than none only where a run resumes within an epoch."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    def train_dataloader(self) -> DataLoader:
        """Serves the training part."""
        return self._loader(self.train_set, train=True)

    def val_dataloader(self) -> DataLoader:
        """Serves the validation part, cut from the training part."""
        return self._loader(self.val_set, train=False)

    def test_dataloader(self) -> DataLoader:
        """Serves the test part."""
        return self._loader(self.test_set, train=False)

    def predict_dataloader(self) -> DataLoader:
        """Serves the samples to predict; the test part unless the module says otherwise."""
        return self._loader(getattr(self, "predict_set", None) or self.test_set, train=False)
