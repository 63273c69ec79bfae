"""The table and the page say what the files of the runs say."""

import json
import re
import shlex
import shutil
from html import unescape
from statistics import mean, stdev

import numpy as np
import pytest
import yaml
from PIL import Image
from refusal import refusal

from sdsnn_lightning.cli import main
from sdsnn_lightning.reports.collect import collect
from sdsnn_lightning.reports.page import cost_points, mean_layers, page, part_scores
from sdsnn_lightning.reports.table import cells, markdown


def load(path):
    return json.loads(path.read_text())


def text_of(html):
    """The page as a reader sees it: without style, tags and line breaks."""
    html = html.replace("<wbr>", "")
    bare = re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", bare)


@pytest.fixture(scope="module")
def html(folders, tmp_path_factory):
    return page(collect(folders), tmp_path_factory.mktemp("none"))


def test_details_agree_with_the_results(fitted):
    results, details = (load(fitted / "maps/version_0" / name) for name in ("results.json", "details.json"))
    test, confusion = results["test"], np.array(details["confusion"])
    assert confusion.sum() == 16
    assert confusion.trace() / 16 == pytest.approx(test["WAR"])
    assert len(details["prefixes"]["WAR"]) == 4
    assert details["prefixes"]["WAR"][-1] == pytest.approx(test["WAR"])
    assert details["prefixes"]["causal"] is True
    energies = [row["energy_nJ"]["paper"] for row in details["layers"]]
    assert sum(energies) == pytest.approx(test["energy/paper_nJ"], rel=1e-5)
    rates = {row["name"]: row["rate"] for row in details["layers"] if row["op"] == "neuron"}
    assert rates["layer1.lif"] == pytest.approx(test["firing_rate/layer1.lif"], rel=1e-5)
    spikes = details["spikes"]["layer1.lif"]
    assert (spikes["neurons"], len(spikes["fired"]), len(spikes["fired"][0])) == (256, 128, 4)
    pictures = {path.name for path in (fitted / "maps/version_0/pictures").iterdir()}
    assert pictures == {"clip.png", "confusion.png", "layers.png", "prefixes.png", "raster.png", "recall.png"}


def test_table_has_mean_deviation_notes_and_command(folders, fitted, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    main(["report", *map(str, folders), str(fitted / "maps/version_1"), "--table", "--command"])
    lines = capsys.readouterr().out.splitlines()
    header = [cell.strip() for cell in lines[0].strip("|").split(" | ")]
    rows = [dict(zip(header, (c.strip() for c in line.strip("|").split(" | ")), strict=True)) for line in lines[2:]]
    assert [row["experiment"] for row in rows] == ["maps", "wide"]
    tests = [load(fitted / f"maps/version_{n}/results.json")["test"] for n in (0, 1)]
    rates = [test["firing_rate/total"] for test in tests]
    scores = [100 * test["UAR"] for test in tests]
    assert rows[0]["rate"] == f"{mean(rates):.3f} ± {stdev(rates):.3f}"
    assert rows[0]["UAR %"] == f"{mean(scores):.1f} ± {stdev(scores):.1f}"
    assert rows[0]["seeds"] == "2"  # the run that is named twice counts once
    assert rows[0]["steps"] == "4"
    assert rows[0]["parameters"] == f"{tests[0]['parameters']:,}"
    assert rows[0]["paper"] == "WAR 83.6 \\| SEE"
    assert rows[1]["paper"] == "-"
    assert rows[0]["command"] == "`lightning fit --config maps.yaml --seed_everything 1`"
    assert not (fitted / "report.html").exists()


def test_table_has_accuracy_after_every_step_and_a_picture_of_the_front(folders, fitted, capsys, tmp_path):
    main(
        [
            "report",
            *map(str, folders),
            "--table",
            "--prefixes",
            "--pareto",
            str(tmp_path / "new/front.png"),
            "--cost",
            "rate",
        ]
    )
    header, _, first, _ = capsys.readouterr().out.splitlines()
    kept = [load(fitted / f"maps/version_{n}/details.json")["prefixes"]["WAR"] for n in (0, 1)]
    assert header.endswith("| WAR % after 1, 2, ... |")
    assert first.endswith(f"| {' '.join(f'{50 * (a + b):.1f}' for a, b in zip(*kept, strict=True))} |")
    with Image.open(tmp_path / "new/front.png") as picture:
        assert picture.width > 600
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["front.png"]


def test_a_front_is_of_energy_or_of_the_firing_rate(folders, fitted):
    (label, energies), *_ = cost_points(collect(folders)).items()
    rates = cost_points(collect(folders), "rate")[label]
    tests = [load(fitted / f"maps/version_{n}/results.json")["test"] for n in (0, 1)]
    assert energies == [(test["energy/paper_nJ"] / 1000, test["WAR"]) for test in tests]
    assert rates == [(test["firing_rate/total"], test["WAR"]) for test in tests]


def test_of_many_steps_a_table_tells_ten(fitted, tmp_path):
    run = fitted / "maps/version_0"
    for file in ("config.yaml", "results.json"):
        shutil.copy(run / file, tmp_path)
    details = load(run / "details.json")
    details["prefixes"]["WAR"] = [step / 100 for step in range(1, 51)]
    (tmp_path / "details.json").write_text(json.dumps(details))
    header, _, row = markdown(collect([tmp_path]), tmp_path, with_prefixes=True).splitlines()
    assert header.endswith("| WAR % after 5, 10, ... |")
    assert row.endswith("| 5.0 10.0 15.0 20.0 25.0 30.0 35.0 40.0 45.0 50.0 |")


def test_notes_come_from_the_experiment_where_a_run_has_none(folders, capsys, tmp_path):
    (tmp_path / "wide.yaml").write_text("{name: wide, notes: {paper: WAR 12.3}}")
    main(["report", str(folders[1]), "--table", "--experiments", str(tmp_path)])
    header, _, row = capsys.readouterr().out.splitlines()
    assert "| paper |" in header
    assert "| WAR 12.3 |" in row
    assert "method" not in header


def test_page_shows_the_numbers_of_the_files(html, fitted):
    text = text_of(html)
    for name in ("maps/version_0", "maps/version_1", "wide/version_0"):
        test = load(fitted / name / "results.json")["test"]
        assert f"{100 * test['WAR']:.2f} {100 * test['UAR']:.2f} {test['energy/paper_nJ'] / 1000:.4g}" in text
    assert "2 experiments" in text
    assert "Simulated data." in text
    assert "model.network.width 4 6" in text
    assert "trainer.max_epochs 2 1" in text
    assert "lightning fit --config maps.yaml --seed_everything 1" in text


def test_means_over_seeds(folders, fitted):
    group = collect(folders)[0]
    rows = [load(fitted / f"maps/version_{n}/details.json")["layers"] for n in (0, 1)]
    assert mean_layers(group)[2]["name"] == rows[0][2]["name"] == "layer1.lif"
    assert mean_layers(group)[2]["rate"] == pytest.approx((rows[0][2]["rate"] + rows[1][2]["rate"]) / 2)
    recalls = [load(fitted / f"maps/version_{n}/results.json")["test"]["recall/a"] for n in (0, 1)]
    assert part_scores(group) == {"recall": {name: part_scores(group)["recall"][name] for name in "abc"}}
    assert part_scores(group)["recall"]["a"] == recalls


def test_everything_is_escaped_and_inside_the_page(html):
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    for source in re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html):
        assert source.startswith(("data:", "#")), source[:80]
    assert html.count("data:image/svg+xml") > 10
    assert "@import" not in html


def test_command_prints_the_table_and_writes_the_page_once(folders, fitted, capsys):
    main(["report", *map(str, folders)])
    said = capsys.readouterr().out
    assert "maps" in said
    assert "2 experiments" in (fitted / "report.html").read_text()
    assert said.splitlines()[-1] == f"page: {fitted / 'report.html'}"
    assert not list(fitted.glob("*.partial"))


def test_runs_without_details_still_make_a_page(fitted, tmp_path):
    old = shutil.copytree(fitted / "maps/version_0", tmp_path / "maps/version_0")
    for name in ("details.json", "config.yaml", "metrics.csv"):
        (old / name).unlink()
    text = page(collect([old]), tmp_path)
    assert text.count('src="data:image/png') == 3  # confusion, raster and clip as the test drew them
    assert "Layers in numbers" not in text
    assert "lightning test" not in text  # not without its configuration


def test_the_page_says_how_an_old_run_gets_the_rest(fitted, tmp_path):
    old = shutil.copytree(fitted / "maps/version_0", tmp_path / "old runs/maps/version_0")
    (old / "details.json").unlink()
    (command,) = re.findall(r"lightning (test --config .*)</pre>", page(collect([old]), tmp_path))
    main(shlex.split(unescape(command)))
    text = page(collect([old]), tmp_path)
    assert "test again" not in text
    assert "Accuracy after every number of time steps" in text


def test_one_seed_that_was_tested_before_details_were_kept_does_not_hide_the_others(fitted, tmp_path):
    both = shutil.copytree(fitted / "maps", tmp_path / "maps")
    (both / "version_0/details.json").unlink()
    text = text_of(page(collect([both]), tmp_path))
    assert "Sum over 1 of 2 runs; percent of the true class." in text


def test_same_name_other_settings_is_another_row(fitted, tmp_path):
    other = shutil.copytree(fitted / "wide/version_0", tmp_path / "maps/version_0")
    groups = collect([fitted / "maps", other])
    assert [len(group.runs) for group in groups] == [2, 1]
    assert groups[0].label.startswith("maps (")
    assert groups[0].label != groups[1].label


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("results.json", "{", "results.json is not valid JSON"),
        ("results.json", "{}", "holds no tested run"),
        ("details.json", "{", "details.json is not valid JSON"),
        ("config.yaml", "a: [", "config.yaml is not valid YAML"),
    ],
)
def test_a_broken_file_is_one_line(fitted, tmp_path, capsys, file, content, said):
    run = shutil.copytree(fitted / "wide/version_0", tmp_path / "wide/version_0")
    (run / file).write_text(content)
    assert said in refusal(capsys, "report", run, alone=True)


def test_a_page_that_cannot_be_written_names_the_option(folders, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "--output" in refusal(capsys, "report", folders[1], "--output", tmp_path / "file" / "report.html")


def test_folds_of_a_cross_validation_are_one_row(fitted, tmp_path):
    for fold in (1, 2):
        folder = shutil.copytree(fitted / "maps/version_0", tmp_path / f"fold{fold}/maps/version_0")
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["data"].setdefault("init_args", {})["fold"] = fold
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    folders = [fitted / "maps", tmp_path / "fold1/maps", tmp_path / "fold2/maps"]
    (group,) = collect(folders)
    assert [run.seed for run in group.runs] == ["1", "2", "1, fold 1", "1, fold 2"]
    assert cells(group)["seeds"] == "2"
    assert cells(group)["data"].endswith(", 3 folds)")
    assert cells(collect(folders[2:])[0])["data"].endswith(", fold 2)")
    assert "fold" not in cells(collect(folders[:1])[0])["data"]
    shutil.copytree(folders[2] / "version_0", folders[1] / "version_1")  # same seed, other fold: not an older version
    assert [run.fold for run in collect([folders[1]])[0].runs] == [1, 2]
