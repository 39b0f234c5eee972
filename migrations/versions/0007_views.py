"""Views with one name for each thing, and comments on every table, view and column.

Revision ID: 0007
"""

from typing import NamedTuple

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


class View(NamedTuple):
    """A view: its name, its comment, (name, SQL, comment) of each column, and its FROM clause."""

    name: str
    comment: str
    columns: list[tuple[str, str, str]]
    source: str

    def create(self) -> None:
        """Create it; SQLite keeps the comments in the text of the view."""
        columns = [
            f"    {sql} AS {name}{',' if place < len(self.columns) else ' '} -- {comment}"
            for place, (name, sql, comment) in enumerate(self.columns, 1)
        ]
        head = [f"CREATE VIEW {_prefix()}{self.name} AS", f"-- {self.comment}", "SELECT"]
        _run("\n".join([*head, *columns, self.source]))
        if _is_server():
            self._comment()

    def _comment(self) -> None:
        view = f"{_prefix()}{self.name}"
        _run(f"COMMENT ON VIEW {view} IS {_literal(self.comment)}")
        for name, _, comment in self.columns:
            _run(f"COMMENT ON COLUMN {view}.{name} IS {_literal(comment)}")


_TABLES = {
    "buffers": "One row for each buffer, with its settings",
    "samples": "One row for each distinct sample of a buffer, with its score and its reward",
    "pool": "One row for each waiting sample, clustered by its place in the race",
    "batches": "One row for each claim of samples by one worker",
    "draws": "One row for each sample in each batch",
    "measurements": "One row for each reward, and each failure, that was stored",
    "workers": "One row for each process attached to a buffer, with its counters",
    "predictors": "One row for each trained state of the predictor",
    "jobs": "One row for each kind of work that one process does at a time",
    "checkpoints": "One row for each checkpoint of a training loop",
    "metrics": "One row for each metric of each iteration",
    "receipts": "One row for each connection of a server, which proves its last commit",
    "lineage": "The random name of this database",
}
_OWNER = "The worker that runs it; NULL when none does"
_OWNER_BEFORE = "The worker that runs it; NULL when nobody does"


def upgrade() -> None:
    """Create the views again, with the new columns before the earlier names; comment the tables."""
    for name in _BEFORE:
        _drop(name)
    for view in _views():
        view.create()
    if _is_server():
        for table, comment in _TABLES.items():
            _run(f"COMMENT ON TABLE {_prefix()}{table} IS {_literal(comment)}")
        _run(f"COMMENT ON COLUMN {_prefix()}jobs.owner IS {_literal(_OWNER)}")


def downgrade() -> None:
    """Create the views of revision 0006 again."""
    for view in _views():
        _drop(view.name)
    for sql in _BEFORE.values():
        _run(sql.replace("@", _prefix()))
    if _is_server():
        for table in _TABLES:
            _run(f"COMMENT ON TABLE {_prefix()}{table} IS NULL")
        _run(f"COMMENT ON COLUMN {_prefix()}jobs.owner IS {_literal(_OWNER_BEFORE)}")


def _is_server() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _prefix() -> str:
    return "sqlbuffer." if _is_server() else ""


def _drop(view: str) -> None:
    _run(f"DROP VIEW {_prefix()}{view}")


def _run(sql: str) -> None:
    """Execute SQL in which a colon is a colon."""
    op.execute(sa.text(sql.replace(":", r"\:")))


def _literal(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


def _seconds(start: str, end: str) -> str:
    """Return the SQL of the seconds between two times; "now" is the time of the query."""
    if _is_server():
        end = "now()" if end == "now" else end
        return f"CAST(extract(epoch FROM {end} - {start}) AS double precision)"
    end = "'now'" if end == "now" else end
    return f"round((julianday({end}) - julianday({start})) * 86400, 3)"


def _up_to_colon(column: str) -> str:
    if _is_server():
        return f"split_part({column}, ':', 1)"
    return f"substr({column}, 1, instr({column} || ':', ':') - 1)"


def _earlier(*names: tuple[str, str, str]) -> list[tuple[str, str, str]]:
    """Return columns of (earlier name, SQL, new name)."""
    return [(old, sql, f"Same as {new}; dropped in 0.7.0") for old, sql, new in names]


_BUFFER = ("buffer", "b.name", "Name of the buffer")
_SAMPLE_ID = "Number of the sample"
_SAMPLE = ("sample", "s.text", "The sample, or a readable rendering of it")
_SOURCE = ("source", "s.source", "Name of the generator that added it first")
_SCORE = (
    "score",
    "s.score",
    "Newest prediction for it; NULL when not scored, or when it was not finite",
)


def _state_of_sample() -> str:
    """Return the SQL of the state of sample `s` in buffer `b`.

    The claimed samples are one subquery for the whole statement: there is no index on the draws of
    a sample.
    """
    return f"""CASE
        WHEN s.queued AND s.id IN (
            SELECT d.sample_id
            FROM {_prefix()}batches AS t
            JOIN {_prefix()}draws AS d ON d.batch_id = t.id
            WHERE t.settled_at IS NULL AND t.released_at IS NULL AND NOT d.reported
        ) THEN 'claimed'
        WHEN s.queued AND (b.mode = 'consume' OR s.rewarded_at IS NULL) THEN 'waiting'
        WHEN s.error IS NOT NULL THEN 'failed'
        WHEN s.reward IS NOT NULL THEN 'measured'
        ELSE 'out'
    END"""


def _views() -> list[View]:
    return [
        _buffer_overview(),
        _sample_overview(),
        _batch_overview(),
        _draw_overview(),
        _measurement_overview(),
        _failure_overview(),
        _predictor_overview(),
        _worker_overview(),
    ]


def _buffer_overview() -> View:
    prefix = _prefix()
    best = f"""CASE b.direction
        WHEN 'minimize' THEN (
            SELECT min(s.reward) FROM {prefix}samples AS s
            WHERE s.buffer_id = b.id AND s.reward IS NOT NULL
        )
        ELSE (
            SELECT max(s.reward) FROM {prefix}samples AS s
            WHERE s.buffer_id = b.id AND s.reward IS NOT NULL
        )
    END"""
    used = f"""coalesce(w.measured + w.failed, 0) + (
        SELECT count(DISTINCT d.sample_id)
        FROM {prefix}batches AS t
        JOIN {prefix}draws AS d ON d.batch_id = t.id
        JOIN {prefix}samples AS s ON s.id = d.sample_id
        WHERE t.buffer_id = b.id AND t.settled_at IS NULL AND t.released_at IS NULL
            AND s.rewarded_at IS NULL AND NOT d.reported
            AND t.worker_id > ''
    )"""  # the worker makes SQLite use the index of open batches
    waiting = "w.joined - CASE b.mode WHEN 'consume' THEN w.taken ELSE 0 END"
    sums = {
        "joined": "added + requeued - removed",
        "taken": "drawn - released",
        "unscored": "unscored",
        "unscorable": "unscorable",
        "stored": "added + recorded",
        "claimed": "drawn - released - settled",
        "measured": "measured",
        "failed": "failed",
    }
    summed = ",\n".join(
        f"        CAST(sum({sql}) AS bigint) AS {name}" for name, sql in sums.items()
    )
    return View(
        "buffer_overview",
        "One row for each buffer: its settings, its counts and its best reward",
        [
            _BUFFER,
            ("kind", "b.kind", "Name of the weight function"),
            ("mode", "b.mode", "consume: a drawn sample leaves the pool; replay: it stays"),
            (
                "direction",
                "b.direction",
                "maximize: a higher reward is better; minimize: a lower one",
            ),
            ("objective", "b.objective", "Name of the reward function"),
            ("iteration", "coalesce(w.iteration, 0)", "Batches settled so far"),
            ("waiting", f"coalesce({waiting}, 0)", "Samples in the pool"),
            ("unscored", "coalesce(w.unscored, 0)", "Samples in the pool without a score"),
            (
                "unscorable",
                "coalesce(w.unscorable, 0)",
                "Samples in the pool that are never drawn: their weight is 0",
            ),
            ("stored", "coalesce(w.stored, 0)", "Distinct samples stored so far"),
            ("claimed", "coalesce(w.claimed, 0)", "Draws that are neither settled nor released"),
            ("measured", "coalesce(w.measured, 0)", "Distinct samples with a reward"),
            ("failed", "coalesce(w.failed, 0)", "Distinct samples whose measurement failed"),
            ("best_reward", best, "The highest reward, under minimize the lowest"),
            (
                "budget",
                "b.budget",
                "Most samples that may be measured, failed or claimed; NULL: any number",
            ),
            ("budget_used", used, "Distinct samples that are measured, failed or claimed"),
            (
                "max_size",
                "b.max_size",
                "Most samples that may wait once they are scored; NULL: any number",
            ),
            ("score_version", "b.score_version", "Version that the next scores get"),
            ("created_at", "b.created_at", "When it was created (UTC)"),
            ("seen_at", "w.seen_at", "When one of its workers was last seen alive (UTC)"),
        ],
        f"""FROM {prefix}buffers AS b
LEFT JOIN (
    SELECT
        buffer_id,
        CAST(sum(iterations) AS integer) AS iteration,
{summed},
        max(heartbeat_at) AS seen_at
    FROM {prefix}workers
    GROUP BY buffer_id
) AS w ON w.buffer_id = b.id""",
    )


def _sample_overview() -> View:
    prefix = _prefix()
    predictor = f"""(
        SELECT max(p.version) FROM {prefix}predictors AS p
        WHERE p.buffer_id = s.buffer_id AND p.version <= s.score_version
    )"""
    return View(
        "sample_overview",
        "One row for each sample: its state, its score and its reward",
        [
            _BUFFER,
            ("sample_id", "s.id", _SAMPLE_ID),
            _SAMPLE,
            ("key", "s.key", "Its key, where the buffer keeps keys"),
            _SOURCE,
            (
                "state",
                _state_of_sample(),
                "waiting, claimed, measured, failed, or out: removed, evicted, settled without a "
                "reward",
            ),
            ("queued", "s.queued", "True while it waits in the pool or in an open batch"),
            (
                "requeues",
                "s.requeues",
                "How often it was added again after it had left the pool",
            ),
            _SCORE,
            ("score_version", "s.score_version", "Version of the score; NULL when not scored"),
            (
                "predictor",
                predictor,
                "Version of the predictor that made the score; NULL if none was stored by then",
            ),
            (
                "reward",
                "s.reward",
                "Measured reward; NULL when not measured, or when the measurement failed",
            ),
            (
                "error",
                "s.error",
                "Why the measurement failed; NULL if it has a reward, or was not measured",
            ),
            ("attempts", "s.attempts", "Workers that have died while they measured it"),
            ("meta", "s.meta", "What the user said about it, as JSON"),
            (
                "created_iteration",
                "s.created_iteration",
                "Iteration of the buffer when it was first stored",
            ),
            ("created_at", "s.created_at", "When it was first stored (UTC)"),
            ("scored_at", "s.scored_at", "When it was scored (UTC)"),
            (
                "measured_at",
                "s.rewarded_at",
                "When the reward, or the failure, was stored (UTC)",
            ),
            *_earlier(
                ("id", "s.id", "sample_id"),
                ("text", "s.text", "sample"),
                ("rewarded_at", "s.rewarded_at", "measured_at"),
            ),
        ],
        f"""FROM {prefix}samples AS s
JOIN {prefix}buffers AS b ON b.id = s.buffer_id""",
    )


def _batch_overview() -> View:
    prefix = _prefix()
    state = """CASE
        WHEN t.settled_at IS NOT NULL THEN 'settled'
        WHEN t.released_at IS NOT NULL THEN 'released'
        ELSE 'open'
    END"""
    mean = f"""(
        SELECT avg(s.reward) FROM {prefix}draws AS d
        JOIN {prefix}samples AS s ON s.id = d.sample_id
        WHERE d.batch_id = t.id
    )"""
    closed = "coalesce(t.settled_at, t.released_at)"
    open_s = f"""coalesce(
        {_seconds("t.drawn_at", closed)},
        {_seconds("t.drawn_at", "now")}
    )"""
    return View(
        "batch_overview",
        "One row for each batch: its state, its worker and its mean reward",
        [
            _BUFFER,
            ("batch_id", "t.id", "Number of the batch"),
            ("iteration", "t.iteration", "Iteration that it was drawn for, from 0"),
            ("state", state, "open, settled or released"),
            ("size", "t.size", "Samples in it"),
            (
                "n_argmax",
                "t.n_argmax",
                "Samples of its argmax share, which come first; NULL: by an older release",
            ),
            ("mean_reward", mean, "Mean of the rewards that its samples have now"),
            ("worker_id", "t.worker_id", "The worker that drew it"),
            ("open_s", open_s, "Seconds from the draw until it was closed, or until now"),
            ("drawn_at", "t.drawn_at", "When it was drawn (UTC)"),
            ("settled_at", "t.settled_at", "When its rewards were stored (UTC)"),
            ("released_at", "t.released_at", "When its samples went back to the pool (UTC)"),
            (
                "lease_until",
                "t.lease_until",
                "Until when it stays claimed without its worker (UTC); NULL: while that lives",
            ),
            *_earlier(("id", "t.id", "batch_id")),
        ],
        f"""FROM {prefix}batches AS t
JOIN {prefix}buffers AS b ON b.id = t.buffer_id""",
    )


def _draw_overview() -> View:
    prefix = _prefix()
    state = """CASE
        WHEN t.settled_at IS NOT NULL OR d.reported THEN 'settled'
        WHEN t.released_at IS NOT NULL THEN 'released'
        ELSE 'open'
    END"""
    return View(
        "draw_overview",
        "One row for each sample in each batch",
        [
            _BUFFER,
            ("batch_id", "t.id", "Number of the batch"),
            ("iteration", "t.iteration", "Iteration that the batch was drawn for, from 0"),
            ("position", "d.position", "Place in the batch, from 0"),
            ("sample_id", "d.sample_id", _SAMPLE_ID),
            _SAMPLE,
            _SOURCE,
            ("state", state, "open, settled or released"),
            ("weight", "d.weight", "Its weight when it was drawn"),
            _SCORE,
            (
                "reward",
                "s.reward",
                "Reward that the sample has now; NULL when not measured, or failed",
            ),
            ("worker_id", "t.worker_id", "The worker that drew it"),
            (
                "waited_s",
                _seconds("s.created_at", "t.drawn_at"),
                "Seconds from when the sample was first stored until this draw",
            ),
            ("drawn_at", "t.drawn_at", "When it was drawn (UTC)"),
            ("started_at", "d.started_at", "When its measurement was started (UTC)"),
            *_earlier(("text", "s.text", "sample")),
        ],
        f"""FROM {prefix}draws AS d
JOIN {prefix}batches AS t ON t.id = d.batch_id
JOIN {prefix}buffers AS b ON b.id = t.buffer_id
JOIN {prefix}samples AS s ON s.id = d.sample_id""",
    )


_MEASUREMENT = [
    _BUFFER,
    ("measurement_id", "m.id", "Number of the measurement"),
    ("sample_id", "m.sample_id", _SAMPLE_ID),
    _SAMPLE,
    _SOURCE,
    (
        "batch_id",
        "m.batch_id",
        "Number of the batch that it was drawn in; NULL: it was not drawn",
    ),
    (
        "iteration",
        "t.iteration",
        "Iteration that the batch was drawn for, from 0; NULL: it was not drawn",
    ),
    ("objective", "m.objective", "Name of the reward function"),
]
_SECONDS = ("seconds", "m.seconds", "How long it took; NULL if it is not known")
_WORKER_OF_MEASUREMENT = ("worker_id", "m.worker_id", "The worker that stored it")
_MEASURED_AT = ("measured_at", "m.measured_at", "When it was stored (UTC)")


def _of_measurements() -> str:
    prefix = _prefix()
    return f"""FROM {prefix}measurements AS m
JOIN {prefix}buffers AS b ON b.id = m.buffer_id
JOIN {prefix}samples AS s ON s.id = m.sample_id
LEFT JOIN {prefix}batches AS t ON t.id = m.batch_id"""


def _measurement_overview() -> View:
    return View(
        "measurement_overview",
        "One row for each measurement, also of samples that were measured several times",
        [
            *_MEASUREMENT,
            ("reward", "m.reward", "Measured reward; NULL if the measurement failed"),
            ("error", "m.error", "Why the measurement failed; NULL if it did not"),
            _SECONDS,
            ("details", "m.details", "What else was measured, as JSON"),
            _WORKER_OF_MEASUREMENT,
            _MEASURED_AT,
            *_earlier(("id", "m.id", "measurement_id"), ("text", "s.text", "sample")),
        ],
        _of_measurements(),
    )


def _failure_overview() -> View:
    return View(
        "failure_overview",
        "One row for each measurement that failed, also of samples that were measured later",
        [
            *_MEASUREMENT,
            (
                "reason",
                _up_to_colon("m.error"),
                "The error up to its first colon, such as the class of an exception",
            ),
            ("error", "m.error", "Why the measurement failed"),
            _SECONDS,
            ("attempts", "s.attempts", "Workers that have died while they measured the sample"),
            (
                "sample_state",
                _state_of_sample(),
                "State of the sample now, as in sample_overview",
            ),
            _WORKER_OF_MEASUREMENT,
            _MEASURED_AT,
        ],
        f"{_of_measurements()}\nWHERE m.error IS NOT NULL",
    )


def _predictor_overview() -> View:
    prefix = _prefix()
    return View(
        "predictor_overview",
        "One row for each version of the predictor, with its quality",
        [
            _BUFFER,
            ("predictor", "p.version", "Version of the predictor"),
            ("iteration", "p.iteration", "Batches settled when it was trained"),
            ("rows_trained", "p.rows_trained", "Labelled samples it was trained on"),
            (
                "rows_held_out",
                "p.rows_held_out",
                "Labelled samples it never saw, on which it was measured",
            ),
            ("train_loss", "p.train_loss", "Loss on the training rows"),
            (
                "valid_loss",
                "p.valid_loss",
                "Loss on the rows by which the best epoch was chosen",
            ),
            (
                "rank_correlation",
                "p.rank_correlation",
                "Correlation of the ranks of predictions and rewards of the rows held out",
            ),
            (
                "r2",
                "p.r2",
                "Share of the variance of the held-out rewards that it explains",
            ),
            ("metrics", "p.metrics", "Other measures of its training, as JSON"),
            (
                "size_bytes",
                "length(p.state)",
                "Size of its stored weights; 0 if they were dropped",
            ),
            ("worker_id", "p.worker_id", "The worker that trained it"),
            ("trained_at", "p.trained_at", "When it was stored (UTC)"),
        ],
        f"""FROM {prefix}predictors AS p
JOIN {prefix}buffers AS b ON b.id = p.buffer_id""",
    )


def _worker_overview() -> View:
    prefix = _prefix()
    state = """CASE
        WHEN w.id = 'ledger' THEN 'ledger'
        WHEN w.finished_at IS NOT NULL THEN 'closed'
        ELSE 'attached'
    END"""
    open_batches = f"""(
        SELECT count(t.id) FROM {prefix}batches AS t
        WHERE t.buffer_id = w.buffer_id AND t.worker_id = w.id
            AND t.settled_at IS NULL AND t.released_at IS NULL
    )"""
    counts = {
        "batches": "Batches drawn by it, those released taken off",
        "iterations": "Batches settled by it as iterations of a loop",
        "added": "Samples stored by it for the first time",
        "recorded": "Samples stored by it with a reward, without waiting",
        "requeued": "Samples put into the pool again by it",
        "drawn": "Draws made by it",
        "settled": "Draws settled by it",
        "released": "Draws given back by it",
        "removed": "Samples taken out of the pool without a draw by it",
        "refused": "Samples without a key refused by it",
        "measured": "Change in samples that have a reward by it",
        "failed": "Change in samples whose measurement failed by it",
    }
    return View(
        "worker_overview",
        "One row for each worker, and a ledger of each buffer that sums up those that are gone",
        [
            _BUFFER,
            (
                "worker_id",
                "w.id",
                "Host, pid and random letters; 'ledger' sums up the workers that are gone",
            ),
            (
                "host",
                "w.host",
                "Host, boot and pid namespace in which the pid is unique",
            ),
            ("pid", "w.pid", "Process number"),
            ("state", state, "attached, closed or ledger"),
            ("open_batches", open_batches, "Batches that it holds"),
            *((name, f"w.{name}", comment) for name, comment in counts.items()),
            ("silent_s", _seconds("w.heartbeat_at", "now"), "Seconds since it was seen alive"),
            ("attached_at", "w.created_at", "When it attached (UTC)"),
            ("seen_at", "w.heartbeat_at", "When it was last seen alive (UTC)"),
            (
                "finished_at",
                "w.finished_at",
                "When it closed the buffer (UTC); NULL while it is attached",
            ),
        ],
        f"""FROM {prefix}workers AS w
JOIN {prefix}buffers AS b ON b.id = w.buffer_id""",
    )


_BEFORE = {
    "buffer_overview": """
        CREATE VIEW @buffer_overview AS
        SELECT
            b.name AS buffer,
            b.kind,
            b.mode, b.direction,
            sum(w.iterations) AS iteration,
            sum(w.added + w.requeued - w.removed
                - CASE b.mode WHEN 'consume' THEN w.drawn - w.released ELSE 0 END) AS waiting,
            sum(w.unscored) AS unscored,
            sum(w.unscorable) AS unscorable,
            sum(w.added + w.recorded) AS stored,
            sum(w.drawn - w.released - w.settled) AS claimed,
            sum(w.measured) AS measured,
            sum(w.failed) AS failed,
            CASE b.direction WHEN 'minimize' THEN
            (SELECT min(s.reward) FROM @samples AS s
             WHERE s.buffer_id = b.id AND s.reward IS NOT NULL)
            ELSE
            (SELECT max(s.reward) FROM @samples AS s
             WHERE s.buffer_id = b.id AND s.reward IS NOT NULL)
            END AS best_reward,
            b.score_version,
            b.created_at,
            max(w.heartbeat_at) AS seen_at
        FROM @buffers AS b
        LEFT JOIN @workers AS w ON w.buffer_id = b.id
        GROUP BY b.id, b.name, b.kind, b.mode, b.direction, b.score_version, b.created_at
    """,
    "sample_overview": """
        CREATE VIEW @sample_overview AS
        SELECT
            b.name AS buffer,
            s.id,
            s.text,
            s.source,
            s.queued,
            s.score,
            (SELECT max(p.version) FROM @predictors AS p
             WHERE p.buffer_id = s.buffer_id AND p.version <= s.score_version) AS predictor,
            s.reward,
            s.error, s.attempts, s.meta, s.key,
            s.created_iteration,
            s.created_at,
            s.scored_at,
            s.rewarded_at
        FROM @samples AS s
        JOIN @buffers AS b ON b.id = s.buffer_id
    """,
    "batch_overview": """
        CREATE VIEW @batch_overview AS
        SELECT
            b.name AS buffer,
            t.id,
            t.iteration,
            t.size,
            CASE
                WHEN t.settled_at IS NOT NULL THEN 'settled'
                WHEN t.released_at IS NOT NULL THEN 'released'
                ELSE 'open'
            END AS state,
            (SELECT avg(s.reward) FROM @draws AS d
             JOIN @samples AS s ON s.id = d.sample_id
             WHERE d.batch_id = t.id) AS mean_reward,
            t.worker_id,
            t.drawn_at,
            t.settled_at,
            t.released_at
        FROM @batches AS t
        JOIN @buffers AS b ON b.id = t.buffer_id
    """,
    "draw_overview": """
        CREATE VIEW @draw_overview AS
        SELECT
            b.name AS buffer,
            t.iteration,
            t.id AS batch_id,
            d.position,
            d.sample_id,
            s.text,
            s.source,
            d.weight,
            s.score,
            s.reward,
            t.drawn_at
        FROM @draws AS d
        JOIN @batches AS t ON t.id = d.batch_id
        JOIN @buffers AS b ON b.id = t.buffer_id
        JOIN @samples AS s ON s.id = d.sample_id
    """,
    "measurement_overview": """
        CREATE VIEW @measurement_overview AS
        SELECT
            b.name AS buffer,
            m.id,
            m.sample_id,
            s.text,
            s.source,
            m.batch_id,
            t.iteration,
            m.objective,
            m.reward,
            m.error,
            m.seconds,
            m.details,
            m.worker_id,
            m.measured_at
        FROM @measurements AS m
        JOIN @buffers AS b ON b.id = m.buffer_id
        JOIN @samples AS s ON s.id = m.sample_id
        LEFT JOIN @batches AS t ON t.id = m.batch_id
    """,
}
