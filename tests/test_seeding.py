"""Random numbers by place: the same ones for the same seed and place, whatever was drawn before."""

import random

import numpy as np
import torch

from sdsnn_lightning.seeding import seed_place


def draw(monkeypatch, seed, *place):
    monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
    seed_place(*place)
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def test_a_place_gives_its_numbers_whatever_came_before(monkeypatch):
    first = draw(monkeypatch, 1, 2, 3)
    torch.rand(5)
    assert draw(monkeypatch, 1, 2, 3) == first
    others = [(2, 2, 3), (1, 3, 2), (1, 2), (1, 2, 3, 0), (1, 23)]
    drawn = [first, *(draw(monkeypatch, *other) for other in others)]
    for kind in zip(*drawn, strict=True):  # torch, numpy, Python
        assert len({tuple(numbers) for numbers in kind}) == len(drawn)


def test_without_a_seed_nothing_is_touched(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    seed_place(1, 2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
