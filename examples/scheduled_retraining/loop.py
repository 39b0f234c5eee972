"""A loop that never trains: a worker beside it does, and the loop draws by whatever predictor is the newest.

    cd examples/scheduled_retraining
    python loop.py &
    sqlbuffer worker --url sqlite:///points.db --name points --agent models:make_agent --when-new 100

Start as many loops and workers as you like, and kill them as you like.
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
    """Measure points: the slow part. The best is at (1, -2)."""
    time.sleep(0.05)
    return [-((x - 1) ** 2) - (y + 2) ** 2 for x, y in points]


def main(
    url: Annotated[str, typer.Option(help="The database.")] = "sqlite:///points.db",
    iters: Annotated[int, typer.Option(help="Iterations, those of earlier runs included.")] = 400,
) -> None:
    """Measure points, those first of which the predictor thinks best."""
    buffer = PredictiveBuffer(
        1.0,
        refresh_predictions=0,  # the worker does it
        predictive_agent=make_agent(),
        pred_bs=512,
        supervised_frequency=0,  # the worker does it
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
    print("no predictor yet" if newest is None else f"predictor {newest.version}, of {newest.rows_trained} points")
    buffer.close()


if __name__ == "__main__":
    typer.run(main)
