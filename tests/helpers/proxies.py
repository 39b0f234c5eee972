"""A proxy before a PostgreSQL server that cuts connections where it hurts most."""

import contextlib
import pathlib
import re
import socket
import threading
from collections.abc import Iterator

import sqlalchemy as sa

COMMIT = b"COMMIT\0"
PROCESS = b"K\0\0\0\x0c"
"""What comes before the number of the server's process, where it tells that a client may cancel."""


class Proxy:
    """Forwards to a server; `cut` says what happens to the next COMMITs.

    Attributes:
        url: The server, as it is reached through the proxy.
        cut: For each COMMIT to come: "answer" forwards it and drops the answer, "request" keeps it
        from the server,
            whose end of the connection stays open; None forwards it.
        n_cut: COMMITs that were cut.
        is_up: False refuses new connections.
    """

    def __init__(self, server_url: str, *, renames: bool = False) -> None:
        self._renames = renames
        self._server = sa.make_url(server_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.cut: list[str | None] = []
        self.n_cut = 0
        self.is_up = True
        port = self._listener.getsockname()[1]
        reached = self._server.set(host="127.0.0.1", port=port).difference_update_query(
            ["host", "port"]
        )
        self.url = reached.update_query_dict({"sslmode": "disable"}).render_as_string(
            hide_password=False
        )
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Stop, and close all connections."""
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.drop()
        for end in self._open:
            end.close()

    def drop(self) -> None:
        """Close all connections that are open, as a server that goes down."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        """Accept connections, and close those that the server does not take."""
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:  # the listener was closed
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client), daemon=True).start()

    def _connect(self) -> socket.socket:
        if not self.is_up:
            raise ConnectionRefusedError
        host = self._server.query.get("host", self._server.host)
        port = int(str(self._server.query.get("port", self._server.port or 5432)))
        if isinstance(host, str) and host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(pathlib.Path(host, f".s.PGSQL.{port}")))
            return server
        return socket.create_connection((str(host), port))

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client says, but for the COMMITs that are to be cut."""
        with contextlib.suppress(OSError):
            while said := client.recv(65536):
                cut = self.cut.pop(0) if said.endswith(COMMIT) and self.cut else None
                self.n_cut += cut is not None
                if cut is not None:
                    client.shutdown(socket.SHUT_RDWR)  # what the server answers finds no process
                if cut != "request":
                    server.sendall(said)

    def _pump(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65536):
                if self._renames:
                    said = re.sub(PROCESS + b"....", PROCESS + b"\0\0\0\7", said, flags=re.DOTALL)
                client.sendall(said)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy_before(server_url: str, *, renames: bool = False) -> Iterator[Proxy]:
    """Run a proxy; one that `renames` names another process than that of the server, as a pooler
    does.
    """
    proxy = Proxy(server_url, renames=renames)
    try:
        yield proxy
    finally:
        proxy.close()
