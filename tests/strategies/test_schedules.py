import math

import pytest

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.strategies import Constant, Cosine, Linear
from sdsnn_lightning.strategies.schedules import weight_at


def test_linear_holds_ramps_and_holds():
    ramp = Linear(2.0, 4.0, begin=0.2, until=0.6)
    assert [ramp(p) for p in (0.0, 0.2, 0.3, 0.4, 0.6, 1.0)] == pytest.approx([2.0, 2.0, 2.5, 3.0, 4.0, 4.0])


def test_cosine_is_half_a_cosine():
    ramp = Cosine(1.0, 0.0)
    assert ramp(0.25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert (ramp(0.0), ramp(0.5), ramp(1.0)) == pytest.approx((1.0, 0.5, 0.0))


def test_a_ramp_without_length_is_a_step():
    step = Linear(0.0, 1.0, begin=0.5, until=0.5)
    assert (step(0.49), step(0.5)) == (0.0, 1.0)


def test_numbers_are_constant_schedules():
    assert weight_at(0.3, 0.9) == weight_at(Constant(0.3), 0.1) == 0.3


@pytest.mark.parametrize(("begin", "until"), [(-0.1, 1.0), (0.5, 0.4), (0.0, 1.1)])
def test_impossible_ramps_are_refused(begin, until):
    with pytest.raises(ConfigError, match="0 <= begin <= until <= 1"):
        Linear(0.0, 1.0, begin, until)
