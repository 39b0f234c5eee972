"""Search for molecules with an active-learning loop whose buffer is a SQL database.

    python examples/molecule_search.py --oracle celecoxib --calls 2000

Real molecules, their mutants and their crossovers wait in the buffer. A small network predicts
their rewards, the buffer draws promising molecules, an oracle measures them, and the network is
retrained on all measured molecules. You may kill the search at any moment: the same command resumes
it, and measures no molecule twice.
"""

import enum
import math
import sys
from collections.abc import Iterable
from typing import Annotated

import molecules
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from sqlbuffer import (
    Buffer,
    BufferSizeCallback,
    Callback,
    Environment,
    FunctionSampler,
    Log,
    PredictiveAgent,
    PredictiveBuffer,
    RewardCallback,
    SampleStore,
    SqlBufferError,
)

BATCH = 50
PARENTS = 100
ARGMAX = 0.5


class Oracle(str, enum.Enum):
    """The property to search for."""

    qed = "qed"
    plogp = "plogp"
    celecoxib = "celecoxib"


class Kind(str, enum.Enum):
    """How the buffer draws molecules."""

    predictive = "predictive"
    uniform = "uniform"


class Acquisition(str, enum.Enum):
    """The score of a molecule, given its prediction."""

    greedy = "greedy"
    ucb = "ucb"
    ei = "ei"
    thompson = "thompson"


class Scaled(torch.nn.Module):
    """A network that works in units of the labels' spread, and learns small differences."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(molecules.N_BITS, hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.1),
            torch.nn.Linear(hidden, 1),
        )
        # Before the first training all molecules have equal predictions.
        torch.nn.init.zeros_(self.layers[-1].weight)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return predictions (n, 1) for fingerprints (n, bits)."""
        return self.mean + self.spread * self.layers(x)


class ScaledAgent(PredictiveAgent):
    """Fits the scale to the labels before each training."""

    def update_dataset_from_inputs(self, samples: list[str], rewards: np.ndarray) -> None:
        """Take the labelled molecules."""
        self.model.mean.fill_(float(np.mean(rewards)))
        self.model.spread.fill_(max(float(np.std(rewards)), 1e-6))
        super().update_dataset_from_inputs(samples, rewards)


def make_buffer(
    kind: Kind, url: str, name: str, *, seed: int, acquisition: Acquisition, argmax: float
) -> Buffer:
    """Open the buffer: canonical SMILES decide which molecules are the same."""
    shared = {"url": url, "name": name, "key": molecules.canonical_smiles, "seed": seed}
    if kind is Kind.uniform:
        return Buffer(1.0, **shared)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Scaled()
    agent = ScaledAgent(model, torch.nn.functional.mse_loss, molecules.fingerprints, seed=seed)
    return PredictiveBuffer(
        1.0,
        refresh_predictions=2,
        predictive_agent=agent,
        pred_bs=4096,
        supervised_frequency=2,
        supervised_epochs=10,
        supervised_bs=64,
        supervised_lr=3e-3,
        pct_argmax=argmax,
        acquisition=acquisition.value,
        **shared,
    )


def make_samplers(store: SampleStore, seed: int) -> list[FunctionSampler]:
    """Return the generators: real molecules, and mutants and crossovers of the best measured."""
    data = np.array(molecules.load_molecules())

    def novel(generated: Iterable[str | None]) -> list[str]:
        candidates = [smiles for smiles in generated if smiles is not None]
        return [
            smiles
            for smiles, reward in zip(candidates, store.rewards_of(candidates), strict=True)
            if reward is None
        ]

    def from_data(n: int, rng: np.random.Generator) -> list[str]:
        return novel(rng.choice(data, size=n, replace=False).tolist())

    def parents(shape: int | tuple[int, int], rng: np.random.Generator) -> list:
        best = [row["sample"] for row in store.top(PARENTS)]
        return rng.choice(best, size=shape).tolist() if best else []

    def mutated(n: int, rng: np.random.Generator) -> list[str]:
        return novel(molecules.mutate(parent, rng) for parent in parents(n, rng))

    def crossed(n: int, rng: np.random.Generator) -> list[str]:
        return novel(molecules.crossover(a, b, rng) for a, b in parents((n, 2), rng))

    return [
        FunctionSampler(from_data, "data", buffer_size=100, seed=seed),
        FunctionSampler(mutated, "mutation", buffer_size=150, seed=seed),
        FunctionSampler(crossed, "crossover", buffer_size=150, seed=seed),
    ]


class Budget(Callback):
    """Ends the search after a number of oracle calls, and logs the best molecules so far.

    It shortens the last batch to the calls that are left.
    """

    def __init__(self, store: SampleStore, calls: int) -> None:
        super().__init__(name="budget", order=90)
        self.store = store
        self.calls = calls

    def left(self) -> int:
        """Return the number of calls that are left."""
        stats = self.store.stats()
        return self.calls - stats.measured - stats.failed

    def before_train(self) -> None:
        """Stop if all calls have been made."""
        self._cut()

    def after_batch(self) -> None:
        """Log the best ten, and cut the next batch."""
        best = [row["reward"] for row in self.store.top(10)]
        self.environment.log.update_metric("best", max(best, default=0.0))
        self.environment.log.update_metric("top 10", float(np.mean(best)) if best else 0.0)
        self._cut()

    def _cut(self) -> None:
        self.environment.bs = min(BATCH, self.left())
        if self.environment.bs <= 0:
            self.environment.stop()


def measured_in_order(store: SampleStore) -> list[dict]:
    """Return all measured molecules in the order in which they were measured."""
    rows = store.top(store.stats().measured)
    return sorted(rows, key=lambda row: (row["rewarded_at"], row["id"]))


def print_result(store: SampleStore, calls: int, console: Console) -> None:
    """Print the best ten molecules, and the quality of the search."""
    measured = measured_in_order(store)
    table = Table("#", "reward", "source", "iteration", title="The ten best molecules")
    table.add_column("molecule", overflow="fold")
    for rank, row in enumerate(store.top(10), start=1):
        table.add_row(
            str(rank),
            f"{row['reward']:.4f}",
            row["source"],
            str(row["created_iteration"]),
            row["sample"],
        )
    console.print(table)
    rewards = [row["reward"] for row in measured]
    stats = store.stats()
    console.print(f"best of the first batch   {max(rewards[:BATCH]):.4f}")
    console.print(f"best of all               {max(rewards):.4f}")
    console.print(f"distinct molecules seen   {stats.stored}")
    console.print(f"oracle calls              {stats.measured + stats.failed}")
    console.print(f"AUC top-10                {molecules.auc_top_k(rewards, max_calls=calls):.4f}")


def search(
    oracle: Annotated[Oracle, typer.Option(help="Property to search for.")] = Oracle.celecoxib,
    calls: Annotated[
        int, typer.Option(help="Total oracle calls, including those of earlier runs.", min=1)
    ] = 2000,
    buffer: Annotated[
        Kind, typer.Option(help="Draw by predicted reward, or uniformly.")
    ] = Kind.predictive,
    acquisition: Annotated[
        Acquisition,
        typer.Option(
            help="Score of the predictive buffer: the prediction, or a score with its "
            "uncertainty (dropout): upper confidence bound, expected improvement, a "
            "Thompson sample."
        ),
    ] = Acquisition.ucb,
    argmax: Annotated[
        float,
        typer.Option(
            help="Share of the batch that is the top of the pool; the rest is drawn by weight.",
            min=0,
            max=1,
        ),
    ] = ARGMAX,
    url: Annotated[
        str, typer.Option(help="Any SQLite or PostgreSQL database.", envvar="SQLBUFFER_URL")
    ] = "sqlite:///molecules.db",
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    report: Annotated[
        int, typer.Option(help="Iterations between two printed lines, 0 for none.")
    ] = 5,
) -> None:
    """Search for molecules; a killed search resumes when it is started again."""
    # A file has no width: there no molecule is broken into two lines.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    torch.set_num_threads(1)  # the network is small, and its threads would only wait for each other
    way = acquisition.value if buffer is Kind.predictive else buffer.value
    share = "" if argmax == ARGMAX else f"-argmax{argmax:g}"
    name = f"{oracle.value}-{way}{share}-{seed}"
    stored_buffer = make_buffer(
        buffer, url, name, seed=seed, acquisition=acquisition, argmax=argmax
    )
    store = stored_buffer.store
    measure = molecules.ORACLES[oracle.value]
    budget = Budget(store, calls)
    environment = Environment(
        samplers=make_samplers(store, seed),
        rewards=[
            RewardCallback(lambda batch: [measure(smiles) for smiles in batch], name=oracle.value)
        ],
        cbs=[BufferSizeCallback, budget],
        buffer=stored_buffer,
        log=Log(console=console),
    )
    if store.iteration:
        console.print(f"resuming at iteration {store.iteration}, {budget.left()} calls left")
    environment.fit(bs=BATCH, iters=math.ceil(calls / BATCH), report=report, buffer_frequency=1)
    while budget.left() > 0:
        environment.fit(bs=BATCH, iters=1, report=report, buffer_frequency=1)
    print_result(store, calls, console)
    store.close()


def main() -> None:
    """Run the command."""
    try:
        typer.run(search)
    except SqlBufferError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: the same command resumes the search")


if __name__ == "__main__":
    main()
