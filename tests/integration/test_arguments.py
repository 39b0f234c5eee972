"""Any value for any argument of any public function: it works, or it is refused in
words of ours.
"""

import contextlib
import dataclasses
import datetime as dt
import functools
import inspect
import math
import pathlib
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import sqlbuffer
from helpers.servers import new_database, server_execute
from sqlbuffer import race, training
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.labels import LabelledRows
from sqlbuffer.errors import SqlBufferError
from sqlbuffer.predictor import acquisition
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.predictor.dataset import PredictiveDataset
from sqlbuffer.predictor.ensemble import EnsembleAgent
from sqlbuffer.retraining.schedule import Schedule
from sqlbuffer.retraining.train import retrain
from sqlbuffer.retraining.worker import Worker
from sqlbuffer.store import SampleStore, open_store

pytestmark = pytest.mark.slow

PACKAGE = pathlib.Path(sqlbuffer.__file__).parent

# -- values ----------------------------------------------------------------------------------------

NUMBERS: list[Any] = [
    *(
        0,
        1,
        2,
        -1,
        -2,
        127,
        2**31 - 1,
        2**31,
        2**32,
        -(2**31),
        2**63 - 1,
        2**63,
        2**64,
        10**30,
        -(10**30),
        10**400,
    ),
    *(
        10**5_000,
        0.0,
        -0.0,
        0.5,
        1.0,
        -1.0,
        1e308,
        -1e308,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
        1j,
        2 + 0j,
    ),
    *(Decimal("0.5"), Decimal("NaN"), Decimal("1e400"), Fraction(1, 2), Fraction(3)),
    *(np.int8(1), np.int32(2), np.int64(3), np.int64(-1), np.uint8(1), np.uint64(2**64 - 1)),
    *(
        np.float16(0.5),
        np.float32(0.5),
        np.float64(0.5),
        np.float32("nan"),
        np.float64("inf"),
        np.longdouble("1e400"),
    ),
    *(
        np.complex64(1),
        np.datetime64("2020-01-01"),
        np.datetime64(1, "ns"),
        np.timedelta64(1, "ns"),
    ),
]
FLAGS: list[Any] = [None, True, False, np.True_, np.False_]
TEXTS: list[Any] = [
    "",
    "x",
    "1",
    "nan",
    "default",
    "a\0b",
    "\ud800",
    "x" * 10_000,
    np.str_("x"),
    b"",
    b"x",
    np.bytes_(b"x"),
]
ARRAYS: list[Callable[[], Any]] = [
    *(
        lambda: np.array(2),
        lambda: np.array(0.5),
        lambda: np.array(True),
        lambda: np.array("x"),
        lambda: np.array(None),
    ),
    *(
        lambda: np.array([]),
        lambda: np.array([1, 2]),
        lambda: np.array([0.5, math.nan]),
        lambda: np.array([True, False]),
    ),
    *(
        lambda: np.array(["a", "b"]),
        lambda: np.array([None, "a"], object),
        lambda: np.zeros((2, 2)),
        lambda: np.eye(8),
    ),
    *(
        lambda: np.array([2**64 - 1], np.uint64),
        lambda: np.array(["2020"], "M8[ns]"),
        lambda: np.zeros(2, "i4, f8"),
    ),
    *(
        lambda: np.zeros((0, 3)),
        lambda: np.ones((2, 2, 2), bool),
        lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    ),
    *(
        lambda: torch.tensor(2),
        lambda: torch.tensor(0.5),
        lambda: torch.tensor(True),
        lambda: torch.tensor([1, 2]),
    ),
    *(
        lambda: torch.tensor([0.5, math.inf]),
        lambda: torch.zeros(2, 2),
        lambda: torch.zeros(0),
        lambda: torch.eye(8),
    ),
    *(
        lambda: torch.tensor([0.5, 1.0], requires_grad=True),
        lambda: torch.tensor([True, False]),
        lambda: torch.tensor(1j),
    ),
    *(
        lambda: torch.ones(2, dtype=torch.bfloat16),
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.ones(2, device="meta"),
    ),
    *(
        lambda: [torch.tensor(0.5, requires_grad=True)] * 2,
        lambda: [np.float32(1), None],
        lambda: [np.int64(1), np.True_],
    ),
]
TABLES: list[Callable[[], Any]] = [
    *(
        lambda: pd.Series([1, 2]),
        lambda: pd.Series([0.5, math.nan], index=[7, 9]),
        lambda: pd.Series(["a", "b"], [3, 1]),
    ),
    *(
        lambda: pd.Series([1, None], dtype="Int64"),
        lambda: pd.Series([True, None], dtype="boolean"),
        lambda: pd.Series([]),
    ),
    *(
        lambda: pd.Series(["a", "b"], dtype="category"),
        lambda: pd.Series([True, False]),
        lambda: pd.Index([1, 2]),
    ),
    *(
        lambda: pd.DataFrame({"x": [1, 2], "y": ["a", "b"]}),
        lambda: pd.DataFrame(),
        lambda: pd.Series({"columns": 1}),
    ),
    *(
        lambda: pd.DataFrame({"x": [1.0]}).iloc[0],
        lambda: pd.MultiIndex.from_tuples([(1, 2)]),
        lambda: pd.Series([{}]),
    ),
    *(
        lambda: pd.NA,
        lambda: pd.NaT,
        lambda: pd.Timestamp("2020"),
        lambda: pd.Timedelta(1),
        lambda: pd.Interval(0, 1),
    ),
]
OTHERS: list[Callable[[], Any]] = [
    *(
        list,
        dict,
        set,
        tuple,
        object,
        lambda: range(3),
        lambda: (x for x in "ab"),
        lambda: iter([1, 2]),
        lambda: {1, 2},
    ),
    *(
        lambda: {"a": 1},
        lambda: {1: {"b": math.nan}},
        lambda: {"x": np.float32(1), "y": np.int64(2)},
        lambda: [[1], [2, 3]],
    ),
    *(
        lambda: ["a", "b"],
        lambda: ("a", "b"),
        lambda: [1, 2],
        lambda: [0.5, 1.0],
        lambda: [True, False],
        lambda: [None] * 2,
    ),
    *(
        lambda: [{}, {"x": math.inf}],
        lambda: {"a": b"x"},
        lambda: bytearray(b"ab"),
        lambda: memoryview(b"ab"),
    ),
    *(
        lambda: dt.datetime(2020, 1, 1),
        lambda: dt.timedelta(1),
        lambda: {"x": pd.NA},
        lambda: {np.int64(1): "a", "1": "b"},
    ),
]


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


MAKERS = [*map(_constant, [*NUMBERS, *FLAGS, *TEXTS]), *ARRAYS, *TABLES, *OTHERS]
SIMPLE = (
    st.sampled_from(MAKERS).map(lambda make: make())
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
)
VALUES = (
    SIMPLE
    | st.lists(SIMPLE, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.integers(), SIMPLE, max_size=2)
)


# -- functions -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scene:
    """What functions are called on."""

    store: SampleStore
    folder: pathlib.Path
    agent: PredictiveAgent

    def __post_init__(self) -> None:
        self.n = 0

    def url(self) -> str:
        return f"sqlite:///{self.folder}/other.db"

    def buffer(self, kind: Any = training.Buffer, **options: Any) -> Any:
        return kind(**{"p_total": 1.0, "url": self.url(), **options})

    def loop(self, **options: Any) -> training.Environment:
        """A loop that is over before it begins."""
        given = {
            "buffer": self.buffer(name="loop"),
            "log": training.Log(),
            "cbs": [AtOnce()],
            **options,
        }
        return training.Environment(**given)


class AtOnce(training.Callback):
    """Ends a fit before its first iteration."""

    def before_train(self) -> None:
        self.environment.stop()


def zeros(samples: list[Any]) -> torch.Tensor:
    return torch.zeros(len(samples), 1)


def no_rewards(samples: list[Any]) -> list[float]:
    return [0.0] * len(samples)


def make_agent(**given: Any) -> PredictiveAgent:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))
    return PredictiveAgent(
        **{"model": model, "loss_function": torch.nn.functional.mse_loss, "dataset": zeros, **given}
    )


def settle(scene: Scene, given: dict[str, Any], method: str = "settle") -> None:
    batch = scene.store.sample(2)
    try:
        own: dict[str, dict[str, Any]] = {
            "settle": {},
            "report": {"ids": batch.ids[:1], "rewards": [1.0]},
            "fail": {"ids": batch.ids[:1], "reason": "x"},
            "update_priorities": {"ids": batch.ids[:1], "priorities": [1.0]},
            "importance_weights": {},
        }
        getattr(batch, method)(**{**own[method], **given})
    finally:
        with contextlib.suppress(SqlBufferError):
            batch.release()


def taken_up(scene: Scene, given: dict[str, Any]) -> None:
    token = scene.store.sample(2, lease_s=60).detach()
    try:
        scene.store.batch(**{"token": token, **given})
    finally:
        scene.store.batch(token).release()


def deleted(scene: Scene, given: dict[str, Any]) -> None:
    with scene.store.copy(f"doomed {next(COUNT)}") as copy:
        copy.delete(**given)


def opening(kind: Any) -> Callable[[Scene, dict[str, Any]], Any]:
    """Opens a buffer, and closes it."""

    def call(scene: Scene, given: dict[str, Any]) -> None:
        with contextlib.closing(kind(**given)):
            pass

    return call


def leased(scene: Scene, given: dict[str, Any]) -> None:
    with scene.store.leased(**given):
        pass


def looping(method: str) -> Callable[[Scene, dict[str, Any]], Any]:
    def call(scene: Scene, given: dict[str, Any]) -> None:
        loop = scene.loop()
        try:
            getattr(loop, method)(**given)
        finally:
            loop.buffer.close()

    return call


def constructed(scene: Scene, given: dict[str, Any]) -> None:
    loop = None
    buffer = scene.buffer(name="loop")
    try:
        loop = training.Environment(**{"buffer": buffer, "log": training.Log(), **given})
    finally:
        for each in {id(buffer): buffer, id(loop): getattr(loop, "buffer", buffer)}.values():
            each.close()


def on_buffer(method: str, kind: Any = training.Buffer) -> Callable[[Scene, dict[str, Any]], Any]:
    def call(scene: Scene, given: dict[str, Any]) -> None:
        with contextlib.closing(scene.buffer(kind, name="called")) as buffer:
            buffer.add(["a", "b"])
            if method == "buffer":
                buffer.buffer = given["items"]
                buffer.filter_buffer()
            else:
                getattr(buffer, method)(**given)

    return call


def sampled(kind: Any, given: dict[str, Any]) -> Any:
    sampler = kind(**given)
    return list(sampler._generate(2, np.random.default_rng(0)))


def whole(kind: Any) -> Callable[[Scene, dict[str, Any]], Any]:
    return lambda scene, given: kind(**given)


def of(name: str, thing: Callable[[Scene], Any]) -> Callable[[Scene, dict[str, Any]], Any]:
    return lambda scene, given: getattr(thing(scene), name)(**given)


def on_store(name: str) -> Callable[[Scene, dict[str, Any]], Any]:
    return of(name, lambda scene: scene.store)


Target = tuple[
    Callable[..., Any], Callable[[Scene, dict[str, Any]], Any], Callable[[Scene], dict[str, Any]]
]


def store_targets() -> Iterator[tuple[str, Target]]:
    valid: dict[str, Callable[[Scene], dict[str, Any]]] = {
        "add": lambda scene: {"samples": ["x", "y"]},
        "add_one": lambda scene: {"sample": "x"},
        "record": lambda scene: {"samples": ["x", "y"], "rewards": [1.0, 2.0]},
        "score": lambda scene: {"score_fn": lambda samples: np.ones(len(samples)), "only": "all"},
        "refresh": lambda scene: {
            "score_fn": no_rewards,
            "budget": 2,
            "checkpoint": {"x": b""},
        },
        "remove": lambda scene: {"ids": []},
        "update_priorities": lambda scene: {"ids": [1, 2], "priorities": [1.0, 2.0]},
        "replace": lambda scene: {"ids": [1, 2], "samples": ["v", "w"]},
        "labelled_rows": lambda scene: {},
        "dataset": lambda scene: {},
        "stream": lambda scene: {"batch_size": 2},
        "rewards_of": lambda scene: {"samples": ["x"]},
        "samples_of": lambda scene: {"ids": [1]},
        "top": lambda scene: {},
        "table": lambda scene: {},
        "to_arrow": lambda scene: {},
        "to_pandas": lambda scene: {},
        "copy": lambda scene: {"new": f"copy {scene.store.stats().stored} {next(COUNT)}"},
        "save_predictor": lambda scene: {"state": b"", "rows_trained": 1},
        "predictor_state": lambda scene: {},
        "load_predictor": lambda scene: {"agent": make_agent()},
        "announce_job": lambda scene: {"name": "job", "schedule": "daily"},
        "log_metrics": lambda scene: {"iteration": 0, "metrics": {"x": 1.0}},
        "checkpoint": lambda scene: {"name": "x"},
        "checkpoints": lambda scene: {"name": "x"},
        "save_checkpoints": lambda scene: {"states": {"x": b""}, "iteration": 0},
        "measure": lambda scene: {"fn": lambda sample: 1.0, "max_calls": 2, "silent": True},
        "failed": lambda scene: {},
        "retry": lambda scene: {},
        "remeasure": lambda scene: {"objective": f"objective {next(COUNT)}"},
        "set_budget": lambda scene: {"budget": None},
        "prune": lambda scene: {"keep_draws": 10**6},
        "rename": lambda scene: {"new": f"renamed {next(COUNT)}"},
        "forget": lambda scene: {"ids": []},
    }
    for name, rest in valid.items():
        yield f"SampleStore.{name}", (getattr(SampleStore, name), on_store(name), rest)
    yield (
        "SampleStore.score of a budget",
        (
            SampleStore.score,
            on_store("score"),
            lambda scene: {
                "score_fn": no_rewards,
                "only": "all",
                "budget": 2,
                "checkpoint": {"x": b""},
            },
        ),
    )
    yield (
        "SampleStore.sample",
        (SampleStore.sample, lambda scene, given: scene.store.sample(**given).release(), two),
    )
    yield "SampleStore.batch", (SampleStore.batch, taken_up, lambda scene: {})
    yield "SampleStore.delete", (SampleStore.delete, deleted, lambda scene: {})
    yield "Batch.fail", (Batch.fail, functools.partial(settle, method="fail"), lambda scene: {})
    yield "SampleStore.leased", (SampleStore.leased, leased, lambda scene: {"job": "job"})
    yield "Batch.settle", (Batch.settle, settle, lambda scene: {"rewards": [1.0, 2.0]})
    for method in ("report", "update_priorities", "importance_weights"):
        call = functools.partial(settle, method=method)
        yield f"Batch.{method}", (getattr(Batch, method), call, lambda scene: {})
    yield "LabelledRows.take", (LabelledRows.take, of("take", rows), lambda scene: {"rows": [0]})
    yield (
        "LabelledRows.subset",
        (
            LabelledRows.subset,
            of("subset", rows),
            lambda scene: {"mask": [True] * len(rows(scene))},
        ),
    )
    yield (
        "open_store",
        (open_store, opening(open_store), lambda scene: {"url": scene.url(), "name": "opened"}),
    )


def rows(scene: Scene) -> LabelledRows:
    return scene.store.labelled_rows()


def two(scene: Scene) -> dict[str, Any]:
    return {"n": 2, "pct_argmax": 0.5}


def training_targets() -> Iterator[tuple[str, Target]]:
    plain = lambda scene: {"url": scene.url(), "name": "plain", "p_total": 0.5}  # noqa: E731
    weighted = lambda scene: {  # noqa: E731
        "url": scene.url(),
        "name": "weighted",
        "p_total": 0.5,
        "refresh_predictions": 1,
    }
    predictive = lambda scene: {  # noqa: E731
        **{
            "url": scene.url(),
            "name": "predictive",
            "p_total": 0.5,
            "refresh_predictions": 1,
            "pred_bs": 2,
        },
        **{
            "predictive_agent": scene.agent,
            "supervised_frequency": 1,
            "supervised_epochs": 1,
            "supervised_bs": 2,
        },
        "supervised_lr": 1e-3,
    }
    yield "Buffer", (training.Buffer, opening(training.Buffer), plain)
    yield "WeightedBuffer", (training.WeightedBuffer, opening(training.WeightedBuffer), weighted)
    yield (
        "PredictiveBuffer",
        (training.PredictiveBuffer, opening(training.PredictiveBuffer), predictive),
    )
    for method, rest in {
        "add": {"item": "x", "name": "y"},
        "sample": {"n": 1},
        "buffer": {"items": ["a", "b"]},
        "_filter_buffer": {"valids": [True, False]},
        "ids_of": {"samples": ["a"]},
    }.items():
        function = _assign if method == "buffer" else getattr(training.Buffer, method)
        yield f"Buffer.{method}", (function, on_buffer(method), lambda scene, rest=rest: dict(rest))
    yield "Environment", (training.Environment, constructed, lambda scene: {})
    yield (
        "Environment.fit",
        (training.Environment.fit, looping("fit"), lambda scene: {"bs": 2, "iters": 2}),
    )
    yield (
        "Environment.register_cbs",
        (training.Environment.register_cbs, looping("register_cbs"), lambda scene: {"cbs": []}),
    )
    remove = training.Environment.remove_cbs
    yield "Environment.remove_cbs", (remove, looping("remove_cbs"), lambda scene: {"cbs": []})
    for kind in (training.WeightedBuffer, training.PredictiveBuffer):
        yield (
            f"{kind.__name__}.compute_weights",
            (kind.compute_weights, on_predictive("compute_weights"), two_samples),
        )
    yield (
        "WeightedBuffer.sample",
        (training.WeightedBuffer.sample, on_predictive("sample"), lambda scene: {"n": 1}),
    )
    yield (
        "PredictiveBuffer.restore",
        (training.PredictiveBuffer.restore, on_predictive("restore"), no_state),
    )
    yield (
        "Callback.restore",
        (training.Callback.restore, of("restore", lambda scene: training.Callback()), no_state),
    )
    yield "Checkpoint.restore", (training.Checkpoint.restore, restored, no_state)
    sampler = lambda scene: in_a_loop(training.Sampler("x"))  # noqa: E731
    yield "Sampler.rng", (training.Sampler.rng, of("rng", sampler), lambda scene: {"event": "x"})
    yield "Log", (training.Log, whole(training.Log), lambda scene: {})
    log = lambda scene: training.Log()  # noqa: E731
    yield (
        "Log.add_metric",
        (training.Log.add_metric, of("add_metric", log), lambda scene: {"name": "x"}),
    )
    yield "Log.add_log", (training.Log.add_log, of("add_log", log), lambda scene: {"name": "x"})
    update = training.Log.update_metric
    yield (
        "Log.update_metric",
        (update, of("update_metric", log), lambda scene: {"name": "x", "value": 1.0}),
    )
    yield "Log.plot_metrics", (training.Log.plot_metrics, of("plot_metrics", log), lambda scene: {})
    yield "Callback", (training.Callback, whole(training.Callback), lambda scene: {})
    yield (
        "Checkpoint",
        (
            training.Checkpoint,
            whole(training.Checkpoint),
            lambda scene: {"agents": [scene.agent.model]},
        ),
    )
    reward = lambda scene: {"function": no_rewards}  # noqa: E731
    yield "RewardCallback", (training.RewardCallback, whole(training.RewardCallback), reward)
    yield (
        "RewardCallback's function",
        (_rewarded, whole(_rewarded), lambda scene: {"returned": [1.0, 2.0]}),
    )
    yield "FunctionSampler's function", (_given, whole(_given), lambda scene: {"returned": ["a"]})
    yield "Sampler", (training.Sampler, whole(training.Sampler), lambda scene: {"name": "x"})
    data = lambda scene: {"data": ["a", "b", "c"]}  # noqa: E731
    draw = functools.partial(sampled, training.DatasetSampler)
    yield "DatasetSampler", (training.DatasetSampler, lambda scene, given: draw(given), data)
    make = lambda scene: {"function": lambda n, rng: ["a"], "name": "x"}  # noqa: E731
    yield "FunctionSampler", (training.FunctionSampler, whole(training.FunctionSampler), make)


def _assign(items: Any) -> None:
    """The signature of an assignment to `Buffer.buffer`."""


def _rewarded(returned: Any) -> Any:
    return training.RewardCallback(lambda samples: returned)._measured(["a", "b"], ["", ""], None)


def _given(returned: Any) -> Any:
    return in_a_loop(training.FunctionSampler(lambda n, rng: returned, "x"))._draw(
        2, "build_buffer"
    )


def in_a_loop(callback: Any) -> Any:
    callback.environment = types.SimpleNamespace(log=types.SimpleNamespace(iterations=0))
    return callback


def two_samples(scene: Scene) -> dict[str, Any]:
    return {"samples": ["a", "b"]}


def no_state(scene: Scene) -> dict[str, Any]:
    return {"state": b""}


def on_predictive(method: str) -> Callable[[Scene, dict[str, Any]], Any]:
    def call(scene: Scene, given: dict[str, Any]) -> None:
        options = {
            "predictive_agent": scene.agent,
            "refresh_predictions": 0,
            "pred_bs": 2,
            "supervised_frequency": 0,
        }
        options |= {"supervised_epochs": 1, "supervised_bs": 2, "supervised_lr": 1e-3}
        with contextlib.closing(
            scene.buffer(training.PredictiveBuffer, name="predicting", **options)
        ) as buffer:
            getattr(buffer, method)(**given)

    return call


def restored(scene: Scene, given: dict[str, Any]) -> None:
    training.Checkpoint([torch.nn.Linear(1, 1)]).restore(**given)


def model_targets() -> Iterator[tuple[str, Target]]:
    agent = lambda scene: scene.agent  # noqa: E731
    valid = {
        "model": torch.nn.Linear(1, 1),
        "loss_function": torch.nn.functional.mse_loss,
        "dataset": zeros,
    }
    yield "PredictiveAgent", (PredictiveAgent, whole(PredictiveAgent), lambda scene: dict(valid))
    models = [torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]
    several = lambda scene: {  # noqa: E731
        "models": models,
        "loss_function": torch.nn.functional.mse_loss,
        "dataset": zeros,
    }
    yield "EnsembleAgent", (EnsembleAgent, whole(EnsembleAgent), several)
    ensemble = lambda scene: EnsembleAgent(models, torch.nn.functional.mse_loss, zeros)  # noqa: E731
    samples = {"samples": ["a", "b"]}
    for method, rest in {
        "predict_data": samples,
        "predict_data_batch": {**samples, "bs": 1},
        "predict_online": {**samples, "step": 1},
        "predict_distribution": samples,
        "predict_samples": {**samples, "n_draws": 2, "step": 1},
        "update_dataset_from_inputs": {**samples, "rewards": [1.0, 2.0]},
        "train_supervised": {"bs": 1, "epochs": 1, "lr": 1e-3},
    }.items():
        call = of(method, agent)
        if method == "train_supervised":
            call = _trained
        yield (
            f"PredictiveAgent.{method}",
            (getattr(PredictiveAgent, method), call, lambda scene, rest=rest: dict(rest)),
        )
    for method, rest in {
        "predict_distribution": samples,
        "train_supervised": {"bs": 1, "epochs": 1, "lr": 0.1},
    }.items():
        call = of(method, ensemble) if method != "train_supervised" else _trained_together
        yield (
            f"EnsembleAgent.{method}",
            (getattr(EnsembleAgent, method), call, lambda scene, rest=rest: dict(rest)),
        )
    draws = EnsembleAgent.predict_samples
    yield (
        "EnsembleAgent.predict_samples",
        (draws, of("predict_samples", ensemble), lambda scene: {**samples, "n_draws": 2}),
    )
    dataset = lambda scene: {"featurize": zeros, "samples": ["a", "b"], "rewards": [1.0, 2.0]}  # noqa: E731
    yield "PredictiveDataset", (PredictiveDataset, whole(PredictiveDataset), dataset)
    for kind in (
        race.Softmax,
        race.Power,
        acquisition.UpperConfidenceBound,
        acquisition.ExpectedImprovement,
    ):
        yield kind.__name__, (kind, whole(kind), lambda scene: {})
    training_of = lambda scene: {  # noqa: E731
        "store": scene.store,
        "agent": scene.agent,
        "bs": 2,
        "epochs": 1,
        "lr": 1e-3,
    }
    yield "retrain", (retrain, whole(retrain), training_of)
    yield "Schedule", (Schedule, whole(Schedule), lambda scene: {"when_new": 1})
    worker = lambda scene: {  # noqa: E731
        **{"store": scene.store, "agent": scene.agent, "schedule": Schedule(when_new=1)},
        "retraining": {"bs": 2, "epochs": 1, "lr": 1e-3},
    }
    yield "Worker", (Worker, whole(Worker), worker)
    yield "register", (sqlbuffer.register, whole(_registered), lambda scene: {"cls": Registered})


@dataclasses.dataclass
class Registered:
    """Registered again and again."""


def _registered(**given: Any) -> None:
    cls = given.pop("cls")
    sqlbuffer.register(cls, **given)


def _trained(scene: Scene, given: dict[str, Any]) -> Any:
    scene.agent.update_dataset_from_inputs(["a", "b"], [1.0, 2.0])
    return scene.agent.train_supervised(**given)


def _trained_together(scene: Scene, given: dict[str, Any]) -> Any:
    models = [torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]
    agent = EnsembleAgent(
        models, torch.nn.functional.mse_loss, PredictiveDataset(zeros, ["a", "b"], [1.0, 2.0])
    )
    return agent.train_supervised(**given)


COUNT = iter(range(10**9))
TARGETS: dict[str, Target] = {
    **dict(store_targets()),
    **dict(training_targets()),
    **dict(model_targets()),
}

LONG = {"max_calls", "epochs", "supervised_epochs", "n_draws", "iters"}
"""Arguments of which a large value takes as long as it says."""

NOT_VALUES = {
    ("retrain", "store"),
    ("Worker", "store"),
    ("retrain", "agent"),
    ("Worker", "agent"),
    ("retrain", "lease"),
} | {
    ("PredictiveBuffer", "predictive_agent"),
    ("Log", "console"),
    ("Environment", "buffer"),
    ("Environment", "log"),
    ("Environment", "agent"),
    ("SampleStore.load_predictor", "agent"),
    ("Checkpoint", "generators"),
}
"""Arguments that are objects with methods of their own: a loop may have any that has them."""


def parameters() -> list[tuple[str, str]]:
    """Every argument of every function, those of the buffers that they hand on included."""
    found = []
    for name, (function, _, _) in TARGETS.items():
        names = [
            each
            for each in inspect.signature(function).parameters
            if each not in ("self", "args", "options")
        ]
        found += [(name, each) for each in names]
    return [each for each in found if each not in NOT_VALUES]


MADE_BY_US = {"AddResult", "Batch", "SampleInfo", "SampleStore", "Stats"}
"""Classes whose objects no other process makes."""

NO_ARGUMENTS = {"self", "args", "options", "cls"}


def public_functions() -> Iterator[tuple[str, Any]]:
    for name in sqlbuffer.__all__:
        thing = getattr(sqlbuffer, name)
        if inspect.isfunction(thing) or (inspect.isclass(thing) and name not in MADE_BY_US):
            yield name, thing
        if inspect.isclass(thing):
            methods = inspect.getmembers(thing, inspect.isfunction)
            yield from (
                (f"{name}.{method}", function)
                for method, function in methods
                if not method.startswith("_")
            )


def test_every_public_function_is_among_them() -> None:
    """But for what takes nothing, or tensors and objects that only the user's own model or loop
    understands.
    """
    known = {function for function, _, _ in TARGETS.values()}
    left_out = {"predict_tensor", "load_state_dict", "rule"}
    missing = {
        name
        for name, function in public_functions()
        if function not in known
        and name.partition(".")[2] not in left_out
        and not issubclass(function if inspect.isclass(function) else object, BaseException)
        and set(inspect.signature(function).parameters) - NO_ARGUMENTS
    }
    assert not missing


def is_long(name: str, value: Any) -> bool:
    with contextlib.suppress(Exception):
        return name in LONG and int(value) > 20
    return False


def told(call: Callable[[], object]) -> None:
    """Do it, or be told by us, in few words, what is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        error = error_of(call)
    if isinstance(error, SqlBufferError):
        assert len(str(error)) < 2_000
    elif error is not None:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        assert PACKAGE in pathlib.Path(last).parents, f"{last}: {error!r}"


def error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except (SqlBufferError, TypeError, ValueError) as exc:
        return exc
    return None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("arguments")
    with open_store(f"sqlite:///{folder}/x.db", mode="replay") as store:
        yield Scene(store, folder, make_agent())


def tended(scene: Scene) -> Scene:
    """See to it that there is something to draw, and something measured."""
    if len(scene.store) < 4:
        scene.store.add(["a", "b", "c", "d"])
        scene.store.record(["a", "b"], [1.0, 2.0])
    scene.store.score(lambda samples: np.ones(len(samples)))
    return scene


@pytest.fixture(scope="module")
def server_scene(
    server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    url = new_database(server_url, template)
    with open_store(url, mode="replay") as store:
        yield Scene(store, tmp_path_factory.mktemp("others"), make_agent())
    server_execute(server_url, f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")


def called_with(scene: Scene, function: str, parameter: str, value: Any) -> None:
    _, call, valid = TARGETS[function]
    if not is_long(parameter, value):
        tended(scene)
        told(lambda: call(scene, {**valid(scene), parameter: value}))


def called_with_any_value(scene: Scene, function: str, parameter: str, max_examples: int) -> None:
    @settings(
        max_examples=max_examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(value=VALUES)
    def call(value: Any) -> None:
        note(f"{function}({parameter}=...)")
        called_with(scene, function, parameter, value)

    call()


ARGUMENTS: dict[str, list[str]] = {}
for _name, _parameter in parameters():
    ARGUMENTS.setdefault(_name, []).append(_parameter)


@pytest.mark.parametrize("n", [4, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.parametrize("function", ARGUMENTS)
def test_any_value_for_any_argument(scene: Scene, function: str, n: int) -> None:
    for parameter in ARGUMENTS[function]:
        called_with_any_value(scene, function, parameter, n)


@pytest.mark.parametrize("n", [2, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "function",
    [each for each in ARGUMENTS if each.startswith(("SampleStore", "Batch", "LabelledRows"))],
)
def test_any_value_for_any_argument_on_a_server(server_scene: Scene, function: str, n: int) -> None:
    for parameter in ARGUMENTS[function]:
        called_with_any_value(server_scene, function, parameter, n)


def test_values_stored_by_the_other_tests_are_sound(scene: Scene, server_scene: Scene) -> None:
    """Last of this file: nothing that the others have left has a value of another type than its
    column.
    """
    assert scene.store.check() == []
    assert server_scene.store.check() == []
