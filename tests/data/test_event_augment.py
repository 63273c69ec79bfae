import math

import pytest
import torch

from sdsnn_lightning.data.event_augment import EventAugment, move, source_pixels
from sdsnn_lightning.errors import ConfigError

OFF = {"flip": 0.0, "roll": 0, "rotate": 0.0, "shear": 0.0, "cutout": 0}


def frames(samples=8, steps=4, size=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 200, (samples, steps, 2, size, size), generator=generator, dtype=torch.uint8)


def moved(image, flip=False, roll=(0, 0), angle=0.0, slope=0.0):
    """One square image through the maps."""
    size = len(image)
    x, y, shown = source_pixels(
        size, torch.tensor([flip]), torch.tensor(roll)[:, None], torch.tensor([angle]), torch.tensor([slope])
    )
    return move(image[None, None, None], (y * size + x).flatten(1), shown.flatten(1))[0, 0, 0]


def test_flip_and_roll_are_those_of_torch():
    image = frames()[0, 0, 0]
    assert (moved(image) == image).all()
    assert (moved(image, flip=True) == image.flip(1)).all()
    assert (moved(image, roll=(3, -2)) == image.roll((-2, 3), (0, 1))).all()
    assert (moved(image, flip=True, roll=(3, 0)) == image.flip(1).roll(3, 1)).all()


def test_a_quarter_turn_is_exact():
    image = frames()[0, 0, 0]
    assert (moved(image, angle=math.pi / 2) == image.rot90(-1)).all()  # clockwise on the screen
    assert (moved(image, angle=math.pi) == image.flip(0, 1)).all()


def test_shear_by_hand():
    image = torch.arange(1, 10, dtype=torch.uint8).view(3, 3)
    # the row above the centre moves one column to the left, the one below to the right; zeros come in
    assert moved(image, slope=1.0).tolist() == [[2, 3, 0], [4, 5, 6], [0, 7, 8]]


def test_rotation_agrees_with_grid_sample():
    from torch.nn.functional import affine_grid, grid_sample

    image, angle = frames(size=31)[0, 0, 0], 0.4
    cos, sin = math.cos(angle), math.sin(angle)
    grid = affine_grid(torch.tensor([[[cos, sin, 0.0], [-sin, cos, 0.0]]]), [1, 1, 31, 31], align_corners=False)
    theirs = grid_sample(image[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0]
    assert (theirs == moved(image, angle=angle)).float().mean() > 0.995  # ties may round the other way


def test_all_steps_and_channels_of_a_sample_move_alike_and_samples_differ():
    torch.manual_seed(0)
    whole = frames(64)
    whole[:] = whole[:1, :1, :1]  # one picture everywhere
    out = EventAugment(cutout=6, one_of=False)(whole)
    assert out.dtype == torch.uint8
    assert (out == out[:, :1, :1]).all()
    assert len({tuple(sample[0, 0].flatten().tolist()) for sample in out}) > 60


def test_summing_steps_and_augmenting_commute():
    augment, batch = EventAugment(), frames().int()
    torch.manual_seed(3)
    late = augment(batch.unflatten(1, (2, 2)).sum(2))
    torch.manual_seed(3)
    assert (late == augment(batch).unflatten(1, (2, 2)).sum(2)).all()


def test_off_changes_nothing_and_flip_alone_flips():
    batch = frames()
    assert (EventAugment(**OFF)(batch) == batch).all()
    assert (EventAugment(**OFF | {"flip": 1.0})(batch) == batch.flip(-1)).all()


def test_one_of_applies_one():
    torch.manual_seed(0)
    # with roll and cutout only, a sample is either rolled (nothing is lost) or has a hole (nothing has moved)
    batch = torch.full((200, 1, 1, 12, 12), 1, dtype=torch.uint8)
    out = EventAugment(**OFF | {"roll": 3, "cutout": 5})(batch)
    missing = 144 - out.flatten(1).sum(1, dtype=torch.long)
    assert 60 < (missing == 0).sum() < 140
    assert missing.max() <= 25
    both = EventAugment(**OFF | {"roll": 3, "cutout": 5}, one_of=False)(batch)
    assert (both.flatten(1).sum(1, dtype=torch.long) < 144).all()


def test_the_strengths_are_the_bounds():
    torch.manual_seed(0)
    batch = torch.zeros(500, 1, 1, 15, 15, dtype=torch.uint8)
    batch[..., 7, 7] = 1
    where = EventAugment(**OFF | {"roll": 2})(batch)[:, 0, 0].nonzero()[:, 1:] - 7
    assert where.abs().max() == 2
    assert len(where.unique(dim=0)) == 25
    batch = torch.zeros(500, 1, 1, 15, 15, dtype=torch.uint8)
    batch[..., 7, 14] = 1  # turns by up to 30 degrees: at most 7 sin 30 = 3.5 rows
    rows = EventAugment(**OFF | {"rotate": 30.0})(batch)[:, 0, 0].nonzero()[:, 1] - 7
    assert 3 <= rows.abs().max() <= 4


def test_a_seed_gives_the_same_pictures():
    torch.manual_seed(7)
    first = EventAugment()(frames())
    torch.manual_seed(7)
    assert (EventAugment()(frames()) == first).all()


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"roll": -1}, {"rotate": 181.0}, {"shear": 90.0}, {"cutout": -2}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(ConfigError, match="data.init_args.augment"):
        EventAugment(**wrong)
