"""The buffer without a loop: open a store, add samples, score them, draw batches, settle them."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from sqlbuffer import (
    adding,
    attending,
    batches,
    claims,
    copying,
    labels,
    pool,
    reading,
    refreshing,
    scoring,
    statements,
)
from sqlbuffer.attachment import Attachment, Settings, attach
from sqlbuffer.audit import check
from sqlbuffer.database import Database
from sqlbuffer.errors import InvalidArgument, MissingExtra
from sqlbuffer.keeping import RunRecords
from sqlbuffer.names import (
    as_ids,
    as_list,
    as_max_size,
    require_choice,
    require_count,
    require_flag,
    require_function,
    require_real,
)
from sqlbuffer.progress import states_from
from sqlbuffer.race import Floats, Weighting, weighting_from
from sqlbuffer.records import AddResult, Staleness, Stats
from sqlbuffer.workers import GRACE_S, is_grace

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def open_store(
    url: str | sa.URL | None = None,
    *,
    name: str = "default",
    key: Callable[[Any], Any] | None = None,
    mode: str = "consume",
    seed: int = 0,
    weighting: str | Weighting = "shift",
    max_size: int | None = None,
    durability: str = "normal",
    allow_pickle: bool = False,
    grace_s: float = GRACE_S,
    fresh: bool = False,
) -> SampleStore:
    """Open a buffer; create it, and the database, where they are not there yet.

    Batches left open by processes of this host that have died go back to the pool; those of other hosts once they
    have been silent for `grace_s` since.

    Args:
        url: SQLAlchemy URL; by default the environment variable `SQLBUFFER_URL`, else `sqlite:///sqlbuffer.db`.
        name: Name of the buffer; one database holds any number.
        key: The canonical form of a sample: samples with equal keys are one, those whose key is None are refused.
            Its module and name are stored: opening the buffer with another one, or without one, is a warning.
        mode: "consume": a drawn sample leaves the pool; "replay": it stays, and batches are independent draws.
        seed: Seed of the race, any integer.
        weighting: "shift" (score - lowest score + 1e-8), "uniform", "softmax", "power", or an instance of
            `race.Shift`, `race.Uniform`, `race.Softmax(temperature)`, `race.Power(alpha)`.
        max_size: Scored samples that may wait: beyond it the lightest leave when they are scored, the oldest first
            among equals, and a hundredth more than must. Samples without a score wait in addition, at most as many,
            or 100,000 if that is more; then the oldest leave. What is released comes on top until the next `add` or
            `score`. It is stored with the buffer: without it the stored one counts, and a buffer without a limit
            takes the first that is given.
        durability: "normal": a power cut may take the last commits; "full": it takes none. A killed process loses
            nothing either way.
        allow_pickle: Store samples of unknown types as pickles, which need a `key`. Only where you trust everybody
            who can write to the database: reading a pickle executes it.
        grace_s: How long, in seconds, this process must see a worker of another host be silent before it takes back
            its batches; the same for all. No clock of a host is asked. A worker of this host counts as dead when its
            process is gone. From its first write on a process says every ten seconds, in a thread in the background,
            that it is alive.
        fresh: Create a new buffer: where there is one of that name, under the next free name, "default-2" after
            "default". `store.name` says which.

    Raises:
        DatabaseUnavailable: Where the database cannot be opened, reached, read or written.
        SchemaMismatch: Where its schema is of another release, or the database is somebody else's.
        SettingsMismatch: Where the buffer is stored with another mode, seed, weighting or max_size.
    """
    settings = Settings(mode, seed, weighting_from(weighting))
    options = {
        "key": None if key is None else require_function(key, "key must be a function of a sample, or None"),
        "allow_pickle": require_flag(allow_pickle, "allow_pickle"),
        "grace_s": require_real(grace_s, "grace_s must be a positive number of seconds, 0.001 to 1e9", is_grace),
    }
    fresh, limit = require_flag(fresh, "fresh"), as_max_size(max_size)
    database = Database(url, durability=durability)
    try:
        attachment = attending.with_heartbeat(attach(database, name, settings, max_size=limit, fresh=fresh, **options))
        batches.release_dropped(attachment)
        batches.release_dead(attachment)
    except BaseException:
        database.close()
        raise
    return SampleStore(attachment)


class SampleStore(RunRecords):
    """A buffer of distinct samples in a SQL database. Use `open_store` to open one.

    `len(store)` is the number of samples that wait. As a context manager it closes its connections.
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._stale = refreshing.StaleQueue()
        self._was_told_why = False

    def __repr__(self) -> str:
        return f"<SampleStore {self.name!r} in {self.url}>"

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._look(reading.size)

    def close(self) -> None:
        """Close the connections, and say that this process is done with the buffer, until it uses it again.

        Open batches stay claimed until this process releases them, drops them, or ends.
        """
        self._attachment.heartbeat.stop()
        self._attachment.database.close()

    def connect(self) -> sa.Connection:
        """Open a connection to the database that can read and nothing else: for SQL, or `pandas.read_sql`.

        On SQLite it is of the library that the store itself works by; another one in the same process would void its
        locks. On PostgreSQL its transactions only read, unless one is told to write by those who may. Each statement
        sees the last commit. Close it after use; the store's own connections do not end with it.
        """
        return self._attachment.database.connect()

    def _release_dropped(self) -> None:
        """Wait until the batches are released that this process has drawn and dropped. For the loop."""
        batches.release_dropped(self._attachment)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the buffer."""
        return self._attachment.name

    @property
    def url(self) -> str:
        """URL of the database, its password masked."""
        return self._attachment.database.url

    @property
    def iteration(self) -> int:
        """Batches settled so far."""
        return self.stats().iteration

    @property
    def key(self) -> Callable[[Any], Any] | None:
        """The canonical form of a sample, as given to `open_store`."""
        return self._attachment.key

    def stats(self) -> Stats:
        """Return the buffer in numbers, at a cost that does not grow with it."""
        return self._look(reading.stats)

    def check(self) -> list[str]:
        """Audit the integrity of the buffer: one sentence for each problem, none when it is sound. Reads every row."""
        return self._read(check)

    # -- samples in, scores on, batches out ---------------------------------------------------------------------------

    def add(
        self,
        samples: Sequence[Any],
        source: str | Sequence[str] = "",
        meta: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
    ) -> AddResult:
        """Put samples into the pool, each distinct one once.

        What waits already, or is claimed, is a duplicate; what has been drawn or removed waits again, its reward kept.

        Args:
            samples: Samples of any supported types; see `register` for your own. A list, a pandas Series, an array or
                tensor of one dimension, or what else gives samples one by one.
            source: Name of the generator, or one name for each sample.
            meta: What to remember about them: a mapping that JSON can hold, or one for each sample. Numbers of numpy
                are stored as numbers, and NaN, a gap in a table, as null.

        Raises:
            InvalidArgument: The samples are no list but one sample, as a string or an image, or a table.
            UnsupportedType: Where a sample has no canonical hash. Samples before it, by 20,000, are stored.
        """
        return adding.add(self._attachment, as_list(samples), source, meta)

    def add_one(self, sample: Any, source: str = "", meta: Mapping[str, Any] | None = None) -> AddResult:
        """Put one sample into the pool, whatever it is made of; `add` would take an image for a list of its rows.

        Args:
            sample: The sample, of any supported type.
            source: Name of the generator.
            meta: What to remember about it: a mapping that JSON can hold.

        Raises:
            UnsupportedType: The sample has no canonical hash.
        """
        return adding.add(self._attachment, [sample], source, meta)

    def record(self, samples: Sequence[Any], rewards: Any, sources: str | Sequence[str] = "") -> AddResult:
        """Store rewards of samples, drawn or not; those not there yet are stored without waiting.

        Args:
            samples: n samples.
            rewards: (n,) floats; NaN: measured and failed, which leaves a reward that is stored as it is.
            sources: Name of the generator, or one name for each sample.

        Raises:
            InvalidReward: Where the rewards are infinite, or not one for each sample. Nothing is stored.
        """
        recorded = adding.Recorded.prepare(self._attachment, samples, rewards, sources)
        return self._write(adding.record, recorded)

    def score(
        self,
        score_fn: Callable[[list[Any]], Any],
        only: str = "missing",
        *,
        budget: int | None = None,
        checkpoint: Mapping[str, bytes] | None = None,
        chunk: int = 10_000,
        silent: bool = True,
    ) -> int:
        """Predict scores of waiting samples; from them follow their weights in the race.

        All scores of a call are of the version that there was when it began: of what a predictor was stored
        meanwhile, they are stale.

        Args:
            score_fn: Takes a list of n samples, returns (n,) floats. What is not finite is never drawn, and counted.
                It runs outside of any transaction.
            only: "missing": what has no score yet; "stale": what was scored before the newest predictor or refresh;
                "all": everything, as a new version. The last two can be interrupted: "stale" goes on. Processes that
                do it at the same time share the work.
            budget: Score so many stale samples at the most, and give them their new weights, in one transaction: the
                oldest score first, and of these the highest. With "all" everything is stale from now on; 0 does no
                more than say so. None: all that is stale.
            checkpoint: States to resume from, by name, to be stored with the scores of a budget.
            chunk: Samples scored at once.
            silent: Show no progress bar.

        Returns:
            The number of samples scored.

        Raises:
            InvalidArgument: Where the scores are a tensor, no numbers, or not one for each sample. Nothing of that
                chunk is stored.
        """
        require_function(score_fn, "score_fn must be a function of a list of samples")
        only = require_choice(only, 'only must be "missing", "stale" or "all"', ("missing", "stale", "all"))
        chunk = require_count(chunk, "chunk must be a positive number of samples", least=1)
        silent = require_flag(silent, "silent")
        if budget is None and checkpoint is not None:
            raise InvalidArgument("a checkpoint is stored with the scores of a budget: give budget=, too.")
        if budget is not None:
            if only == "missing":
                raise InvalidArgument('a budget is for a refresh: give only="stale" or "all", too.')
            budget = require_count(budget, "budget must be a number of samples, or None for all")
        return self._score_by(None, score_fn, only, budget=budget, checkpoint=checkpoint, chunk=chunk, silent=silent)

    def _score_by(
        self,
        version: int | None,
        score_fn: Callable[[list[Any]], Any],
        only: str,
        *,
        budget: int | None = None,
        checkpoint: Mapping[str, bytes] | None = None,
        chunk: int = 10_000,
        silent: bool = True,
    ) -> int:
        """`score`, by what is known to be of a version; a refresh of everything stores its checkpoint when it begins.

        Raises:
            Overtaken: There is a newer version, which a refresh is to be of. Nothing is scored.
        """
        options: dict[str, Any] = {"by": version, "chunk": chunk, "silent": silent}
        if only == "missing":
            return scoring.score_missing(self._attachment, score_fn, **options)
        options |= {"anew": only == "all", "states": states_from(checkpoint)}
        if budget is None:
            return scoring.refresh(self._attachment, score_fn, **options)
        return refreshing.refresh_some(self._attachment, self._stale, score_fn, budget=budget, **options)

    def is_refreshed(self) -> bool:
        """Tell whether the newest refresh has come to its end; `score(..., only="stale")` ends one that has not."""
        return self._read(scoring.is_refreshed)

    def staleness(self) -> list[Staleness]:
        """Return how many samples wait with a score of each version, the oldest version first. Reads the whole pool."""
        return self._read(reading.staleness)

    def sample(self, n: int, pct_argmax: float = 0.0) -> batches.Batch:
        """Claim a batch: exact weighted draws without replacement, the heaviest first where a share is asked for.

        Fewer come where fewer can be drawn; unscored samples and those of weight 0 never do.

        Args:
            n: Samples wanted; -1: everything that waits, also what cannot be drawn by weight.
            pct_argmax: Share of the batch in [0, 1], rounded to whole samples, that is taken from the top of the
                weights.

        Returns:
            The batch, to be settled or released. It is empty where nothing can be drawn.
        """
        batch = claims.claim(self._attachment, n, pct_argmax=pct_argmax)
        if len(batch):
            self._was_told_why = False
        elif n and not self._was_told_why and (unscored := self.stats().unscored):
            self._was_told_why = True  # who asks again and again is told once
            log.warning("nothing was drawn: %d samples of buffer %r wait for a score, see `score`", unscored, self.name)
        return batch

    def remove(self, ids: Sequence[int]) -> int:
        """Take waiting samples out of the pool; return how many did wait. Adding one again lets it wait again.

        Raises:
            StaleIds: Where the numbers may be those of other samples: the database has gone back to an earlier state
                since, by a failover or a restore, or was replaced. Nothing is taken out.
        """
        return self._write(_remove, as_ids(ids))

    def replace(self, ids: Sequence[int], samples: Sequence[Any]) -> int:
        """Put other samples in the place of waiting ones, source kept; return how many did wait.

        What equals a sample that waits already is dropped; what equals the one in whose place it would go changes
        nothing. All in one transaction.

        Raises:
            StaleIds: As `remove` does.
        """
        numbers, others = as_ids(ids), as_list(samples)
        if len(numbers) != len(others):
            raise InvalidArgument(f"{len(numbers)} ids came with {len(others)} samples: give one for each.")
        return self._write(_replace, numbers, others, adding.hashes_of(self._attachment, others))

    def _changes(self) -> tuple[Any, ...]:
        """Return what is the same as before only where nothing of what waits has changed; for the loop."""
        return self._look(reading.changes)

    def _remove_known(self, waiting: reading.Waiting, places: Sequence[int]) -> None:
        """`remove` what was read as waiting and still does; for the loop."""
        self._write(_remove, waiting.ids[places].tolist(), [waiting.hashes[i] for i in places])

    def _replace_known(self, waiting: reading.Waiting, places: Sequence[int], samples: Sequence[Any]) -> None:
        """`replace` what was read as waiting and still does; for the loop."""
        numbers, hashes = waiting.ids[places].tolist(), [waiting.hashes[i] for i in places]
        self._write(_replace, numbers, samples, adding.hashes_of(self._attachment, samples), hashes)

    # -- what it holds ------------------------------------------------------------------------------------------------

    def waiting(self) -> reading.Waiting:
        """Return all samples that wait, in the order in which they were stored."""
        return self._read(reading.waiting)

    def labelled(self) -> tuple[list[Any], Floats]:
        """Return the n samples that have a reward, and their rewards, (n,) float64."""
        return self._read(reading.labelled)

    def labelled_rows(
        self,
        *,
        where: str | sa.ColumnElement[bool] | None = None,
        newest: int | None = None,
        best: float | None = None,
    ) -> labels.LabelledRows:
        """Return the samples that have a reward as a sequence that is read as it is looked at: for any number of them.

        Args:
            where: A condition on the columns of `samples`, as SQL or as an expression of SQLAlchemy; never one from
                somebody you do not trust.
            newest: At most so many, those measured last.
            best: Of these, the share in (0, 1] with the highest rewards.
        """
        return labels.labelled_rows(self._attachment, where=where, newest=newest, best=best)

    def rewards_of(self, samples: Sequence[Any]) -> list[float | None]:
        """Return the stored reward of each sample: NaN where its measurement failed, None where there was none."""
        return self._read(reading.rewards_of, as_list(samples))

    def samples_of(self, ids: Sequence[int]) -> dict[int, Any]:
        """Return the samples of these numbers, by number.

        Raises:
            StaleIds: As `remove` does.
        """
        return self._read(_samples_of, as_ids(ids))

    def incumbent(self) -> float | None:
        """Return the reward to improve on: the best that was stored before the newest predictor, None without any.

        Before the first predictor it is the best of all. It stays until the next one, so that all samples scored by
        one predictor are compared with the same reward.
        """
        return self._read(reading.incumbent)

    def top(self, n: int = 10, by: str = "reward") -> list[dict[str, Any]]:
        """Return the n best samples by "reward" or "score", the best first, each as a dict."""
        return self._read(reading.top, n, by=by)

    def to_pandas(self) -> Any:
        """Return all samples as a pandas DataFrame.

        Raises:
            MissingExtra: Where pandas is not installed.
        """
        return _optional("pandas").DataFrame(self._read(reading.table))

    def to_arrow(self) -> Any:
        """Return all samples as an Arrow table.

        Raises:
            MissingExtra: Where pyarrow is not installed.
        """
        return _optional("pyarrow").table(self._read(reading.table))

    # -- another one like it ------------------------------------------------------------------------------------------

    def copy(
        self,
        new: str,
        *,
        at_iteration: int | None = None,
        seed: int | None = None,
        weighting: str | Weighting | None = None,
        mode: str | None = None,
        max_size: int | None = None,
        silent: bool = True,
    ) -> SampleStore:
        """Copy the buffer within its database, and open the copy: to try another setting from the same point.

        It is one transaction: a copy is there as a whole, or not at all. On SQLite other writers wait for it.

        Without `at_iteration` all is copied, and the copy goes on as the original would have if its workers had died
        now: samples of open batches wait again. With another seed or weighting everything that waits joins a race
        that begins.

        With `at_iteration` it is what there was when the first batch of that iteration was drawn, in a race that
        begins: samples, rewards, scores, predictors, metrics of the iterations before. What has been overwritten since
        cannot be known: a score of a later version is missing, and so is a reward that was measured again; what was
        removed since does not wait, and what was added again after it had been settled does not either.

        Args:
            new: Name of the copy.
            at_iteration: From 0 to `iteration`; None for the present.
            seed: Another seed of the race.
            weighting: Another weighting, as for `open_store`.
            mode: Another mode.
            max_size: Another limit of the pool, in force from the next `add` or `score` on.
            silent: Show no progress bar.

        Raises:
            InvalidArgument: Where the name is taken, or the buffer has not come to that iteration.
        """
        made = copying.copy(
            self._attachment,
            new,
            at_iteration=at_iteration,
            seed=seed,
            weighting=weighting,
            mode=mode,
            max_size=max_size,
            silent=silent,
        )
        return SampleStore(attending.with_heartbeat(dataclasses.replace(made, database=made.database.sibling())))


def _samples_of(connection: sa.Connection, attachment: Attachment, ids: Sequence[int]) -> dict[int, Any]:
    attachment.require_ids(connection, ids)
    return reading.samples_of(connection, attachment, ids)


def _standing(
    connection: sa.Connection, attachment: Attachment, ids: Sequence[int], hashes: Sequence[bytes] | None
) -> list[Any]:
    """Find waiting samples: by number and hash, or by numbers that a user has kept."""
    if hashes is None:
        attachment.require_ids(connection, ids)
        return pool.standing(connection, attachment, ids)
    known = dict(zip(ids, hashes, strict=True))
    return [row for row in pool.standing(connection, attachment, ids) if row.hash == known[row.sample_id]]


def _remove(
    connection: sa.Connection, attachment: Attachment, ids: Sequence[int], hashes: Sequence[bytes] | None = None
) -> int:
    state = attachment.race(connection)
    dialect = attachment.database.dialect
    if dialect.writers_overlap:
        columns = {"sample_id": sorted(set(ids))}
        attachment.run_with(connection, statements.lock_samples(dialect), statements.INCOMING_IDS, columns)
    attachment.race_to_join(connection, state)  # what a draw under way has taken neither waits nor is passed over
    rows = _standing(connection, attachment, ids, hashes)
    pool.take_out(connection, attachment, rows)
    return len(rows)


def _replace(
    connection: sa.Connection,
    attachment: Attachment,
    ids: Sequence[int],
    samples: Sequence[Any],
    hashes: Sequence[bytes | None],
    old: Sequence[bytes] | None = None,
) -> int:
    attachment.race(connection, exclusive=True)  # the samples to be stored depend on what waits once no draw is left
    rows = {row.sample_id: row for row in _standing(connection, attachment, ids, old)}
    changed = [
        (rows[i], sample, digest)
        for i, sample, digest in zip(ids, samples, hashes, strict=True)
        if i in rows and rows[i].hash != digest
    ]
    pool.take_out(connection, attachment, [row for row, _, _ in changed])
    sources = [row.source for row, _, _ in changed]
    ours, theirs = [sample for _, sample, _ in changed], [digest for _, _, digest in changed]
    chunk = adding.incoming(attachment, ours, sources, start=None, hashes=theirs)
    adding.insert(connection, attachment=attachment, chunk=chunk)
    return len(rows)


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as exc:
        raise MissingExtra(f'this needs {package}: pip install "sqlbuffer[export]".') from exc
