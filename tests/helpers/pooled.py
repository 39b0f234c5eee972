"""A plugin that puts PgBouncer, which must be installed, between the tests and PostgreSQL, in
transaction mode.

PYTHONPATH=tests python -m pytest -p helpers.pooled -n 0 tests/process/test_retry.py
"""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from helpers import servers
from helpers.recycling import Recycled

POOL_SIZE = int(os.environ.get("POOL_SIZE", "10"))
"""Connections to the server for each database."""

CONFIG = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
log_connections = 0
log_disconnections = 0
max_client_conn = 1000
"""


@pytest.fixture(scope="session", autouse=True)
def _pooler(server_url: str) -> Iterator[None]:
    """Lets every database that is a copy of the template be reached by way of the pooler."""

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own_port = free.getsockname()[1]
    server = sa.make_url(server_url)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pgbouncer"))
    config = folder / "pgbouncer.ini"
    host, port = str(server.query.get("host", server.host)), server.port or 5432
    config.write_text(
        CONFIG.format(host=host, port=port, user=server.username, own_port=own_port, size=POOL_SIZE)
    )
    command = ["pgbouncer", str(config)]
    if os.geteuid() == 0:  # PgBouncer refuses root: it runs as the user of the server's socket
        folder.chmod(0o755)
        user = pathlib.Path(host).owner() if host.startswith("/") else "nobody"  # codespell:ignore
        command += ["-u", user]
    new_database = servers.new_database

    def new_pooled(server_url: str, template: str = "template1") -> str:
        url = sa.make_url(new_database(server_url, template))
        if template == "template1":  # nothing may stay connected to what is to be copied
            return url.render_as_string(hide_password=False)
        pooled = url.set(
            host="127.0.0.1", port=own_port, query={}
        )  # nothing in the URL tells of it
        return pooled.render_as_string(hide_password=False)

    with subprocess.Popen(command) as process, pytest.MonkeyPatch.context() as patch:
        try:
            wait_for(own_port)
            patch.setattr(servers, "new_database", new_pooled)
            patch.setattr(Recycled, "is_emptied", lambda *_: False)  # the pooler stays connected
            yield
        finally:
            process.terminate()
    shutil.rmtree(folder)


def wait_for(port: int) -> None:
    """Wait until a process listens."""
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("PgBouncer did not start")
