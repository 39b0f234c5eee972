"""`sqlbuffer serve` as a program: its address, its end, and what it refuses to start with."""

import pathlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from helpers.commands import refused, run, unstyled
from helpers.pages import TOKEN
from sqlbuffer.store import open_store


def ask(address: str, **headers: str) -> Any:
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_a_signal(store_url: str, tmp_path: pathlib.Path, number: int) -> None:
    open_store(store_url, name="qed").close()
    (tmp_path / "token").write_text(TOKEN + "\n")
    command = [sys.executable, "-m", "sqlbuffer", "serve", "--url", store_url, "--port", "0"]
    server = subprocess.Popen(
        [*command, "--token-file", str(tmp_path / "token")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.match(r"(http://127\.0\.0\.1:\d+/) shows ", server.stdout.readline())
        assert found
        with ask(f"{found[1]}index.json", authorization=f"Bearer {TOKEN}") as answer:
            assert b'"qed"' in answer.read()
        for path in ("index.json?token=wrong", "?token=wrong"):
            with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
                ask(found[1] + path)
            refusal.value.close()
    finally:
        server.send_signal(number)
        out, err = server.communicate(timeout=30)
    assert (server.returncode, err) == (0 if number == signal.SIGINT else -number, "")
    assert TOKEN not in out


def test_what_it_refuses(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    open_store(sqlite_url).close()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        told = refused(run("serve", "--port", str(port), url=sqlite_url))
    assert f"cannot listen on 127.0.0.1, port {port} (Address already in use)" in told
    assert "\n" not in told
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        result = run("serve", "--host", host, url=sqlite_url)
        assert (result.code, "give --token-file" in unstyled(result.err)) == (2, True)
    short = run("serve", url=sqlite_url, SQLBUFFER_TOKEN="short")
    assert (short.code, "at least 16" in unstyled(short.err)) == (2, True)
    assert "short" not in unstyled(short.err)
    missing = run("serve", "--token-file", str(tmp_path / "none"), url=sqlite_url)
    assert (missing.code, "cannot read the token" in unstyled(missing.err)) == (2, True)
    assert "there is no" in refused(run("serve", url=f"sqlite:///{tmp_path}/none.db"))
