"""Everything that a process does to a buffer, and an account of where its samples are
afterwards.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch

from helpers.samples import scores_of
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.predictor_versions import PredictorVersion
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.retraining.worker import retrain_alone
from sqlbuffer.store import SampleStore, open_store

TWENTY = [f"s{i}" for i in range(20)]


LATE = ["s20", "s21", "s22"]


def reward_of(sample: str) -> float:
    """What an experiment measures."""
    return float(sample[1:]) / 7


def report_one_by_one(store: SampleStore) -> None:
    with store.sample(3) as batch:
        for i, sample in zip(batch.ids, batch.samples, strict=True):
            batch.report([i], [reward_of(sample)])


def report_and_release(store: SampleStore) -> None:
    batch = store.sample(4, pct_argmax=0.25)
    batch.report(batch.ids[:2], [reward_of(sample) for sample in batch.samples[:2]])
    batch.release()


def settle(store: SampleStore) -> None:
    with store.sample(3) as batch:
        rewards = [reward_of(sample) for sample in batch.samples]
        batch.settle(rewards, metrics={"loss": 1.0}, checkpoint={"loop": b"state"})


def features(samples: list[str]) -> torch.Tensor:
    return torch.tensor([[float(sample[1:])] for sample in samples])


def retrain(store: SampleStore) -> PredictorVersion | None:
    """The job of a worker: under a lease, with the refresh that belongs to it."""
    agent = PredictiveAgent(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, features)
    refresh = functools.partial(store.score, scores_of, only="stale", chunk=7)
    return retrain_alone(store, agent, bs=4, epochs=1, lr=0.01, then=refresh)


def refresh_some(store: SampleStore) -> None:
    store.save_predictor(b"weights", rows_trained=4)
    store.score(
        lambda samples: scores_of(samples) + 1, only="stale", budget=7, checkpoint={"mark": b""}
    )
    store.score(lambda samples: scores_of(samples) - 20, only="stale", budget=7)  # moves every key
    while store.score(scores_of, only="stale", budget=7):
        pass
    store.score(scores_of, only="stale", budget=7)


def prioritise(store: SampleStore) -> Batch:
    batch = store.sample(3)
    batch.update_priorities([0.5, 1.0, 2.0])  # a sample of priority 0 would never be drawn
    waiting = store.waiting()
    store.update_priorities(waiting.ids, scores_of(waiting.samples) + 1.0)
    return batch


ACTIONS: dict[str, Callable[[SampleStore], object]] = {
    "add": lambda store: store.add([*LATE, *TWENTY[:5]], requeue=True),
    "score": lambda store: (store.add(LATE), store.score(scores_of, chunk=2)),
    "sample": lambda store: store.sample(3, pct_argmax=0.5),
    "settle": settle,
    "report": report_one_by_one,
    "release": report_and_release,
    "refresh": lambda store: store.score(lambda samples: -scores_of(samples), only="all", chunk=7),
    "refresh some": refresh_some,
    "prioritise": prioritise,
    "retrain": retrain,
    "record": lambda store: store.record(
        [*LATE, TWENTY[0]], [reward_of(sample) for sample in [*LATE, TWENTY[0]]]
    ),
    "remove": lambda store: store.remove(store.waiting().ids[:2].tolist()),
}


class Account(NamedTuple):
    """Where every sample of a buffer is."""

    waiting: set[str]
    measured: dict[str, float]


def start(url: str, name: str) -> None:
    """Fill a buffer: four of its samples are measured."""
    with open_store(url, name=name) as store:
        store.add(TWENTY)
        store.score(scores_of)
        with store.sample(4) as batch:
            batch.settle([reward_of(sample) for sample in batch.samples])


def account(store: SampleStore) -> Account:
    assert store.check() == []
    assert store.stats().claimed == 0
    samples, rewards = store.labelled()
    return Account(set(store.waiting().samples), dict(zip(samples, rewards.tolist(), strict=True)))


def drain(store: SampleStore) -> list[str]:
    """Measure whatever waits; return it."""
    store.score(scores_of)
    seen: list[str] = []
    while len(store):
        with store.sample(5) as batch:
            batch.settle([reward_of(sample) for sample in batch.samples])
            seen += batch.samples
    return seen


def take_up_the_job(store: SampleStore) -> None:
    """Any process that comes next does what the dead one left undone, at once and under the next
    number.
    """
    before = store.predictors()
    assert len(before) <= 1
    version = retrain(store)
    assert version is not None
    assert version.version == len(before) + 1
    (job,) = store.jobs()
    assert (job.is_held, job.is_broken_off, job.last_error) == (False, False, None)
    assert store.is_refreshed()
    assert store.check() == []
