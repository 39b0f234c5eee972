"""The main job, with an oracle that writes down what it measures, so that a second measurement
would be seen.
"""

import datetime as dt
import json
import pathlib
import runpy
import sys
import time
from collections.abc import Callable

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "molecule_search.py"


def search() -> None:
    """Run the example; the first word of its command is the file to write to."""
    sys.path.insert(0, str(EXAMPLE.parent))
    import molecules

    log = open(sys.argv.pop(1), "a", buffering=1)  # noqa: SIM115

    def witnessed(oracle: Callable[[str], float]) -> Callable[[str], float]:
        def measure(smiles: str) -> float:
            time.sleep(0.005)  # a batch takes long enough for ten kills to come before the end
            log.write(json.dumps([smiles, dt.datetime.now(dt.timezone.utc).isoformat()]) + "\n")
            return oracle(smiles)

        return measure

    molecules.ORACLES = {name: witnessed(oracle) for name, oracle in molecules.ORACLES.items()}
    sys.argv[0] = str(EXAMPLE)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
