"""Results as JSON, as Markdown tables and as plots."""

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

from benchmarks.cases import CASES
from benchmarks.contenders import BY_NAME
from benchmarks.measure import markdown
from benchmarks.stage import Record
from sqlbuffer.plots import palette

_LIBRARIES = (
    *("sqlbuffer", "sqlalchemy", "numpy", "psycopg", "torch", "torchrl", "cpprb", "dm-reverb"),
    *("tensorflow-cpu", "mrl-pypi"),
)
_TIMED_BY = {
    "wall": "Medians",
    "cpu": "Medians of the processor time that a call took, on a machine that was busy otherwise",
}
_STYLES = {"sqlbuffer": "-", "usual": ":"}


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
        """Return the median of the measurements, None if there are none."""
        wanted = (case, contender, size)
        for record in self.records:
            if (record.case, record.contender, record.size) == wanted and record.values:
                return statistics.median(record.values)
        return None

    def sizes(self, case: str | None = None) -> list[int]:
        """Return the sizes at which a case was run; without one, all."""
        return sorted({record.size for record in self.records if case in (None, record.case)})

    def contenders(self, case: str) -> list[str]:
        """Return the contenders that were measured in a case, in the order of the tables."""
        found = {record.contender for record in self.records if record.case == case}
        return [name for name in BY_NAME if name in found]

    def save(self, file: pathlib.Path) -> None:
        """Write everything as JSON, times in raw seconds."""
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, file: pathlib.Path) -> Results:
        """Read a file that `save` wrote."""
        read = json.loads(file.read_text())
        left_out = {int(size): names for size, names in read["left_out"].items()}
        records = [Record(**record) for record in read["records"]]
        return cls(read["about"], read["missing"], left_out, records)


def about(options: dict[str, Any], databases: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return the conditions that the figures depend on."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    installed = {
        (each.name or "").lower(): each.version for each in importlib.metadata.distributions()
    }
    return {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": models[0] if models else platform.processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "versions": {"python": platform.python_version()}
        | {name: installed[name] for name in _LIBRARIES if name in installed},
        "databases": databases,
        "options": options,
    }


def tables(results: Results) -> str:
    """Return one Markdown table for each case: sizes as columns, contenders as rows."""
    names = {record.contender for record in results.records}
    who = [f"- {name}: {kind.remark}." for name, kind in BY_NAME.items() if name in names]
    cases = [_table(results, name) for name in CASES if results.contenders(name)]
    absent = [f"- {name}: {reason}." for name, reason in results.missing.items()]
    for size, left_out in results.left_out.items():
        absent += [f"- {name} at {size:,}: {reason}." for name, reason in left_out.items()]
    end = "\n".join(["## Left out\n", *absent]) if absent else "No contender was left out."
    return "\n\n".join([_heading(results), "\n".join(["Contenders:\n", *who]), *cases, end])


def _heading(results: Results) -> str:
    machine = results.about["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in results.about["versions"].items())
    databases = " ".join(
        f"{name}: {', '.join(f'{key} {value}' for key, value in facts.items())}."
        for name, facts in results.about["databases"].items()
    )
    return (
        f"# Benchmarks\n\n{results.about['date']}, {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"{versions}. {databases}\n\n{_TIMED_BY[results.about['options'].get('clock', 'wall')]}. "
        "Contenders took turns, call by call."
    )


def _table(results: Results, name: str) -> str:
    case, sizes = CASES[name], results.sizes(name)
    unit = {"s": "ms", "bytes": "bytes per sample"}.get(case.unit, case.unit)
    shown = [f"{size:,}" if size else "any size" for size in sizes]
    heads = [f"{text}{_calls(results, name, n)}" for text, n in zip(shown, sizes, strict=True)]
    rows = [
        [contender, *(_cell(results, name, contender, size) for size in sizes)]
        for contender in results.contenders(name)
    ]
    return f"## {case.title}\n\n{case.note}\n\n{markdown([unit, *heads], rows)}"


def _calls(results: Results, case: str, size: int) -> str:
    chosen = [each for each in results.records if (each.case, each.size) == (case, size)]
    numbers = sorted({len(record.values) for record in chosen})
    span = "-".join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))
    return f" ({span} call{'' if span == '1' else 's'})"


def _cell(results: Results, case: str, contender: str, size: int) -> str:
    value = results.median(case, contender, size)
    if value is None:
        return ""
    return significant(value * 1000 if CASES[case].unit == "s" else value)


def significant(value: float) -> str:
    """Return a number with three significant digits, the thousands apart."""
    if value == 0:
        return "0"
    rounded = f"{value:.2e}"
    digits = 2 - int(rounded.partition("e")[2])
    return f"{float(rounded):,.{max(digits, 0)}f}"


def plot(results: Results, folder: pathlib.Path) -> list[pathlib.Path]:
    """Write a PNG for each case that depends on the size; return the files."""
    from matplotlib.figure import Figure

    files = []
    for name, case in CASES.items():
        sizes = [size for size in results.sizes(name) if size]
        if not sizes:
            continue
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes, is_timed = figure.subplots(), case.unit == "s"
        for contender in results.contenders(name):
            values = [results.median(name, contender, n) for n in sizes]
            points = [
                (n, value) for n, value in zip(sizes, values, strict=True) if value is not None
            ]
            heights = [value * 1000 if is_timed else value for _, value in points]
            style = _STYLES.get(contender.partition("-")[0], "-.")
            color = palette.color(f"series-{list(BY_NAME).index(contender)}")
            options = {"marker": "o", "markersize": 4, "label": contender, "color": color}
            axes.plot([n for n, _ in points], heights, style, **options)
        axes.set(xscale="log", yscale="log", xlabel="samples in the buffer", title=case.title)
        axes.set_ylabel("ms" if is_timed else case.unit)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize="small")
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120)
    return files
