"""Reports of benchmarks in benchmarks/results/: a Markdown table and JSON."""

import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from binaural.atomic_files import write_atomically

# benchmarks.gpu sets the folder of its parts' reports.
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).with_name("results"))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_report(
    name: str, machine: Machine, title: str, sections: Sequence[str], data: dict[str, Any]
) -> Path:
    """Write `<name>-<processor>.md` and `.json`; return the first's path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{machine.slug}.md"
    text = "\n\n".join([_heading(title, machine), *sections]) + "\n"
    write_atomically(path, text.encode())
    content = {"date": f"{date.today():%Y-%m-%d}", "machine": machine.as_dict(), **data}
    write_atomically(path.with_suffix(".json"), (json.dumps(content, indent=2) + "\n").encode())
    return path


def _heading(title: str, machine: Machine) -> str:
    return f"# {title}\n\n{machine}. {date.today():%Y-%m-%d}."


class Report:
    """A report that is rewritten and printed after every section, so that a stopped benchmark keeps its
    results.

    Args:
        name, machine, title: as of `write_report`.
        about: its first sections, which tell how it was measured.
    """

    def __init__(self, name: str, machine: Machine, title: str, about: Sequence[str]) -> None:
        self._name, self._machine, self.title = name, machine, title
        self._sections = list(about)
        print("\n\n".join([_heading(title, machine), *about]), flush=True)

    def add(self, section: str, data: dict[str, Any]) -> Path:
        """Write the report with one more section, and `data` so far; return the path of the text."""
        print(f"\n{section}", flush=True)
        self._sections.append(section)
        return write_report(self._name, self._machine, self.title, self._sections, data)
