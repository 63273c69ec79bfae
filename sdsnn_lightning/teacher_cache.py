"""The frozen teacher's outputs, kept from one epoch to the next: a distillation step then costs what the student costs.

A sample is known by the numbers that the teacher would see, so that a wrong answer cannot come from data, split or view
having changed. It pays only where the teacher sees the same numbers in every epoch: `check` looks whether it does, and
refuses otherwise. A teacher whose weights change (a curriculum promotes another) is asked anew. Outputs are those that
the teacher gave in another batch: the same up to the rounding of matrix products that depends on a sample's row.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import default_collate

from sdsnn_lightning.classifier import network_inputs, run_network
from sdsnn_lightning.compiled import compile_loop
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.types import Output, View

Key = tuple[Any, ...]
KEY = "model.init_args.teacher_cache"
LOOKS = 4  # samples that `check` looks at, and looks at each


class Features(Mapping[str, Tensor]):
    """Features of a batch by name; those not at hand are computed when a loss asks for one.

    Attributes:
        wanted: Gathers the names that were asked for.
    """

    def __init__(self, known: dict[str, Tensor], wanted: set[str], compute: Callable[[], dict[str, Tensor]]) -> None:
        """Creates the mapping.

        Args:
            known: Features at hand.
            wanted: See above.
            compute: Gives all features.
        """
        self.wanted, self._known, self._compute, self._complete = wanted, known, compute, False

    def _all(self) -> dict[str, Tensor]:
        if not self._complete:
            self._known, self._complete = self._compute(), True
        return self._known

    def __getitem__(self, name: str) -> Tensor:
        value = self._known[name] if name in self._known else self._all()[name]
        self.wanted.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def sample_keys(inputs: tuple[Tensor, ...]) -> list[Key]:
    """Names each sample of a batch by what is in it, on the device of the batch.

    Two 64-bit sums of all words, each word mixed and multiplied by a random number of its place; they do not keep out
    a forger, only chance.

    Args:
        inputs: A network's inputs, each `[T, B, ...]`.

    Returns:
        One key a sample.
    """
    keys: list[list[Any]] = [[] for _ in range(inputs[0].shape[1])]
    for x in inputs:
        whole = x.transpose(0, 1)
        once = tuple(slice(1 if axis and not step else None) for axis, step in enumerate(whole.stride()))
        batch = whole[once].contiguous()  # equal copies, as of a grey channel, tell nothing more
        data = batch.view(len(batch), -1).view(torch.uint8)
        if data.shape[1] % 8:
            data = nn.functional.pad(data, (0, -data.shape[1] % 8))
        words = data.view(torch.int64)
        sums = sums_of_words(words, _factors(words.shape[1], words.device)).tolist()
        for key, pair in zip(keys, sums, strict=True):
            key += [str(x.dtype), tuple(whole.shape[1:]), *pair]
    return [tuple(key) for key in keys]


def sums_of_words(words: Tensor, factors: Tensor) -> Tensor:
    """Adds up the mixed words of every sample, each times a factor, modulo 2^64.

    Args:
        words: int64 `[B, N]`.
        factors: int64 `[2, N]`.

    Returns:
        int64 `[B, 2]`.
    """
    if words.device.type == "cpu":
        sums = torch.empty(len(words), 2, dtype=torch.int64)
        _loop()(words.numpy(), factors.numpy(), sums.numpy())
        return sums
    words = words ^ (words >> 31)  # what differs in its upper bits alone differs in its lower ones, too
    return torch.stack([(words * factor).sum(1) for factor in factors], 1)


@functools.cache
def _loop() -> Callable[..., None]:
    """`sums_of_words` in one pass over the words, compiled; late, because importing numba takes a second."""

    @compile_loop
    def loop(words: Any, factors: Any, sums: Any) -> None:
        for b in range(len(words)):
            first = second = 0
            for i in range(words.shape[1]):
                word = words[b, i] ^ (words[b, i] >> 31)
                first += word * factors[0, i]
                second += word * factors[1, i]
            sums[b, 0], sums[b, 1] = first, second

    return loop


_FACTORS: dict[tuple[int, torch.device], Tensor] = {}


def _factors(count: int, device: torch.device) -> Tensor:
    """Random int64 `[2, count]`, the same in every process."""
    if (count, device) not in _FACTORS:
        generator = torch.Generator().manual_seed(count)
        made = torch.randint(-(2**63), 2**63 - 1, (2, count), generator=generator)
        _FACTORS[count, device] = made.to(device)
    return _FACTORS[count, device]


class TeacherCache:
    """Outputs of a frozen network by sample, in main memory: the logits, and the features that a loss asks for.

    Attributes:
        hits: Batches that were answered without the teacher.
        misses: Batches that the teacher had to see.
        used: Bytes in use.
        wanted: Features that were asked for, and are kept from then on.
    """

    def __init__(self, gigabytes: float) -> None:
        """Creates an empty cache.

        Args:
            gigabytes: Most memory to use. Samples that do not fit are computed every time.

        Raises:
            ConfigError: If that is not above 0.
        """
        if not (gigabytes > 0 and math.isfinite(gigabytes)):
            raise ConfigError(f"{KEY} is {gigabytes}; give the gigabytes of memory it may use, or leave it out")
        self.room = int(gigabytes * 1e9)
        self.wanted: set[str] = set()
        self.hits = self.misses = self.used = 0
        self._of: Any = None
        self._kept: dict[Key, tuple[Tensor, dict[str, Tensor]]] = {}

    def __call__(self, teacher: nn.Module, view: View) -> Output:
        """The teacher's output without gradient, from memory where every sample of the batch is known.

        Args:
            teacher: The frozen network, in evaluation mode.
            view: Modalities by name, each `[B, T, ...]`.

        Returns:
            What `run_network(teacher, view)` returns; its features are a `Features`.
        """
        weights = tuple((t.data_ptr(), t._version) for t in (*teacher.parameters(), *teacher.buffers()))
        if (id(teacher), weights) != self._of:
            self._of, self._kept, self.used = (id(teacher), weights), {}, 0
        inputs = network_inputs(teacher, view)
        keys = sample_keys(inputs)
        found = [self._kept[key] for key in keys if key in self._kept and self.wanted <= self._kept[key][1].keys()]
        if len(found) < len(keys):
            self.misses += 1
            output = _run(teacher, view)
            self._keep(keys, output)
            return Output(output.logits, self._features(output.features, lambda: output.features))
        self.hits += 1
        axis = found[0][0].ndim - 1  # of the batch: [T, B, K] with time, [B, K] without
        device = inputs[0].device
        known = {name: torch.stack([kept[name] for _, kept in found], axis).to(device) for name in self.wanted}
        logits = torch.stack([logits for logits, _ in found], axis).to(device)
        return Output(logits, self._features(known, lambda: _run(teacher, view).features))

    def _features(self, known: dict[str, Tensor], compute: Callable[[], dict[str, Tensor]]) -> Any:
        return Features(known, self.wanted, compute)

    def _keep(self, keys: list[Key], output: Output) -> None:
        """Keeps the samples of a batch one by one, as long as there is room."""
        axis = output.logits.ndim - 2
        for i, key in enumerate(keys):
            logits = output.logits.select(axis, i).cpu().clone()
            features = {name: output.features[name].select(axis, i).cpu().clone() for name in self.wanted}
            size = sum(t.nbytes for t in (logits, *features.values()))
            before = self._kept.get(key)
            freed = sum(t.nbytes for t in (before[0], *before[1].values())) if before else 0
            if self.used - freed + size <= self.room:
                self._kept[key] = logits, features
                self.used += size - freed


@torch.no_grad()
def _run(teacher: nn.Module, view: View) -> Output:
    return run_network(teacher, view)


def check(teacher: nn.Module, data: Any, device: torch.device, context: Callable[[], Any] = nullcontext) -> None:
    """Looks whether a cache can pay and be right: some training samples are fetched and viewed several times.

    Args:
        teacher: The frozen network, in evaluation mode.
        data: The data module of the run, set up; None where there is none.
        device: Where the teacher is.
        context: Makes the context of a forward pass, that of the precision.

    Raises:
        ConfigError: If the teacher sees other numbers at every look (random windows, augmentation), or what it says of
            a sample depends on the batch the sample is in.
    """
    if data is None:
        raise ConfigError(f"{KEY} needs a data module, to see that the teacher's input stays the same; leave it out")
    looks = []
    with isolate_rng():
        for look in range(LOOKS):
            torch.manual_seed(look)
            samples = fetch(data.train_set, list(range(min(LOOKS, len(data.train_set)))))
            batch = (data.collate or default_collate)(samples)
            view = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0).teacher
            looks.append(sample_keys(network_inputs(teacher, view)))
    if any(look != looks[0] for look in looks):
        raise ConfigError(
            f"{KEY}: the teacher sees other numbers of the same sample at every look (random windows or augmentation), "
            "so nothing could be used again; turn that off in data.init_args, or leave teacher_cache out"
        )
    turned = {name: x.flip(0) for name, x in view.items()}
    with context():
        straight, back = _run(teacher, view).logits, _run(teacher, turned).logits
    if not torch.allclose(straight, back.flip(straight.ndim - 2), rtol=1e-3, atol=1e-4):
        raise ConfigError(
            f"{KEY}: what {type(teacher).__name__} says of a sample depends on the others of its batch; leave it out"
        )


def fetch(dataset: Any, indices: list[int]) -> list[Any]:
    """Samples of a data set as torch's loader fetches them."""
    many = getattr(dataset, "__getitems__", None)
    return many(indices) if many else [dataset[i] for i in indices]
