"""Reading growing metrics, ranking, table and pictures: by hand-made trials."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.sweeps.pictures import save_pictures
from sdsnn_lightning.sweeps.records import Record, epochs_in, last_line, read_record, write_record
from sdsnn_lightning.sweeps.space import Range, Sweep
from sdsnn_lightning.sweeps.table import Board, csv_text, duration, ranked, short_names, table, winner

SPACE = {"model.lr": Range("loguniform", (0.01, 1.0)), "model.reading": Range("choice", ("A", "B"))}
SWEEP = Sweep(Path("s.yaml"), "s", ("toy.yaml",), SPACE, "val/UAR", test=True)


def trial(index, state, values, **more):
    settings = {"model.lr": 0.01 * (index + 1), "model.reading": "AB"[index % 2]}
    return Record(index, settings, "lightning fit", "nowhere", "1", state, list(enumerate(values)), **more)


TRIALS = [
    trial(0, "done", [0.2, 0.6, 0.5], test={"WAR": 0.5, "energy/paper_nJ": 2000.0}),
    trial(1, "failed", [0.9], error="no more memory"),
    trial(2, "stopped", [0.8, float("nan")]),
    trial(3, "done", [0.3, 0.7], test={"WAR": 0.4, "energy/paper_nJ": 1000.0}),
    trial(4, "done", [0.1], test={"WAR": 0.3, "energy/paper_nJ": 3000.0}),
]


def test_metrics_are_read_while_they_grow(tmp_path):
    path = tmp_path / "metrics.csv"
    assert epochs_in(path, "val/UAR") == []
    path.write_text("epoch,step,train/loss,val/UAR\n0,3,1.5,\n0,5,,0.25\n1,9,1.2,\n1,11,,0.")
    assert epochs_in(path, "val/UAR") == [(0, 0.25)]
    path.write_text(path.read_text() + "5\n1,12,,0.75\n2,17,,nan\n")
    assert epochs_in(path, "val/UAR")[:2] == [(0, 0.25), (1, 0.75)]
    assert len(epochs_in(path, "val/UAR")) == 3
    assert epochs_in(path, "val/other") == []


def test_a_record_survives_and_a_broken_one_is_named(tmp_path):
    write_record(tmp_path, TRIALS[0])
    assert read_record(tmp_path, TRIALS[4]) == TRIALS[0]
    assert [path.name for path in tmp_path.iterdir()] == ["trial.json"]
    assert read_record(tmp_path / "none", TRIALS[4]) is TRIALS[4]
    (tmp_path / "trial.json").write_text('{"index": 3')
    with pytest.raises(DataError, match=r"trial\.json is not a trial's record"):
        read_record(tmp_path, TRIALS[4])


def test_the_last_line_is_the_error_if_there_is_one(tmp_path):
    path = tmp_path / "output.txt"
    path.write_bytes(b"error: of the first attempt\nepoch 1\nerror: no more memory\nbye \xff\n\n")
    assert last_line(path) == "no more memory"
    path.write_bytes(b"error: old\nTraceback\nValueError: x\n")
    assert last_line(path, start=11) == "ValueError: x"


def test_a_value_is_that_of_the_best_epoch():
    assert TRIALS[0].value("max") == 0.6
    assert TRIALS[0].value("min") == 0.2
    assert TRIALS[2].value("min") == 0.8
    assert trial(5, "failed", []).value("max") is None


def test_finished_means_tested_too_where_that_is_wanted():
    done = trial(0, "done", [0.1])
    assert done.finished(test=False)
    assert not done.finished(test=True)
    assert [record.finished(True) for record in TRIALS] == [True] * 5
    assert not trial(0, "fitted", [0.1]).finished(False)


def test_the_best_of_those_that_ran_to_their_end_wins():
    assert [record.index for record in ranked(TRIALS, "max")] == [3, 0, 4, 2, 1]
    assert [record.index for record in ranked(TRIALS, "min")] == [4, 0, 3, 2, 1]
    assert winner(TRIALS, "max") is TRIALS[3]
    assert winner(TRIALS[1:3], "max") is None


def test_table_and_csv_hold_every_trial():
    rows = list(csv.DictReader(io.StringIO(csv_text(TRIALS, SWEEP))))
    assert [(row["trial"], row["state"], row["val/UAR"], row["epochs"]) for row in rows] == [
        ("3", "done", "0.7", "2"), ("0", "done", "0.6", "3"), ("4", "done", "0.1", "1"),
        ("2", "stopped", "0.8", "2"), ("1", "failed", "0.9", "1"),
    ]  # fmt: skip
    assert rows[0]["model.lr"] == "0.04"
    assert rows[0]["energy_uJ"] == "1.0"
    assert rows[0]["test/WAR"] == "0.4"
    assert rows[4]["error"] == "no more memory"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(ranked(TRIALS, "max"), SWEEP, [3] * 5))
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert lines[0][:4] == ["trial", "lr", "reading", "state"]
    assert lines[2][:8] == ["3", "0.04", "B", "done", "2/3", "0.7000", "40.0", "1"]


def test_the_board_counts_and_shows_the_running_first():
    records = [*TRIALS, trial(5, "running", [0.2]), trial(6, "waiting", [])]
    board = Board(SWEEP, records, [3] * 7)
    assert board.progress().startswith("5 of 7 trials finished, 1 running, 1 stopped, 1 failed; ")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(board.draw())
    rows = [line.split()[0] for line in console.export_text().splitlines() if line.strip()[:1].isdigit()]
    assert rows[:7] == ["5", "3", "0", "4", "2", "1", "6"]
    assert [duration(s) for s in (42, 420, 11160)] == ["42 s", "7 min", "3.1 h"]


def test_names_are_as_short_as_they_can_be():
    keys = ["model.alpha", "model.student.size", "model.teacher.size"]
    assert short_names(keys) == ["alpha", "student.size", "teacher.size"]
    assert short_names(["a.lr", "lr"]) == ["a.lr", "lr"]


def test_pictures_are_drawn_as_far_as_there_is_something_to_draw(tmp_path):
    paths = save_pictures(tmp_path, TRIALS, SWEEP)
    assert [path.name for path in paths] == ["objective.png", "pareto.png"]
    for path in paths:
        low, high = Image.open(path).convert("L").getextrema()
        assert (low, high) == (0, 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objective.png", "pareto.png"]
    untested = [trial(0, "done", [0.1])]
    assert [path.name for path in save_pictures(tmp_path, untested, SWEEP)] == ["objective.png"]
    assert save_pictures(tmp_path, [trial(0, "failed", [])], SWEEP) == []
