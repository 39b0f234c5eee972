"""The counters of all buffers in the text format of Prometheus.

Source:
    https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlbuffer.looks.overview import overview
from sqlbuffer.web.source import Source

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def exposition(source: Source) -> str:
    """Return all metrics, each with its help and type."""
    found = [source.soon(buffer, overview) for buffer in source.buffers()]
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: list[dict[str, Any]]) -> Iterator[str]:
    for name, (kind, about, read) in _METRICS.items():
        yield f"# HELP sqlbuffer_{name} {about}"
        yield f"# TYPE sqlbuffer_{name} {kind}"
        for buffer in found:
            for labels, value in read(buffer):
                if value is not None:
                    yield f"sqlbuffer_{name}{_labels({'buffer': buffer['name'], **labels})} {value}"


def _labels(labels: dict[str, str]) -> str:
    return (
        "{"
        + ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
        + "}"
    )


def _states(buffer: dict[str, Any]) -> Iterator[tuple[dict[str, str], Any]]:
    return (({"state": state}, number) for state, number in buffer["states"].items())


def _running(buffer: dict[str, Any]) -> list[tuple[dict[str, str], Any]]:
    return [({}, sum(row["state"] == "running" for row in buffer["workers"]))]


def _field(name: str) -> Any:
    return lambda buffer: [({}, buffer[name])]


_METRICS: dict[str, tuple[str, str, Any]] = {
    "samples": ("gauge", "Samples by state.", _states),
    "stored_total": ("counter", "Distinct samples stored so far.", _field("stored")),
    "iterations_total": ("counter", "Batches settled so far.", _field("iteration")),
    "best_reward": ("gauge", "The best reward.", _field("best_reward")),
    "budget": ("gauge", "Samples that may be measured.", _field("budget")),
    "budget_used": ("gauge", "Samples measured, failed or claimed.", _field("budget_used")),
    "unscored": ("gauge", "Waiting samples without a score.", _field("unscored")),
    "workers_running": ("gauge", "Workers that are alive.", _running),
    "last_measurement_age_seconds": (
        "gauge",
        "Seconds since the newest measurement.",
        lambda buffer: [({}, buffer["pace"]["seconds_ago"])],
    ),
}
