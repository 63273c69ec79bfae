"""The cache of the teacher's outputs: the same run bit by bit, the teacher asked once, refusals with the reason."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from toy import ToyData, ToyTeacher
from toy import ToyNet as Student

from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.teacher_cache import TeacherCache, sample_keys, sums_of_words


class Both(Strategy):
    """Looks at the teacher's logits, and at one of its features."""

    def loss(self, step, adapter):
        logits = (step.student.logits - step.teacher.logits).square().mean()
        return logits + (step.student.features["hidden"] - step.teacher.features["hidden"]).square().mean()


class Counted(ToyTeacher):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Noisy(ToyData):
    def views(self, sample, training):
        view, _ = super().views(sample, training)
        return view, {name: x + 0.1 * torch.randn_like(x) for name, x in view.items()} if training else view


class OfItsBatch(ToyTeacher):
    def forward(self, x):
        out = super().forward(x)
        return out._replace(logits=out.logits.cumsum(1))


def fit(tmp_path, cache, teacher=Counted, data=None, epochs=3):
    seed_everything(3)
    frozen = teacher(3)
    module = Distiller(
        lambda k: Student(k, dropout=0.2), 3, lambda p: torch.optim.SGD(p, 0.1), frozen, teacher_cache=cache
    )
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_epochs=epochs, callbacks=[Both()], default_root_dir=tmp_path, num_sanity_val_steps=0, **options
    )
    trainer.fit(module, datamodule=data or ToyData())
    return module, torch.cat([p.detach().flatten() for p in module.student.parameters()])


def test_training_is_the_same_bit_by_bit_and_the_teacher_is_asked_once(tmp_path):
    # One sample a batch: in larger ones the last digit of a matrix product may depend on the row a sample is in.
    single = {"train": 8, "batch_size": 1}
    plain, expected = fit(tmp_path, None, data=ToyData(**single))
    cached, found = fit(tmp_path, 0.1, data=ToyData(**single))
    assert torch.equal(found, expected)
    assert plain.teacher.calls == 24  # 8 samples, 3 epochs
    cache = cached.teacher_cache
    assert cache.wanted == {"hidden"}
    # Which features are wanted is known from the second batch on: the first sample is asked for again.
    assert (cache.misses, cache.hits) == (9, 15)
    assert cached.teacher.calls == cache.misses + 2  # and twice by the check
    assert cache.used == 8 * (4 * 3 + 4 * 8) * 4  # samples, logits and feature of 4 steps, float32


def test_batches_are_put_together_of_samples(tmp_path):
    _, expected = fit(tmp_path, None)
    module, found = fit(tmp_path, 0.1)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    cache = module.teacher_cache
    assert cache.misses + cache.hits == 18  # 48 samples in batches of 8, 3 epochs
    assert cache.hits >= 1
    assert cache.used == 48 * (4 * 3 + 4 * 8) * 4


def test_what_does_not_fit_is_computed(tmp_path):
    _, expected = fit(tmp_path, None, epochs=1)
    module, found = fit(tmp_path, 1e-6, epochs=1)
    assert torch.equal(found, expected)
    assert module.teacher_cache.used <= 1000


def test_changed_weights_are_noticed():
    teacher, cache = ToyTeacher(3).eval(), TeacherCache(0.1)
    view = {"privileged": torch.randn(8, 4, 6)}
    first = cache(teacher, view).logits
    assert torch.equal(cache(teacher, view).logits, first)
    assert cache.hits == 1
    teacher.head.bias.data.add_(1.0)
    teacher.load_state_dict(teacher.state_dict() | {"head.bias": teacher.head.bias + 1.0})
    assert torch.allclose(cache(teacher, view).logits, first + 2.0)
    assert cache.hits == 1
    mixed = {"privileged": torch.cat([view["privileged"][4:], torch.randn(4, 4, 6)])}
    cache(teacher, mixed)
    assert cache.hits == 1


def test_features_that_were_never_asked_for_are_computed():
    teacher, cache = ToyTeacher(3).eval(), TeacherCache(0.1)
    view = {"privileged": torch.randn(8, 4, 6)}
    expected = cache(teacher, view)
    again = cache(teacher, view)
    assert cache.hits == 1
    assert list(again.features) == ["hidden"]
    assert torch.equal(again.features["hidden"], expected.features["hidden"])


def test_keys_tell_samples_apart():
    x = torch.zeros(4, 200, 6)
    for i in range(200):
        x[i % 4, i, i % 6] = (-1.0) ** i * 2.0 ** (i // 12 - 8)
    x[:, 1, :2] = -0.0  # two sign bits, the rest zero
    assert len(set(sample_keys((x,)))) == 200
    assert sample_keys((x,)) == sample_keys((x.clone(),))
    assert sample_keys((x, x)) != sample_keys((x,))


@pytest.mark.parametrize(
    ("data", "teacher", "reason"),
    [(Noisy, ToyTeacher, "other numbers of the same sample"), (ToyData, OfItsBatch, "depends on the others")],
)
def test_refusals(tmp_path, data, teacher, reason):
    with pytest.raises(ConfigError, match=reason):
        fit(tmp_path, 0.1, teacher, data())


@pytest.mark.parametrize("gigabytes", [0, -1.0, float("nan")])
def test_a_size_that_is_none(gigabytes):
    with pytest.raises(ConfigError, match="teacher_cache"):
        TeacherCache(gigabytes)


def test_sums_of_words_wrap_around_like_torchs():
    words, factors = torch.randint(-(2**63), 2**63 - 1, (2, 5, 1001), generator=torch.Generator().manual_seed(0))
    factors = factors[:2]
    mixed = words ^ (words >> 31)
    expected = torch.stack([(mixed * factor).sum(1) for factor in factors], 1)
    assert torch.equal(sums_of_words(words, factors), expected)


def test_equal_copies_of_a_channel_are_looked_at_once():
    grey = torch.rand(4, 6, 1, 5, 5)
    copies = grey.expand(-1, -1, 3, -1, -1)
    keys = sample_keys((copies,))
    assert len(set(keys)) == 6
    assert keys == sample_keys((grey.clone().expand(-1, -1, 3, -1, -1),))
    assert not set(keys) & set(sample_keys((grey,)))  # another shape, another input
    one = grey[:, :1].expand(-1, 6, -1, -1, -1)  # six times the same sample
    assert len(set(sample_keys((one,)))) == 1
