"""Label the handwritten digits that teach a classifier most: pool-based active learning.

    python examples/digits.py --seeds 10 --picture digits.png

A pool of 1,200 images waits in the buffer. Each round trains a classifier on the labels so far,
scores the images that wait, and asks for the labels of 20 more. Three acquisitions take turns:
entropy, margin, and random draws. You may kill the script at any moment: the same command resumes
it, and asks for no label twice.
"""

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import curves
import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits

from sqlbuffer import PredictiveAgent, SampleStore, SqlBufferError, open_store

POOL = 1200
"""Images that wait; the other 597 are held out."""
BATCH = 20

DATA = load_digits()
IMAGES = (DATA.images / 16).astype(np.float32)  # (1797, 8, 8)


# -- the classifier --------------------------------------------------------------------------------


class Classifier(PredictiveAgent):
    """An agent whose model has a number for each digit instead of one in all."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = torch.nn.Sequential(
                torch.nn.Flatten(),
                torch.nn.Linear(64, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, 10),
            )
        super().__init__(
            model,
            lambda logits, digits: torch.nn.functional.cross_entropy(logits, digits.long()),
            lambda images: torch.from_numpy(np.stack(images)),
            seed=seed,
        )

    def predict_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 10)."""
        return self.model(x)

    def probabilities(self, images: list[np.ndarray]) -> np.ndarray:
        """Return the probability of each digit, (n, 10)."""
        return self.predict_data(images).softmax(1).numpy()


def trained(store: SampleStore, seed: int) -> Classifier:
    """Return a classifier that has learned from all labels so far."""
    classifier = Classifier(seed)
    classifier.update_dataset_from_inputs(*store.labelled())
    classifier.train_supervised(bs=64, epochs=40, lr=1e-2, percent_valid=0)
    return classifier


# -- acquisitions ----------------------------------------------------------------------------------


def entropy(p: np.ndarray) -> np.ndarray:
    """Want images that may be many digits: the entropy of the probabilities, (n, 10) to (n,)."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)


def margin(p: np.ndarray) -> np.ndarray:
    """Want images that may be one of two digits: 1 - the difference of the largest two, (n,)."""
    second, first = np.sort(p, axis=1)[:, -2:].T
    return 1.0 - (first - second)


ACQUISITIONS = {"entropy": entropy, "margin": margin, "random": None}


# -- the loop --------------------------------------------------------------------------------------


def learn(
    url: str, acquisition: str, seed: int, *, labels: int, argmax: float, report: Callable[[], Any]
) -> list[float]:
    """Ask for labels; return the accuracy on the images held out after each batch of them."""
    order = np.random.default_rng(seed).permutation(len(IMAGES))
    held_out = order[POOL:]
    weighting = "uniform" if acquisition == "random" else "shift"
    with open_store(url, name=f"{acquisition}-{seed}", seed=seed, weighting=weighting) as store:
        numbers = [{"number": int(i)} for i in order[:POOL]]
        store.add(list(IMAGES[order[:POOL]]), source="digits", meta=numbers)
        while True:
            classifier = None
            if n := store.stats().measured:
                classifier = trained(store, seed)
                found = classifier.probabilities(list(IMAGES[held_out])).argmax(axis=1)
                accuracy = float((found == DATA.target[held_out]).mean())
                store.log_metrics(store.iteration, {"labels": n, "accuracy": accuracy})
            report()
            if n >= labels:
                return [row["value"] for row in store.history() if row["name"] == "accuracy"]
            ask(store, classifier, acquisition, n=min(BATCH, labels - n), argmax=argmax)


def ask(
    store: SampleStore, classifier: Classifier | None, acquisition: str, *, n: int, argmax: float
) -> None:
    """Draw images, and store their labels."""
    wanted, share = ACQUISITIONS[acquisition], 0.0
    if wanted is not None and classifier is not None:
        store.mark_stale()
        store.refresh(lambda images: wanted(classifier.probabilities(images)))
        share = argmax
    elif wanted is not None:
        store.score(lambda images: np.ones(len(images)))  # nothing is known: all are equal
    with store.sample(n, pct_argmax=share) as batch:
        batch.settle([float(DATA.target[meta["number"]]) for meta in batch.meta])


def print_result(found: dict[str, np.ndarray], console: Console) -> None:
    """Print the accuracies: mean and standard deviation over the seeds."""
    n_rounds = next(iter(found.values())).shape[1]
    places = sorted({n_rounds // 4, n_rounds // 2, n_rounds - 1})
    heads = (f"{(place + 1) * BATCH} labels" for place in places)
    table = Table("acquisition", *heads, title="accuracy on the images held out")
    for name, values in found.items():
        cells = (curves.mean_shown(values[:, i], digits=3) for i in places)
        table.add_row(name, *cells)
    console.print(table)


def main(
    seeds: Annotated[int, typer.Option(help="Runs of each acquisition.", min=1)] = 1,
    labels: Annotated[int, typer.Option(help="Labels of each run.", min=BATCH, max=POOL)] = 200,
    argmax: Annotated[
        float,
        typer.Option(
            help="Share of a batch that has the highest scores; the rest is drawn by weight.",
            min=0,
            max=1,
        ),
    ] = 0.5,
    url: Annotated[
        str, typer.Option(help="Any SQLite or PostgreSQL database.", envvar="SQLBUFFER_URL")
    ] = "sqlite:///digits.db",
    picture: Annotated[
        pathlib.Path | None, typer.Option(help="The file to draw the learning curves to.")
    ] = None,
) -> None:
    """Compare three ways to choose images to label; a killed comparison resumes.

    Look at a run with `sqlbuffer history accuracy --name entropy-0 --url sqlite:///digits.db`: the
    labels are stored as rewards, so that the "best" of other commands is the digit 9.
    """
    console = Console(highlight=False)
    torch.set_num_threads(1)  # the network is small, and its threads would only wait for each other
    found: dict[str, np.ndarray] = {}
    n_rounds = -(-labels // BATCH)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("labelling", total=len(ACQUISITIONS) * seeds * (n_rounds + 1))
        for name in ACQUISITIONS:
            curve = []
            for seed in range(seeds):
                report = functools.partial(bar.advance, task)
                each = learn(url, name, seed, labels=labels, argmax=argmax, report=report)
                curve.append(each[:n_rounds])
                if not console.is_terminal:
                    print(f"{name}, seed {seed}: accuracy {each[-1]:.3f}", file=sys.stderr)
            found[name] = np.array(curve)
    print_result(found, console)
    if picture is not None:
        x = np.arange(1, n_rounds + 1) * BATCH
        curves.draw(found, x, picture, labels=("labels", "accuracy on the images held out"))


if __name__ == "__main__":
    try:
        typer.run(main)
    except SqlBufferError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: the same command resumes the comparison")
