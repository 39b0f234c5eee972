"""What the README says is run: its Python and its commands."""

import functools
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from helpers.forked import Forked
from sqlbuffer.db.database import Database

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=["store", "loop"])
def test_python_runs_as_it_stands(code: str, tmp_path: pathlib.Path) -> None:
    """Once, and again on what the first run has stored."""
    for _ in range(2):
        process = Forked(functools.partial(exec, code, {"__name__": "__main__"}), [], tmp_path)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_python_runs_in_a_new_interpreter(tmp_path: pathlib.Path) -> None:
    code = blocks("python")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_page_of_loaders_runs_from_top_to_bottom(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs" / "loaders.md").read_text()
    assert len(page.splitlines()) < 150
    lines = (
        # A process of the fork server would start its workers by another one.
        "import multiprocessing; multiprocessing.set_start_method('fork', force=True)",
        *blocks("python", page),
        "assert (store.stats().waiting, store.stats().claimed, store.check()) == (0, 0, [])",
    )
    code = "\n".join(lines)
    done = Forked(functools.partial(exec, code, {"__name__": "__main__"}), [], tmp_path)
    _, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_console_commands_exist(tmp_path: pathlib.Path) -> None:
    Database(f"sqlite:///{tmp_path}/molecules.db").close()
    commands = [
        line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()
    ]
    assert len(commands) == 2
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert "Usage" not in done.stderr, done.stderr
        assert done.returncode == 0 or "no buffer 'celecoxib-ucb-0'" in done.stderr, done.stderr


def test_ci_runs_the_test_command_in_a_fresh_clone() -> None:
    first, second = blocks("bash")
    script = (ROOT / ".ci" / "run").read_text()
    assert 'git clone -q "$checkout" "$clone"' in script
    assert script.endswith(f'cd "$clone"\n{second}')
    assert first.split(" && ")[0] == second.split(" && ")[0]
    assert "--clear" not in first + second  # a second run must not install again
