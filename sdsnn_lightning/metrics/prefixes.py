"""Accuracy after every number of time steps: what a network is worth when it is stopped early."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sdsnn_lightning.classifier import network_inputs
from sdsnn_lightning.details import FILE
from sdsnn_lightning.errors import ConfigError, UserError
from sdsnn_lightning.types import Batch, Output
from sdsnn_lightning.whole import update_json

CAUSAL_CHECKS = 8
"""Up to so many shorter runs of one sample tell whether a network is causal over time."""


def prefix_hits(network: Any, logits: Tensor, target: Tensor) -> Tensor:
    """Counts right answers of the read-out of the first t steps, for every t.

    Args:
        network: Its `readout` turns logits `[t, B, K]` into class scores.
        logits: `[T, B, K]`. In a network that is causal over time, the first t are those of a run of t steps.
        target: Class indices `[B]`, int64.

    Returns:
        Hits `[T]`, int64.
    """
    scores = (network.readout(logits[: t + 1]) for t in range(len(logits)))
    return torch.stack([(s.argmax(-1) == target).sum() for s in scores])


def held(hits: Tensor, steps: int) -> Tensor:
    """Hits `[T]` of a shorter batch as `[steps]`: what ends early keeps its last answer.

    Args:
        hits: `[T]`, T up to `steps`.
        steps: Length to bring them to.

    Returns:
        `[steps]`.
    """
    return torch.cat([hits, hits[-1:].expand(steps - len(hits))])


@torch.no_grad()
def is_causal(network: Any, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a run of fewer steps gives what the same steps give within the whole run.

    Decided by most of a few lengths, not by all: rounding may differ with the length and flip a spike now and then.

    Args:
        network: In evaluation mode.
        inputs: What its `forward` takes, each `[T, B, ...]`; one sample is enough.

    Returns:
        False also where the network refuses fewer steps.
    """
    whole = network(*inputs).logits
    steps = len(whole)
    lengths = sorted({round(t) for t in torch.linspace(1, steps - 1, CAUSAL_CHECKS).tolist()}) if steps > 1 else []
    agreeing = 0
    for length in lengths:
        try:
            last = network(*(x[: len(x) * length // steps] for x in inputs)).logits[-1]
        except (RuntimeError, ValueError, IndexError, UserError):  # it is made for T steps
            return False
        agreeing += torch.allclose(last, whole[length - 1], rtol=1e-3, atol=1e-3 * float(whole.abs().max()))
    return 2 * agreeing >= len(lengths)


class PrefixAccuracy(Callback):
    """Logs `test/WAR_at/<t>` for every t up to T in a test: the share of samples right after t steps.

    From the passes of the test itself, so that counters of spikes and operations see no more of them. Only for networks
    that are causal over time; one whose convolutions or attention look ahead, or whose batches are padded, has seen
    more than t steps by then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hits: Tensor | None = None
        self.samples = 0
        self._hook: RemovableHandle | None = None
        self._logits: Tensor | None = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Starts counting."""
        self.hits, self.samples = None, 0

        def keep(network: Any, inputs: Any, output: Output) -> None:
            self._logits = output.logits.detach()

        self._release()
        self._hook = pl_module.network.register_forward_hook(keep)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Counts one batch.

        Raises:
            ConfigError: If the network has no time steps.
        """
        logits = self._logits
        if logits is None or logits.ndim != 3:
            raise ConfigError(f"PrefixAccuracy: {type(pl_module.network).__name__} has no time steps; take it out")
        hits = prefix_hits(pl_module.network, logits, batch.target)
        known = hits.new_zeros(1) if self.hits is None else self.hits
        steps = max(len(known), len(hits))  # batches of recordings are as long as their longest one
        self.hits = held(known, steps) + held(hits, steps)
        self.samples += len(batch.target)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the share of hits over the batches of all processes."""
        self._release()
        shares = self._shares(trainer, pl_module)
        pl_module.log_dict({f"test/WAR_at/{t + 1}": share for t, share in enumerate(shares)})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        self._release()

    def _shares(self, trainer: Trainer, pl_module: LightningModule) -> list[float]:
        """Hits by samples after every number of steps; nothing where nothing was counted."""
        if self.hits is None:
            return []
        steps = int(trainer.strategy.reduce(torch.tensor(len(self.hits), device=pl_module.device), reduce_op="max"))
        hits = held(self.hits, steps).double().cpu()
        counted = torch.cat([hits, torch.tensor([float(self.samples)], dtype=torch.float64)])
        total = trainer.strategy.reduce(counted.to(pl_module.device, torch.float32), reduce_op="sum")
        return (total[:-1] / total[-1]).tolist()

    def _release(self) -> None:
        """Removes the hook and what it kept."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._logits = None


class PrefixRecord(PrefixAccuracy):
    """Writes the entry `prefixes` of `details.json` in every test: accuracy after 1, 2, ... T steps.

    It also says whether the network is causal, that is, whether these are the scores of shorter runs. Networks without
    time steps leave no entry.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the callback.

        Args:
            folder: The run folder.
        """
        super().__init__()
        self.folder = folder
        self._inputs: tuple[Tensor, ...] = ()

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps the first sample, to run it once more at fewer steps."""
        if batch_idx == 0:
            self._inputs = tuple(x[:, :1] for x in network_inputs(pl_module.network, getattr(batch, pl_module.view)))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Counts one batch of a network with time steps."""
        if self._logits is not None and self._logits.ndim == 3:
            super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Writes the shares of hits over the batches of all processes."""
        self._release()
        shares = self._shares(trainer, pl_module)
        if shares and trainer.is_global_zero:
            causal = is_causal(pl_module.network, self._inputs)
            update_json(self.folder / FILE, prefixes={"WAR": shares, "causal": causal})
        self._inputs = ()
