"""Write what docs/schema.md says of tables and views, and docs/schema.svg: `python docs/schema.py`.

Both come from the comments in `sqlbuffer/db`, and a test finds a page that is out of date.
"""

import pathlib
import sys
from html import escape
from typing import NamedTuple

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))  # the checkout, if it is not installed

from sqlalchemy import Table  # noqa: E402

from sqlbuffer.db.schema import metadata  # noqa: E402
from sqlbuffer.db.views import views  # noqa: E402

PAGE = FOLDER / "schema.md"
PICTURE = FOLDER / "schema.svg"
BEGIN, END = "<!-- written by docs/schema.py -->", "<!-- end of what docs/schema.py writes -->"


# -- the page --------------------------------------------------------------------------------------


def page(text: str) -> str:
    """Return the text of the page with its lists of columns written again."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{lists()}\n{END}{after}"


def lists() -> str:
    """Return a section for the views, then one for the tables."""
    sections = [("## The views", views.tables), ("## The tables", metadata.tables)]
    parts = []
    for heading, tables in sections:
        names = sorted(tables) if heading == "## The tables" else tables
        parts += [f"{heading}\n", *(columns_of(tables[name]) for name in names)]
    return "\n".join(parts)


def columns_of(table: Table) -> str:
    """Return the heading, the comment and the columns of a table or view."""
    rows = [f"| `{column.name}` | {column.comment} |" for column in table.columns]
    head = [f"### {table.name}\n", f"{table.comment}.\n", "| column | meaning |", "|---|---|"]
    return "\n".join([*head, *rows, ""])


# -- the picture -----------------------------------------------------------------------------------


class Box(NamedTuple):
    """A table in the picture: its name, the columns that it shows, and the views of it."""

    name: str
    shows: str
    views: str = ""

    @property
    def lines(self) -> list[str]:
        """The columns that are shown, and the number of others."""
        hidden = len(metadata.tables[self.name].columns) - len(self.shows.split())
        return [*self.shows.split(), *([f"{hidden} more"] if hidden else [])]

    @property
    def height(self) -> int:
        """Its height in pixels."""
        return HEAD + LINE * len(self.lines) + 10 + TAG * len(self.views.split())


COLUMNS = [
    [
        Box("predictors", "buffer_id version rows_trained rank_correlation", "predictor_overview"),
        Box("metrics", "buffer_id iteration name value"),
        Box("checkpoints", "buffer_id name iteration data"),
        Box("jobs", "buffer_id name owner lease_until"),
    ],
    [
        Box("buffers", "id name mode direction objective budget", "buffer_overview"),
        Box("workers", "buffer_id id heartbeat_at drawn settled measured", "worker_overview"),
        Box("receipts", "connection number written_at"),
        Box("lineage", "id"),
    ],
    [
        Box(
            "samples",
            "id buffer_id hash text source meta queued score score_version reward error",
            "sample_overview",
        ),
        Box(
            "batches",
            "id buffer_id worker_id iteration drawn_at settled_at released_at",
            "batch_overview",
        ),
    ],
    [
        Box("pool", "buffer_id race_key sample_id weight score"),
        Box("draws", "batch_id position sample_id weight reported", "draw_overview"),
        Box(
            "measurements",
            "id sample_id batch_id objective reward error seconds",
            "measurement_overview failure_overview",
        ),
    ],
]
ARROWS = [
    *((name, "buffer_id", "buffers") for name in ("predictors", "metrics", "checkpoints", "jobs")),
    *((name, "buffer_id", "buffers") for name in ("workers", "samples", "batches")),
    ("batches", "worker_id", "workers"),
    *((name, "sample_id", "samples") for name in ("pool", "draws", "measurements")),
    *((name, "batch_id", "batches") for name in ("draws", "measurements")),
]
"""Columns that name a row of another table, which stands in the same or in the next column."""

MARGIN, WIDTH, GAP, BETWEEN = 24, 190, 92, 34
HEAD, LINE, TAG, FOOT = 34, 19, 24, 46
STYLE = """
  .page { fill: #ffffff } .box { fill: #f7f8fa; stroke: #c5cad3 } .head { fill: #dfe5ee }
  .name { font: 600 14px system-ui, sans-serif; fill: #17202e }
  .column { font: 12px ui-monospace, monospace; fill: #37414f } .key { font-weight: 700 }
  .more, .note { font: italic 12px system-ui, sans-serif; fill: #6a7482 }
  .tag { fill: #d7efe4 } .view { font: 600 12px ui-monospace, monospace; fill: #0b5c40 }
  .arrow { fill: none; stroke: #7b8798; stroke-width: 1.4 } .tip { fill: #7b8798 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .box { fill: #161c25; stroke: #3a4453 } .head { fill: #263142 }
    .name { fill: #e9edf3 } .column { fill: #c3cbd6 } .more, .note { fill: #8f9aa9 }
    .tag { fill: #12382b } .view { fill: #7fdcb6 } .arrow { stroke: #76849a } .tip { fill: #76849a }
  }
"""


def picture() -> str:
    """Return the picture of the tables as SVG, readable on a light and on a dark page."""
    places = {
        box.name: (MARGIN + i * (WIDTH + GAP), MARGIN + top, box)
        for i, boxes in enumerate(COLUMNS)
        for box, top in zip(boxes, tops(boxes), strict=True)
    }
    width = 2 * MARGIN + len(COLUMNS) * WIDTH + (len(COLUMNS) - 1) * GAP
    bottom = max(top + box.height for _, top, box in places.values())
    note = (
        "Bold: the key of a table; green: its views; an arrow: from a column to the row it names."
    )
    tip = '<path class="tip" d="M0 0 L8 4 L0 8 z"/>'
    marker = f'<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" {SIZE}>{tip}</marker>'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + FOOT}" '
        f'width="{width}" height="{bottom + FOOT}" role="img">',
        "<title>The tables of sqlbuffer, and the views of them</title>",
        f"<style>{STYLE}</style><defs>{marker}</defs>",
        f'<rect class="page" width="{width}" height="{bottom + FOOT}" rx="10"/>',
        *(arrow(places, *each) for each in ARROWS),
        *(drawn(*place) for place in places.values()),
        f'<text class="note" x="{MARGIN}" y="{bottom + 28}">{note}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


SIZE = 'markerWidth="7" markerHeight="7" orient="auto-start-reverse"'


def tops(boxes: list[Box]) -> list[int]:
    """Return the top of each box of a column, below those before it."""
    return [sum(box.height + BETWEEN for box in boxes[:i]) for i in range(len(boxes))]


def drawn(left: int, top: int, box: Box) -> str:
    """Return a table: its name, its columns with those of the key in bold, and its views."""
    keys = {column.name for column in metadata.tables[box.name].primary_key}
    parts = [
        f'<rect class="box" x="{left}" y="{top}" width="{WIDTH}" height="{box.height}" rx="6"/>',
        f'<path class="head" d="M{left} {top + HEAD - 6} v{12 - HEAD} q0 -6 6 -6 h{WIDTH - 12} '
        f'q6 0 6 6 v{HEAD - 12} z"/>',
        f'<text class="name" x="{left + 12}" y="{top + 19}">{escape(box.name)}</text>',
    ]
    for i, line in enumerate(box.lines):
        kind = "more" if line.endswith(" more") else "column key" if line in keys else "column"
        y = top + HEAD + 12 + LINE * i
        parts.append(f'<text class="{kind}" x="{left + 12}" y="{y}">{escape(line)}</text>')
    for i, view in enumerate(reversed(box.views.split()), 1):
        y = top + box.height - TAG * i
        parts += [
            f'<rect class="tag" x="{left + 8}" y="{y}" width="{WIDTH - 16}" height="19" rx="5"/>',
            f'<text class="view" x="{left + 14}" y="{y + 14}">{escape(view)}</text>',
        ]
    return "\n".join(parts)


def arrow(places: dict[str, tuple[int, int, Box]], table: str, column: str, other: str) -> str:
    """Return the curve from a column to the head of another table."""
    left, top, box = places[table]
    to_left, to_top, _ = places[other]
    y, to_y = top + HEAD + 8 + LINE * box.lines.index(column), to_top + HEAD / 2 - 3
    if left == to_left:  # around the left side
        start, end, bend = left, to_left, -GAP * 0.55
        middle = f"C{start + bend:.0f} {y} {end + bend:.0f} {to_y:.0f}"
    else:
        start, end = (left, to_left + WIDTH) if left > to_left else (left + WIDTH, to_left)
        half = (start + end) / 2
        middle = f"C{half:.0f} {y} {half:.0f} {to_y:.0f}"
    return (
        f'<path class="arrow" marker-end="url(#tip)" d="M{start} {y} {middle} {end} {to_y:.0f}"/>'
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    PICTURE.write_text(picture())
