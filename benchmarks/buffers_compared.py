"""Compare ways to draw on the molecule search: uniformly, by prediction, by acquisition.

    python benchmarks/buffers_compared.py --seeds 5 --calls 2000

Every search is one run of `examples/molecule_search.py` into an SQLite file of its own, with its
output in a text file. Finished searches are read, not run again, and others go on, so the command
can be interrupted. All ways are tried with one seed before the next begins.
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
GREEDY = "greedy-0.5"
WAYS = {
    "uniform": "uniform",
    GREEDY: "greedy",
    "ucb-0.5": "upper confidence bound",
    "ei-0.5": "expected improvement",
    "thompson-0.5": "Thompson sampling",
    "greedy-0.1": "greedy, argmax share 0.1",
    "greedy-0": "greedy, argmax share 0",
}
"""Acquisition and argmax share of each way, and what the table calls it."""


def auc(oracle: str, way: str, seed: int, *, calls: int, folder: pathlib.Path) -> float:
    """Run one search, unless it has ended, and return its AUC top-10."""
    run = folder / f"{oracle}-{way}-{seed}-{calls}"
    printed = pathlib.Path(
        f"{run}.txt"
    )  # with_suffix would take the share in the name for a suffix
    if not printed.exists() or "AUC top-10" not in printed.read_text():
        options = {
            "oracle": oracle,
            "seed": seed,
            "calls": calls,
            "report": 0,
            "url": f"sqlite:///{run}.db",
        }
        if way == "uniform":
            options["buffer"] = "uniform"
        else:
            options["acquisition"], options["argmax"] = way.split("-")
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), *words], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{run.name} ended with {done.returncode}: {done.stderr}")
        printed.write_text(done.stdout)
    return float(printed.read_text().rstrip().rsplit(maxsplit=1)[-1])


def compare(
    folder: Annotated[pathlib.Path, typer.Option(help="Where the databases go.")] = pathlib.Path(
        "compared"
    ),
    seeds: Annotated[int, typer.Option(help="Searches for each oracle and way.")] = 5,
    calls: Annotated[int, typer.Option(help="Oracle calls of each search.")] = 2000,
    jobs: Annotated[int, typer.Option(help="Searches at a time.")] = 2,
    oracles: Annotated[str, typer.Option(help="Separated by commas.")] = "celecoxib,plogp,qed",
    ways: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(WAYS),
) -> None:
    """Print AUC top-10: mean ± deviation (difference from greedy, seeds in which it is better)."""
    folder.mkdir(exist_ok=True)
    chosen, rewards = ways.split(","), oracles.split(",")
    runs = [
        (oracle, way, seed)
        for seed, way, oracle in itertools.product(range(seeds), chosen, rewards)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        found = dict(
            zip(
                runs, pool.map(lambda run: auc(*run, calls=calls, folder=folder), runs), strict=True
            )
        )
    areas = {
        (oracle, way): np.array([found[oracle, way, seed] for seed in range(seeds)])
        for oracle, way, _ in runs
    }
    print(f"| | {' | '.join(rewards)} |\n|---|{'---|' * len(rewards)}")
    for way in chosen:
        cells = [
            _cell(areas[oracle, way], areas.get((oracle, GREEDY)), is_greedy=way == GREEDY)
            for oracle in rewards
        ]
        print(f"| {WAYS[way]} | {' | '.join(cells)} |")


def _cell(values: np.ndarray, greedy: np.ndarray | None, *, is_greedy: bool) -> str:
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    shown = f"{values.mean():.3f}{spread}"
    if greedy is None or is_greedy:
        return shown
    return f"{shown} ({(values - greedy).mean():+.3f}, {(values > greedy).sum()}/{len(values)})"


if __name__ == "__main__":
    typer.run(compare)
