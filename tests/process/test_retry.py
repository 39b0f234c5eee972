"""What passes is tried again: deadlocks, lost connections, servers that restart; and nothing is
done twice.
"""

import concurrent.futures
import gc
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.proxies import Proxy, proxy_before
from helpers.samples import scores_of
from helpers.servers import in_transaction
from sqlbuffer.db import retry
from sqlbuffer.db.backends import parse_url
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument
from sqlbuffer.records import AddResult
from sqlbuffer.store import SampleStore, open_store

TEN = [f"s{i}" for i in range(10)]


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    with proxy_before(postgresql_url) as proxy:
        yield proxy
    retry.until_true(
        lambda: in_transaction(postgresql_url) == 0
    )  # the server notices soon what was cut off


@pytest.fixture
def store(proxy: Proxy) -> Iterator[SampleStore]:
    """A store whose connections go through the proxy, with ten scored samples."""
    with open_store(proxy.url) as store:
        store.add(TEN)
        store.score(scores_of)
        yield store


def settled(store: SampleStore) -> Any:
    batch = store.sample(3)
    batch.settle([1.0, 2.0, 3.0])
    return store.rewards_of(batch.samples)


ACTIONS: dict[str, tuple[Callable[[SampleStore], Any], Any]] = {
    "add": (lambda store: store.add(["s1", "s20", "s21"]), AddResult(added=2, duplicates=1)),
    "score": (lambda store: (store.add(["s30"]), store.score(scores_of))[1], 1),
    "sample": (lambda store: len(set(hold(store.sample(4)).samples)), 4),
    "settle": (settled, [1.0, 2.0, 3.0]),
    "release": (lambda store: store.sample(2).release(), None),
    "record": (lambda store: store.record(["s40"], [4.0]), AddResult(added=1)),
    "remove": (lambda store: store.remove(store.waiting().ids[:2].tolist()), 2),
    "refresh": (lambda store: store.score(scores_of, only="all", chunk=5), 10),
    "retrain": (lambda store: store.save_predictor(b"state", rows_trained=1), 1),
}


def test_waiting_leaves_the_global_generator_alone() -> None:
    answers = iter([False, False, True])
    state = random.getstate()
    assert retry.until_true(lambda: next(answers))
    assert random.getstate() == state


def account(store: SampleStore) -> dict[str, Any]:
    stats = store.stats()
    names = (
        "iteration waiting unscored stored claimed drawn requeued removed measured score_version"
    ).split()
    return {name: getattr(stats, name) for name in names}


@pytest.mark.parametrize("how", ["answer", "request"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_commit_whose_connection_is_lost_counts_once(
    proxy: Proxy, store: SampleStore, action: str, how: str
) -> None:
    """The first COMMIT is cut, and the next; what is stored is what an undisturbed twin stores."""
    work, expected = ACTIONS[action]
    with open_store(proxy.url, name="twin") as twin:
        twin.add(TEN)
        twin.score(scores_of)
        assert work(twin) == expected
        undisturbed = account(twin)
    proxy.cut = [how, how, None, how]
    assert work(store) == expected
    assert proxy.n_cut >= 2
    proxy.cut = []
    assert account(store) == undisturbed
    assert store.check() == []


def test_connections_lost_in_between_are_replaced(proxy: Proxy, store: SampleStore) -> None:
    seen = set()
    while len(store):
        proxy.drop()
        with store.sample(3) as batch:
            seen |= set(batch.samples)
            proxy.drop()
            batch.settle(np.ones(len(batch)))
    assert seen == set(TEN)
    assert store.stats().measured == 10
    assert store.check() == []


def test_a_server_that_restarts_is_waited_for(proxy: Proxy, store: SampleStore) -> None:
    proxy.is_up = False
    proxy.drop()
    timer = threading.Timer(1.0, setattr, (proxy, "is_up", True))
    timer.start()
    assert store.add(["s11"]) == AddResult(added=1)
    assert proxy.is_up


def test_patience_ends(proxy: Proxy, store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.shorten_patience(monkeypatch, 0.3)
    proxy.close()
    start = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="check that the server runs"):
        store.add(["s11"])
    assert time.monotonic() - start < 5
    store.close()  # now: it would wait longer when the test has ended


def test_a_server_never_reached_is_an_error_at_once(proxy: Proxy) -> None:
    proxy.close()
    start = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        open_store(proxy.url)
    assert time.monotonic() - start < 5


def test_a_transaction_that_goes_on_without_us_is_ended(
    proxy: Proxy, store: SampleStore, postgresql_url: str
) -> None:
    """Its COMMIT never arrived, and the server waits for it, with all its locks."""
    proxy.cut = ["request"]
    assert store.add(["s20"]) == AddResult(added=1)
    assert store.stats().stored == 11
    assert in_transaction(postgresql_url) == 0


def test_an_unknown_outcome_is_an_error(
    proxy: Proxy, store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.shorten_patience(monkeypatch, 0.3)
    monkeypatch.setattr(type(inside.backend_of(store)), "end", lambda *_, **__: False)
    proxy.cut = ["answer"]
    with pytest.raises(DatabaseUnavailable, match="outcome is not known"):
        store.add(["s20"])


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_conflicts_are_run_again(postgresql_url: str, state: str) -> None:
    with open_store(postgresql_url) as store:
        runs: list[int] = []

        def conflict(connection: sa.Connection) -> int:
            runs.append(len(runs))
            if len(runs) < 4:
                connection.exec_driver_sql(
                    f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$"
                )
            return len(runs)

        assert inside.database_of(store).write(conflict) == 4


def test_errors_that_do_not_pass_are_not_run_again(store_url: str) -> None:
    with open_store(store_url) as store:
        runs: list[int] = []

        def fail(connection: sa.Connection) -> None:
            runs.append(len(runs))
            connection.exec_driver_sql("SELECT nonsense")

        with pytest.raises((sa.exc.DBAPIError, DatabaseUnavailable)):
            inside.database_of(store).write(fail)
        assert len(runs) == 1


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("53100", r"free space on the disk.*\.$"),
        ("53300", r"raise the limit on connections.*\.$"),
        ("55P03", r"holds a lock.*lock_timeout.*\.$"),
        ("57014", r"statement_timeout.*\.$"),
    ],
)
def test_what_the_server_says_by_its_code_has_an_advice_of_its_own(
    postgresql_url: str, state: str, words: str
) -> None:
    """Whatever the message says: it comes in the server's language."""
    with open_store(postgresql_url) as store:
        runs: list[int] = []

        def fail(connection: sa.Connection) -> None:
            runs.append(1)
            connection.exec_driver_sql(
                f"DO $$ BEGIN RAISE EXCEPTION 'tabla \"x\": permission denied' USING ERRCODE "
                f"= '{state}'; END $$"
            )

        with pytest.raises(DatabaseUnavailable, match=words) as caught:
            inside.database_of(store).write(fail)
        assert "check that the server runs" not in str(caught.value)
        assert len(runs) == 1
        assert store.add(TEN).added == 10


@pytest.mark.parametrize(
    "message",
    [
        "FATAL: sorry, too many clients already",
        'FATAL: too many connections for role "lab"',
        "FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute",
    ],
)
def test_a_server_that_is_full_has_an_advice_of_its_own(message: str) -> None:
    """It has no code where the connection is refused."""
    advice = parse_url("postgresql://host/db")[1].advice(
        sa.exc.OperationalError("", None, Exception(message))
    )
    assert "raise the limit on connections" in advice


def test_a_pooler_that_is_full_has_an_advice_of_its_own() -> None:
    error = psycopg.errors.ProtocolViolation("query_wait_timeout")
    assert "default_pool_size" in parse_url("postgresql://host/db")[1].advice(
        sa.exc.OperationalError("", None, error)
    )


class Told(BaseException):
    """What a handler of signals raises."""


@pytest.mark.parametrize("kind", ["read", "look", "write"])
def test_the_caller_sees_a_signal_during_a_statement(store_url: str, kind: str) -> None:
    def interrupt(*_: object) -> None:
        raise Told

    with open_store(store_url) as store:
        transaction = getattr(inside.database_of(store), kind)
        transaction(lambda connection: connection.scalar(sa.text("SELECT 1")))
        sa.event.listen(sa.Engine, "do_execute", interrupt)
        try:
            with pytest.raises(Told):
                transaction(lambda connection: connection.scalar(sa.text("SELECT 1")))
        finally:
            sa.event.remove(sa.Engine, "do_execute", interrupt)
        assert store.add(["s1", "s2"]) == AddResult(added=2)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Python ignores one in a destructor
def test_signals_at_any_moment_are_what_the_caller_sees(store_url: str) -> None:
    """Also during thousands of rows; and any process that keeps the error keeps no lock with it."""

    def tell(*_: object) -> None:
        raise Told

    told: list[BaseException] = []
    moments, numbers = random.Random(0), itertools.count()
    before = signal.signal(signal.SIGALRM, tell)
    gc.disable()  # Python ignores what a handler raises during a destructor
    with open_store(store_url) as store:
        for i in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.002, 0.02))
                for _ in range(20):
                    store.add([f"s{next(numbers)}" for _ in range(2_000)])
                    store.score(scores_of)
            except Told as error:
                told.append(error)
            assert store.record([f"after {i}"], [1.0]).added == 1
        assert store.check() == []
    signal.signal(signal.SIGALRM, before)
    gc.enable()
    n_told = len(told)
    told.clear()
    gc.collect()  # here, not in a later test: a connection may have been lost while it was made
    assert n_told >= 15, "all but what came during a destructor"


@pytest.mark.parametrize("kind", [Told, TimeoutError])
def test_a_connection_that_a_signal_takes_from_its_pool_is_made_again(
    store_url: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of SQLite's writers has one: the store waited for it for good."""
    get = sa.QueuePool._do_get

    def interrupted(pool: sa.QueuePool) -> None:
        get(pool).close()  # here, where a signal would leave it to the garbage collector
        raise kind

    inside.shorten_patience(monkeypatch, 2.0)
    with open_store(store_url) as store:
        store.add(["s0"])
        for _ in range(4):  # as many as the largest pool has
            with monkeypatch.context() as patch:
                patch.setattr(sa.QueuePool, "_do_get", interrupted)
                with pytest.raises(kind):
                    store.add(["s1"])
        assert store.add(["s1"]) == AddResult(added=1)


def test_a_signal_that_a_driver_tells_in_other_words_is_what_the_caller_sees(
    store_url: str,
) -> None:
    def interrupted(connection: sa.Connection) -> None:
        try:
            raise Told
        finally:
            connection.exec_driver_sql("SELECT nonsense")

    with open_store(store_url) as store:
        with pytest.raises(Told):
            inside.database_of(store).write(interrupted)
        try:
            raise KeyError
        except KeyError:  # in whose wake the store is used, as it is to release a batch
            with pytest.raises(Told):
                inside.database_of(store).write(interrupted)


def test_what_a_handler_raises_is_no_lost_connection(postgresql_url: str) -> None:
    """Also where it is an `Exception`: the driver then finds its connection busy, and says no more
    than that.
    """
    runs: list[int] = []

    def interrupted(_: sa.Connection) -> None:
        runs.append(1)
        try:
            raise TimeoutError("the alarm")
        finally:
            raise sa.exc.OperationalError(
                "ROLLBACK", None, Exception("another command is already in progress")
            )

    with open_store(postgresql_url) as store:
        with pytest.raises(TimeoutError, match="the alarm"):
            inside.database_of(store).write(interrupted)
        assert runs == [1]


def test_a_thread_that_waits_for_the_connection_of_one_that_is_interrupted_gets_another(
    store_url: str,
) -> None:
    with open_store(store_url) as store, concurrent.futures.ThreadPoolExecutor(4) as threads:
        database = inside.database_of(store)
        waiting: list[concurrent.futures.Future[AddResult]] = []

        def interrupted(_: sa.Connection) -> None:
            waiting.extend(threads.submit(store.add, [f"s{i}"]) for i in range(4))
            time.sleep(0.2)
            raise Told

        with pytest.raises(Told):
            database.write(interrupted)
        assert [future.result(30).added for future in waiting] == [1] * 4


def test_a_release_that_a_signal_interrupts_is_repeated(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[str] = []

    def interrupt(moment: str) -> None:
        moments.append(moment)
        if moments == ["before"]:
            raise Told

    with open_store(store_url) as store:
        store.add(["s1", "s2"])
        store.score(scores_of)
        with pytest.raises(Told), store.sample(2):
            inside.call_at_commits(monkeypatch, interrupt)
        assert (moments, store.stats().claimed) == (["before", "before", "after"], 0)


@pytest.mark.parametrize("error", [Told, KeyError])
def test_what_ends_a_block_is_not_hidden_by_a_batch_that_is_settled(
    store_url: str, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """A signal may come between the COMMIT of `settle` and its return: the block does not know that
    it is settled.
    """

    def interrupt(moment: str) -> None:
        if moment == "after":
            monkeypatch.undo()
            raise error

    with open_store(store_url, weighting="uniform") as store:
        store.add(["s1", "s2"])

        def settle() -> None:
            with store.sample(2) as batch:
                inside.call_at_commits(monkeypatch, interrupt)
                batch.settle([1.0, 2.0])

        with pytest.raises(error):
            settle()
        assert (store.stats().claimed, store.stats().measured, store.iteration) == (0, 2, 1)


def test_the_caller_sees_a_signal_during_a_commit(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the driver then takes the connection for lost, and the commit came through."""

    def interrupt(moment: str) -> None:
        if moment == "before" and threading.current_thread() is threading.main_thread():
            try:
                raise Told
            finally:
                raise sa.exc.OperationalError("COMMIT", None, Exception("the connection is lost"))

    with open_store(postgresql_url) as store:
        monkeypatch.setattr(inside.backend_of(store), "is_lost", lambda _: True)
        monkeypatch.setattr(inside.database_of(store), "_was_committed", lambda _: True)
        inside.call_at_commits(monkeypatch, interrupt)
        with pytest.raises(Told):
            store.add(["s1"])


def test_a_signal_while_the_database_is_away_is_what_the_caller_sees(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("away")

    with open_store(store_url) as store:
        store.add(["s1", "s2"])
        store.score(scores_of)

        def lose_the_database_and(error: type[BaseException]) -> None:
            with monkeypatch.context() as patch, store.sample(1), store.leased("job"):
                patch.setattr(inside.database_of(store), "write", unavailable)
                raise error

        with pytest.raises(Told):
            lose_the_database_and(Told)
        with pytest.raises(DatabaseUnavailable):
            lose_the_database_and(KeyError)


def test_an_error_while_a_signal_is_handled_is_its_own(store_url: str) -> None:
    def fail(_: sa.Connection) -> None:
        raise KeyError("mine")

    with open_store(store_url) as store:
        try:
            raise Told
        except Told:
            with pytest.raises(KeyError, match="mine"):
                inside.database_of(store).write(fail)


def test_every_commit_has_its_boundaries(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[str] = []
    with open_store(store_url) as store:
        inside.call_at_commits(monkeypatch, moments.append)
        store.add(["s1"])
        len(store)
        assert moments == ["before", "after"]


# -- behind a proxy that pools transactions --------------------------------------------------------


def with_threshold(url: str, threshold: str) -> sa.URL:
    return sa.make_url(url).update_query_dict({"prepare_threshold": threshold})


def test_nothing_is_left_in_a_session(postgresql_url: str) -> None:
    """What a transaction sets, it sets for itself; the next one on the connection may be another
    client's.
    """
    with open_store(with_threshold(postgresql_url, "none")) as store:
        for _ in range(8):
            store.add(TEN)
        for kind in ("reader", "writer"):
            driver = inside.engine_of(store, kind).raw_connection()
            cursor = driver.cursor()
            assert cursor.execute("SHOW random_page_cost").fetchone() == ("4",)
            assert cursor.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            ).fetchone() == (0,)
            driver.close()


def test_a_wrong_threshold_is_refused(postgresql_url: str) -> None:
    with pytest.raises(InvalidArgument, match="prepare_threshold"):
        open_store(with_threshold(postgresql_url, "many"))
