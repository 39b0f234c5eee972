"""The example of many processes on one buffer, of which some are killed on the way."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from sqlbuffer.store import open_store

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "shared_buffer" / "run.py"
CALLS = 80


@pytest.mark.parametrize(
    "store_url",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)],
    indirect=True,
)
def test_killing_any_of_them_costs_nothing_but_time(store_url: str, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--url", store_url, "--calls", str(CALLS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    killed: set[str] = set()
    lines = []
    with subprocess.Popen(command, env=environment, **pipe) as process:
        for line in process.stdout or []:
            lines.append(line)
            said = re.match(r" *(\w+) (\d+): (added|measured|trained)", line)
            if said and said[1] not in killed:
                killed.add(said[1])
                os.kill(int(said[2]), signal.SIGKILL)
    assert process.returncode == 0, "".join(lines)
    assert killed == {"generator", "reward", "trainer"}
    assert sum("died; starting a new process" in line for line in lines) == 3
    assert lines[-1] == "integrity: sound\n"
    assert not [line for line in lines if "Traceback" in line]
    with open_store(store_url, name="shared") as store:
        assert store.check() == []
        stats = store.stats()
        assert stats.measured >= CALLS
        assert stats.claimed == 0
        assert store.top(1)[0]["reward"] > -5.0  # -22 is the mean over the plane


def test_what_cannot_work_is_one_message() -> None:
    for options, message in (("--url nowhere", "sqlite:///"), ("--calls 0", "--calls")):
        command = [sys.executable, str(EXAMPLE), *options.split()]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode != 0
        assert message in done.stderr
        assert "Traceback" not in done.stderr
