"""What a sweep's YAML may say, and which trials follow from it."""

import math
from datetime import date
from pathlib import Path

import pytest
import yaml

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.sweeps.space import Range, Sweep, read_sweep, word

GOOD = {"config": "toy.yaml", "space": {"a.b": {"grid": [1, 2]}}, "metric": "val/UAR"}


@pytest.fixture
def write(workdir):
    Path("toy.yaml").write_text("name: toy")

    def write(**changes):
        Path("sweep.yaml").write_text(yaml.safe_dump({**GOOD, **changes}))
        return Path("sweep.yaml")

    return write


def sweep(space, samples=1, seed=1):
    return Sweep(Path("s.yaml"), "s", ("toy.yaml",), space, "val/UAR", num_samples=samples, seed=seed)


def test_a_grid_is_every_combination_once_a_sample():
    found = sweep({"a": Range("grid", (1, 2)), "b": Range("grid", ("x", "y"))}, samples=2).trials()
    assert found[:4] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert found[4:] == found[:4]


def test_draws_fill_their_ranges_evenly_on_their_scale():
    space = {"c": Range("choice", (3, 5)), "u": Range("uniform", (2.0, 4.0)), "l": Range("loguniform", (1e-4, 1.0))}
    found = sweep(space, samples=4000).trials()
    assert {trial["c"] for trial in found} == {3, 5}
    assert all(2 <= trial["u"] <= 4 and 1e-4 <= trial["l"] <= 1 for trial in found)
    mean = sum(trial["u"] for trial in found) / 4000
    exponent = sum(math.log10(trial["l"]) for trial in found) / 4000
    share = sum(trial["c"] == 3 for trial in found) / 4000
    # Standard deviations of these means: 0.009, 0.018, 0.008.
    assert (mean, exponent, share) == pytest.approx((3.0, -2.0, 0.5), abs=0.07)


def test_draws_depend_on_the_seed_and_more_samples_only_append():
    space = {"g": Range("grid", (1, 2)), "u": Range("uniform", (0.0, 1.0))}
    five = sweep(space, samples=5).trials()
    assert sweep(space, samples=3).trials() == five[:6]
    assert sweep(space, samples=5, seed=2).trials() != five
    assert len({trial["u"] for trial in five}) == 10


def test_words_are_what_a_person_types(write):
    read = read_sweep(write(config=["toy.yaml", "toy.yaml"]), ("--trainer.max_epochs=3",))
    assert read.words({"a.b": 0.5}) == ["--config", "toy.yaml", "--config", "toy.yaml", "--trainer.max_epochs=3",
                                        "--a.b=0.5"]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "1e-05"),
        (3, "3"),
        (True, "true"),
        (None, "null"),
        ("A", "A"),
        ([1, 2], "[1, 2]"),
        ({"k": 1}, '{"k": 1}'),
    ],
)
def test_a_value_is_written_so_that_yaml_reads_it_back(value, text):
    assert word("k", value) == f"--k={text}"


def test_numbers_in_scientific_notation_are_numbers(write):
    Path("sweep.yaml").write_text("{config: toy.yaml, metric: m, space: {lr: {loguniform: [1e-4, 1e-2]}}}")
    assert read_sweep(Path("sweep.yaml")).space["lr"] == Range("loguniform", (1e-4, 1e-2))


def test_a_name_may_begin_with_a_digit(write):
    assert read_sweep(write(name="2026-11.lr_2")).name == "2026-11.lr_2"


def test_everything_not_said_has_a_default(write):
    read = read_sweep(write(resources={"cpus": 2, "gpus": 0.5}))
    assert (read.name, read.mode, read.num_samples, read.scheduler, read.test) == ("sweep", "max", 1, "none", False)
    assert (read.cpus, read.gpus) == (2, 0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spaces": {}}, "spaces: no such key"),
        ({"space": {}}, "space: missing"),
        ({"metric": None}, "metric: missing"),
        ({"config": "none.yaml"}, "config: none.yaml does not exist"),
        ({"metric": "test/UAR"}, "metric: 'test/UAR' cannot decide"),
        ({"mode": "best"}, "mode: 'best' is none of max, min"),
        ({"scheduler": "pbt"}, "scheduler: 'pbt' is none of none, asha"),
        ({"num_samples": 0}, "num_samples: 0; give a whole number of at least 1"),
        ({"num_samples": 2, "space": {"a": {"grid": [1, 2]}}}, "num_samples: more than 1 repeats the trials of a grid"),
        ({"reduction_factor": 1}, "reduction_factor: 1"),
        ({"resources": {"cpu": 2}}, "resources: give cpus and gpus"),
        ({"resources": {"cpus": 0}}, "resources.cpus: 0"),
        ({"resources": {"gpus": 1.5}}, "resources.gpus: 1.5"),
        ({"name": "../elsewhere"}, "name: '../elsewhere' cannot name a folder"),
        ({"name": ".."}, "name: '..' cannot name a folder"),
        ({"resources": {"cpus": math.nan}}, "resources.cpus: nan"),
        ({"resources": {"cpus": math.inf}}, "resources.cpus: inf"),
        ({"space": {"a": {"grid": [date(2026, 1, 1)]}}}, "space: a: grid names a date or the like; put it in quotes"),
        ({"space": {"a": {"grid": []}}}, "space: a: grid needs a list"),
        ({"space": {"a": {"gird": [1]}}}, "space: a: say how it varies with one of grid"),
        ({"space": {"a": [1, 2]}}, "space: a: say how it varies"),
        ({"space": {"a": {"uniform": [2, 1]}}}, "space: a: uniform from 2 to 1; give low below high"),
        ({"space": {"a": {"uniform": [1, "x"]}}}, "space: a: uniform needs two numbers"),
        ({"space": {"a": {"uniform": [1, 2, 3]}}}, "space: a: uniform needs two numbers"),
        ({"space": {"a": {"loguniform": [0, 1]}}}, "space: a: loguniform starts at 0"),
        ({"space": {"a": {"choice": [1, 1]}}}, "space: a: choice names a value twice"),
        ({"space": {"runs": {"grid": ["x"]}}}, "space: runs: set by the sweep itself"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(write, changes, said):
    with pytest.raises(ConfigError) as error:
        read_sweep(write(**changes))
    assert f"sweep.yaml: {said}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_broken_file_is_named(workdir):
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        read_sweep(Path("none.yaml"))
    Path("broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        read_sweep(Path("broken.yaml"))
