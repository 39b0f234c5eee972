"""An example as a program of its own, for `Forked`."""

import runpy
import sys

from helpers.forked import EXAMPLES


def run(name: str) -> None:
    """Run the example of a name, with the words of `sys.argv`."""
    sys.path.insert(0, str(EXAMPLES))
    sys.argv[0] = str(EXAMPLES / f"{name}.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
