"""Every test of a store runs on an SQLite file and on a real PostgreSQL, which the session starts
itself.
"""

import collections
import gc
import math
import os
import pathlib
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from _pytest.mark import ParameterSet
from _pytest.mark.expression import Expression

from helpers import forked, inside, servers
from helpers.cleanup import wait_for_disposal
from helpers.interleaving import interleaving, threads_are_workers  # noqa: F401 - fixtures
from helpers.recycling import Recycled
from helpers.servers import server_execute, start_server
from sqlbuffer.core import heartbeat, reaper, refresh, watch
from sqlbuffer.db.database import Database
from sqlbuffer.store import SampleStore, open_store

# Threads of torch wait for each other in a loop, which takes the time of another test: of models as
# small as those of the tests 30 ms a step. Torch reads this when it is imported, also in processes
# that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Compile sqlbuffer and the tests once, not in each worker and in each process that a test starts.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Do not import TorchRL if its tests are deselected: a second, and every process that a test
    starts would be spawned, which imports torch again, instead of forked.
    """
    expression = config.option.markexpr
    if collection_path.name != "test_torchrl.py" or not expression:
        return None
    is_selected = Expression.compile(expression).evaluate(lambda name, **_: name == "integrations")
    return None if is_selected else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `just test-fast` leaves out: files of other folders mark themselves as slow.

    Mark half of a larger matrix of cases and databases too: each case runs on one database.
    """
    usual = (item for item in items if item.get_closest_marker("soak") is None)
    n_cases = collections.Counter(map(_case_of, usual))
    for item in items:
        if item.path.parent.name == "process":
            item.add_marker("slow")
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        fixtures = {"server_url", "postgresql_url"} & set(getattr(item, "fixturenames", ()))
        if fixtures or any(
            isinstance(each, str) and each.startswith("postgresql") for each in parameters
        ):
            item.add_marker("postgres")
        if _is_for_the_other_database(item, n_cases[_case_of(item)]):
            item.add_marker("other_database")


def _case_of(item: pytest.Item) -> tuple[Any, ...]:
    """Return the function of a test, and its database."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return item.path, getattr(item, "originalname", item.name), parameters.get("store_url")


def _is_for_the_other_database(item: pytest.Item, n_cases: int) -> bool:
    """Tell whether a case runs on the other database.

    The databases alternate along each parameter, so each value of two or more parameters meets
    both. The two modes, where there is no other parameter, are both tested on both.
    """
    callspec = getattr(item, "callspec", None)
    if callspec is None or "store_url" not in callspec.params:
        return False
    if n_cases < (4 if "mode" in callspec.params else 2):
        return False
    if item.get_closest_marker("each_database") is not None:
        return False
    marks = list(item.iter_markers("parametrize"))
    if any("store_url" in mark.args[0] for mark in marks):  # the cases are chosen by hand
        return False
    places = [_place_of(callspec.params, *mark.args[:2]) for mark in marks]
    of_fixtures = callspec.params.keys() - {"store_url", *_names_of(marks)}
    on_sqlite = sum([*places, *(callspec.indices[name] for name in of_fixtures)]) % 2 == 0
    return on_sqlite != (callspec.params["store_url"] == "sqlite")


def _names_of(marks: Iterable[pytest.Mark]) -> set[str]:
    """Return the parameters of decorators; those of fixtures are others."""
    given = (mark.args[0] for mark in marks)
    listed = (names.split(",") if isinstance(names, str) else names for names in given)
    return {name.strip() for names in listed for name in names}


def _place_of(parameters: dict[str, Any], names: str | Sequence[str], values: Iterable[Any]) -> int:
    """Return the place that the value of one or more parameters has in the list of all."""
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    for place, value in enumerate(values):
        each = value.values if isinstance(value, ParameterSet) else value
        each = [value] if len(names) == 1 and each is value else each
        if all(parameters[name] is part for name, part in zip(names, each, strict=True)):
            return place
    return 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage during imports, a fifth of their time, nor later among what was imported,
    a twentieth of all.
    """
    gc.disable()
    result = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return result


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL server (15 or newer): `SQLBUFFER_TEST_URL`, or one that this session starts from
    a wheel.
    """
    if "SQLBUFFER_TEST_URL" in os.environ:
        yield os.environ["SQLBUFFER_TEST_URL"]
        return
    folder = tempfile.mkdtemp(
        prefix="sb"
    )  # short: the path of a Unix socket has 107 characters at the most
    server = start_server(pathlib.Path(folder, "pg"))
    server.psql("ALTER SYSTEM SET fsync = off;")  # this server's data need not survive the machine
    server.psql("ALTER SYSTEM SET full_page_writes = off;")
    server.psql("ALTER SYSTEM SET synchronous_commit = off;")
    server.psql("ALTER SYSTEM SET autovacuum = off;")  # it would change plans at any moment
    server.psql("SELECT pg_reload_conf();")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_heartbeats_left() -> Iterator[None]:
    """Ends the heartbeats of stores that a test has not closed."""
    yield
    for beating in list(heartbeat._beating):
        beating.stop()


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """A database that holds the schema, and nothing else: copying it takes a tenth of the time of
    the migrations.
    """
    url = servers.new_database(server_url)
    Database(url).close()
    name = str(sa.make_url(url).database)
    yield name
    server_execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def recycled(server_url: str, template: str) -> Iterator[Recycled]:
    """Databases that hold the schema, each used by one test at a time."""
    databases = Recycled(server_url, template)
    forked.server_databases.append(databases.take())
    yield databases
    databases.give_back(forked.server_databases.pop())
    databases.close()


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest, server_url: str) -> Iterator[str]:
    """A PostgreSQL database with the schema or, marked `empty_database`, without it.

    No transaction may stay open.
    """
    if request.node.get_closest_marker("empty_database") is not None:
        url = servers.new_database(server_url)
        yield url
        wait_for_disposal()
        left_open = servers.drop_database(server_url, url)
    else:
        databases: Recycled = request.getfixturevalue("recycled")
        url = databases.take()
        yield url
        wait_for_disposal()
        left_open = databases.give_back(url)
    assert not left_open


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An SQLite file that holds the schema, and nothing else: copying it takes no time, the
    migrations take 60 ms.
    """
    file = tmp_path_factory.mktemp("template") / "template.db"
    Database(f"sqlite:///{file}").close()
    assert not file.with_name("template.db-wal").exists()
    return file.read_bytes()


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    """A fresh SQLite file, with the schema or, marked `empty_database`, not there yet; no lock may
    be left on it.
    """
    file = tmp_path / "buffer.db"
    if request.node.get_closest_marker("empty_database") is None:
        file.write_bytes(request.getfixturevalue("sqlite_template"))
    yield f"sqlite:///{file}"
    wait_for_disposal()
    if file.exists():
        with sqlite3.connect(file, timeout=0) as connection:
            connection.execute("BEGIN IMMEDIATE")
        connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def new_store(store_url: str) -> Iterator[Callable[..., SampleStore]]:
    """Opens stores in one fresh database, and closes them in the end."""
    stores: list[SampleStore] = []

    def open_one(**options: object) -> SampleStore:
        stores.append(open_store(store_url, **options))  # type: ignore[arg-type]
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(new_store: Callable[..., SampleStore]) -> SampleStore:
    """An empty store of each kind."""
    return new_store()


@pytest.fixture
def look_on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Lets time pass by a clock that is never set, while a store looks on; returns the number of
    batches released.
    """
    passed_s = [0.0]
    monkeypatch.setattr(watch, "monotonic", lambda: time.monotonic() + passed_s[0])

    def look(store: SampleStore, *, for_s: float) -> int:
        n_steps = math.ceil(for_s / (inside.handle_of(store).grace_s / 2))
        step_s = for_s / n_steps
        n_released = reaper.release_dead(inside.handle_of(store))
        for _ in range(n_steps):
            store.jobs()
            passed_s[0] += step_s
            n_released += reaper.release_dead(inside.handle_of(store))
        store.jobs()
        return n_released

    return look


@pytest.fixture
def during_a_swap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Lets others act, once, when so many chunks of the weights of a refresh have been swapped."""
    pages = refresh._pages

    def let(act: Callable[[], object], *, n_swapped: int, chunk: int) -> None:
        def pages_beside(*args: Any) -> Iterator[Any]:
            for i, page in enumerate(pages(*args)):
                if i == n_swapped:
                    monkeypatch.setattr(refresh, "_pages", pages)
                    act()
                yield page

        monkeypatch.setattr(refresh, "WEIGHTS_CHUNK", chunk)
        monkeypatch.setattr(refresh, "_pages", pages_beside)

    yield let
    assert refresh._pages is pages, "the others have been there"


@pytest.fixture
def global_random_state_stays() -> Iterator[None]:
    """Nothing that the test calls touches the user's random numbers."""
    import torch

    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
