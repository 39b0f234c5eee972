"""Run the pages: the socket, and the server that ends at Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from sqlbuffer.errors import InvalidArgument, MissingExtra
from sqlbuffer.web.security import LOOPBACK


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        InvalidArgument: If the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise InvalidArgument(
            f"cannot listen on {host}, port {port} ({reason}): give another --port, 0 for any free "
            "one, or another --host."
        ) from exc


def address(bound: socket.socket) -> str:
    """Return the address of the pages, for a browser on this machine."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def allowed_hosts(host: str) -> frozenset[str] | None:
    """Return the names that a request may have in `Host`; None, any name, where a token is needed.

    A page behind a proxy has the name of the proxy.
    """
    return frozenset({*LOOPBACK, host.lower()}) if is_loopback(host) else None


def is_loopback(host: str) -> bool:
    """Return whether no other machine reaches an address."""
    return host.lower() in LOOPBACK or host.startswith("127.")


def run(app: Any, bound: socket.socket) -> None:
    """Answer requests until Ctrl-C or SIGTERM; requests are not logged, a URL may hold a token."""
    try:
        import uvicorn
    except ImportError as exc:
        raise MissingExtra("pages need uvicorn: pip install 'sqlbuffer[web]'.") from exc
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=3,
        lifespan="on",
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[bound])
