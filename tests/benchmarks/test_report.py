"""Reports of benchmarks, and timing by turns."""

import json

import pytest

from benchmarks import report
from benchmarks.machine import Machine
from benchmarks.measure import Repeated, interleave

MACHINE = Machine("Abacus 3", 2, "2.14", 400.0, "FMA, float32", 20.0)


def test_a_report_is_written_with_every_section(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    ours = report.Report("beads", MACHINE, "Beads", ["How it was measured."])
    path = ours.add("## First", {"rows": [1]})
    assert path == tmp_path / "beads-abacus-3.md"
    assert path.read_text().startswith(
        "# Beads\n\nAbacus 3, 2 threads, torch 2.14; measured peak 400 GFLOP/s"
    )
    assert path.read_text().endswith("How it was measured.\n\n## First\n")
    ours.add("## Second", {"rows": [1, 2]})
    assert path.read_text().endswith("## First\n\n## Second\n")
    assert json.loads(path.with_suffix(".json").read_text())["rows"] == [1, 2]
    assert capsys.readouterr().out.endswith("How it was measured.\n\n## First\n\n## Second\n")


def test_what_is_repeated_takes_the_time_of_one():
    calls = []
    clock = iter(range(0, 1000, 6))  # seconds between two looks at it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: float(next(clock)))
        taken = interleave(
            {"a": Repeated(lambda: calls.append(1), 3), "b": lambda: None}, rounds=2, warm_up=1
        )
    assert taken == {"a": [2.0, 2.0], "b": [6.0, 6.0]}
    assert len(calls) == 9
