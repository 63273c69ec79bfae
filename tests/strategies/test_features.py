"""What all strategies on features share, and each of them on hand-made outputs of two networks."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from toy import ToyData, ToyNet, ToyTeacher

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.strategies import (
    AttentionTransfer,
    BlurredFeatureDistillation,
    DecoupledDistillation,
    FeatureDistillation,
    HitConsistency,
    LogitDistillation,
    MaskedGenerativeDistillation,
    RelationalDistillation,
    SimilarityPreserving,
    StageDistillation,
    TemporalConsistency,
    WeightedSoftLabelDistillation,
    WeightedStageDistillation,
)
from sdsnn_lightning.strategies.features import choose_taps
from sdsnn_lightning.types import Batch, Output, Step

T, B, K = 4, 3, 5
FEATURES = [
    BlurredFeatureDistillation, MaskedGenerativeDistillation, FeatureDistillation, StageDistillation,
    WeightedStageDistillation, AttentionTransfer, SimilarityPreserving,
]  # fmt: skip
LOGITS = [WeightedSoftLabelDistillation, DecoupledDistillation, RelationalDistillation]
TEMPERED = [*LOGITS, LogitDistillation, HitConsistency, TemporalConsistency]
MAPS = {"early": (6, 8, 8), "late": (4, 4, 4), "pooled": (4,)}
TEACHER_MAPS = {"early": (5, 8, 8), "late": (7, 2, 2), "pooled": (7,)}


def output(shapes, steps, seed, batch=B):
    """Random logits and non-negative features; `steps` None for a network without time."""
    draw = torch.Generator().manual_seed(seed)
    leading = (batch,) if steps is None else (steps, batch)
    features = {name: torch.rand(*leading, *shape, generator=draw) for name, shape in shapes.items()}
    return Output(torch.randn(*leading, K, generator=draw), features)


def step(student, teacher, student_view=None, teacher_view=None):
    target = torch.arange(B) % K
    return Step(Batch(student_view or {}, teacher_view or {}, target, {}), student, teacher, target, 0.5)


def built(strategy, student, teacher):
    """The strategy's adapter for networks with such outputs."""

    def one(out):
        lead = (slice(None),) * (out.logits.ndim - 2) + (slice(0, 1),)
        return Output(out.logits[lead], {name: x[lead].detach() for name, x in out.features.items()})

    network = SimpleNamespace(readout=lambda z: z.mean(0) if z.ndim == 3 else z)
    distiller = SimpleNamespace(student=network, teacher=network, example_outputs=lambda: (one(student), one(teacher)))
    return strategy.build(distiller)


def trained(out):
    """The same output with gradients of its own."""
    return Output(out.logits.requires_grad_(), {name: x.requires_grad_() for name, x in out.features.items()})


@pytest.mark.parametrize("steps", [T, 16, 1, None], ids=["equal", "finer", "one_image", "without_time"])
@pytest.mark.parametrize("method", FEATURES + LOGITS, ids=lambda m: m.__name__)
def test_every_teacher_teaches_and_learns_nothing(method, steps):
    student, teacher = trained(output(MAPS, T, 0)), trained(output(TEACHER_MAPS, steps, 1))
    strategy = method()
    adapter = built(strategy, student, teacher)
    loss = strategy.loss(step(student, teacher), adapter)
    assert loss.shape == ()
    loss.backward()
    assert all(x.grad is None for x in (teacher.logits, *teacher.features.values()))
    tapped = [student.logits] if method in LOGITS else [student.features[own] for own, _ in strategy.pairs]
    assert all(x.grad.abs().sum() > 0 for x in tapped)
    if adapter is not None:
        assert all(p.grad is not None for p in adapter.parameters())


@pytest.mark.parametrize("method", FEATURES, ids=lambda m: m.__name__)
def test_equal_networks_cost_nothing(method):
    student = output(MAPS, T, 0)
    strategy = method(ratio=0.0) if issubclass(method, BlurredFeatureDistillation) else method()
    adapter = built(strategy, student, student)
    for restore in (m["restore"] for m in adapter if isinstance(m, nn.ModuleDict)):
        for layer in (restore[0], restore[2]):
            nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)
    assert strategy.loss(step(student, student), adapter).item() == pytest.approx(0, abs=1e-10)
    assert strategy.loss(step(student, output(MAPS, T, 5)), adapter).item() > 0


@pytest.mark.parametrize("method", FEATURES, ids=lambda m: m.__name__)
def test_vectors_over_time_work_or_are_refused(method):
    student, teacher = trained(output({"layer1": (6,), "layer2": (8,)}, 10, 0)), output({"embedding": (5,)}, 20, 1)
    strategy = method()
    adapter = built(strategy, student, teacher)
    assert strategy.pairs == [("layer2", "embedding")]
    strategy.loss(step(student, teacher), adapter).backward()
    assert student.features["layer2"].grad.abs().sum() > 0
    still = output({"embedding": (5,)}, None, 1)
    if method is AttentionTransfer:
        with pytest.raises(ConfigError, match="AttentionTransfer, student 'layer2' and teacher 'embedding': attention"):
            built(strategy, student, still)
    else:
        assert strategy.loss(step(student, still), built(strategy, student, still)).isfinite()


def test_padded_steps_change_nothing():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])  # [B, T]
    student, teacher = output({"late": (6,)}, T, 0), output({"late": (6,)}, T, 1)
    noisy = Output(student.logits, {"late": student.features["late"] + 100.0 * (1 - mask.mT[..., None])})
    for method in (FeatureDistillation, SimilarityPreserving, BlurredFeatureDistillation, MaskedGenerativeDistillation):
        for time in ("mean", "step") if method is not MaskedGenerativeDistillation else ("positions",):
            strategy = method(time=time)
            adapter = built(strategy, student, teacher)
            values = []
            for out in (student, noisy):
                torch.manual_seed(0)
                values.append(strategy.loss(step(out, teacher, {"mask": mask}, {"mask": mask}), adapter).item())
            assert values[0] == pytest.approx(values[1], rel=1e-5), (method, time)


def test_the_time_argument_is_obeyed():
    student, teacher = output(MAPS, T, 0), output({**TEACHER_MAPS, "late": (4, 4, 4)}, T, 1)
    x, y = student.features["late"], teacher.features["late"]
    expected = {
        "mean": (x.mean(0) - y.mean(0)).square().sum() / B,
        "step": (x - y).square().sum() / (T * B),
        "positions": (x.mean((-2, -1)) - y.mean((-2, -1))).square().sum() / B,
    }
    expected["auto"] = expected["step"]
    for time, value in expected.items():
        strategy = FeatureDistillation(taps="late", time=time)
        found = strategy.loss(step(student, teacher), built(strategy, student, teacher))
        assert found.item() == pytest.approx(value.item(), rel=1e-5), time
    finer = output({"late": (4, 4, 4)}, 8, 1)
    strategy = FeatureDistillation(taps="late", time="step")
    with pytest.raises(ConfigError, match="FeatureDistillation, student 'late' and teacher 'late': time: step"):
        built(strategy, student, finer)


def test_stages_are_summed_and_weighted():
    student, teacher = output(MAPS, T, 0), output(MAPS, T, 1)
    strategy = StageDistillation()
    adapter = built(strategy, student, teacher)
    assert strategy.pairs == [("early", "early"), ("late", "late")]
    means = {n: (student.features[n].mean(0), teacher.features[n].mean(0)) for n in ("early", "late")}
    total = sum((a - b).square().sum() / B for a, b in means.values())
    assert strategy.loss(step(student, teacher), adapter).item() == pytest.approx(total.item(), rel=1e-5)

    for power, weights in ((1.0, (1, 2)), (0.0, (1, 1)), (2.0, (1, 4))):
        strategy = WeightedStageDistillation(power=power, rescale=False)
        adapter = built(strategy, student, teacher)
        total = sum(w * (a - b).square().mean() for w, (a, b) in zip(weights, means.values(), strict=True))
        assert strategy.loss(step(student, teacher), adapter).item() == pytest.approx(total.item(), rel=1e-5)
    strategy = WeightedStageDistillation()
    far = Output(teacher.logits, {name: 50 * x for name, x in student.features.items()})
    assert strategy.loss(step(student, far), built(strategy, student, far)).item() == pytest.approx(0, abs=1e-8)


def test_blurring_follows_the_paper_and_swapped_the_scripts():
    student, teacher = output(MAPS, T, 0), output(MAPS, 16, 1)
    mean, target = student.features["late"].mean(0), teacher.features["late"].mean(0)
    for blurred, (feature, goal) in {"student": (mean, target), "teacher": (target, mean)}.items():
        strategy = BlurredFeatureDistillation(ratio=0.4, blurred=blurred)
        adapter = built(strategy, student, teacher)
        assert strategy.pairs == [("late", "late")]
        assert isinstance(adapter[0]["align"], nn.Identity)
        torch.manual_seed(3)
        found = strategy.loss(step(student, teacher), adapter)
        torch.manual_seed(3)
        kept = (torch.rand(B, 4, 1, 1) >= 0.4).float()
        expected = (adapter[0]["restore"](feature * kept) - goal).square().sum() / B
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    swapped = trained(student)
    strategy.loss(step(swapped, teacher), adapter).backward()
    assert swapped.features["late"].grad.abs().sum() > 0
    other = output(TEACHER_MAPS, 16, 1)
    with pytest.raises(ConfigError, match="student has 4 channels and the teacher 7"):
        built(strategy, student, other)


@pytest.mark.parametrize("method", FEATURES + LOGITS, ids=lambda m: m.__name__)
def test_mixed_precision_and_double_precision(method):
    for dtype, autocast in ((torch.bfloat16, True), (torch.float64, False)):
        student, teacher = (
            Output(o.logits.to(dtype), {name: x.to(dtype) for name, x in o.features.items()})
            for o in (output(MAPS, T, 0), output(TEACHER_MAPS, 16, 1))
        )
        strategy = method()
        # Features of the trial on one sample have the precision of the weights.
        exact = [
            Output(o.logits, {k: x.float() if autocast else x for k, x in o.features.items()})
            for o in (student, teacher)
        ]
        adapter = built(strategy, *exact)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = strategy.loss(step(trained(student), teacher), adapter)
        assert loss.dtype == (torch.float32 if autocast else torch.float64)
        assert loss.isfinite()
        loss.backward()


def test_blurring_without_masks_needs_no_luck_and_alignment_only_other_channels():
    student, teacher = output(MAPS, T, 0), output({"late": (7, 4, 4)}, T, 1)
    strategy = BlurredFeatureDistillation(ratio=0.0)
    adapter = built(strategy, student, teacher)
    assert adapter[0]["align"].weight.shape == (7, 4, 1, 1)
    assert sum(p.numel() for p in adapter.parameters()) == 18 * 49 + 14 + 7 * 4 + 7
    assert torch.equal(*(strategy.loss(step(student, teacher), adapter) for _ in range(2)))
    rescaled = BlurredFeatureDistillation(ratio=0.0, rescale=True)
    built(rescaled, student, teacher)
    aligned = adapter[0]["align"](student.features["late"].mean(0))
    target = teacher.features["late"].mean(0) * (aligned.max() / teacher.features["late"].mean(0).max())
    expected = (adapter[0]["restore"](aligned) - target).square().sum() / B
    assert rescaled.loss(step(student, teacher), adapter).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mgd_masks_positions_which_are_steps_where_there_are_no_maps():
    student, teacher = output({"layer": (6,)}, 10, 0), output({"layer": (6,)}, 20, 1)
    strategy = MaskedGenerativeDistillation(ratio=0.5)
    adapter = built(strategy, student, teacher)
    torch.manual_seed(3)
    found = strategy.loss(step(student, teacher), adapter)
    torch.manual_seed(3)
    kept = (torch.rand(B, 1, 1, 10) >= 0.5).float()
    row = student.features["layer"].permute(1, 2, 0)[:, :, None]
    goal = teacher.features["layer"].unflatten(0, (10, 2)).mean(1).permute(1, 2, 0)[:, :, None]
    expected = (adapter[0]["restore"](row * kept) - goal).square().sum() / B
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ConfigError, match="masking the only position"):
        built(MaskedGenerativeDistillation(time="mean"), student, teacher)


def test_focal_weight_is_logged():
    student, teacher = output({}, T, 0), output({}, None, 1)
    strategy = WeightedSoftLabelDistillation()
    assert built(strategy, student, teacher) is None
    assert strategy.logs() == {}
    strategy.loss(step(student, teacher), None)
    assert 0 < strategy.logs()["focal_weight"].item() < 1


def test_taps_are_chosen_by_what_the_networks_have():
    maps, others = output(MAPS, T, 0), output({"a": (3, 9, 9), "b": (3, 5, 5), "c": (3, 2, 2)}, T, 0)
    vectors = output({"x": (3,), "y": (4,)}, None, 0)
    assert choose_taps(maps, others, 1) == [("late", "c")]
    assert choose_taps(maps, maps, 4) == [("early", "early"), ("late", "late")]
    assert choose_taps(others, others, 2) == [("b", "b"), ("c", "c")]
    assert choose_taps(maps, others, 4) == [("early", "b"), ("late", "c")]
    assert choose_taps(maps, vectors, 4) == [("late", "y")]
    assert choose_taps(vectors, vectors, 4) == [("x", "x"), ("y", "y")]


def test_wrong_names_are_refused_with_the_right_ones():
    student, teacher = output(MAPS, T, 0), output({"layer4": (3, 2, 2)}, T, 1)
    with pytest.raises(
        ConfigError, match=r"BlurredFeatureDistillation\.taps: .* has no feature 'layer9'; it has early, "
    ):
        built(BlurredFeatureDistillation(taps="layer9"), student, teacher)
    with pytest.raises(ConfigError, match=r"teacher_taps: .* has no feature 'late'; it has layer4"):
        built(FeatureDistillation(taps=["late"]), student, teacher)
    with pytest.raises(ConfigError, match="has no features; it has none"):
        built(FeatureDistillation(), output({}, T, 0), teacher)
    with pytest.raises(ConfigError, match="names 1 features and taps 2"):
        FeatureDistillation(taps=["early", "late"], teacher_taps="layer4")
    strategy = FeatureDistillation(taps=["early", "late"], teacher_taps=["layer4", "layer4"])
    assert len(built(strategy, student, teacher)) == 2


def test_arguments_out_of_range_are_refused():
    for method, options, match in (
        (FeatureDistillation, {"time": "never"}, "time: 'never'"),
        (BlurredFeatureDistillation, {"ratio": 1.2}, "ratio is 1.2"),
        (BlurredFeatureDistillation, {"mask": "row"}, "mask is 'row'"),
        (BlurredFeatureDistillation, {"blurred": "both"}, "blurred is 'both'"),
        (WeightedStageDistillation, {"power": -1.0}, "power is -1"),
        (FeatureDistillation, {"name": "kd.1"}, "FeatureDistillation.name is 'kd.1'; give another name"),
        (FeatureDistillation, {"name": "keys"}, "FeatureDistillation.name is 'keys'"),
        *((m, {"temperature": 0.0}, rf"{m.__name__}\.temperature is 0.0; set it above 0") for m in TEMPERED),
    ):
        with pytest.raises(ConfigError, match=match):
            method(**options)
    sequence = output({"late": (3, 9)}, T, 1)
    with pytest.raises(ConfigError, match="student 'late' and teacher 'late': a sequence and a map"):
        built(FeatureDistillation(taps="late"), output(MAPS, T, 0), sequence)


def test_adapters_train_with_the_student_and_are_checkpointed(tmp_path):
    torch.manual_seed(0)
    module = Distiller(
        lambda k: ToyNet(k, hidden=5), 3, lambda p: torch.optim.SGD(p, lr=0.1), teacher=ToyTeacher(3, hidden=7)
    )
    trainer = Trainer(
        callbacks=[BlurredFeatureDistillation(0.1), FeatureDistillation(0.1)], max_steps=2, accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    state = {}
    setup = trainer.callbacks[0].on_train_start
    trainer.callbacks[0].on_train_start = lambda *args: (  # type: ignore[method-assign]
        state.update({k: v.clone() for k, v in module.adapters.state_dict().items()}),
        setup(*args),
    )
    trainer.fit(module, datamodule=ToyData())
    assert set(module.adapters) == {"BlurredFeatureDistillation", "FeatureDistillation"}
    assert len(state) == 8  # alignment and two convolutions, and an alignment: weights and biases
    assert not any(torch.equal(state[key], value) for key, value in module.adapters.state_dict().items())
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert {id(p) for p in module.adapters.parameters()} <= optimised
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    saved = load_checkpoint(tmp_path / "it.ckpt", "it")["state_dict"]
    assert torch.equal(saved["adapters.FeatureDistillation.0.weight"], module.adapters["FeatureDistillation"][0].weight)
