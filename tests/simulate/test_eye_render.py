import numpy as np
import pytest

from sdsnn_lightning.simulate.eye_motion import STYLES, draw_habits, trajectory
from sdsnn_lightning.simulate.eye_render import EyeRenderer, Face, Pose


@pytest.fixture(scope="module")
def renderer():
    return EyeRenderer(Face.draw(np.random.default_rng(1)))


def test_a_picture_is_reflectance(renderer):
    image = renderer.render(Pose())
    assert image.shape == (90, 90)
    assert image.dtype == np.float32
    assert 0 < image.min() < 0.1  # pupil
    assert 1 < image.max() < 2.5  # glint
    assert 0.1 < image.mean() < 0.7


def test_equal_faces_are_equal_and_others_differ(renderer):
    again = EyeRenderer(Face.draw(np.random.default_rng(1))).render(Pose())
    other = EyeRenderer(Face.draw(np.random.default_rng(2))).render(Pose())
    np.testing.assert_array_equal(renderer.render(Pose()), again)
    assert np.abs(other - again).mean() > 0.05


def test_opening_uncovers_the_eyeball(renderer):
    """The bright sclera grows with the opening, and a shut lid hides the pupil."""
    bright = [(renderer.render(Pose(opening=o)) > 0.6).sum() for o in (0.5, 0.8, 1.1, 1.3)]
    assert bright == sorted(bright)
    assert bright[-1] > 1.5 * max(bright[0], 1)
    centre = (np.array(renderer.face.centre)[::-1] + 1) * 45
    rows, columns = (slice(int(c) - 3, int(c) + 3) for c in centre)
    assert renderer.render(Pose(gaze_y=0.05))[rows, columns].min() < 0.06
    assert renderer.render(Pose(opening=0.0, gaze_y=0.05))[rows, columns].min() > 0.06


def test_the_pupil_follows_gaze_and_slip(renderer):
    def pupil(pose):
        image = renderer.render(pose)[40:70]
        weight = (image < 0.05).astype(float)
        return (weight.sum(0) * np.arange(90)).sum() / weight.sum()

    def shift(pose):
        wide = {"opening": 1.3, "pupil": 0.6}
        return pupil(Pose(**wide, **pose)) - pupil(Pose(**wide))

    assert shift({"gaze_x": 0.1}) == pytest.approx(4.5, abs=1.5)  # 0.1 image units are 4.5 pixels
    assert shift({"slip_x": 0.1}) == pytest.approx(4.5, abs=1.0)


def test_motion_of_a_tenth_of_a_pixel_shows(renderer):
    """Edges are anti-aliased: a small move changes grey values a little instead of none or a lot."""
    moves = [np.abs(renderer.render(Pose(slip_x=d)) - renderer.render(Pose())).max() for d in (0.1 / 45, 0.3 / 45)]
    assert 0.005 < moves[0] < 0.5
    assert moves[1] > 1.5 * moves[0]


@pytest.mark.parametrize("emotion", STYLES)
def test_trajectories_are_drawn_by_seed_and_stay_in_range(emotion):
    times = np.arange(150) / 180
    habits = draw_habits(np.random.default_rng(0))
    for seed in range(20):
        pose = trajectory(emotion, times, habits, np.random.default_rng(seed))
        again = trajectory(emotion, times, habits, np.random.default_rng(seed))
        for field, same in zip(pose, again, strict=True):
            assert np.shape(field) == (150,)
            np.testing.assert_array_equal(field, same)
        assert pose.opening.min() > -0.1
        assert pose.opening.max() < 1.6
        assert np.abs(pose.gaze_x).max() <= 0.26
        assert (pose.pupil > 0.2).all()
        assert (pose.pupil < 0.7).all()


def test_fear_trembles_and_surprise_rises_faster():
    times = np.arange(150) / 180
    spectra, rises = {}, {}
    for emotion in ("fear", "surprise"):
        power, rise = [], []
        for seed in range(40):
            pose = trajectory(emotion, times, Pose(*[0.0] * 12), np.random.default_rng(seed))
            power.append(np.abs(np.diff(pose.opening, 2)).mean())
            rise.append(np.diff(pose.brow).max())
        spectra[emotion], rises[emotion] = np.median(power), np.median(rise)
    assert spectra["fear"] > 1.5 * spectra["surprise"]
    assert rises["surprise"] > 1.5 * rises["fear"]
