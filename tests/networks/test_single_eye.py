import pytest
import torch
from torch.nn import functional as F

from sdsnn_lightning.networks.single_eye import (
    EventTeacher,
    FrameTeacher,
    PlainStudent,
    SEWStudent,
    SingleEyeStudent,
    SingleEyeTeacher,
)
from sdsnn_lightning.types import Network


def eyes(steps, target, size, draw, channels=3):
    """Dark discs that drift in one of seven directions over a bright noisy ground, normalised: `[T, B, C, S, S]`."""
    axis = torch.linspace(-1, 1, size)
    angle = 2 * torch.pi * target / 7
    drift = 0.15 * torch.arange(steps)[:, None]
    x, y = drift * torch.cos(angle), drift * torch.sin(angle)
    distance = ((axis - x[..., None, None]) ** 2 + (axis[:, None] - y[..., None, None]) ** 2).sqrt()
    image = 1 - 0.5 * (distance < 0.5) - 0.3 * (distance < 0.2)
    image = (image + 0.3 * torch.randn(image.shape, generator=draw) - 0.8) / 0.35
    return image[:, :, None].expand(-1, -1, channels, -1, -1).contiguous()


@pytest.mark.parametrize("size", [48, 90])
@pytest.mark.parametrize("kind", ["eyes", "noise"])
def test_student_fires_at_the_start(size, kind):
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    clip = eyes(4, torch.arange(4), size, draw) if kind == "eyes" else torch.randn(4, 4, 3, size, size, generator=draw)
    for student in (SingleEyeStudent(7, size=size), SingleEyeStudent(7, size=size, width=0.25), PlainStudent(7)):
        out = student(clip)
        for name, spikes in out.features.items():
            assert 0.08 < spikes.mean() < 0.3, (type(student).__name__, name)
        assert out.logits.std() > 0.05


def test_student_contract():
    student = SingleEyeStudent(7)
    # SEEN without conv0 (21 parameters) and with four batch norms of 64, 256, 512 and 256 channels.
    assert sum(p.numel() for p in student.parameters()) == 6_078_655 - 21 + 2 * (64 + 256 + 512 + 256)
    assert sum(p.numel() for p in SingleEyeStudent(7, norm=False).parameters()) == 6_078_655 - 21
    assert isinstance(student, Network)
    assert student.inputs == ("frames",)
    clip = torch.randn(3, 2, 3, 90, 90)
    out = student(clip)
    assert out.logits.shape == (3, 2, 7)
    assert torch.equal(student.readout(out.logits), out.logits.mean(0))
    with pytest.raises(TypeError):
        student(clip, clip)


@pytest.mark.parametrize(
    ("student", "parameters"),
    [
        (SingleEyeStudent(7, width=0.5), 1_525_530),
        (SingleEyeStudent(7, width=0.25), 384_050),
        (SEWStudent(7), 702_999),
        (SEWStudent(7, width=0.5), 2_800_679),
        (PlainStudent(7), 109_351),
    ],
)
def test_sizes_of_the_presets(student, parameters):
    assert sum(p.numel() for p in student.parameters()) == parameters


@pytest.mark.parametrize("make", [SingleEyeStudent, SEWStudent, PlainStudent])
def test_every_parameter_of_a_student_learns(make):
    torch.manual_seed(0)
    student = make(7, channels=1, **({"size": 48} if make is SingleEyeStudent else {}))
    F.cross_entropy(student.readout(student(torch.randn(3, 4, 1, 48, 48)).logits), torch.arange(4)).backward()
    silent = [name for name, p in student.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []
    assert all(p.grad.abs().sum() > 0 for p in student.parameters() if p.ndim > 1)


@pytest.mark.parametrize("fusion", ["concat", "sum", "gated"])
def test_teacher_fuses_both_modalities(fusion):
    torch.manual_seed(0)
    teacher = SingleEyeTeacher(7, width=0.125, fusion=fusion)
    frames, events = torch.randn(3, 2, 3, 48, 48), torch.randn(3, 2, 3, 48, 48)
    out = teacher(frames, events)
    assert isinstance(teacher, Network)
    assert out.logits.shape == (3, 2, 7)
    assert out.features["frames"].shape == out.features["events"].shape == (3, 2, 64)
    assert out.features["fused"].shape[-1] == (128 if fusion == "concat" else 64)
    assert not torch.allclose(out.logits, teacher(frames, -events).logits)
    assert not torch.allclose(out.logits, teacher(-frames, events).logits)


def test_teacher_size_and_halves():
    both = 2 * (11_180_103 - 7 * 513) + 7 * 1025
    assert sum(p.numel() for p in SingleEyeTeacher(7).parameters()) == both
    clip = torch.randn(2, 2, 3, 48, 48)
    for half, name in ((EventTeacher, "events"), (FrameTeacher, "frames")):
        network = half(7, width=0.125)
        assert network.inputs == (name,)
        assert set(network(clip).features) == {name, "fused"}
        with pytest.raises(ValueError, match="argument"):
            network(clip, clip)


@pytest.mark.parametrize("make", [lambda: SingleEyeStudent(7, size=48, width=0.25), lambda: PlainStudent(7)])
def test_student_learns_a_toy(make):
    torch.manual_seed(0)
    student, draw = make(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(student.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        target = torch.randint(0, 7, (16,), generator=draw)
        readout = student.readout(student(eyes(4, target, 48, draw)).logits)
        losses.append(F.cross_entropy(readout, target))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-5:]) / 5 < 0.8 * sum(losses[:5]) / 5
