"""The four buffer callbacks: the calls of the original, without its mistakes, in its loop and in
ours.
"""

import inspect
import io
import math
import multiprocessing
import os
import random
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from helpers.cleanup import hold
from helpers.forked import forkserver
from helpers.loops import environment, featurize, make_agent, named, number, predictive
from sqlbuffer.errors import InvalidArgument, InvalidReward, UnsupportedType
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.buffer_size import BufferSizeCallback
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import FunctionSampler
from sqlbuffer.training.weighted_buffer import WeightedBuffer

# -- what the tests are made of --------------------------------------------------------------------


class ScoredBuffer(WeightedBuffer):
    """Scores a sample `s<number>` by its number, and remembers whom it scored."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scored: list[list[str]] = []

    def compute_weights(self, samples: list[str]) -> np.ndarray:
        self.scored.append(samples)
        return np.array([number(sample) for sample in samples])


@pytest.fixture
def opened(store_url: str) -> Iterator[Callable[..., Any]]:
    """Opens buffers on one fresh database, and closes them in the end."""
    buffers: list[Buffer] = []

    def make(kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
        buffers.append(kind(*args, url=store_url, **options))
        return buffers[-1]

    yield make
    for buffer in buffers:
        buffer.close()


class At(Callback):
    """Does something at one event of each iteration."""

    def __init__(self, event: str, action: Callable[[], Any], order: int = 50) -> None:
        super().__init__(name=f"at {event}", order=order)
        self.event, self.action = event, action

    def __call__(self, event: str) -> None:
        if event == self.event:
            self.action()


# -- identity --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "positional"),
    [
        (Buffer, "p_total"),
        (WeightedBuffer, "p_total refresh_predictions pct_argmax"),
        (
            PredictiveBuffer,
            "p_total refresh_predictions predictive_agent pred_bs supervised_frequency "
            "supervised_epochs supervised_bs "
            "supervised_lr train_silent pct_argmax track",
        ),
        (BufferSizeCallback, ""),
    ],
)
def test_positional_arguments_are_those_of_the_original(kind: type, positional: str) -> None:
    parameters = inspect.signature(kind).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == positional.split()


def test_names_and_orders(opened: Callable[..., Any]) -> None:
    made = [
        opened(Buffer, 1.0, name="one"),
        opened(ScoredBuffer, 1.0, 2, name="two"),
        opened(predictive, name="three"),
        BufferSizeCallback(),
    ]
    assert [callback.name for callback in made] == [
        "buffer",
        "weighted_buffer",
        "predictive_buffer",
        "buffer size",
    ]
    assert all(callback.order <= 0 for callback in made)
    assert [callback.store.name for callback in made[:3]] == ["one", "two", "three"]
    assert [callback.store.stats().kind for callback in made[:3]] == ["uniform", "shift", "shift"]
    for callback in made:
        assert isinstance(callback.event_timelog, defaultdict)
        callback.environment = callback.batch_state = None


# -- calls from outside ----------------------------------------------------------------------------


def test_a_list_is_many_and_anything_else_is_one(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    buffer.add("a", "gen")
    buffer.add(["b", ["c", [("d", "e")]]], name="nested")
    buffer.add(("f", "g"))
    buffer.add(None, "gen_buffer")
    buffer.add([])
    assert dict(zip(buffer.buffer, buffer.buffer_sources, strict=True)) == {
        "a": "gen_buffer",
        **dict.fromkeys(["b", "c", ("d", "e")], "nested_buffer"),
        ("f", "g"): "_buffer",
        None: "gen_buffer",
    }
    assert len(buffer) == 6


def test_sample_consumes(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    buffer.add(named(*range(10)), "gen")
    samples, sources = buffer.sample(4)
    assert len(samples) == len(set(samples)) == 4
    assert sources == ["gen_buffer"] * 4
    assert sorted(samples + buffer.buffer) == named(*range(10))
    assert buffer.sample(0) == ([], [])
    assert len(buffer.sample(99)[0]) == 6
    assert buffer.sample(1) == ([], [])
    assert buffer.store.stats().claimed == 0


def test_a_weighted_sample_has_weights(opened: Callable[..., Any]) -> None:
    buffer = opened(ScoredBuffer, 1.0, 2, 0.5)
    buffer.add(named(*range(10)), "gen")
    assert buffer.weights == [None] * 10
    buffer.before_batch()
    assert buffer.weights == pytest.approx([number(sample) for sample in buffer.buffer], abs=1e-6)
    samples, sources, weights = buffer.sample(6)
    assert samples[:3] == named(9, 8, 7), "half of the draw is the top"
    assert weights == [number(sample) for sample in samples]
    assert sources == ["gen_buffer"] * 6
    unscored = opened(ScoredBuffer, 1.0, 2, name="unscored")
    unscored.add(named(1))
    assert unscored.sample(5)[0] == []
    assert unscored.sample(-1)[0] == named(1)


def test_a_direct_sample_leaves_the_batch_of_the_loop_alone(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    env = environment(buffer, waiting=30)
    env.fit(10, iters=1, cbs=[At("before_filter_batch", lambda: buffer.sample(5))])
    assert buffer.store.stats().measured == 10
    assert len(buffer) == 15


def test_without_scores_of_its_own_a_weighted_buffer_says_what_to_do(
    opened: Callable[..., Any],
) -> None:
    buffer = opened(WeightedBuffer, 1.0, 2)
    buffer.add("a")
    with pytest.raises(NotImplementedError, match="override compute_weights"):
        buffer.before_batch()


def test_a_key_makes_samples_one_and_refuses_others(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0, key=lambda sample: None if sample == "bad" else sample.lower())
    result = buffer.add(["A", "a", "bad", "b"])
    assert (result.added, result.duplicates, result.refused) == (2, 1, 1)
    assert buffer.buffer == ["A", "b"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda url: Buffer(1.5, url=url), "p_total"),
        (lambda url: Buffer(-0.5, url=url), "p_total"),
        (lambda url: Buffer(math.nan, url=url), "p_total"),
        (lambda url: Buffer("half", url=url), "p_total.*'half'"),
        (lambda url: ScoredBuffer(1.0, 2, 1.1, url=url), "pct_argmax"),
        (lambda url: ScoredBuffer(1.0, 2, -0.1, url=url), "pct_argmax"),
        (lambda url: ScoredBuffer(1.0, -2, url=url), "refresh_predictions"),
        (lambda url: ScoredBuffer(1.0, 2.5, url=url), "refresh_predictions"),
        (lambda url: ScoredBuffer(1.0, 2, refresh_budget=0, url=url), "refresh_budget"),
        (lambda url: ScoredBuffer(1.0, 2, refresh_budget=2.5, url=url), "refresh_budget"),
        (lambda url: predictive(supervised_frequency=-1, url=url), "supervised_frequency"),
        (lambda url: predictive(pred_bs=0, url=url), "pred_bs"),
        (lambda url: predictive(pred_bs="8", url=url), "pred_bs.*'8'"),
        (lambda url: predictive(supervised_epochs=-1, url=url), "supervised_epochs.*-1"),
        (lambda url: predictive(supervised_bs=0, url=url), "supervised_bs.*0"),
        (lambda url: predictive(supervised_lr=-1.0, url=url), "supervised_lr.*-1.0"),
        (lambda url: predictive(pct_argmax=None, url=url), "pct_argmax.*None"),
        (lambda url: predictive(object(), online=True, url=url), "predict_online"),
        (
            lambda url: predictive(supervised_kwargs={"epoch": 3}, url=url),
            "'epoch'; retrain knows .*patience",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(
    make: Callable[[str], Buffer], message: str, sqlite_url: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make(sqlite_url)


# -- the pool as a list ----------------------------------------------------------------------------


class CountingStore:
    """Counts the calls that read or write the whole pool."""

    def __init__(self, store: SampleStore) -> None:
        self.store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("waiting", "replace", "remove"):
            self.calls.append(name)
        return getattr(self.store, name)

    def __len__(self) -> int:
        return len(self.store)


def test_the_pool_can_be_standardised_in_place(opened: Callable[..., Any]) -> None:
    buffer = opened(ScoredBuffer, 1.0, 2)
    for sample in ["s1", "s02", "s-9", "s2", "s3"]:
        buffer.add(sample, "gen")
    buffer.before_batch()
    buffer.add("s04", "other")
    buffer.buffer = ["s1", "s2", None, "s2", "s3", "s4"]
    assert buffer.buffer == ["s1", "s2", None, "s2", "s3", "s4"]
    buffer._filter_buffer(np.array([True, True, False, True, False, True]))
    assert sorted(
        zip(buffer.buffer, buffer.buffer_sources, buffer.weights, strict=True), key=str
    ) == [
        ("s1", "gen_buffer", 1.0),
        ("s2", "gen_buffer", 2.0),
        ("s4", "other_buffer", None),
    ]
    assert buffer.store.check() == []


def test_nothing_is_read_again_or_written_where_nothing_changed(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    buffer.add(named(*range(5)))
    buffer.store = buffer._waiting._store = CountingStore(buffer.store)
    for _ in range(3):
        buffer.buffer = ["".join(list(sample)) for sample in buffer.buffer]
        buffer._filter_buffer(np.ones(5, dtype=bool))
        buffer.filter_buffer()
    assert buffer.store.calls == ["waiting"]


def test_positions_stay_when_another_process_draws(opened: Callable[..., Any]) -> None:
    buffer, other = opened(Buffer, 1.0), opened(Buffer, 1.0)
    buffer.add(named(*range(6)))
    before = buffer.buffer
    drawn, _ = other.sample(3)
    other.add("s9")
    buffer._filter_buffer([number(sample) % 2 == 0 for sample in before])
    assert set(buffer.buffer) == {sample for sample in named(0, 2, 4) if sample not in drawn} | {
        "s9"
    }


def test_what_is_assigned_and_not_filtered_is_written_before_the_next_draw(
    opened: Callable[..., Any],
) -> None:
    buffer = opened(Buffer, 1.0)
    buffer.add(named(1, 2, 3))
    buffer.buffer = ["s1", None, "t3"]
    assert set(buffer.sample(9)[0]) == {"s1", "t3"}


def test_an_equal_form_is_no_change(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0, key=str.lower)
    buffer.add(["A", "b"])
    buffer.buffer = ["a", "b"]
    buffer.filter_buffer()
    assert buffer.store.stats().removed == 0


def test_the_buffer_can_be_emptied(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    buffer.add(named(1, 2))
    buffer.buffer = []
    assert buffer.buffer == []
    assert len(buffer) == 0


def test_lists_of_the_wrong_length_are_refused(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    buffer.add(named(1, 2))
    with pytest.raises(InvalidArgument, match="2 samples wait, but 1 were assigned"):
        buffer.buffer = ["s1"]
    with pytest.raises(
        InvalidArgument,
        match=r"2 samples wait: valids must have a bool for each; got \[True, True, True\]",
    ):
        buffer._filter_buffer([True] * 3)


# -- settling --------------------------------------------------------------------------------------


def rewards_stored(store: SampleStore) -> dict[str, float]:
    samples, rewards = store.labelled()
    return dict(zip(samples, rewards.tolist(), strict=True))


def test_rewards_find_their_samples(opened: Callable[..., Any]) -> None:
    """Whatever callbacks do to the batch: turn it round, drop samples, bring others."""
    buffer = opened(Buffer, 1.0)
    env = environment(buffer, waiting=10)
    dropped: list[str] = []

    def shuffle() -> None:
        state = env.batch_state
        dropped.append(state.samples.pop(3))
        state.sources.pop(3)
        state.samples = ["s77", *reversed(state.samples)]
        state.sources = ["guest", *reversed(state.sources)]

    env.fit(10, iters=1, cbs=[At("before_filter_batch", shuffle)])
    expected = {
        sample: number(sample) for sample in [*named(*range(10)), "s77"] if sample not in dropped
    }
    assert rewards_stored(buffer.store) == expected
    stats = buffer.store.stats()
    assert (stats.claimed, stats.waiting, stats.measured) == (0, 0, 10)
    assert next(row["source"] for row in buffer.store.top(20) if row["sample"] == "s77") == "guest"
    assert buffer.store.check() == []


def test_a_failed_measurement_is_kept_apart(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    environment(
        buffer, waiting=3, reward=lambda s: [math.nan if x == "s1" else 5.0 for x in s]
    ).fit(3, iters=1)
    assert rewards_stored(buffer.store) == {"s0": 5.0, "s2": 5.0}
    assert buffer.store.stats().failed == 1


def test_an_infinite_reward_is_refused_and_the_batch_waits_again(
    opened: Callable[..., Any],
) -> None:
    buffer = opened(Buffer, 1.0)
    env = environment(buffer, waiting=3, reward=lambda samples: [math.inf] * 3)
    with pytest.raises(InvalidReward, match="inf"):
        env.fit(3, iters=1)
    assert len(buffer) == 3


def test_without_a_reward_callback_nothing_is_measured(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    environment(buffer, waiting=3, rewards=[]).fit(3, iters=1)
    stats = buffer.store.stats()
    assert (stats.measured, stats.failed, stats.drawn, stats.waiting, stats.iteration) == (
        0,
        0,
        3,
        0,
        1,
    )


def test_what_is_stored_is_the_reward_before_it_was_modified(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    env = environment(buffer, waiting=3)

    def novelty_bonus() -> None:
        env.batch_state.rewards += 100.0

    env.fit(3, iters=1, cbs=[At("reward_modification", novelty_bonus)])
    assert rewards_stored(buffer.store) == {"s0": 0.0, "s1": 1.0, "s2": 2.0}


def test_a_sample_without_a_key_is_measured_but_not_stored(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 0.5, key=lambda sample: sample if sample[1:].isdigit() else None)
    sampler = FunctionSampler(lambda n, rng: ["odd", "s50"], "gen", p_batch=0.5)
    env = environment(
        buffer, waiting=2, samplers=[sampler], reward=lambda samples: [1.0] * len(samples)
    )
    env.fit(4, iters=1)
    assert env.log.metrics["bs"] == [4]
    assert set(rewards_stored(buffer.store)) == {"s0", "s1", "s50"}
    assert buffer.store.stats().refused == 1


def test_metrics_and_checkpoints_are_stored_with_the_batch(opened: Callable[..., Any]) -> None:
    class Stateful(Callback):
        state = b""

        def checkpoint(self) -> bytes:
            return b"after %d" % self.environment.log.iterations

        def restore(self, state: bytes) -> None:
            self.state = state

    buffer, seen = opened(Buffer, 1.0), []

    def look() -> None:
        seen.append(
            ({row["name"] for row in buffer.store.history()}, buffer.store.checkpoint("mine"))
        )

    environment(buffer, waiting=9, cbs=[Stateful("mine"), At("after_batch", look)]).fit(3, iters=1)
    assert seen == [({"bs", "rewards", "rewards_max", "reward"}, (1, b"after 0"))]
    again = Stateful("mine")
    environment(opened(Buffer, 1.0), cbs=[again]).fit(3, iters=2)
    assert again.state == b"after 0"


# -- what the original got wrong, one by one -------------------------------------------------------


@pytest.mark.parametrize(
    ("bs", "pct_argmax", "top"),
    [(10, 0.0, 0), (10, 0.01, 0), (100, 0.29, 29), (10, 0.3, 3), (10, 1.0, 10)],
)
def test_1_shares_are_rounded_and_no_share_drains_nothing(
    opened: Callable[..., Any], bs: int, pct_argmax: float, top: int
) -> None:
    buffer = opened(ScoredBuffer, 1.0, 0, pct_argmax)
    env = environment(buffer, waiting=200)
    env.fit(bs, iters=1)
    drawn = set(rewards_stored(buffer.store))
    assert len(drawn) == bs
    assert len(buffer) == 200 - bs
    assert set(named(*range(200 - top, 200))) <= drawn


@pytest.mark.parametrize(("p_total", "share"), [(0.29, 29), (0.0, 0), (1.0, 100), (0.005, 0)])
def test_1_the_share_of_the_buffer_is_rounded(
    opened: Callable[..., Any], p_total: float, share: int
) -> None:
    env = environment(opened(Buffer, p_total), waiting=200)
    env.fit(100, iters=1)
    assert env.log.metrics["bs"] == [share]


@pytest.mark.parametrize(("p_total", "bs"), [(1.0, -1), (0.5, -1), (-1, 7), (-1, -1)])
def test_2_minus_one_takes_everything(opened: Callable[..., Any], p_total: float, bs: int) -> None:
    class Choosy(ScoredBuffer):
        def compute_weights(self, samples: list[str]) -> np.ndarray:
            return np.array([math.nan if sample == "s3" else 1.0 for sample in samples])

    buffer = opened(Choosy, p_total, 1)
    env = environment(buffer, waiting=20)
    env.fit(bs, iters=1)
    assert env.log.metrics["bs"] == [20]
    assert len(buffer) == 0


@pytest.mark.parametrize("waiting", [0, 1])
def test_3_an_empty_buffer_and_one_of_one_are_refreshed(
    opened: Callable[..., Any], waiting: int
) -> None:
    buffer = opened(ScoredBuffer, 0.0, 1)
    env = environment(buffer, waiting=waiting)
    env.fit(10, iters=3)
    assert sum(map(len, buffer.scored)) == 3 * waiting, "once as missing, twice refreshed"


@pytest.mark.parametrize("never", [0, None])
def test_3_frequencies_of_zero_and_none_switch_off(
    opened: Callable[..., Any], never: int | None
) -> None:
    buffer = opened(predictive, refresh_predictions=never, supervised_frequency=never)
    environment(buffer, waiting=50).fit(10, iters=4)
    assert buffer.store.newest_predictor() is None
    assert buffer.store.stats().score_version == 0


@pytest.mark.slow
def test_3_refreshes_come_when_they_are_due(opened: Callable[..., Any]) -> None:
    buffer = opened(ScoredBuffer, 0.1, 2)
    environment(buffer, waiting=100).fit(10, iters=7)
    assert [len(samples) for samples in buffer.scored] == [100, 97, 95, 93], (
        "the first, and after iterations 2, 4, 6"
    )


def test_4_nan_scores_are_never_drawn_and_counted(opened: Callable[..., Any]) -> None:
    class Doubtful(ScoredBuffer):
        def compute_weights(self, samples: list[str]) -> np.ndarray:
            return np.array(
                [math.nan if number(sample) % 2 else number(sample) for sample in samples]
            )

    buffer = opened(Doubtful, 1.0, 1, 0.5)
    environment(buffer, waiting=20).fit(20, iters=2)
    assert set(rewards_stored(buffer.store)) == set(named(*range(0, 20, 2)))
    assert buffer.store.stats().unscorable == 10


@pytest.mark.slow
def test_5_global_random_state_is_left_alone(opened: Callable[..., Any]) -> None:
    buffer = opened(predictive, make_agent(nn.Dropout(0.5)), online=True)
    env = environment(buffer, waiting=100)
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    env.fit(10, iters=7)
    assert buffer.store.newest_predictor() is not None
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]


@pytest.mark.parametrize("online", [True, False])
def test_6_online_training_is_real_and_only_on_request(
    opened: Callable[..., Any], online: bool
) -> None:
    agent = make_agent()
    before = [parameter.clone() for parameter in agent.model.parameters()]
    buffer = opened(predictive, agent, online=online, supervised_frequency=0)
    env = environment(buffer, waiting=30)
    env.fit(10, iters=2)
    changed = any(
        not torch.equal(old, new) for old, new in zip(before, agent.model.parameters(), strict=True)
    )
    assert changed is online
    assert all(loss > 0 for loss in env.log.metrics["predictive_buffer_loss"])
    assert len(set(env.log.metrics["predictive_buffer_preds"])) == 2


def test_7_scoring_is_done_in_evaluation_mode(opened: Callable[..., Any]) -> None:
    class Careless:
        """An agent that predicts in the mode in which it finds its model."""

        def __init__(self) -> None:
            self.model = make_agent(nn.Dropout(0.9)).model
            self.modes: list[bool] = []

        def predict_data(self, samples: list[str]) -> torch.Tensor:
            self.modes.append(self.model.training)
            return self.model(featurize(samples)).squeeze()

    agent = Careless()
    buffer = opened(predictive, agent, pred_bs=4)
    weights = buffer.compute_weights(named(*range(9)))
    assert (weights.shape, weights.dtype) == ((9,), np.float64)
    assert agent.modes == [False] * 3
    assert agent.model.training
    assert (buffer.compute_weights(named(*range(9))) == weights).all()
    assert buffer.compute_weights([]).shape == (0,)


@pytest.mark.slow
def test_8_scoring_starts_no_processes(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing.Process, "start", refuse)
    buffer = opened(predictive)
    environment(buffer, waiting=100).fit(10, iters=4)
    assert buffer.store.newest_predictor() is not None


@pytest.mark.slow
def test_9_a_buffer_given_to_fit_alone_is_set_up(opened: Callable[..., Any]) -> None:
    guest = opened(predictive, name="guest")
    guest.add(named(*range(50)))
    env = environment(opened(Buffer, 0.0))
    env.fit(10, iters=2, cbs=[guest, BufferSizeCallback])
    assert len(env.log.metrics["predictive_buffer_loss"]) == 2
    assert env.log.metrics["buffer size"] == [0, 0]


def test_10_consumed_samples_may_be_added_again(opened: Callable[..., Any]) -> None:
    buffer = opened(Buffer, 1.0)
    env = environment(buffer, waiting=3)
    env.fit(3, iters=1)
    result = buffer.add(named(0, 1, 2, 3))
    assert (result.added, result.requeued) == (1, 3)
    assert rewards_stored(buffer.store) == {"s0": 0.0, "s1": 1.0, "s2": 2.0}
    env.fit(4, iters=1)
    assert len(rewards_stored(buffer.store)) == 4


def test_11_weights_stay_in_step_with_a_filtered_batch(opened: Callable[..., Any]) -> None:
    buffer = opened(ScoredBuffer, 0.5, 0)
    sampler = FunctionSampler(lambda n, rng: named(*range(n)), "gen", p_batch=0.5)
    env = environment(buffer, waiting=20, samplers=[sampler])
    seen: list[Any] = []

    def drop_every_third() -> None:
        env.buffer._filter_batch([i % 3 > 0 for i in range(len(env.batch_state.samples))])

    def look() -> None:
        state = env.batch_state
        drawn = [
            s
            for s, source in zip(state.samples, state.sources, strict=True)
            if source == "gen_buffer"
        ]
        seen.append(len(drawn))
        assert state.buffer_weights == [number(sample) for sample in drawn]

    looks = [At(event, look) for event in ("sample_batch", "after_sample", "compute_loss")]
    filters = [
        At("before_filter_batch", drop_every_third, -1),
        At("filter_batch", drop_every_third, 10),
    ]
    env.fit(20, iters=1, cbs=[*filters, *looks])
    assert seen[0] == 10
    assert 0 < seen[1] == seen[2] < 7


@pytest.mark.slow
def test_12_silent_means_silent(
    opened: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = opened(predictive, train_silent=True)
    environment(buffer, waiting=60).fit(10, iters=4)
    assert capsys.readouterr() == ("", "")


# -- the predictor in the loop ---------------------------------------------------------------------


def test_retraining_uses_the_stored_rows_with_the_current_batch(opened: Callable[..., Any]) -> None:
    buffer = opened(predictive, supervised_frequency=2, refresh_predictions=3)
    environment(buffer, waiting=100).fit(10, iters=6)
    newest = buffer.store.newest_predictor()
    assert (newest.rows_trained + newest.rows_held_out, newest.iteration) == (50, 5)
    assert buffer.store.stats().score_version == 3, "two predictors, one refresh"


@pytest.mark.slow
def test_a_refresh_budget_spreads_a_refresh_over_iterations(opened: Callable[..., Any]) -> None:
    buffer = opened(ScoredBuffer, 1.0, 4, refresh_budget=6)
    env = environment(buffer, waiting=100)
    env.fit(10, iters=4)
    assert [len(samples) for samples in buffer.scored] == [100], "nothing was out of date"
    env.fit(10, iters=3)
    assert [len(samples) for samples in buffer.scored] == [100, 6, 6, 6]
    found = buffer.store.staleness()
    assert ([it.score_version for it in found], sum(it.waiting for it in found)) == ([0, 1], 30)


@pytest.mark.slow
def test_a_retraining_that_was_interrupted_is_made_up_for(opened: Callable[..., Any]) -> None:
    buffer = opened(predictive, supervised_frequency=2, refresh_predictions=2)
    train = buffer.predictive_agent.train_supervised

    def interrupted(*args: Any, **options: Any) -> None:
        buffer.predictive_agent.train_supervised = train
        raise KeyboardInterrupt

    buffer.predictive_agent.train_supervised = interrupted
    env = environment(buffer, waiting=60)
    with pytest.raises(KeyboardInterrupt):
        env.fit(10, iters=9)
    env.fit(10, iters=1)
    assert env.log.iterations == buffer.store.iteration == 4
    assert (buffer.store.newest_predictor().iteration, buffer.store.stats().score_version) == (3, 2)
    env.fit(10, iters=0)
    assert buffer.store.stats().score_version == 2, "what was done is not done again"


def test_predictions_come_with_every_batch(opened: Callable[..., Any]) -> None:
    buffer = opened(predictive)
    env = environment(
        buffer, waiting=10, reward=lambda s: torch.tensor([math.nan, *[1.0] * (len(s) - 1)])
    )
    seen: list[Any] = []
    env.fit(
        10,
        iters=2,
        cbs=[At("after_batch", lambda: seen.append(env.batch_state["predictive_buffer_preds"]))],
    )
    assert [tuple(predictions.shape) for predictions in seen] == [(10,), (0,)]
    assert not seen[0].requires_grad
    expected = ((seen[0][1:] - 1.0) ** 2).mean().item()
    assert env.log.metrics["predictive_buffer_loss"] == [
        pytest.approx(expected),
        pytest.approx(math.nan, nan_ok=True),
    ]
    assert env.log.metrics["predictive_buffer_preds"] == [
        pytest.approx(seen[0].mean().item()),
        pytest.approx(math.nan, nan_ok=True),
    ]


def test_without_tracking_there_are_no_metrics(opened: Callable[..., Any]) -> None:
    env = environment(opened(predictive, track=False), waiting=20)
    env.fit(10, iters=2)
    assert not [name for name in env.log.metrics if name.startswith("predictive_buffer")]


@pytest.mark.slow
def test_a_resumed_buffer_has_the_newest_predictor(opened: Callable[..., Any]) -> None:
    first = opened(predictive)
    environment(first, waiting=100).fit(10, iters=5)
    other = make_agent(seed=1)
    environment(opened(predictive, other))
    assert torch.equal(other.predict_data(named(5)), first.predictive_agent.predict_data(named(5)))


@pytest.mark.parametrize("online", [True, False])
def test_a_resumed_buffer_has_the_state_that_no_predictor_has(
    opened: Callable[..., Any], online: bool
) -> None:
    first = opened(predictive, supervised_frequency=0, online=online)
    environment(first, waiting=100).fit(10, iters=2)
    other = make_agent(seed=1)
    second = environment(opened(predictive, other, supervised_frequency=0, online=online))
    second.fit(10, iters=2)
    assert torch.equal(other.predict_data(named(5)), first.predictive_agent.predict_data(named(5)))
    assert (
        other.opt.state_dict()["state"].keys()
        == first.predictive_agent.opt.state_dict()["state"].keys()
    )


def test_weights_may_be_a_tensor(opened: Callable[..., Any]) -> None:
    class Weighted(WeightedBuffer):
        def compute_weights(self, samples: list[str]) -> Any:
            return torch.full((len(samples),), 2.0, requires_grad=True)

    buffer = opened(Weighted, 1.0, 1)
    buffer.add("a")
    buffer.before_batch()
    assert buffer.store.waiting().scores.tolist() == [2.0]


def test_samples_of_unknown_types_are_refused(opened: Callable[..., Any]) -> None:
    with pytest.raises(UnsupportedType, match="register"):
        opened(Buffer, 1.0).add(object())


# -- MRL's loop ------------------------------------------------------------------------------------


class Other:
    """A callback of another library."""

    def __init__(self, name: str, order: int) -> None:
        self.name, self.order = name, order

    def __call__(self, event: str) -> None:
        if hasattr(self, event):
            getattr(self, event)()


class OtherState(dict):
    """MRL's batch state: rewards and loss are tensors, the loss a leaf."""

    def __init__(self) -> None:
        super().__init__(samples=[], sources=[], latent_data={}, rewards=torch.tensor(0.0))
        self["loss"] = torch.tensor(0.0, requires_grad=True)

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class OtherLog(Other):
    """MRL's log: metrics must be announced, and each needs a value and each log a column in every
    batch.
    """

    def __init__(self) -> None:
        super().__init__("log", 100)
        self.iterations = 0
        self.metrics: dict[str, list[Any]] = {}
        self.logs: dict[str, list[Any]] = {}

    def add_metric(self, name: str) -> None:
        self.metrics.setdefault(name, [])

    def add_log(self, name: str) -> None:
        self.logs.setdefault(name, [])

    def update_metric(self, name: str, value: Any) -> None:
        self.metrics[name].append(value)

    def after_sample(self) -> None:
        state = self.environment.batch_state
        state.rewards = torch.zeros(len(state.samples))

    def after_batch(self) -> None:
        state = self.environment.batch_state
        for name, values in self.logs.items():
            values.append(state[name])
            assert len(state[name]) == len(state.samples)
        for values in self.metrics.values():
            assert len(values) == self.iterations + 1
            assert type(values[-1]) in (int, str) or f"{values[-1]:.3f}"
        self.iterations += 1


class OtherEnvironment:
    """The contract of MRL's Environment: events, order, attributes."""

    def __init__(self, cbs: list[Any], buffer: Any) -> None:
        self.buffer, self.log, self.batch_state = buffer, OtherLog(), OtherState()
        self.cbs = []
        for cb in [*cbs, buffer, self.log]:
            cb = cb() if isinstance(cb, type) else cb
            cb.environment = self
            setattr(self, cb.name, cb)
            self.cbs.append(cb)
        self.cbs.sort(key=lambda cb: cb.order)
        self("setup")

    def __call__(self, *events: str) -> None:
        for event in events:
            for cb in self.cbs:
                cb(event)

    def fit(self, bs: int, sl: int, iters: int, buffer_frequency: int | None = None) -> None:
        self.bs, self.sl = bs, sl
        self("before_train")
        for _ in range(iters):
            short = len(self.buffer) < bs or bs == -1 or self.log.iterations == 0
            if short or (
                buffer_frequency is not None and self.log.iterations % buffer_frequency == 0
            ):
                self("build_buffer", "filter_buffer", "after_build_buffer")
            self.batch_state = OtherState()
            self(
                "before_batch",
                "sample_batch",
                "before_filter_batch",
                "filter_batch",
                "after_sample",
            )
            self("before_compute_reward", "compute_reward", "after_compute_reward")
            self(
                "reward_modification",
                "after_reward_modification",
                "get_model_outputs",
                "after_get_model_outputs",
            )
            self("compute_loss", "zero_grad")
            self.batch_state.loss.backward()
            self("before_step", "step", "after_batch")
        self("after_train")


class Template(Other):
    """MRL's template callback: standardises and filters all that waits, then the batch."""

    def __init__(self) -> None:
        super().__init__("template", -1)

    @staticmethod
    def standard(sample: str) -> str | None:
        return f"s{int(sample[1:])}" if sample[1:].isdigit() else None

    def filter_buffer(self) -> None:
        buffer = self.environment.buffer
        if buffer.buffer:
            buffer.buffer = [self.standard(sample) for sample in buffer.buffer]
            buffer._filter_buffer(np.array([sample is not None for sample in buffer.buffer]))

    def filter_batch(self) -> None:
        state = self.environment.batch_state
        state.samples = [self.standard(sample) for sample in state.samples]
        keep = np.array([number(sample) % 10 != 7 for sample in state.samples], dtype=bool)
        sources = np.array(state.sources)
        state.latent_data = {
            name: rows[keep[sources == name]] for name, rows in state.latent_data.items()
        }
        state.samples = [sample for sample, kept in zip(state.samples, keep, strict=True) if kept]
        state.sources = list(sources[keep])


class Generator(Other):
    """A sampler: brings samples in odd forms to the buffer, and some with latents to the batch."""

    def __init__(self, limit: int) -> None:
        super().__init__("gen", 10)
        self.limit, self.made = limit, 0

    def build_buffer(self) -> None:
        numbers = range(self.made, min(self.made + 60, self.limit))
        self.made += 60
        self.environment.buffer.add(
            [[f"s{i:04}" if i % 3 else f"s{i}" for i in numbers], "broken"], self.name
        )

    def sample_batch(self) -> None:
        state = self.environment.batch_state
        state.samples += ["s900001", "s900002", "s900001"]
        state.sources += [self.name] * 3
        state.latent_data[self.name] = torch.tensor([[1.0], [2.0], [1.0]])


class Oracle(Other):
    """A reward callback: rewards are tensors."""

    def __init__(self) -> None:
        super().__init__("oracle", 10)
        self.measured: list[str] = []

    def compute_reward(self) -> None:
        state = self.environment.batch_state
        self.measured += state.samples
        state.rewards += torch.tensor([number(sample) / 100 for sample in state.samples])


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda **options: Buffer(0.5, **options),
        lambda **options: ScoredBuffer(0.5, 2, 0.2, **options),
        lambda **options: predictive(p_total=0.5, pct_argmax=0.2, online=True, **options),
        lambda **options: predictive(p_total=0.5, online=False, **options),
    ],
)
def test_the_callbacks_run_in_the_loop_of_mrl(
    opened: Callable[..., Any], make: Callable[..., Buffer]
) -> None:
    buffer, oracle = opened(make), Oracle()
    buffer.add("s5000", "before the environment")
    env = OtherEnvironment([Template(), Generator(120), oracle, BufferSizeCallback], buffer)
    env.fit(20, 10, 14)
    store = buffer.store
    assert store.check() == []
    assert store.iteration == env.log.iterations == 14
    assert store.stats().claimed == 0
    assert len(buffer) == 0
    assert env.log.metrics["buffer size"][:4] == [51, 41, 31, 21]
    assert not any("broken" in sample for sample in oracle.measured)
    drawn = [sample for sample in oracle.measured if number(sample) < 900000]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {f"s{i}" for i in [*range(120), 5000] if i % 10 != 7}
    assert rewards_stored(store) == {
        s: pytest.approx(number(s) / 100, rel=1e-6) for s in set(oracle.measured)
    }
    assert all(rows.shape == (2, 1) for rows in [env.batch_state.latent_data["gen"]])
    if isinstance(buffer, WeightedBuffer):
        assert env.batch_state.buffer_weights == []
    if isinstance(buffer, PredictiveBuffer):
        assert store.newest_predictor().rows_trained > 100
        assert len(env.log.metrics["predictive_buffer_loss"]) == 14


@pytest.mark.slow
def test_an_interrupted_loop_of_mrl_goes_on(opened: Callable[..., Any]) -> None:
    class Interruption(Other):
        def compute_reward(self) -> None:
            if self.environment.log.iterations == 1:
                self.compute_reward = lambda: None
                raise KeyboardInterrupt

    buffer = opened(ScoredBuffer, 0.5, 2)
    env = OtherEnvironment(
        [Template(), Generator(120), Oracle(), Interruption("interruption", 20)], buffer
    )
    with pytest.raises(KeyboardInterrupt):
        env.fit(20, 10, 3)
    env.fit(20, 10, 2)
    assert (buffer.store.iteration, buffer.store.stats().claimed, buffer.store.check()) == (
        3,
        0,
        [],
    )


# -- kill -9 ---------------------------------------------------------------------------------------


def search(
    url: str,
    kill_at: tuple[int, str] | None = None,
    *,
    online: bool = False,
    refresh_budget: int | None = None,
    acquisition: str = "greedy",
) -> None:
    """A run that may kill itself at one moment of one iteration."""

    def kill(moment: str) -> None:
        if (log.iterations, moment) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    class Kill(Callback):
        def __call__(self, event: str) -> None:
            kill(f"{self.name} {event}")

    class Searched(PredictiveBuffer):
        job = ""

        def _do(self, job: str) -> None:
            kill("before " + job)
            self.job = job
            super()._do(job)
            self.job = ""
            kill("after " + job)

        def compute_weights(self, samples: list[str]) -> np.ndarray:
            kill("within " + self.job)
            return super().compute_weights(samples)

    def generate(n: int, rng: np.random.Generator) -> list[str]:
        kill("between samplers" if n == 10 else "")
        return named(*rng.integers(0, 300, n))

    log = Log(console=Console(file=io.StringIO()))
    # Another model for a process that resumes: the stored state is to take its place, from the
    # first settled batch on.
    agent = make_agent(nn.Dropout(0.1), seed=int(kill_at is not None and kill_at[0] > 1))
    options = {"online": online, "refresh_budget": refresh_budget, "acquisition": acquisition}
    buffer = Searched(1.0, 2, agent, 16, 3, 3, 16, 1e-2, pct_argmax=0.2, url=url, **options)
    env = Environment(
        samplers=[FunctionSampler(generate, "gen", 30), FunctionSampler(generate, "late", 10)],
        rewards=[RewardCallback(lambda samples: [number(sample) / 100 for sample in samples])],
        cbs=[Kill("before", -9), Kill("after", 99), BufferSizeCallback],
        buffer=buffer,
        log=log,
    )
    env.fit(12, iters=9, report=0)
    buffer.close()


MOMENTS = [
    (0, "between samplers"),
    (0, "before after_batch"),
    (1, "before after_sample"),
    (2, "between samplers"),
    (2, "after compute_reward"),
    (2, "before refresh"),
    (3, "before retrain"),
    (4, "before retrain"),
    (4, "after retrain"),
    (4, "within refresh"),
    (5, "within end_refresh"),
    (5, "after end_refresh"),
    (5, "between samplers"),
    (6, "before retrain"),
    (7, "after retrain"),
    (7, "within refresh"),
    (7, "after end_refresh"),
    (7, "before step"),
    (8, "after after_batch"),
]
"""Moments of a run that is killed at each: all of them on a file, and the first ones on a server.

After a batch is settled, what is due belongs to the next iteration. Some moments come only after
the kill before. `test_kills.py` kills at every COMMIT of both databases.
"""

MOMENTS_WITH_A_BUDGET = [
    (1, "after refresh_some"),
    (2, "before refresh"),
    (3, "after refresh"),
    (3, "before refresh_some"),
    (3, "within refresh_some"),
    (3, "after retrain"),
    (4, "after refresh_some"),
    (5, "between samplers"),
    (5, "before after_batch"),
    (6, "after refresh_some"),
    (7, "after compute_reward"),
    (8, "within refresh_some"),
]


def story(url: str) -> dict[str, Any]:
    """All that a run has left behind."""
    with open_store(url) as store:
        assert store.check() == []
        assert store.predictors()
        return {
            "iteration": store.iteration,
            "rewards": rewards_stored(store),
            "waiting": sorted(store.waiting().samples),
            "history": {(row["iteration"], row["name"]): row["value"] for row in store.history()},
            "predictor": store.predictor_state(),
        }


def search_with_kills(url: str, moments: list[tuple[int, str]], **options: Any) -> None:
    """Start a run again and again, each time in a process that dies at the next moment; the last
    one lives.
    """
    processes = forkserver()
    for moment in [*moments, None]:
        process = processes.Process(target=search, args=(url, moment), kwargs=options)
        process.start()
        process.join(120)
        assert process.exitcode == (0 if moment is None else -signal.SIGKILL), moment


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    store_url: str, tmp_path: Any
) -> None:
    whole = f"sqlite:///{tmp_path}/whole.db"
    search(whole)
    search_with_kills(store_url, MOMENTS if store_url.startswith("sqlite") else MOMENTS[:7])
    assert story(store_url) == story(whole)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_online_training(sqlite_url: str, tmp_path: Any) -> None:
    whole = f"sqlite:///{tmp_path}/whole.db"
    search(whole, online=True)
    search_with_kills(
        sqlite_url,
        [(1, "after compute_reward"), (5, "before step"), (6, "after retrain")],
        online=True,
    )
    assert story(sqlite_url) == story(whole)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_a_refresh_budget(store_url: str, tmp_path: Any) -> None:
    whole = f"sqlite:///{tmp_path}/whole.db"
    search(whole, refresh_budget=9)
    n = None if store_url.startswith("sqlite") else 5
    search_with_kills(store_url, MOMENTS_WITH_A_BUDGET[:n], refresh_budget=9)
    assert story(store_url) == story(whole)
    with open_store(store_url) as store, open_store(whole) as other:
        assert [(it.score_version, it.waiting) for it in store.staleness()] == [
            (it.score_version, it.waiting) for it in other.staleness()
        ]
        assert hold(store.sample(40)).samples == hold(other.sample(40)).samples


@pytest.mark.parametrize("acquisition", ["ei", "thompson"])
@pytest.mark.slow
def test_a_killed_run_goes_on_with_an_acquisition(
    sqlite_url: str, tmp_path: Any, acquisition: str
) -> None:
    whole = f"sqlite:///{tmp_path}/whole.db"
    search(whole, acquisition=acquisition)
    moments = [
        (1, "after compute_reward"),
        (2, "before refresh"),
        (4, "within refresh"),
        (5, "within end_refresh"),
    ]
    search_with_kills(sqlite_url, moments, acquisition=acquisition)
    assert story(sqlite_url) == story(whole)


def test_weights_are_those_of_now(opened: Callable[..., Any]) -> None:
    """A refresh changes scores, and none of the counters of what waits."""
    buffer = opened(ScoredBuffer, 1.0, 0)
    buffer.add(named(*range(10)))
    buffer.store.score(buffer.compute_weights)
    buffer.store.save_predictor(b"", rows_trained=0)
    assert sorted(buffer.weights) == list(range(10))
    for _ in range(2):
        buffer.store.score(
            lambda samples: [number(sample) + 100 for sample in samples], only="stale", budget=5
        )
    assert sorted(buffer.weights) == list(range(100, 110))


class Storing(Callback):
    """Another process's worker: it stores a predictor while the loop makes its checkpoints."""

    def __init__(self, store: SampleStore, iteration: int) -> None:
        super().__init__(name="storing", order=200)
        self.store, self.iteration = store, iteration

    def checkpoint(self) -> bytes | None:
        if self.environment.log.iterations == self.iteration:
            self.store.save_predictor(b"", rows_trained=0)
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moments", "budget"),
    [("before", None), ("before after", 9), ("after", 9), ("after after", None)],
)
def test_a_resumed_run_refreshes_whatever_others_have_stored(
    opened: Callable[..., Any], store_url: str, moments: str, budget: int | None
) -> None:
    """Predictors of others, stored as the batch was settled or since, are no refresh of
    this loop.
    """
    buffer = opened(ScoredBuffer, 1.0, 2, refresh_budget=budget)
    worker = open_store(store_url)
    cbs = [Storing(worker, 2)] if "before" in moments else []
    env = environment(buffer, waiting=60, cbs=cbs)
    do = buffer._do

    def interrupted(job: str) -> None:
        if job == "refresh":
            raise KeyboardInterrupt
        do(job)

    buffer._do = interrupted
    with pytest.raises(KeyboardInterrupt):
        env.fit(10, iters=4)
    for _ in range(moments.split().count("after")):
        worker.save_predictor(b"", rows_trained=0)
    buffer.close()

    resumed = opened(ScoredBuffer, 1.0, 2, refresh_budget=budget)
    before = worker.stats().score_version
    environment(resumed).fit(10, iters=0)
    assert worker.stats().score_version == before + 1
    assert sum(map(len, resumed.scored)) == (30 if budget is None else 9)
    environment(resumed).fit(10, iters=0)
    assert worker.stats().score_version == before + 1, "and does it once"
    assert worker.check() == []
    worker.close()
