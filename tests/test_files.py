"""SQLite files on a disk that is full, or on another machine."""

import contextlib
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from sqlbuffer import files
from sqlbuffer.store import open_store

TEN = [f"s{i}" for i in range(10)]


class Disk(NamedTuple):
    """What psutil tells of a mounted disk."""

    mountpoint: str
    fstype: str


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre", "9p"])
def test_a_network_file_system_is_warned_of(tmp_path: pathlib.Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    disks = [Disk("/", "ext4"), Disk(str(tmp_path), "ext4"), Disk(str(tmp_path), kind), Disk("/elsewhere", "ext4")]
    monkeypatch.setattr(files.psutil, "disk_partitions", lambda all: disks)
    with pytest.warns(UserWarning, match=f"network file system .{kind}.*local disk.*PostgreSQL"):
        open_store(f"sqlite:///{tmp_path}/x.db").close()


def test_a_local_disk_is_not(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(f"sqlite:///{tmp_path}/x.db").close()
    disks = [Disk("/", "nfs"), Disk(str(tmp_path), "ext4"), Disk(f"{tmp_path}/x", "nfs")]
    monkeypatch.setattr(files.psutil, "disk_partitions", lambda all: disks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_store(f"sqlite:///{tmp_path}/y.db").close()
    monkeypatch.setattr(files.psutil, "disk_partitions", lambda all: [])
    assert files.network_file_system(tmp_path) is None


# -- a full disk ------------------------------------------------------------------------------------------------------

FILLS_UP = """
import resource, sys
from sqlbuffer.errors import DatabaseUnavailable
from sqlbuffer.store import open_store

with open_store(sys.argv[1], weighting="uniform") as store:
    limit = int(sys.argv[2])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        for i in range(100):
            store.add([f"{i} {j} " + "x" * 500 for j in range(2000)])
        print("nothing was noticed")
    except DatabaseUnavailable as exc:
        print(exc)
"""


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 4 MB."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("only root mounts a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(url: str, limit: int = 0) -> str:
    command = [sys.executable, "-c", FILLS_UP, url, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_full_disk_is_one_error_and_takes_nothing(tmp_path: pathlib.Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        url = f"sqlite:///{disk}/x.db"
        with open_store(url, weighting="uniform") as store:
            store.add(TEN)
            stored = store.stats().stored
        assert "make room; nothing stored was lost" in fill(url)
        with open_store(url, weighting="uniform") as store:
            assert set(TEN) <= set(store.waiting().samples)
            assert store.stats().stored == len(store) >= stored
            assert store.check() == []


def test_a_limit_on_the_size_of_files_takes_nothing(tmp_path: pathlib.Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with open_store(url, weighting="uniform") as store:
        store.add(TEN)
    said = fill(url, limit=2_000_000)
    assert "a quota" in said
    assert "\n" not in said
    with open_store(url, weighting="uniform") as store:
        assert set(TEN) <= set(store.waiting().samples)
        assert store.check() == []
        store.add(["goes on"])
