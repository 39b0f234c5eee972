"""Compare the predictive with the uniform buffer on the molecule search; print a Markdown table.

    python benchmarks/buffers_compared.py --seeds 5 --calls 2000

Every search is one run of `examples/molecule_search.py` into an SQLite file of its own. Searches that
have ended are read, not run again, so this can be interrupted too.
"""

import itertools
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
import typer

EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "molecule_search.py"


def auc(oracle: str, buffer: str, seed: int, *, calls: int, url: str) -> float:
    """Run one search and return its AUC top-10."""
    options = {"oracle": oracle, "buffer": buffer, "seed": seed, "calls": calls, "url": url, "report": 0}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, str(EXAMPLE), *words], capture_output=True, text=True, check=True)
    return float(done.stdout.rstrip().rsplit(maxsplit=1)[-1])


def compare(
    folder: Annotated[pathlib.Path, typer.Option(help="Where the databases go.")] = pathlib.Path("compared"),
    seeds: Annotated[int, typer.Option(help="Searches for each oracle and buffer.")] = 5,
    calls: Annotated[int, typer.Option(help="Oracle calls of each search.")] = 2000,
    jobs: Annotated[int, typer.Option(help="Searches at a time.")] = 2,
    oracles: Annotated[str, typer.Option(help="Which, separated by commas.")] = "qed,plogp,celecoxib",
) -> None:
    """Print mean and standard deviation of AUC top-10 over the seeds."""
    folder.mkdir(exist_ok=True)
    buffers = ("uniform", "predictive")
    runs = list(itertools.product(oracles.split(","), buffers, range(seeds)))
    with ThreadPoolExecutor(jobs) as pool:
        areas = pool.map(
            lambda run: auc(*run, calls=calls, url=f"sqlite:///{folder}/{'-'.join(map(str, run))}.db"), runs
        )
        found = dict(zip(runs, areas, strict=True))
    print("| oracle | uniform | predictive | predictive better in |\n|---|---|---|---|")
    for oracle in oracles.split(","):
        columns = {buffer: np.array([found[oracle, buffer, seed] for seed in range(seeds)]) for buffer in buffers}
        cells = [f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" for values in columns.values()]
        wins = int((columns["predictive"] > columns["uniform"]).sum())
        print(f"| {oracle} | {' | '.join(cells)} | {wins} of {seeds} seeds |")


if __name__ == "__main__":
    typer.run(compare)
