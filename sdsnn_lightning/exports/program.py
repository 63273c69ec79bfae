"""A student's streaming step as a `torch.export` program: one file that needs PyTorch and nothing else.

`program = torch.export.load(path).module()`, then `logits, state = program(*frames, state)` for every frame: each
modality `[B, ...]`, logits `[B, K]`, any batch size B. Batch norm is kept as it is, in evaluation mode. ONNX is left
out: PyTorch's exporter needs packages that this one does not.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from sdsnn_lightning.errors import ConfigError, first_line
from sdsnn_lightning.exports.streaming import Agreement, State, check_stream, stream
from sdsnn_lightning.whole import whole_path

MAX_BATCH = 4096


def example_inputs(shapes: dict[str, tuple[int, ...]], inputs: tuple[str, ...], batch: int = 2) -> tuple[Tensor, ...]:
    """Random sequences to trace and compare with; the same at every call.

    Args:
        shapes: Shape of every modality `[T, ...]`, as a data module's `input_shapes`.
        inputs: Names of the modalities.
        batch: Samples B.

    Returns:
        Each `[T, B, ...]`, float32: small counts for `events` and `spikes`, else normal numbers. T is at most 8 for
        images and 40 for vectors, so that the past of a network that looks back is full.

    Raises:
        ConfigError: If the shape of a modality is not known.
    """
    generator = torch.Generator().manual_seed(0)
    made = []
    for name in inputs:
        if name not in shapes:
            raise ConfigError(f"the network sees '{name}' but the data gives {sorted(shapes)}; restore config.yaml")
        steps, *rest = shapes[name]
        shape = (min(max(steps, 4), 8 if len(rest) > 1 else 40), batch, *rest)
        if name in ("events", "spikes"):
            made.append(torch.poisson(torch.full(shape, 0.5), generator))
        else:
            made.append(torch.randn(shape, generator=generator))
    return tuple(made)


def save_program(network: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> tuple[Agreement, State, list[str]]:
    """Writes the streaming step of a network, after comparing the finished file with the network frame by frame.

    Args:
        network: The trained network.
        inputs: Every modality `[T, B, ...]`, B at least 2; to trace and to compare with.
        path: The `.pt2` file; its folder exists.

    Returns:
        What the comparison found, the state before the first frame `[B, ...]`, and its names.

    Raises:
        ConfigError: If the network cannot run frame by frame, or its operations cannot be captured.
    """
    was = network.training
    network = network.eval()
    step = stream(network)
    frames = tuple(x[0] for x in inputs)
    state = step.start(*frames)
    check_stream(network, step, inputs, state)  # says plainly what the comparison below could not
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    moving = (*({0: batch} for _ in frames), tuple({0: batch} for _ in state))
    wrapped = _Flat(step)
    try:
        with torch.no_grad():
            program = torch.export.export(wrapped, (*frames, state), dynamic_shapes=(moving,))
    except Exception as error:  # torch raises many types
        reason = first_line(error, 200)
        raise ConfigError(
            f"{type(network).__name__} cannot be captured by torch.export ({reason}); export its weights (--to weights)"
        ) from error
    finally:
        network.train(was)
    with whole_path(path, ".pt2") as aside:
        torch.export.save(program, aside)
        agreement = check_stream(network, torch.export.load(aside).module(), inputs, state)
    return agreement, state, list(step.names)


class _Flat(nn.Module):
    """Takes its arguments as one tuple, as `dynamic_shapes` states them, whatever a step calls its own."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, *arguments: Tensor | State) -> tuple[Tensor, State]:
        return self.step(*arguments)
