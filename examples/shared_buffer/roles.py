"""The roles of the processes; each process has its own store.

The samples are points of the plane. An experiment takes a tenth of a second. The best point is
(1, -2).
"""

import time
from collections.abc import Callable

import numpy as np

from sqlbuffer import SampleStore
from sqlbuffer.errors import ClaimLost

Say = Callable[[str], None]
IsOver = Callable[[], bool]

BATCH = 8
MAX_WAITING = 500


def experiment(point: tuple[float, float]) -> float:
    """Measure a point, the slow part."""
    time.sleep(0.1)
    x, y = point
    return -((x - 1) ** 2) - (y + 2) ** 2


def generate(store: SampleStore, say: Say, is_over: IsOver) -> None:
    """Add variations of the best points, and some random points."""
    rng = np.random.default_rng()
    while not is_over():
        best = [row["sample"] for row in store.top(5)] or [(0.0, 0.0)]
        near = np.array([best[i] for i in rng.integers(len(best), size=6)]) + rng.normal(
            0, 0.3, (6, 2)
        )
        points = np.vstack([near, rng.uniform(-5, 5, (2, 2))]).round(2)
        if len(store) < MAX_WAITING:
            result = store.add([(float(x), float(y)) for x, y in points], source="generator")
            say(f"added {result.added}, {len(store)} wait")
        time.sleep(0.2)


def measure(store: SampleStore, say: Say, is_over: IsOver) -> None:
    """Draw batches and report each reward at once: if this process dies, its rewards are stored."""
    while not is_over():
        with store.sample(BATCH, pct_argmax=0.25) as batch:
            try:
                for sample_id, point in zip(batch.ids, batch.samples, strict=True):
                    batch.report([sample_id], [experiment(point)])
            except ClaimLost as exc:  # silent for too long: another worker measures the rest
                say(str(exc))
        say(f"measured {len(batch)}") if len(batch) else time.sleep(0.2)


def train(store: SampleStore, say: Say, is_over: IsOver) -> None:
    """Fit a predictor to the measured points, and score the waiting points with it."""
    predictor = np.zeros(6)
    n_trained = 0
    while not is_over():
        points, rewards = store.labelled()
        if len(points) >= n_trained + 10:
            predictor, *_ = np.linalg.lstsq(features(points), rewards, rcond=None)
            n_trained = len(points)
            version = store.save_predictor(predictor.tobytes(), rows_trained=n_trained)
            store.refresh(lambda samples: features(samples) @ predictor)  # noqa: B023
            say(f"trained version {version} on {n_trained} points; the best is {rewards.max():.4f}")
        store.score(lambda samples: features(samples) @ predictor)  # noqa: B023
        time.sleep(0.2)


def features(points: list[tuple[float, float]]) -> np.ndarray:
    """Return (n, 6): the terms of a polynomial of degree two."""
    x, y = np.array(points).T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


ROLES = {"generator": generate, "reward": measure, "trainer": train}
