"""The main job, with an oracle that writes down what it measures, so that a second measurement
would be seen.
"""

import datetime as dt
import functools
import json
import pathlib
import runpy
import sys
import time
from collections.abc import Callable

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "molecule_search.py"
N_MOLECULES = 1_000


@functools.cache
def few_molecules() -> list[str]:
    """Return the first molecules: to read all takes 3 s, as `tests/unit/test_molecules.py` does."""
    import molecules
    from rdkit import RDConfig

    lines = pathlib.Path(RDConfig.RDDataDir, "NCI", "first_5K.smi").read_text().splitlines()
    known = (molecules.canonical_smiles(line.split()[0]) for line in lines[:N_MOLECULES])
    return list(dict.fromkeys(smiles for smiles in known if smiles is not None))


def search() -> None:
    """Run the example; the first word of its command is the file to write to."""
    sys.path.insert(0, str(EXAMPLE.parent))
    import molecules

    molecules.load_molecules = few_molecules
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
