"""The program of a child process, which ends with its parent.

Run as a script, not as a module: `sys.path` of the parent comes in the first message. A child is
the leader of a session of its own, with the programs that the reward function starts: Ctrl-C in a
terminal does not reach them, and they end with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import threading
from multiprocessing.connection import Connection


def main(link_fd: int, life_fd: int) -> None:
    """Serve the parent, which is at the other ends of a socket and of the pipe of its life."""
    for fd in (link_fd, life_fd):
        os.set_inheritable(fd, False)
    end_with_parent(life_fd)
    link = Connection(link_fd)
    sys.path[:] = json.loads(link.recv_bytes())
    from sqlbuffer.measuring.serve import serve

    serve(link)


def end_with_parent(life_fd: int) -> None:
    """Kill this process and all that it has started when the parent has ended.

    On Linux the kernel does it, even while C code holds the interpreter; elsewhere a thread does.
    """
    # Not PR_SET_PDEATHSIG: it spares the programs that this process has started, and kills when
    # the thread that started this process ends.
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life_fd, fcntl.F_SETOWN, -os.getpid())  # negative: the whole group
        fcntl.fcntl(life_fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life_fd, fcntl.F_SETFL, fcntl.fcntl(life_fd, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([life_fd], [], [], 0)[0]:  # the parent had ended before
            os.killpg(0, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(life_fd,), daemon=True).start()


def _watch(life_fd: int) -> None:
    os.read(life_fd, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
