"""The runner of the benchmarks: it runs one, and writes what it says. No time is asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def bench(*words):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(HERE / "run.py"), *words], env=env, capture_output=True, text=True, timeout=280
    )


def test_a_quick_run_writes_rows_and_a_table_between_the_marks(tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text(
        "# Before\n\n<!-- benchmarks: written by make bench -->\nold\n<!-- end of benchmarks -->\n\nAfter.\n"
    )
    done = bench("--quick", "--only", "frames", "--results", str(results), "--readme", str(readme))
    assert done.returncode == 0, done.stderr
    written = json.loads(results.read_text())
    assert written["quick"] is True
    assert written["machine"]["threads"] == 1
    assert written["machine"]["versions"]["tonic"]
    assert len(written["rows"]) == 5
    for row in written["rows"]:
        assert row["row"] == 7
        assert 0 < row["low"] <= row["high"]
        above, below = sorted(row["medians"].values())
        assert row["ratio"] in (below / above, above / below)
        assert row["met"] is (row["ratio"] >= 5)
    text = readme.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter.\n")
    assert "old" not in text
    assert text.count("| 7 | ") == 5
    assert f"| {written['rows'][0]['ratio']:.3g} |" in text


def test_an_unknown_benchmark_is_refused_with_the_names_there_are():
    done = bench("--only", "nothing")
    assert done.returncode == 1
    assert "there are [" in done.stderr
    assert "'leaky'" in done.stderr
