"""Views with the number of their buffer, and comments that say what columns have come to hold.

The views are those of revision 0007, with one more column at their end: PostgreSQL can then replace
a view that is there, and keeps who may read it.

Revision ID: 0009
"""

import importlib.util
import pathlib
from typing import Any

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_BUFFER_ID = {
    "buffer_overview": "b.id",
    "sample_overview": "s.buffer_id",
    "batch_overview": "t.buffer_id",
    "draw_overview": "t.buffer_id",
    "measurement_overview": "m.buffer_id",
    "failure_overview": "m.buffer_id",
    "predictor_overview": "p.buffer_id",
    "worker_overview": "w.buffer_id",
}
"""SQL of the number of the buffer, by view."""

_JOIN = "ON s.id = m.sample_id"
_JOIN_OF_BUFFER = f"{_JOIN} AND s.buffer_id = m.buffer_id"
"""How a measurement finds its sample. The number of a buffer, given for measurements, which have no
index by buffer, is then given for samples, which have one."""

_ATTEMPTS = "Workers that have died while they measured it"
_ATTEMPTS_NOW = f'{_ATTEMPTS}, and its failures under on_error="retry"'
_COMMENTS = {
    "dropped in 0.7.0": "accepted until 1.0",
    _ATTEMPTS: _ATTEMPTS_NOW,
    "Workers that have died while they measured the sample": (
        "Workers that have died while they measured the sample, and its failures under "
        'on_error="retry"'
    ),
}
"""Parts of comments that were not true any more, and what they say now."""

_OF_TABLES = {
    "samples.attempts": (_ATTEMPTS, _ATTEMPTS_NOW),
    "samples.codec": (
        "How payload is encoded: text, cbor or pickle",
        "How payload is encoded: text, cbor, or pickle, which is read with --allow-pickle only",
    ),
}
"""Comments of columns of tables, before and now."""


def upgrade() -> None:
    """Give each view the number of its buffer, and say what the columns hold."""
    views = _of_0007()
    for view in views._views():
        _replace(views, _with_number(view))
    _comment(views, 1)


def downgrade() -> None:
    """Create the views of revision 0007 again; on PostgreSQL they lose who may read them."""
    views = _of_0007()
    for view in reversed(views._views()):
        views._drop(view.name)
    for view in views._views():
        view.create()
    _comment(views, 0)


def _of_0007() -> Any:
    """Return the module of revision 0007, which never changes."""
    file = pathlib.Path(__file__).with_name("0007_views.py")
    spec = importlib.util.spec_from_file_location("sqlbuffer_migration_0007", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _with_number(view: Any) -> Any:
    columns = [(name, sql, _said_now(comment)) for name, sql, comment in view.columns]
    return view._replace(
        columns=[*columns, ("buffer_id", _BUFFER_ID[view.name], "Number of the buffer")],
        source=view.source.replace(_JOIN, _JOIN_OF_BUFFER),
    )


def _said_now(comment: str) -> str:
    for before, now in _COMMENTS.items():
        comment = comment.replace(before, now)
    return comment


def _replace(views: Any, view: Any) -> None:
    verb = "CREATE OR REPLACE VIEW" if _is_server() else "CREATE VIEW"
    if not _is_server():
        views._drop(view.name)
    last = len(view.columns)
    columns = [
        f"    {sql} AS {name}{',' if place < last else ' '} -- {comment}"
        for place, (name, sql, comment) in enumerate(view.columns, 1)
    ]
    head = [f"{verb} {views._prefix()}{view.name} AS", f"-- {view.comment}", "SELECT"]
    views._run("\n".join([*head, *columns, view.source]))
    if _is_server():
        view._comment()


def _comment(views: Any, place: int) -> None:
    """Comment the columns of tables: 0 for the comments before, 1 for those of now."""
    if _is_server():
        for column, comments in _OF_TABLES.items():
            literal = views._literal(comments[place])
            views._run(f"COMMENT ON COLUMN sqlbuffer.{column} IS {literal}")


def _is_server() -> bool:
    return op.get_bind().dialect.name == "postgresql"
