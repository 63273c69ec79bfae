"""Accuracy after every number of time steps: what a network is worth when it is stopped early."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.types import Batch, Output


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
        self.hits = hits if self.hits is None else self.hits + hits
        self.samples += len(batch.target)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the share of hits over the batches of all processes."""
        self._release()
        if self.hits is None:
            return
        counted = torch.cat([self.hits.double().cpu(), torch.tensor([float(self.samples)], dtype=torch.float64)])
        total = trainer.strategy.reduce(counted.to(pl_module.device, torch.float32), reduce_op="sum")
        shares = (total[:-1] / total[-1]).tolist()
        pl_module.log_dict({f"test/WAR_at/{t + 1}": share for t, share in enumerate(shares)})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        self._release()

    def _release(self) -> None:
        """Removes the hook and what it kept."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._logits = None
