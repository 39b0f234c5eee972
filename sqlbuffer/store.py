"""The buffer without a loop: open a store, add samples, score them, draw batches, settle them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import sqlalchemy as sa

from sqlbuffer import _html
from sqlbuffer._json import as_metas
from sqlbuffer._messages import n_of
from sqlbuffer._typing import Floats
from sqlbuffer._validation import (
    as_ids,
    as_list,
    as_name,
    require_choice,
    require_count,
    require_flag,
    require_function,
    require_real,
)
from sqlbuffer.core import (
    add,
    attempts,
    claim,
    counts,
    deletion,
    display,
    draw,
    labels,
    leases,
    metrics_and_checkpoints,
    predictor_versions,
    read,
    reaper,
    refresh,
    refresh_budget,
    remove,
    score,
    tokens,
)
from sqlbuffer.core import budget as core_budget
from sqlbuffer.core import objective as core_objective
from sqlbuffer.core import priorities as core_priorities
from sqlbuffer.core import record as core_record
from sqlbuffer.core import release as core_release
from sqlbuffer.core.attach import attach, require_name
from sqlbuffer.core.handle import BufferHandle, Work
from sqlbuffer.core.stored_settings import as_given
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weighting import Weighting
from sqlbuffer.core.where import Where
from sqlbuffer.core.workers import GRACE_S, is_grace, is_lease
from sqlbuffer.db import queries
from sqlbuffer.db.database import Database
from sqlbuffer.errors import InvalidArgument, ReadOnlyStore
from sqlbuffer.exchange import frames
from sqlbuffer.exchange import table as exchange
from sqlbuffer.exchange.reading import CHUNK
from sqlbuffer.exchange.table import Table
from sqlbuffer.maintenance import copy
from sqlbuffer.maintenance.audit import check
from sqlbuffer.maintenance.prune import prune
from sqlbuffer.measuring.measure import measure
from sqlbuffer.records import (
    AddResult,
    ForgetResult,
    MeasureResult,
    PruneResult,
    Staleness,
    Stats,
)

if TYPE_CHECKING:
    from sqlbuffer.core.batch import Batch
    from sqlbuffer.loading.dataset import LabelledDataset
    from sqlbuffer.loading.stream import Stream

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def open_store(
    url: str | sa.URL | None = None,
    *,
    name: str = "default",
    key: Callable[[Any], Any] | None = None,
    keep_key: bool | None = None,
    mode: str | None = None,
    seed: int | None = None,
    weighting: str | Weighting | None = None,
    max_size: int | None = None,
    direction: str | None = None,
    evict: str | None = None,
    budget: int | None = None,
    max_attempts: int | Literal["stored"] | None = "stored",
    durability: str = "normal",
    allow_pickle: bool = False,
    grace_s: float = GRACE_S,
    fresh: bool = False,
    create: bool = True,
    read_only: bool = False,
) -> SampleStore:
    """Open a buffer; create the buffer and the database if they do not exist.

    `mode`, `seed`, `weighting`, `max_size`, `direction`, `evict`, `budget`, `max_attempts` and
    `keep_key` are stored with the buffer. One that is not given is taken as stored; one that is
    given must be the stored one.

    Batches that dead processes of this host have left open go back to the pool. Those of other
    hosts go back after `grace_s` of silence.

    Args:
        url: SQLAlchemy URL; by default the environment variable `SQLBUFFER_URL`, else
            `sqlite:///sqlbuffer.db`.
        name: Name of the buffer; one database holds any number.
        key: The canonical form of a sample: samples with equal keys are one sample, a sample whose
            key is None is refused. The module and name of the function are stored: opening the
            buffer with another function, or without one, is a warning.
        keep_key: True: store the key of each sample as text next to it, in `samples.key`, such as a
            canonical SMILES, for SQL to show and to join. A string is stored as it is. It needs a
            `key`. False in a new buffer.
        mode: "consume", as in a new buffer: a drawn sample leaves the pool; "replay": it stays, and
            batches are independent draws.
        seed: Seed of the race, any integer; 0 in a new buffer.
        weighting: "shift", as in a new buffer (score - lowest score + 1e-8), "uniform", "softmax",
            "power", or an instance of `race.Shift`, `race.Uniform`, `race.Softmax(temperature)`,
            `race.Power(alpha)`.
        max_size: Most scored samples that wait. Scoring beyond it removes the lightest, or the
            oldest (see `evict`), and a hundredth more than necessary. Samples without a score wait
            in addition, at most as many, or 100,000 if that is more; then the oldest leave.
            Released samples come on top until the next `add` or `score`. Adding an evicted sample
            puts it back. A buffer without a limit takes the first one given.
        direction: "maximize": a higher reward is better; "minimize": a lower one, as of a docking
            score. Rewards are given and stored as they were measured. `top`, `incumbent`,
            `labelled_rows(best=)` and `Stats.best_reward` follow the direction. A score says how
            much a sample is wanted, so the highest are drawn first in either direction.
            "maximize" in a new buffer.
        evict: Scored samples that leave beyond `max_size`. "lightest": the lowest scores, the
            oldest first among equals. "oldest": the samples that were stored first (the lowest
            ids), whatever their scores; a sample that waits again is as old as when it was first
            stored. "lightest" in a new buffer.
        budget: Most distinct samples that may be measured, failed or claimed, see `set_budget`. A
            buffer without a budget takes the first one given.
        max_attempts: How often a worker may die while it measures a sample before the sample has
            failed, see `measure`; None for any number. 3 in a new buffer.
        durability: "normal": a power cut may lose the last commits; "full": it loses none. A
            killed process loses nothing either way.
        allow_pickle: Store samples of unknown types as pickles, which need a `key`. Give it only
            if you trust everybody who can write to the database: reading a pickle executes it.
        grace_s: Seconds for which this process must see a worker of another host silent before it
            takes back the worker's batches; the same for all processes. No clock of a host is
            asked. A worker of this host is dead when its process is gone. From its first write on,
            a process sends a heartbeat every ten seconds from a thread in the background.
        fresh: Create a new buffer, under the next free name if the name is taken: "default-2"
            after "default". `store.name` tells the name.
        create: False: open only a buffer that exists, and create no database.
        read_only: Store nothing: the process is no worker and sends no heartbeat, no buffer is
            created, and the right to read the database is enough. Without the right to write an
            SQLite file no file is created next to it. No `key` is needed, except for `rewards_of`.

    Raises:
        BufferNotFound: If the buffer does not exist, and `create` is False or `read_only` is True.
        DatabaseUnavailable: If the database cannot be opened, reached, read or written.
        SchemaMismatch: If its schema is of another release, or the database has other tables.
        SettingsMismatch: If a setting that was given is stored with another value.

    Examples:
        >>> docking = open_store("sqlite:///docking.db", name="docking", direction="minimize")
        >>> docking.add(["CCO", "CCN", "CCO"])
        AddResult(added=2, requeued=0, duplicates=1, known=0, refused_at=())
        >>> open_store("sqlite:///docking.db", name="docking").direction  # as stored
        'minimize'
    """
    return open_with_defaults(
        {},
        url,
        name=name,
        key=key,
        keep_key=keep_key,
        mode=mode,
        seed=seed,
        weighting=weighting,
        max_size=max_size,
        direction=direction,
        evict=evict,
        budget=budget,
        max_attempts=max_attempts,
        durability=durability,
        allow_pickle=allow_pickle,
        grace_s=grace_s,
        fresh=fresh,
        create=create,
        read_only=read_only,
    )


def open_with_defaults(
    defaults: Mapping[str, Any],
    url: str | sa.URL | None = None,
    *,
    name: str = "default",
    key: Callable[[Any], Any] | None = None,
    durability: str = "normal",
    allow_pickle: bool = False,
    grace_s: float = GRACE_S,
    fresh: bool = False,
    create: bool = True,
    read_only: bool = False,
    **settings: Any,
) -> SampleStore:
    """`open_store` with other settings of a new buffer; internal, for `sqlbuffer.training`."""
    given = as_given(settings)
    if given.get("keep_key") and key is None:
        raise InvalidArgument(
            "keep_key=True stores the key of each sample, and there is no key function: give key=, "
            "too."
        )
    rule = "grace_s must be a positive number of seconds, 0.001 to 1e9"
    options: dict[str, Any] = {
        "key": None
        if key is None
        else require_function(key, "key must be a function of a sample, or None", takes=1),
        "allow_pickle": require_flag(allow_pickle, "allow_pickle"),
        "grace_s": require_real(grace_s, rule, is_grace),
    }
    fresh, read_only = require_flag(fresh, "fresh"), require_flag(read_only, "read_only")
    create = require_flag(create, "create") and not read_only
    if fresh and not create:
        raise InvalidArgument(
            "fresh=True creates a buffer: give it without create=False and without read_only=True."
        )
    database = Database(url, durability=durability, create=create, read_only=read_only)
    try:
        buffer = attach(
            database, name, given, defaults=defaults, fresh=fresh, create=create, **options
        )
        if not read_only:
            buffer = reaper.with_heartbeat(buffer)
            core_release.release_dropped(buffer)
            reaper.release_dead(buffer)
    except BaseException:
        database.close()
        raise
    return SampleStore(buffer)


def _writes(
    method: Callable[Concatenate[SampleStore, P], T],
) -> Callable[Concatenate[SampleStore, P], T]:
    """Let a method raise `ReadOnlyStore` if the store was opened with `read_only=True`."""

    @functools.wraps(method)
    def write(store: SampleStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if store._buffer.database.is_read_only:
            raise ReadOnlyStore(
                f"{method.__name__} writes, and buffer {store.name!r} was opened with "
                "read_only=True: open the store without read_only."
            )
        return method(store, *args, **kwargs)

    return write


class SampleStore:
    """A buffer of distinct samples in a SQL database. Use `open_store` to open one.

    `len(store)` is the number of samples that wait. As a context manager it closes its connections.

    The `store` of all examples holds the molecules of `docs/reference/index.md`, "The examples".

    Examples:
        >>> store
        SampleStore('sqlite:////home/me/molecules.db', name='molecules', waiting=10, measured=2)
        >>> len(store)
        10
        >>> with store as reader:
        ...     print(reader.top(1)[0]["sample"])
        CC
    """

    def __init__(self, buffer: BufferHandle) -> None:
        self._buffer = buffer
        self._stale = refresh_budget.StaleQueue()
        self._was_told_why = False
        self._looked_for_stale = -1

    def __repr__(self) -> str:
        return display.store_line(self._buffer)

    def _repr_html_(self) -> str | None:
        return _html.or_none(display.store_table, self._buffer)

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._buffer.look(counts.size)

    def close(self) -> None:
        """Close the connections, and mark this process as finished with the buffer; a use reopens.

        Open batches stay claimed until this process releases them, drops them, or ends.

        Examples:
            >>> store.close()
            >>> len(store)  # opens a connection again
            10
        """
        self._buffer.heartbeat.stop()
        self._buffer.database.close()

    def connect(self) -> sa.Connection:
        """Open a read-only connection to the database: for SQL, or `pandas.read_sql`.

        On SQLite it uses the library that the store itself uses; a second library in the same
        process would void the locks of the first. On PostgreSQL its transactions are read-only,
        unless a role with the right to write says otherwise. Each statement sees the last commit.
        Close it after use; closing the store does not close it.

        Examples:
            >>> sql = "SELECT state, count(*) FROM sample_overview GROUP BY state ORDER BY state"
            >>> with store.connect() as connection:
            ...     print(connection.exec_driver_sql(sql).all())
            [('failed', 1), ('measured', 2), ('waiting', 10)]
        """
        return self._buffer.database.connect()

    # -- the buffer in numbers --------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the buffer.

        Examples:
            >>> store.name
            'molecules'
        """
        return self._buffer.name

    @property
    def url(self) -> str:
        """URL of the database, its password masked.

        Examples:
            >>> store.url
            'sqlite:////home/me/molecules.db'
        """
        return self._buffer.database.url

    @property
    def iteration(self) -> int:
        """Batches settled so far.

        Examples:
            >>> with store.sample(2) as batch:
            ...     batch.settle([1.0, 0.5])
            >>> store.iteration
            1
        """
        return self.stats().iteration

    @property
    def direction(self) -> str:
        """Which reward is better: "maximize", the higher; "minimize", the lower.

        Examples:
            >>> store.direction
            'maximize'
        """
        return self._buffer.direction

    @property
    def key(self) -> Callable[[Any], Any] | None:
        """The canonical form of a sample, as given to `open_store`.

        Examples:
            >>> tidy = open_store("sqlite:///tidy.db", key=str.strip)
            >>> tidy.key(" CCO ")
            'CCO'
        """
        return self._buffer.key

    def stats(self) -> Stats:
        """Return the buffer in numbers, at a cost that does not grow with it.

        Examples:
            >>> stats = store.stats()
            >>> stats.waiting, stats.measured, stats.failed, stats.best_reward
            (10, 2, 1, 0.5)
        """
        return self._buffer.look(counts.stats)

    def check(self) -> list[str]:
        """Audit the buffer: return a sentence for each problem. Reads every row.

        Examples:
            >>> store.check()
            []
        """
        return self._buffer.read(check)

    # -- samples in -------------------------------------------------------------------------------

    @_writes
    def add(
        self,
        samples: Sequence[Any],
        source: str | Sequence[str] = "",
        meta: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        *,
        requeue: bool = False,
        sample: str | None = None,
    ) -> AddResult:
        """Put samples into the pool, each distinct one once.

        A script that begins with `store.add(library)` may be killed and run again: samples that
        were measured, failed, settled or removed stay out and count as `known`. A sample that waits
        or is claimed is a duplicate. A sample that `max_size` has evicted waits again.

        Args:
            samples: Samples of any supported types; see `register` for your own. A list, a pandas
                Series, an array or tensor of one dimension, or another iterable of samples. With
                `sample=` a table of pandas, Polars, pyarrow, DuckDB or another library of Arrow.
            source: Name of the generator, or one name for each sample.
            meta: What to store with new samples: a mapping that JSON can hold, or one for each
                sample. Numbers of numpy are stored as numbers; NaN, a gap in a table, as null. A
                sample that is stored keeps its metas, with `requeue=True`, too.
            requeue: Let samples that were measured, failed, settled or removed wait again, too.
                Their rewards are kept until they are measured again.
            sample: Name of the column of a table that holds the samples; the other columns become
                meta. It needs pyarrow.

        Raises:
            InvalidArgument: If the samples are no list but one sample, such as a string or an
                image, or a table without `sample=`.
            UnsupportedType: If a sample has no canonical hash. Samples before it, by 20,000, are
                stored.

        Examples:
            >>> store.add(["CCO", "CCCO", "CCCO", "CC"], source="mutation")
            AddResult(added=1, requeued=0, duplicates=2, known=1, refused_at=())
            >>> store.add(["CC"], requeue=True).requeued
            1
        """
        if sample is None:
            return add.add(self._buffer, as_list(samples), source, meta, requeue=requeue)
        if meta is not None:
            raise InvalidArgument(
                "the other columns of a table become meta: give sample= without meta=."
            )
        return frames.add_table(self._buffer, samples, sample, source, requeue=requeue)

    @_writes
    def add_one(
        self,
        sample: Any,
        source: str = "",
        meta: Mapping[str, Any] | None = None,
        *,
        requeue: bool = False,
    ) -> AddResult:
        """Put one sample into the pool; `add` would take an image for a list of its rows.

        Args:
            sample: The sample, of any supported type.
            source: Name of the generator.
            meta: What to store with it: a mapping that JSON can hold.
            requeue: See `add`.

        Raises:
            UnsupportedType: If the sample has no canonical hash.

        Examples:
            >>> import numpy as np
            >>> store.add_one(np.zeros((28, 28)), meta={"split": "train"}).added
            1
        """
        return add.add(self._buffer, [sample], source, meta, requeue=requeue)

    @_writes
    def record(
        self,
        samples: Sequence[Any],
        rewards: Any,
        source: str | Sequence[str] = "",
        *,
        errors: Any = None,
        seconds: Any = None,
        details: Any = None,
        meta: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
    ) -> AddResult:
        """Store rewards of samples, drawn or not; new samples are stored without waiting.

        Several rewards of one sample are all kept as measurements, and the last one counts.

        Args:
            samples: n samples.
            rewards: (n,) finite floats. NaN or None: the measurement failed; a stored reward stays.
            source: Name of the generator, or one name for each sample.
            errors: n reasons of failed measurements; None for a measurement that has a reward.
            seconds: (n,) floats, how long each measurement took.
            details: n mappings that JSON can hold, or None: what else was measured.
            meta: What to store with new samples, see `add`.

        Raises:
            InvalidReward: If a reward is infinite, if there is not one for each sample, or if a
                finite reward came with an error. Nothing is stored.

        Examples:
            >>> store.record(["CCO", "CCCO"], [0.75, None], errors=[None, "no conformer"]).added
            1
            >>> store.rewards_of(["CCO", "CCCO"])
            [0.75, nan]
        """
        samples = as_list(samples)
        recorded = core_record.Recorded.prepare(
            self._buffer,
            samples,
            rewards,
            source,
            metas=as_metas(meta, len(samples)),
            errors=errors,
            seconds=seconds,
            details=details,
        )
        return self._write(core_record.record, recorded)

    @_writes
    def remove(self, ids: Sequence[int]) -> int:
        """Take waiting samples out of the pool; return how many waited.

        `add` leaves them out; `add(..., requeue=True)` puts them back.

        Args:
            ids: n ids of samples; unknown ones are skipped.

        Raises:
            StaleIds: If the numbers may be those of other samples: the database has gone back to
                an earlier state since, by a failover or a restore, or was replaced. Nothing is
                removed.

        Examples:
            >>> store.remove([1, 2])
            2
            >>> len(store)
            8
        """
        return self._write(remove.remove, as_ids(ids))

    @_writes
    def replace(self, ids: Sequence[int], samples: Sequence[Any]) -> int:
        """Put other samples in the place of waiting ones; return how many of these waited.

        The source is kept. A new sample that equals a waiting one is dropped; one that equals the
        sample it would replace changes nothing. All in one transaction.

        Args:
            ids: n ids of waiting samples; others are skipped.
            samples: n samples, one for each id.

        Raises:
            StaleIds: See `remove`.

        Examples:
            >>> store.replace([1], ["OCC"])
            1
            >>> store.waiting().samples[-1]
            'OCC'
        """
        numbers, others = as_ids(ids), as_list(samples)
        if len(numbers) != len(others):
            raise InvalidArgument(
                f"{len(numbers)} ids came with {len(others)} samples: give one for each."
            )
        hashes = add.hashes_of(self._buffer, others)
        return self._write(remove.replace, numbers, others, hashes)

    @_writes
    def forget(self, ids: Sequence[int]) -> ForgetResult:
        """Delete samples and all that belongs to them: rewards, measurements, draws.

        The counters, and the sizes of the batches that had drawn them, go down with them. Trained
        predictors stay: the result names those that may have learned from a deleted reward, and the
        log says so. A sample that is added again is a new one. A process that has lost a claim on a
        deleted sample, and then stores its reward, stores the sample again.

        Args:
            ids: Numbers of samples; unknown ones are skipped.

        Raises:
            InvalidArgument: If one of the samples is claimed. Nothing is deleted.
            StaleIds: See `remove`. Nothing is deleted.

        Examples:
            >>> store.forget([11, 12])
            ForgetResult(forgotten=2, predictors=())
        """
        result = self._buffer.write_alone(deletion.forget, as_ids(ids))
        deletion.tell(self.name, result)
        return result

    # -- scores -----------------------------------------------------------------------------------

    @_writes
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
        """Predict the scores of waiting samples that have none; weights follow from scores.

        All scores of a call have the version that was the newest when the call began. They are
        stale if a predictor is stored during the call.

        Args:
            score_fn: Takes a list of n samples, returns (n,) floats: an array, a list, or a tensor
                on any device, also with gradients. A sample with a higher score is drawn earlier,
                whatever the direction of the buffer. A sample whose score is not finite is never
                drawn, and counted. The function runs outside of any transaction.
            only: "missing": samples without a score. An alias: "stale" is `refresh`; "all" is
                `mark_stale`, then `refresh`.
            budget: For "stale" and "all", see `refresh`; 0 does no more than `mark_stale`.
            checkpoint: For a budget, see `refresh`.
            chunk: Samples scored at once.
            silent: Show no progress bar.

        Returns:
            The number of samples scored.

        Raises:
            InvalidArgument: If the scores are no numbers, or not one for each sample. Nothing of
                that chunk is stored.

        Examples:
            >>> store.add(["CCCO", "CCCN"]).added
            2
            >>> store.score(lambda samples: [len(sample) for sample in samples])
            2
        """
        require_function(score_fn, "score_fn must be a function of a list of samples", takes=1)
        rule = 'only must be "missing", "stale" or "all"'
        only = require_choice(only, rule, ("missing", "stale", "all"))
        chunk = require_count(chunk, "chunk must be a positive number of samples", least=1)
        silent = require_flag(silent, "silent")
        if budget is None and checkpoint is not None:
            raise InvalidArgument(
                "a checkpoint is stored with the scores of a budget: give budget=, too."
            )
        if budget is not None:
            if only == "missing":
                raise InvalidArgument('a budget is for a refresh: give only="stale" or "all", too.')
            rule = "budget must be a number of samples, or None for all"
            budget = require_count(budget, rule)
        options: dict[str, Any] = {"budget": budget, "checkpoint": checkpoint}
        n = self._score_by(None, score_fn, only, **options, chunk=chunk, silent=silent)
        if not n and only == "missing":
            self._tell_of_stale_scores()
        return n

    @_writes
    def refresh(
        self,
        score_fn: Callable[[list[Any]], Any],
        *,
        budget: int | None = None,
        checkpoint: Mapping[str, bytes] | None = None,
        chunk: int = 10_000,
        silent: bool = True,
    ) -> int:
        """Score the stale samples: those scored before the newest predictor or `mark_stale`.

        An interrupted refresh goes on with the next call. Processes that refresh at the same time
        share the work.

        Args:
            score_fn: See `score`.
            budget: Most samples to score, in one transaction that also stores their new weights:
                the oldest score first, and of equally old ones the highest. None: all.
            checkpoint: States to resume from, by name, stored with the scores of a budget.
            chunk: Samples scored at once.
            silent: Show no progress bar.

        Returns:
            The number of samples scored.

        Raises:
            InvalidArgument: See `score`.

        Examples:
            >>> store.mark_stale()
            >>> store.refresh(lambda samples: [sample.count("C") for sample in samples], budget=4)
            4
        """
        options: dict[str, Any] = {"budget": budget, "checkpoint": checkpoint}
        return self.score(score_fn, "stale", **options, chunk=chunk, silent=silent)

    @_writes
    def update_priorities(self, ids: Sequence[int], priorities: Any) -> int:
        """Give samples new priorities: their scores, with weights and keys, in one transaction.

        A sample is drawn by its weight, which follows from its priority by the weighting of the
        buffer: `Power(alpha)` is that of prioritised replay. A sample of priority 0 is never drawn,
        whatever the weighting: its score is 0 under `Power`, whose weight of 0 is 0, and NaN under
        the others, whose weight of 0 is not. The draws stay exact: the next one goes by the new
        weights.

        A waiting sample, in mode "replay" also a drawn one, gets its weight at once. A sample that
        is claimed in mode "consume" gets its score now, and waits with its weight if it is
        released; as all released samples, it is then first in line. A sample that neither waits nor
        is claimed (settled in mode "consume", removed, evicted) keeps the score that it had, and is
        not counted. In mode "replay" a measured or failed sample waits like any other.

        The scores have the newest version, so that a refresh does not take them for stale. A later
        refresh of all scores replaces them.

        Samples of the last 1,000 batches that this process has drawn in mode "replay" are found by
        their keys. The cost of other waiting samples grows with the buffer: a scan of the pool
        finds them, and so those that another process has drawn since. When a new lowest score has
        moved every key (under "shift"), one scan finds the keys of all these batches again.

        Args:
            ids: n ids of samples, such as `batch.ids`; of equal ids the last one counts.
            priorities: (n,) finite numbers of 0 or more.

        Returns:
            The number of samples that have their new priorities.

        Raises:
            InvalidArgument: If the buffer draws uniformly, if it has no sample of an id, or if
                there are not n finite numbers of 0 or more. Nothing is stored.
            StaleIds: See `remove`. Nothing is stored.

        Source:
            Prioritized Experience Replay (Schaul et al. 2016).

        Examples:
            >>> replay = open_store("sqlite:///replay.db", mode="replay", weighting="power")
            >>> replay.add(["left", "right", "up"]).added
            3
            >>> replay.update_priorities([1, 2], [5.0, 0.0])
            2
            >>> replay.waiting().scores
            array([ 5.,  0., nan])
        """
        given = core_priorities.prepare(self._buffer, as_ids(ids), priorities)
        return core_priorities.update(self._buffer, given)

    @_writes
    def mark_stale(self) -> None:
        """Mark all scores as stale, for `refresh` to score the samples again.

        Examples:
            >>> store.mark_stale()
            >>> stats = store.stats()
            >>> stats.score_version, stats.refreshed_version
            (1, 0)
        """
        self._score_by(None, list, "all", budget=0)

    def is_refreshed(self) -> bool:
        """Tell whether the newest full refresh has finished; `refresh` finishes one that has not.

        Scores may be stale nevertheless, such as after `mark_stale`: `staleness` counts them.

        Examples:
            >>> store.is_refreshed()
            True
        """
        return self._buffer.read(read.is_refreshed)

    def staleness(self) -> list[Staleness]:
        """Return how many samples wait with a score of each version, the oldest version first.

        Reads the whole pool.

        Examples:
            >>> [(row.score_version, row.waiting) for row in store.staleness()]
            [(0, 10)]
        """
        return self._buffer.read(counts.staleness)

    # -- batches out ------------------------------------------------------------------------------

    @_writes
    def sample(self, n: int, pct_argmax: float = 0.0, *, lease_s: float | None = None) -> Batch:
        """Claim a batch: exact weighted draws without replacement, after a share of the heaviest.

        The batch has fewer samples if fewer can be drawn; samples without a score and those of
        weight 0 never can.

        Args:
            n: Samples wanted; -1: every waiting sample, drawable or not.
            pct_argmax: Share of the batch in [0, 1], rounded to whole samples, that is taken from
                the top of the weights.
            lease_s: Seconds for which the batch stays claimed, also if this process ends, such as
                86_400 for a day; see `Batch.detach`. None: while this process lives.

        Returns:
            The batch, to be settled or released. It is empty if nothing can be drawn.

        Examples:
            >>> with store.sample(3, pct_argmax=0.34) as batch:
            ...     print(batch.samples)
            ...     batch.settle([float(sample.count("C")) for sample in batch.samples])
            ['c1ccccc1', 'C#N', 'CC=O']
        """
        if lease_s is not None:
            rule = "lease_s must be a positive number of seconds, or None"
            lease_s = require_real(lease_s, rule, is_lease)
        return self._claim(n, pct_argmax, claim.Terms(lease_s=lease_s))

    @_writes
    def stream(
        self, batch_size: int, *, commit_every: int | None = 32, until_empty: bool = True
    ) -> Stream:
        """Return an `IterableDataset` of torch that claims samples, and yields them in batches.

        `for samples in store.stream(32)` claims some 1,024 samples at once, and yields lists of
        `batch_size` of them; the last list of a claim may be shorter. Any number of processes, and
        of workers of their `loader`, share one exact race: no two have the same claim.

        A batch that the loop has had is settled after `commit_every` batches, at the natural end of
        the loop, and at `state_dict()`. One that was not settled when its process ends waits again.
        In mode "consume" a settled sample has left the pool, and the loop ends when nothing waits.
        In mode "replay" the loop does not end, and no sample comes twice within one claim.

        Args:
            batch_size: Samples in a batch.
            commit_every: Batches after which they are settled; a claim in mode "consume" has no
                more batches. None: only at `state_dict()`, to settle what a checkpoint holds.
            until_empty: End when nothing can be drawn; False: wait for new samples.

        Examples:
            >>> for samples in store.stream(4):
            ...     print(samples)
            ['C#N', 'CC=O', 'CCN', 'c1ccccc1']
            ['C1CC1', 'CC(C)O', 'CCCC', 'CCO']
            ['CCCl', 'CO']
        """
        from sqlbuffer.loading.stream import Stream  # imports torch

        return Stream(
            self._buffer,
            batch_size=batch_size,
            commit_every=commit_every,
            until_empty=until_empty,
        )

    @_writes
    def batch(self, token: str) -> Batch:
        """Return the batch that was detached with this token, with its samples as they are now.

        The batch can be settled, reported and released as before; its probabilities are NaN. It
        stays claimed until then, or until its lease is over.

        Args:
            token: What `Batch.detach` has returned.

        Raises:
            InvalidArgument: If no batch of this buffer has the token.
            ClaimLost: If the batch was settled or released, or if its lease is over.

        Examples:
            >>> token = store.sample(2, lease_s=86_400).detach()
            >>> batch = store.batch(token)  # in another process
            >>> batch.settle([1.0, 0.5])
        """
        return self._buffer.read(tokens.take_up, token)

    # -- stored samples ---------------------------------------------------------------------------

    def waiting(self) -> read.Waiting:
        """Return all samples that wait, in the order in which they were stored.

        Examples:
            >>> waiting = store.waiting()
            >>> waiting.samples[:2], waiting.ids[:2], waiting.scores[:2]
            (['C1CC1', 'CC(C)O'], array([1, 2]), array([5., 6.]))
        """
        return self._buffer.read(read.waiting)

    def labelled(self) -> tuple[list[Any], Floats]:
        """Return the n samples that have a reward, and their rewards, (n,) float64.

        Examples:
            >>> store.labelled()
            (['C', 'CC'], array([0.25, 0.5 ]))
        """
        return self._buffer.read(read.labelled)

    def labelled_rows(
        self,
        *,
        where: Where = None,
        newest: int | None = None,
        best: float | None = None,
    ) -> labels.LabelledRows:
        """Return the samples that have a reward as a sequence that reads a sample when asked for.

        Args:
            where: A condition, see `table`; as SQL never one from a person you do not trust.
            newest: Most rows, those measured last.
            best: Of these, the share in (0, 1] with the best rewards, see `direction`.

        Examples:
            >>> rows = store.labelled_rows(best=0.5)
            >>> rows[0], rows.rewards
            ('CC', array([0.5]))
        """
        return labels.labelled_rows(self._buffer, where=where, newest=newest, best=best)

    def dataset(self, where: Where = None) -> LabelledDataset:
        """Return the samples that have a reward as a map-style dataset of torch.

        `DataLoader(store.dataset(), batch_size=32, shuffle=True)` reads each batch by one
        query, also in workers, forked or spawned. An element is (sample, reward). The dataset
        has the ids and rewards of the moment; samples that are labelled later are in the next one.

        Args:
            where: A condition, see `table`.

        Examples:
            >>> dataset = store.dataset()
            >>> len(dataset), dataset[0]
            (2, ('C', 0.25))
        """
        from sqlbuffer.loading.dataset import LabelledDataset  # imports torch

        return LabelledDataset(self.labelled_rows(where=where))

    def rewards_of(self, samples: Sequence[Any]) -> list[float | None]:
        """Return the stored reward of each sample: NaN if measuring failed, None without one.

        Args:
            samples: n samples, stored or not.

        Examples:
            >>> store.rewards_of(["CC", "CCC", "CCO"])
            [0.5, nan, None]
        """
        if self._buffer.key_caution is not None:
            warnings.warn(self._buffer.key_caution, stacklevel=2)
        return self._buffer.read(read.rewards_of, as_list(samples))

    def samples_of(self, ids: Sequence[int]) -> dict[int, Any]:
        """Return the samples of these numbers, by number.

        Args:
            ids: n ids of samples.

        Raises:
            StaleIds: See `remove`.

        Examples:
            >>> store.samples_of([1, 12])
            {1: 'C1CC1', 12: 'CC'}
        """
        return self._buffer.read(_samples_of, as_ids(ids))

    def incumbent(self) -> float | None:
        """Return the reward to improve on: the best before the newest predictor, None without any.

        Before the first predictor it is the best of all. It stays until the next predictor, so
        that all samples scored by one predictor are compared with the same reward. It is the lowest
        reward if the direction is "minimize".

        Examples:
            >>> store.incumbent()
            0.5
        """
        return self._buffer.read(read.incumbent)

    def top(
        self,
        n: int = 10,
        by: str = "reward",
        *,
        objective: str | None = None,
        where: Where = None,
    ) -> list[dict[str, Any]]:
        """Return the n best samples by "reward" or "score", the best first, each as a dict.

        The direction of the buffer says which reward is better. A higher score is always better.
        Samples that have left the pool keep their scores: in mode "consume" those that wait are
        `where=("state", "=", "waiting")`.

        Args:
            n: Most samples.
            by: "reward" or "score".
            objective: An earlier objective, by whose rewards the samples are ordered; None for the
                current one.
            where: A condition, see `table`.

        Examples:
            >>> [(row["sample"], row["reward"]) for row in store.top(2)]
            [('CC', 0.5), ('C', 0.25)]
        """
        return read.top(self._buffer, n, by=by, objective=objective, where=where)

    def table(
        self,
        columns: Sequence[str] | None = None,
        where: Where = None,
        decode: bool = False,
        chunk: int = CHUNK,
    ) -> Table:
        """Return the samples as a table that other libraries read, each time from the database.

        `pyarrow.table(store.table())`, `polars.DataFrame(store.table())`, `SELECT` in DuckDB and
        `datasets.Dataset(pyarrow.table(store.table()))` need no more. Columns of numbers stay
        columns of numbers if every value is missing.

        A reader gets the samples in chunks, by id, each read in a transaction of its own. A long
        reading therefore keeps neither SQLite from shortening its log, nor PostgreSQL from removing
        old rows. A sample is as it was at one time, two chunks may be of different times, and
        samples that are stored after the beginning are left out. `drawn` is counted at the
        beginning. `to_arrow` and `to_pandas` read everything as it is at one time.

        Args:
            columns: Names of columns; None for all that stand here up to `meta`. `sample_id`,
                `sample` (its text), `key`, `source`, `state` ("waiting", "claimed", "measured",
                "failed" or "out"), `score`, `score_version`, `reward`, `objective`, `error`,
                `attempts`, `seconds`, `drawn` (how often, without released batches and draws that
                `prune` has dropped), `created_iteration`, `measured_iteration`, `worker_id` (that
                measured it), `created_at`, `scored_at`, `measured_at`, `meta` (as JSON). On
                request: `meta.NAME` for a value of the metas (or `meta."NAME"`, as in SQL),
                `queued`, `requeues`, `hash`, `payload`, `codec`. A name means the same as in the
                view `sample_overview`.
            where: A condition: (column, operator, value), such as ("reward", ">", 0.5); a list of
                these, which all hold; SQL, such as "state = 'failed' AND meta.mw > 600"; or an
                expression of SQLAlchemy on the columns of the table `samples`. Operators are
                = != < <= > >= in, not in, and like, columns those of this table that come from
                `samples`, and `meta.NAME`. SQL has the columns of `sample_overview`, and
                `meta.NAME`, which takes its type from what it stands next to, and is NULL for a
                missing value and one of another type. None is compared by = and !=.
            decode: Return the samples themselves instead of their texts, if all are of one type
                that Arrow has.
            chunk: Samples read at once. A chunk ends early after 32 MB of texts and payloads.

        Raises:
            InvalidArgument: If there is no such column, or the condition is wrong.
            MissingExtra: If pyarrow is not installed.

        Examples:
            >>> import pyarrow
            >>> best = store.table(["sample", "reward"], where=("reward", ">", 0.3))
            >>> pyarrow.table(best).to_pylist()
            [{'sample': 'CC', 'reward': 0.5}]
        """
        return exchange.table(self._buffer, columns, where, decode=decode, chunk=chunk)

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        where: Where = None,
        decode: bool = False,
    ) -> Any:
        """Return the samples as a pandas DataFrame, all as they are at one time.

        Args:
            columns: See `table`. None: also the names that columns had before 0.6, until 1.0: `id`
                is `sample_id`, `text` is `sample`, `rewarded_at` is `measured_at`.
            where: See `table`.
            decode: See `table`.

        Raises:
            MissingExtra: If pandas or pyarrow is not installed.

        Examples:
            >>> store.to_pandas(["sample", "state", "reward"], where=("sample_id", ">", 10))
              sample     state  reward
            0      C  measured    0.25
            1     CC  measured    0.50
            2    CCC    failed     NaN
        """
        return self._whole(columns, where, decode=decode).to_pandas()

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        where: Where = None,
        decode: bool = False,
    ) -> Any:
        """Return the samples as a `pyarrow.Table`, all as they are at one time.

        Args:
            columns: See `to_pandas`.
            where: See `table`.
            decode: See `table`.

        Raises:
            MissingExtra: If pyarrow is not installed.

        Examples:
            >>> store.to_arrow(["sample", "reward"], where=("reward", ">", 0.3)).to_pylist()
            [{'sample': 'CC', 'reward': 0.5}]
        """
        return self._whole(columns, where, decode=decode).to_arrow()

    # -- measurements ------------------------------------------------------------------------------

    @_writes
    def measure(
        self,
        fn: Callable[[Any], Any],
        *,
        batch: int = 8,
        n_jobs: int = 1,
        each: bool = True,
        timeout_s: float | None = None,
        on_error: str = "fail",
        max_calls: int | None = None,
        until_empty: bool = True,
        executor: Any = None,
        silent: bool = False,
    ) -> MeasureResult:
        """Measure waiting samples with a reward function; store each reward as it comes.

        Any number of processes may do so at the same time. A sample whose measurement fails is
        stored with the reason: see `failed` and `retry`. If a process dies, other processes
        measure its samples; a sample at which `max_attempts` processes have died has failed.

        With `n_jobs=1` and no `timeout_s` the function runs in this process. Otherwise each slot is
        a child process, which is killed and replaced alone.

        Args:
            fn: `fn(sample)` returns the reward, a finite number, or `(reward, details)` with a
                mapping that JSON can hold. An exception, NaN, None, text and infinity are failures.
            batch: Samples that are claimed at once.
            n_jobs: Number of slots; of an executor, the number of calls at a time.
            each: False: `fn(list of n samples)` returns n rewards. If the call fails, each sample
                of the list is measured alone.
            timeout_s: Seconds after which a call is killed, and its sample has failed.
            on_error: "fail": a failed measurement is stored at once; "retry": it is an attempt, and
                the sample has failed after `max_attempts`; "raise": it is raised. Each attempt is
                kept as a measurement, with its number as `failed_try` in the details.
            max_calls: Most measurements that this process starts, also those of a sample that is
                tried again; None for any number.
            until_empty: End when nothing can be drawn and no worker has a claim; False: wait for
                new samples.
            executor: A `concurrent.futures.Executor`, such as those of dask, submitit and mpi4py;
                it stays open. If one of its processes dies and breaks it, each sample that it was
                measuring has had an attempt: make a new one, and call again.
            silent: Show no progress line.

        Raises:
            InvalidArgument: If an argument is out of range, or the function cannot be sent to a
                child process.
            CannotMeasure: If the function does not load in a child process, if the executor is
                broken, or if a measurement fails and `on_error` is "raise". Claimed samples wait
                again.

        Examples:
            >>> result = store.measure(lambda sample: float(sample.count("C")), silent=True)
            >>> result.measured, result.failed
            (10, 0)
        """
        return measure(
            self._buffer,
            fn,
            batch=batch,
            n_jobs=n_jobs,
            each=each,
            timeout_s=timeout_s,
            on_error=on_error,
            max_calls=max_calls,
            until_empty=until_empty,
            executor=executor,
            silent=silent,
        )

    @_writes
    def remeasure(self, objective: str, where: Where = None) -> int:
        """Begin to measure the samples by another reward function; return how many wait again.

        Every sample loses its reward or failure. Measured samples wait again. Earlier measurements
        stay stored with the name of their objective: `top(objective=...)` and the view
        `measurement_overview` show them. Scores stay.

        Args:
            objective: A name for the new reward function that the buffer has not had before. With
                the name of the current one nothing changes: a script may be started again.
            where: Only samples that meet this condition wait again, see `table`.

        Raises:
            InvalidArgument: If a batch is claimed, or if the buffer has had this objective.

        Examples:
            >>> store.remeasure("docking at pH 7")
            3
            >>> store.top(1), store.top(1, objective="reward")[0]["sample"]
            ([], 'CC')
        """
        return core_objective.remeasure(self._buffer, objective, where)

    @property
    def objective(self) -> str:
        """Name of the reward function whose rewards the samples have; "reward" at first.

        Examples:
            >>> store.objective
            'reward'
        """
        return str(self._buffer.read(lambda tx: tx.own_row(queries.buffers.objective()).objective))

    @_writes
    def set_budget(self, budget: int | None) -> None:
        """Limit how many distinct samples may be measured, failed or claimed, in all processes.

        `sample` claims no more samples than are left; samples that have a reward or a failure cost
        nothing. If it can claim none, the batch is empty, and `measure` and `Environment.fit` end.
        A release gives back. `record` and rewards that come too late count, and are never refused.
        Of the samples that a sampler brings to a batch itself, a loop measures as many as are left.

        Args:
            budget: Number of samples; None for any number.

        Raises:
            InvalidArgument: If more samples are measured, failed or claimed already.

        Examples:
            >>> store.set_budget(5)  # three samples are measured or failed already
            >>> store.budget_left
            2
        """
        self._write(core_budget.set_budget, core_budget.as_budget(budget))

    @property
    def budget_left(self) -> int | None:
        """Number of samples that may still be claimed; None for any number.

        Examples:
            >>> store.set_budget(100)
            >>> store.budget_left
            97
        """
        return self._buffer.read(core_budget.left)

    # -- failures ----------------------------------------------------------------------------------

    def failed(self, n: int | None = None, where: Where = None) -> list[dict[str, Any]]:
        """Return the samples whose measurement failed, the newest failure first, each as a dict.

        The keys are `id`, `sample`, `source`, `error`, `tries` (measurements that were begun since
        `retry` last let it wait), `attempts` (of these, deaths of workers, and failures under
        `on_error="retry"`, as in the table), `seconds` of the last one, and `failed_at`.

        Args:
            n: Most samples; None for all.
            where: A condition, see `table`.

        Examples:
            >>> [(row["sample"], row["error"]) for row in store.failed()]
            [('CCC', 'timed out after 600 s')]
        """
        return attempts.failed(self._buffer, n, where)

    @_writes
    def retry(self, ids: Sequence[int] | None = None, where: Where = None) -> int:
        """Let failed samples wait for another measurement, first in line; return how many.

        Their attempts are counted from 0 again. Their earlier measurements stay stored.

        Args:
            ids: Only these samples; None for all failed ones.
            where: A condition, see `table`.

        Raises:
            StaleIds: See `remove`.

        Examples:
            >>> store.retry(where="error LIKE 'timed out%'")
            1
            >>> len(store)
            11
        """
        numbers = None if ids is None else as_ids(ids)
        return attempts.retry(self._buffer, numbers, where)

    # -- predictors -------------------------------------------------------------------------------

    @_writes
    def save_predictor(
        self,
        state: bytes,
        *,
        rows_trained: int,
        rows_held_out: int = 0,
        metrics: Mapping[str, Any] | None = None,
        keep: int | None = None,
        lease: leases.Lease | None = None,
        checkpoint: Mapping[str, bytes] | None = None,
    ) -> int:
        """Store a trained predictor; return its version, which all later scores carry.

        Args:
            state: Its weights, as safetensors or as the agent reads them.
            rows_trained: Labelled samples it was trained on.
            rows_held_out: Labelled samples it never saw.
            metrics: Values that JSON can hold, NaN and infinities as well; `train_loss`,
                `valid_loss`, `rank_correlation` and `r2` have columns.
            keep: Keep the states of this many of the newest versions, and of each version whose
                scores are still in use; metrics are always kept. None keeps all.
            lease: The lease under which it was trained.
            checkpoint: States to resume from, by name, stored in the same transaction.

        Raises:
            LeaseLost: If the lease is not held any more. Nothing is stored.

        Examples:
            >>> store.save_predictor(b"weights", rows_trained=2, metrics={"valid_loss": 0.1})
            1
        """
        return self._write(
            predictor_versions.write_predictor,
            state=state,
            rows_trained=rows_trained,
            rows_held_out=rows_held_out,
            measures={} if metrics is None else metrics,
            keep=keep,
            lease=lease,
            states=metrics_and_checkpoints.states_from(checkpoint),
        )

    def predictors(self) -> predictor_versions.PredictorVersions:
        """Return all predictor versions with their measures, the oldest first.

        Examples:
            >>> store.save_predictor(b"weights", rows_trained=2, metrics={"valid_loss": 0.1})
            1
            >>> [(it.version, it.valid_loss) for it in store.predictors()]
            [(1, 0.1)]
        """
        return self._buffer.read(predictor_versions.read_predictors)

    def newest_predictor(self) -> predictor_versions.PredictorVersion | None:
        """Return the newest predictor version, None before the first.

        Examples:
            >>> store.save_predictor(b"weights", rows_trained=2)
            1
            >>> store.newest_predictor().rows_trained
            2
        """
        return self._buffer.read(predictor_versions.newest_predictor)

    def newest_version(self) -> int | None:
        """Return the version of the newest stored predictor, None before the first.

        Examples:
            >>> store.newest_version() is None
            True
            >>> store.save_predictor(b"weights", rows_trained=2)
            1
            >>> store.newest_version()
            1
        """
        return self._buffer.read(predictor_versions.newest_version)

    def predictor_state(self, version: int | None = None) -> bytes | None:
        """Return the state of a stored predictor, by default the newest; None before the first.

        Args:
            version: One of `predictors()`.

        Raises:
            InvalidArgument: If the version does not exist, or its state was dropped.

        Examples:
            >>> version = store.save_predictor(b"weights", rows_trained=2)
            >>> store.predictor_state(version)
            b'weights'
        """
        found = self._buffer.read(predictor_versions.read_state, version=version)
        return None if found is None else found[1]

    def load_predictor(self, agent: Any, version: int | None = None) -> int | None:
        """Load the weights of a stored predictor, by default the newest, into an agent.

        Args:
            agent: A `PredictiveAgent`, or an object that has a `state_dict`, itself or as its
                `model`.
            version: One of `predictors()`.

        Returns:
            The version; None if no predictor is stored yet.

        Raises:
            InvalidArgument: If the version does not exist, its state was dropped, or it does not
                fit the model.

        Examples:
            >>> import safetensors.torch
            >>> state = safetensors.torch.save(agent.model.state_dict())
            >>> version = store.save_predictor(state, rows_trained=2)
            >>> store.load_predictor(agent) == version
            True
        """
        found = self._buffer.read(predictor_versions.read_state, version=version)
        if found is None:
            return None
        from sqlbuffer.predictor.weights import load_state  # imports torch

        load_state(agent, found[1])
        return found[0]

    # -- jobs -------------------------------------------------------------------------------------

    def jobs(self) -> list[leases.Job]:
        """Return the state of each job: its owner, its last run, its last error.

        Examples:
            >>> with store.leased("retrain"):
            ...     print([(job.name, job.runs, job.is_held) for job in store.jobs()])
            [('retrain', 1, True)]
        """
        return self._buffer.read(leases.find)

    @_writes
    def announce_job(self, name: str, schedule: str) -> None:
        """Store the schedule of a job in words, for people to read.

        Args:
            name: Name of the job.
            schedule: When it is due, such as "every 10 minutes".

        Examples:
            >>> store.announce_job("retrain", "every 10 minutes")
            >>> [(job.name, job.schedule) for job in store.jobs()]
            [('retrain', 'every 10 minutes')]
        """
        job = as_name(name, "the name of a job")
        self._write(leases.announce, job, as_name(schedule, "a schedule"))
        self._buffer.heartbeat.start()  # it watches the owners of the job

    @_writes
    def leased(
        self, job: str, seen: int | None = None
    ) -> contextlib.AbstractContextManager[leases.Lease | None]:
        """Take a job for the block: one process does it at a time.

        The block gets the lease, or None if another process has it. A thread in the background
        renews the lease. Another process may take it after it has seen for `grace_s` that the
        lease is not renewed, and at once if the owner has died on the same host. An error is
        stored with the job before it is raised; an interrupted job counts as not done.

        Args:
            job: Name of the job.
            seen: Take the job only if it was taken this often so far.

        Examples:
            >>> with store.leased("retrain") as lease:
            ...     print(lease.job, lease.run)
            retrain 1
        """
        job = as_name(job, "the name of a job")
        rule = "seen must be the job's number of runs, or None"
        seen = None if seen is None else require_count(seen, rule)
        reaper.release_dead(self._buffer)
        return leases.leased(self._buffer, job, seen)

    # -- metrics and checkpoints ------------------------------------------------------------------

    @_writes
    def log_metrics(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Store metrics of an iteration; a later value replaces an earlier one.

        Args:
            iteration: Its number, from 0.
            metrics: Numbers by name, also NaN and infinities.

        Examples:
            >>> store.log_metrics(0, {"loss": 0.5})
            >>> store.history()
            [{'iteration': 0, 'name': 'loss', 'value': 0.5}]
        """
        self._write(metrics_and_checkpoints.write_metrics, iteration=iteration, values=metrics)

    def history(self) -> list[dict[str, Any]]:
        """Return all metrics as `{"iteration", "name", "value"}`, in the order of the run.

        Examples:
            >>> store.log_metrics(0, {"loss": 0.5, "accuracy": 0.9})
            >>> store.history()[0]
            {'iteration': 0, 'name': 'accuracy', 'value': 0.9}
        """
        return self._buffer.read(metrics_and_checkpoints.history)

    def checkpoint(self, name: str) -> tuple[int, bytes] | None:
        """Return the newest checkpoint of a name: (batches settled when it was written, state).

        Args:
            name: Name of the state, as given to `save_checkpoints` or `Batch.settle`.

        Examples:
            >>> store.save_checkpoints({"optimiser": b"state"}, iteration=0)
            >>> store.checkpoint("optimiser")
            (0, b'state')
        """
        return self._buffer.read(metrics_and_checkpoints.read_checkpoint, name=name)

    def checkpoints(self, name: str) -> list[tuple[int, bytes]]:
        """Return all stored checkpoints of a name, see `checkpoint`, the oldest first.

        Args:
            name: Name of the state, as given to `save_checkpoints` or `Batch.settle`.

        Examples:
            >>> for i in range(2):
            ...     store.save_checkpoints({"log": b"%d" % i}, iteration=i, kept={"log": None})
            >>> store.checkpoints("log")
            [(0, b'0'), (1, b'1')]
        """
        return self._buffer.read(metrics_and_checkpoints.read_checkpoints, name=name)

    @_writes
    def save_checkpoints(
        self,
        states: Mapping[str, bytes],
        *,
        iteration: int,
        kept: Mapping[str, int | None] | None = None,
    ) -> None:
        """Store states to resume from, apart from a batch; `Batch.settle` stores them with one.

        Args:
            states: By name.
            iteration: Batches settled by then.
            kept: How many states of a name stay stored, None for all; a name that is missing keeps
                the newest.

        Examples:
            >>> store.save_checkpoints({"optimiser": b"state"}, iteration=0)
            >>> store.checkpoint("optimiser")
            (0, b'state')
        """
        self._write(
            metrics_and_checkpoints.write_checkpoints, iteration=iteration, states=states, kept=kept
        )

    # -- the whole buffer -------------------------------------------------------------------------

    @_writes
    def rename(self, new: str) -> None:
        """Give the buffer another name.

        Processes that have opened it go on working with it, and show its old name in messages.

        Args:
            new: The new name, which no other buffer of the database has.

        Raises:
            InvalidArgument: If another buffer has the name.

        Examples:
            >>> store.rename("alcohols")
            >>> store.name
            'alcohols'
        """
        new = require_name(new)
        self._buffer.write(deletion.rename, new)
        self._buffer = dataclasses.replace(self._buffer, name=new)

    @_writes
    def delete(self, *, force: bool = False) -> None:
        """Delete the buffer with all that it holds, and close the store.

        One transaction deletes all or nothing. Other processes that have opened the buffer get
        `BufferNotFound` when they next write.

        Args:
            force: Delete the buffer even if other workers use it.

        Raises:
            InvalidArgument: If another living worker uses the buffer, or if the lease of a claimed
                batch is not over, and `force` is False. A worker of another host counts as living
                until it was silent for `grace_s`.

        Examples:
            >>> store.delete()
            >>> open_store("sqlite:///molecules.db", name="molecules").stats().stored  # a new one
            0
        """
        force = require_flag(force, "force")
        self._buffer.write_alone(deletion.delete, force=force)
        self.close()

    @_writes
    def prune(
        self,
        *,
        keep_draws: int | None = None,
        older_than_s: float | None = None,
        silent: bool = True,
    ) -> PruneResult:
        """Drop old draws, metrics, checkpoints and states of predictors; samples and rewards stay.

        Workers may go on: each transaction drops some 10,000 rows, and leaves as much
        time to the others. A killed call leaves a sound buffer, and the next call goes on.

        Old are the draws of closed batches, whole batches at a time; metrics of earlier
        iterations than those of the other batches; checkpoints and states that had been replaced
        by then. Never dropped are the newest checkpoint of each name, the newest state, and states
        that have made the score of a waiting or claimed sample. Batches, measurements, and the
        measures of predictors stay. The draws of a released batch stay if a part of it was
        measured, or while the race has not passed them.

        `copy(at_iteration=)` is then refused for iterations before the dropped draws;
        `draw_overview` and `history` begin later, and the column `drawn` of `table` counts what is
        left. Space in an SQLite file is used again by new rows; VACUUM gives it back to the file
        system. On PostgreSQL autovacuum makes it free.

        Args:
            keep_draws: Number of the newest draws to keep, at least; the batch in which it ends
                stays whole.
            older_than_s: Drop what was closed before so many seconds, by the clock of the database.
            silent: Show no progress bar.

        Raises:
            InvalidArgument: Unless exactly one of `keep_draws` and `older_than_s` is given.

        Examples:
            >>> with store.sample(2) as batch:
            ...     batch.settle([1.0, 0.5])
            >>> store.prune(keep_draws=0)
            PruneResult(draws=2, metrics=0, checkpoints=0, predictors=0, size_bytes=96)
        """
        return prune(self._buffer, keep_draws=keep_draws, older_than_s=older_than_s, silent=silent)

    # -- a second buffer --------------------------------------------------------------------------

    @_writes
    def copy(
        self,
        new: str | None = None,
        *,
        to_url: str | sa.URL | None = None,
        at_iteration: int | None = None,
        seed: int | None = None,
        weighting: str | Weighting | None = None,
        mode: str | None = None,
        max_size: int | None = None,
        evict: str | None = None,
        predictors: bool = True,
        silent: bool = True,
    ) -> SampleStore:
        """Copy the buffer, and open the copy: to try another setting, or to move it elsewhere.

        Within its database one transaction copies all or nothing. On SQLite other writers wait for
        it.

        Without `at_iteration` the copy goes on as the original would if its workers died now:
        samples of open batches wait again. With another seed or weighting all waiting samples join
        a new race.

        With `at_iteration` the copy holds the state before the first batch of that iteration was
        drawn, in a new race: samples, objective, rewards, failures, scores, predictors, and metrics
        of the iterations before. An overwritten score cannot be known: a score of a later version
        is missing. A sample removed or evicted since does not wait; a sample added again, or
        retried, after it was settled does not wait either. Adding an evicted one puts it back.

        With `to_url` the copy is in another database, an SQLite file or PostgreSQL, which is
        created if need be. It has all that the buffer has, with its budget and all settings, and
        draws the same batches. Workers go on: the copy is the state of one moment. An
        SQLite file is copied to the folder of temporary files first, since a transaction that reads
        for minutes would keep it from shortening its log; on PostgreSQL one transaction reads, and
        old versions of rows stay until it ends. Transactions of 10,000 rows write. The copy has its
        name once all rows were read back and compared. If the call is killed, the same call goes
        on, or begins again if the buffer has changed; until then the unfinished copy cannot be
        opened, and `sqlbuffer rm` deletes it.

        Args:
            new: Name of the copy; with `to_url` that of the buffer if it is not given.
            to_url: URL of another database; None for the same.
            at_iteration: From 0 to `iteration`; None for the present.
            seed: Another seed of the race.
            weighting: Another weighting, see `open_store`.
            mode: Another mode.
            max_size: Another limit of the pool, in force from the next `add` or `score` on.
            evict: Another choice of the samples that leave beyond the limit, see `open_store`.
            predictors: False: copy no predictor versions, and not their states; scores stay, with
                the numbers of their versions.
            silent: Show no progress bar.

        Raises:
            InvalidArgument: If the name is taken, or the buffer has not come to that iteration;
                with `to_url` if it is the URL of the same database, or a setting is given.
            InconsistentDatabase: If the rows in the other database differ; nothing stays of them.
            SchemaMismatch: If the other database has the schema of another release.

        Examples:
            >>> copy = store.copy("uniform", weighting="uniform")
            >>> copy.stats().kind, len(copy)
            ('uniform', 10)
            >>> len(store.copy(to_url="sqlite:///elsewhere.db"))
            10
        """
        made = copy.copy(
            self._buffer,
            new,
            to_url=to_url,
            at_iteration=at_iteration,
            seed=seed,
            weighting=weighting,
            mode=mode,
            max_size=max_size,
            evict=evict,
            predictors=predictors,
            silent=silent,
        )
        apart = dataclasses.replace(made, database=made.database.sibling())
        return SampleStore(reaper.with_heartbeat(apart))

    # -- internal: for sqlbuffer.training and sqlbuffer.retraining.train ---------------------------

    def _write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a writing transaction, if the database still has the buffer."""

        def write(tx: Transaction) -> T:
            tx.race_state()  # raises BufferNotFound
            return work(tx, *args, **kwargs)

        return self._buffer.write(write)

    def _whole(self, columns: Any, where: Any, *, decode: bool) -> Table:
        """Return the table of `to_pandas` and `to_arrow`."""
        return exchange.table(self._buffer, columns, where, decode=decode, has_old_names=True)

    def _claim(self, n: int, pct_argmax: float, terms: claim.Terms) -> Batch:
        """`sample`, on terms that the loop may choose."""
        batch = draw.claim(self._buffer, n, pct_argmax=pct_argmax, terms=terms)
        if len(batch):
            self._was_told_why = False
        elif n and not self._was_told_why:
            # A loop that asks again and again is told once.
            self._was_told_why = counts.tell_why_undrawn(self._buffer)
        return batch

    def _is_spent(self, n: int, pct_argmax: float) -> bool:
        """Tell whether nothing of the budget is left, and a draw would return no sample."""
        return core_budget.is_spent(self._buffer, n, pct_argmax)

    def _store_unmeasured(self, samples: Sequence[Any], sources: Sequence[str]) -> None:
        """Store samples that do not wait, and whose rewards will be recorded."""
        chunk = add.incoming(self._buffer, samples, sources, start=None)
        self._write(core_record.store_unmeasured, chunk)

    def _tell_of_stale_scores(self) -> None:
        """Say, once for each version, that waiting samples have scores of an older predictor."""
        stats = self.stats()
        if self._looked_for_stale == stats.score_version or not stats.waiting:
            return
        self._looked_for_stale = stats.score_version
        if stats.refreshed_version == stats.score_version:
            return
        versions = [(it.score_version, it.waiting) for it in self._buffer.peek(counts.staleness)]
        n_stale = sum(n for by, n in versions if by is not None and by < stats.score_version)
        if n_stale:
            log.warning(
                "no sample was scored: `score` scores only samples without a score, and buffer %r "
                "has %s with the score of an older predictor; call `refresh`",
                self.name,
                n_of(n_stale, "sample"),
            )

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
        """`score` with scores of a known version; a refresh of all stores its checkpoint at once.

        Raises:
            Overtaken: If there is a newer version, and `only` asks for a refresh. Nothing is
                scored.
        """
        options: dict[str, Any] = {"by": version, "chunk": chunk, "silent": silent}
        if only == "missing":
            return score.score_missing(self._buffer, score_fn, **options)
        options |= {
            "new_version": only == "all",
            "states": metrics_and_checkpoints.states_from(checkpoint),
        }
        if budget is None:
            return refresh.refresh(self._buffer, score_fn, **options)
        return refresh_budget.refresh_some(
            self._buffer, self._stale, score_fn, budget=budget, **options
        )

    def _newer(self, held: predictor_versions.Mark | None) -> predictor_versions.Newer:
        """Return the newest predictor, with its state unless its mark is `held`."""
        return self._buffer.read(predictor_versions.newer, held=held)

    def _release_dropped(self) -> None:
        """Wait until the batches that this process has drawn and dropped are released."""
        core_release.release_dropped(self._buffer)

    def _changes(self) -> tuple[Any, ...]:
        """Return a value that stays the same only if no waiting sample has changed."""
        return self._buffer.look(counts.changes)

    def _remove_known(self, waiting: read.Waiting, places: Sequence[int]) -> None:
        """`remove` samples that were read as waiting, and still wait."""
        known = [waiting.hashes[i] for i in places]
        self._write(remove.remove, waiting.ids[places].tolist(), known)

    def _replace_known(
        self, waiting: read.Waiting, places: Sequence[int], samples: Sequence[Any]
    ) -> None:
        """`replace` samples that were read as waiting, and still wait."""
        numbers, known = waiting.ids[places].tolist(), [waiting.hashes[i] for i in places]
        hashes = add.hashes_of(self._buffer, samples)
        self._write(remove.replace, numbers, samples, hashes, known)


def _samples_of(tx: Transaction, ids: Sequence[int]) -> dict[int, Any]:
    tx.require_ids(ids)
    return read.samples_of(tx, ids)
