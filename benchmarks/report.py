"""Results as JSON and as Markdown tables."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
from typing import Any

import psutil

from benchmarks.cases import CASES, Case
from benchmarks.contenders import BY_NAME, RAW_OF
from benchmarks.stage import Record

_LIBRARIES = (
    *("sqlbuffer", "sqlalchemy", "numpy", "psycopg", "torch", "torchrl", "cpprb", "dm-reverb", "tensorflow-cpu"),
    "mrl-pypi",
)

_TIMED_BY = {
    "wall": "Medians",
    "cpu": "Medians of the processor time that a call took, on a machine that was busy otherwise",
}


@dataclasses.dataclass
class Results:
    """All that a run has found.

    Attributes:
        about: Date, machine, versions and options.
        missing: Why a contender could not take part at all, by name.
        left_out: Why a contender did not take part, by size and name.
        records: The measurements.
    """

    about: dict[str, Any]
    missing: dict[str, str]
    left_out: dict[int, dict[str, str]] = dataclasses.field(default_factory=dict)
    records: list[Record] = dataclasses.field(default_factory=list)

    def median(self, case: str, contender: str, size: int) -> float | None:
        """Return the median of the measurements, None where there are none."""
        record = self.record(case, contender, size)
        return None if record is None or not record.values else statistics.median(record.values)

    def record(self, case: str, contender: str, size: int) -> Record | None:
        """Return what was measured, None where nothing was."""
        wanted = (case, contender, size)
        return next((record for record in self.records if (record.case, record.contender, record.size) == wanted), None)

    def sizes(self, case: str | None = None) -> list[int]:
        """Return the sizes at which a case was run; without one, all."""
        return sorted({record.size for record in self.records if case in (None, record.case)})

    def contenders(self, case: str) -> list[str]:
        """Return who was measured in a case, in the order of the tables."""
        found = {record.contender for record in self.records if record.case == case}
        return [name for name in BY_NAME if name in found]

    def save(self, file: pathlib.Path) -> None:
        """Write everything as JSON, times in raw seconds."""
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, file: pathlib.Path) -> Results:
        """Read what `save` wrote."""
        read = json.loads(file.read_text())
        left_out = {int(size): names for size, names in read["left_out"].items()}
        return cls(read["about"], read["missing"], left_out, [Record(**record) for record in read["records"]])


def about(options: dict[str, Any], databases: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "databases": databases,
        "options": options,
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tables(results: Results) -> str:
    """Return one Markdown table for each case: sizes as columns, contenders as rows."""
    cases = [(name, case) for name, case in CASES.items() if results.contenders(name)]
    return "\n\n".join(
        [_heading(results), _who(results), *(_table(results, name, case) for name, case in cases), _absent(results)]
    )


def _heading(results: Results) -> str:
    machine, versions = results.about["machine"], results.about["versions"]
    timed = _TIMED_BY[results.about["options"].get("clock", "wall")]
    return (
        f"# Benchmarks\n\n{results.about['date']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['system']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ". "
        + " ".join(
            f"{name}: {', '.join(f'{key} {value}' for key, value in facts.items())}."
            for name, facts in results.about["databases"].items()
        )
        + f"\n\n{timed}; in brackets the ratio to hand-written SQL in the same run, through `sqlite3` (also for what "
        "lives in memory) or `psycopg`. Contenders took turns, call by call."
    )


def _who(results: Results) -> str:
    names = {record.contender for record in results.records}
    lines = [f"- {name}: {kind.remark}." for name, kind in BY_NAME.items() if name in names]
    return "\n".join(["Contenders:\n", *lines])


def _table(results: Results, name: str, case: Case) -> str:
    sizes = results.sizes(name)
    unit = {"s": "ms", "bytes": "bytes per sample"}.get(case.unit, case.unit)
    heads = [
        f"{size:,}{_calls(results, name, size)}" if size else f"any size{_calls(results, name, size)}" for size in sizes
    ]
    lines = [f"| {unit} | {' | '.join(heads)} |", f"|---|{'---|' * len(sizes)}"]
    for contender in results.contenders(name):
        cells = [_cell(results, name, contender, size) for size in sizes]
        lines.append(f"| {contender} | {' | '.join(cells)} |")
    return "\n".join([f"## {case.title}\n\n{case.note}\n", *lines])


def _calls(results: Results, case: str, size: int) -> str:
    numbers = {len(record.values) for record in results.records if record.case == case and record.size == size}
    span = f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)}-{max(numbers)}"
    return f" ({span} call{'' if span == '1' else 's'})"


def _cell(results: Results, case: str, contender: str, size: int) -> str:
    value = results.median(case, contender, size)
    if value is None:
        return ""
    shown = significant(value * 1000 if CASES[case].unit == "s" else value)
    raw = RAW_OF[BY_NAME[contender].family]
    floor = results.median(case, raw, size)
    return shown if floor is None or raw == contender else f"{shown} ({significant(value / floor)}x)"


def significant(value: float) -> str:
    """Return a number with three significant digits, the thousands apart."""
    if value == 0:
        return "0"
    rounded = f"{value:.2e}"
    digits = 2 - int(rounded.partition("e")[2])
    return f"{float(rounded):,.{max(digits, 0)}f}"


def _absent(results: Results) -> str:
    lines = [f"- {name}: {reason}." for name, reason in results.missing.items()]
    for size, names in results.left_out.items():
        lines += [f"- {name} at {size:,}: {reason}." for name, reason in names.items()]
    return "\n".join(["## Left out\n", *lines]) if lines else "Nobody was left out."
