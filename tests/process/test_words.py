"""Spelling, and words that are not used here: those of tests/words.txt.

A linter, not a test of behaviour.
"""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_spelling_and_words_that_are_not_used() -> None:
    command = [
        sys.executable,
        "-m",
        "codespell_lib",
        "--dictionary=-",
        "--dictionary=tests/words.txt",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
