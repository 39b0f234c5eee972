"""What user code raises that no `except Exception` sees: it comes out as it is, and leaves nothing
behind.
"""

import contextlib
import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from helpers.cleanup import wait_for_disposal
from helpers.forked import train_in_forks
from sqlbuffer import register
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.predictor.weights import dump_state
from sqlbuffer.retraining.background import Background
from sqlbuffer.retraining.train import retrain
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import FunctionSampler
from sqlbuffer.training.weighted_buffer import WeightedBuffer

pytestmark = pytest.mark.slow

SAMPLES = [f"s{i}" for i in range(20)]
EXITS = [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration]


def raising(error: type[BaseException]) -> Callable[..., Any]:
    """User code that leaves."""

    def leave(*_: Any, **__: Any) -> Any:
        raise error("leaving")

    return leave


class Scored(WeightedBuffer):
    """Scores by length."""

    def compute_weights(self, samples: list[Any]) -> np.ndarray:
        return np.array([float(len(sample)) for sample in samples])


class Leaving(Callback):
    """Leaves at one event."""

    def __init__(self, event: str, leave: Callable[..., Any]) -> None:
        super().__init__(name="leaving", order=50)
        self.event, self.leave = event, leave

    def __call__(self, event: str) -> None:
        if event == self.event:
            self.leave()


def loop(buffer: Buffer, *, sampler: Any = None, reward: Any = None, cbs: Any = ()) -> None:
    """Two iterations."""
    sampler = sampler or (lambda n, rng: SAMPLES[:n])
    reward = reward or (lambda samples: [1.0] * len(samples))
    with contextlib.closing(buffer):
        environment = Environment(
            samplers=[FunctionSampler(sampler, "gen", 20)],
            rewards=[RewardCallback(reward)],
            cbs=list(cbs),
            buffer=buffer,
            log=Log(console=Console(file=io.StringIO())),
        )
        environment.fit(bs=4, iters=2)


def with_agent(leave: Callable[..., Any]) -> PredictiveAgent:
    return PredictiveAgent(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, leave)


Where = dict[str, Any]


def sampling(where: Where, leave: Callable[..., Any]) -> None:
    with open_store(**where) as store:
        store.add(SAMPLES)
        store.score(lambda samples: np.ones(len(samples)))
        with store.sample(4):
            leave()


def under_a_lease(where: Where, leave: Callable[..., Any]) -> None:
    with open_store(**where) as store, store.leased("tidy"):
        leave()


def retraining(where: Where, leave: Callable[..., Any]) -> None:
    with open_store(**where) as store:
        store.record(SAMPLES, [1.0] * len(SAMPLES))
        retrain(store, with_agent(leave), bs=4, epochs=1, lr=1e-3)


class Odd:
    """A registered class."""


def of_a_class(where: Where, leave: Callable[..., Any]) -> None:
    register(Odd, encode=leave, decode=leave)
    with open_store(**where) as store:
        store.add([1, 2, Odd()])


def with_key(where: Where, leave: Callable[..., Any]) -> None:
    with open_store(**where, key=leave) as store:
        store.add(SAMPLES)


def scoring(where: Where, leave: Callable[..., Any], **options: Any) -> None:
    with open_store(**where) as store:
        store.add(SAMPLES)
        store.score(lambda samples: np.ones(len(samples)))
        store.add(["one more"])
        store.score(leave, **options)


PLACES: dict[str, Callable[[Where, Callable[..., Any]], None]] = {
    "key": with_key,
    "class": of_a_class,
    "score": scoring,
    "refresh": lambda where, leave: scoring(where, leave, only="all"),
    "budget": lambda where, leave: scoring(where, leave, only="all", budget=5),
    "with sample": sampling,
    "lease": under_a_lease,
    "featurize": retraining,
    "sampler": lambda where, leave: loop(Scored(1.0, 0, **where), sampler=leave),
    "reward": lambda where, leave: loop(Scored(1.0, 0, **where), reward=leave),
    "loop's key": lambda where, leave: loop(Scored(1.0, 0, **where, key=leave)),
    "before_batch": lambda where, leave: loop(
        Scored(1.0, 0, **where), cbs=[Leaving("before_batch", leave)]
    ),
    "after_sample": lambda where, leave: loop(
        Scored(1.0, 0, **where), cbs=[Leaving("after_sample", leave)]
    ),
    "after_batch": lambda where, leave: loop(
        Scored(1.0, 0, **where), cbs=[Leaving("after_batch", leave)]
    ),
    "loop's agent": lambda where, leave: loop(
        PredictiveBuffer(1.0, 0, with_agent(leave), 8, 0, 1, 8, 1e-3, **where)
    ),
}


@pytest.mark.parametrize(
    ("store_url", "place"),
    [
        *(("sqlite", place) for place in PLACES),
        *(("postgresql", place) for place in list(PLACES)[::3]),
    ],
    indirect=["store_url"],
)
def test_what_user_code_leaves_with_comes_out_and_nothing_stays_claimed(
    store_url: str, place: str
) -> None:
    # A server sees the same whichever way it is left, and wherever.
    for error in EXITS if store_url.startswith("sqlite") else EXITS[:2]:
        where = {"url": store_url, "name": error.__name__}
        with pytest.raises(BaseException) as caught:  # noqa: PT011  which one is the question
            PLACES[place](where, raising(error))
        chain = [caught.value, caught.value.__cause__]
        # Python itself has no StopIteration come out of a generator.
        assert any(
            type(each) is error for each in (chain if error is StopIteration else chain[:1])
        ), chain
        key = {"key": raising(error)} if "key" in place else {}
        wait_for_disposal()  # a block that GeneratorExit leaves ends its lease a moment later
        with open_store(**where, **key) as store:
            assert store.stats().claimed == 0
            assert store.check() == []
            assert not any(job.is_held for job in store.jobs())
            if not key:
                store.add(["later"])
            store.score(lambda samples: np.ones(len(samples)))
            store.sample(-1).settle()
            assert store.check() == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_callback_that_raises_during_the_clean_up_hides_nothing(
    store_url: str, error: type[BaseException]
) -> None:
    """The others clean up all the same, and the first exception is the one that comes out."""
    first, last = (
        Leaving("abort_batch", raising(error)),
        Leaving("compute_loss", raising(ZeroDivisionError)),
    )
    first.order, last.name = -50, "last"  # before the buffer
    with pytest.raises(ZeroDivisionError):
        loop(Scored(1.0, 0, url=store_url), cbs=[first, last])
    with open_store(store_url) as store:
        assert store.stats().claimed == 0


class Exiting(PredictiveAgent):
    """Leaves when it is trained."""

    def train_supervised(self, *_: Any, **__: Any) -> Any:
        raise SystemExit(0)


def featurize(samples: list[str]) -> torch.Tensor:
    return torch.ones(len(samples), 1)


@pytest.mark.parametrize(
    "store_url", ["sqlite"], indirect=True
)  # another process, whatever the database
def test_an_exit_in_the_background_is_said_and_the_next_training_begins(
    store: SampleStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_in_forks(monkeypatch)
    store.record(SAMPLES, [1.0] * len(SAMPLES))
    agent = Exiting(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, featurize)
    background = Background(store, agent)
    try:
        for n in (1, 2):
            with caplog.at_level(logging.ERROR, "sqlbuffer"):
                background.start(dump_state(agent), {"bs": 4, "epochs": 1, "lr": 1e-3})
                assert background._training is not None
                background._training.exception(timeout=120)
                background._executor.submit(len, "").result(
                    timeout=120
                )  # what is done after a training is done
            said = [record.getMessage() for record in caplog.records]
            assert said == ["retraining in the background failed: SystemExit: 0"] * n
        (job,) = store.jobs()
        assert (job.runs, job.last_error) == (2, "interrupted: SystemExit 0")
    finally:
        background.close()
