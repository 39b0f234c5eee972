"""A loop without training: a worker trains in another process, and the loop loads the predictors.

    cd examples/scheduled_retraining
    python loop.py &
    export SQLBUFFER_URL=sqlite:///points.db
    sqlbuffer worker --name points --agent models:make_agent --when-new 100

You may start any number of loops and workers, and kill any of them.
"""

import time
from typing import Annotated

import numpy as np
import typer
from models import make_agent

from sqlbuffer import Environment, FunctionSampler, PredictiveBuffer, RewardCallback


def new_points(n: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Generate points of the plane."""
    return [(float(x), float(y)) for x, y in rng.uniform(-5, 5, (n, 2)).round(2)]


def experiment(points: list[tuple[float, float]]) -> list[float]:
    """Measure points, the slow part. The best point is (1, -2)."""
    time.sleep(0.05)
    return [-((x - 1) ** 2) - (y + 2) ** 2 for x, y in points]


def main(
    url: Annotated[str, typer.Option(help="URL of the database.")] = "sqlite:///points.db",
    iters: Annotated[
        int, typer.Option(help="Total iterations, including those of earlier runs.")
    ] = 400,
) -> None:
    """Measure points, those with the best predictions first."""
    buffer = PredictiveBuffer(
        1.0,
        refresh_predictions=0,  # the worker refreshes
        predictive_agent=make_agent(),
        pred_bs=512,
        supervised_frequency=0,  # the worker retrains
        supervised_epochs=0,
        supervised_bs=0,
        supervised_lr=0.0,
        pct_argmax=0.5,
        url=url,
        name="points",
    )
    environment = Environment(
        samplers=[FunctionSampler(new_points, "uniform", buffer_size=100)],
        rewards=[RewardCallback(experiment)],
        buffer=buffer,
    )
    environment.fit(bs=10, iters=iters, report=20, buffer_frequency=5)
    best = buffer.store.top(1)[0]
    newest = buffer.store.newest_predictor()
    print(f"the best is {best['sample']} with {best['reward']:.4f}")
    print(
        "no predictor yet"
        if newest is None
        else f"predictor {newest.version}, of {newest.rows_trained} points"
    )
    buffer.close()


if __name__ == "__main__":
    typer.run(main)
