"""Row 9: a distillation step whose teacher's outputs are known already, against the student's own step.

Both are steps of a `Distiller` and a `Classifier` in the same Lightning module code, optimizer included, without the
loader and the Trainer. The teacher is that of the single-eye experiment, its batch the same every time.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from measure import Options, Row, alternate, compare, main
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.classifier import run_network
from sdsnn_lightning.losses.logits import distillation_loss
from sdsnn_lightning.networks import SingleEyeStudent, SingleEyeTeacher
from sdsnn_lightning.teacher_cache import TeacherCache
from sdsnn_lightning.types import Output, View


def step_of(student: nn.Module, view: View, target: Tensor, teach: Callable[[], Output] | None) -> Callable[[], object]:
    """A training step of the student, with or without a teacher."""
    optimizer = torch.optim.SGD(student.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        taught = teach() if teach else None
        scores = student.readout(run_network(student, view).logits)  # type: ignore[operator]
        loss = functional.cross_entropy(scores, target)
        if taught is not None:
            loss = loss + distillation_loss(taught.logits.mean(0), scores, 2.0)
        loss.backward()
        optimizer.step()

    return step


def rows(options: Options) -> Iterator[Row]:
    """One comparison to reach, and what the teacher costs without a cache."""
    torch.manual_seed(0)
    size, batch, width = (24, 2, 0.25) if options.quick else (90, 8, 0.5)
    view = {name: torch.randn(batch, 4, 3, size, size) for name in ("frames", "events")}
    target = torch.arange(batch) % 7
    student, teacher = SingleEyeStudent(7, size=size, width=width), SingleEyeTeacher(7, width=width)
    teacher.requires_grad_(False).eval()
    cache = TeacherCache(1.0)

    def asked() -> Output:
        with torch.no_grad():
            return run_network(teacher, view)

    runs = {
        "student": step_of(copy.deepcopy(student), view, target, None),
        "cached": step_of(copy.deepcopy(student), view, target, lambda: cache(teacher, view)),
        "asked": step_of(copy.deepcopy(student), view, target, asked),
    }
    times = alternate(runs, options)
    assert cache.misses == 1
    what = f"against the student's own, single-eye, {size}x{size}, width {width}, batch {batch}"
    yield compare(9, f"distillation step with the teacher cached {what}", times, "cached", "student", "<= 1.02")
    yield compare(9, f"distillation step with the teacher asked {what}", times, "asked", "student", "<=")


if __name__ == "__main__":
    main(rows, __doc__)
