"""The log: one value a metric and iteration, stored, restored and printed."""

import builtins
import io
import math
import types
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from helpers import inside
from helpers.cleanup import hold
from sqlbuffer.errors import MissingExtra
from sqlbuffer.store import SampleStore
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.callback import BatchState, Callback
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import FunctionSampler


def environment(log: Log, store: SampleStore | None = None) -> Any:
    env = types.SimpleNamespace(
        batch_state=BatchState(), buffer=types.SimpleNamespace(store=store), log=log
    )
    log.environment = env
    log("setup")
    return env


def iterate(env: Any, samples: list[str], rewards: Any, **metrics: Any) -> None:
    env.batch_state = BatchState()
    env.batch_state.samples, env.batch_state.sources = samples, ["gen"] * len(samples)
    env.log("after_sample")
    env.batch_state.rewards = rewards
    env.log("after_compute_reward")
    for name, value in metrics.items():
        env.log.update_metric(name, value)
    env.log("after_batch")


def printed(log: Log) -> str:
    assert isinstance(log.console.file, io.StringIO)
    return log.console.file.getvalue()


def plain_log(**options: Any) -> Log:
    return Log(console=Console(file=io.StringIO()), **options)


def test_a_metric_is_created_when_first_written() -> None:
    log = plain_log()
    iterate(environment(log), ["a", "b"], np.array([1.0, 3.0]), late=7)
    assert log.metrics == {"bs": [2], "rewards": [2.0], "rewards_max": [3.0], "late": [7]}
    assert log.iterations == 1


def test_metrics_take_arrays_tensors_and_strings() -> None:
    log = plain_log()
    values = {
        "array": np.float32(0.5),
        "tensor": torch.tensor([2.0], requires_grad=True),
        "word": "warm",
    }
    iterate(environment(log), ["a"], torch.tensor([1.0]), **values)
    assert [log.metrics[name] for name in values] == [[0.5], [2.0], ["warm"]]


def test_failed_measurements_do_not_spoil_the_mean() -> None:
    log = plain_log()
    env = environment(log)
    iterate(env, ["a", "b"], np.array([math.nan, 3.0]))
    iterate(env, ["a"], np.array([math.nan]))
    iterate(env, [], np.zeros(0))
    iterate(env, ["a"], 0.0)
    assert log.metrics["rewards"] == pytest.approx([3.0, math.nan, math.nan, 0.0], nan_ok=True)
    assert log.metrics["rewards_max"] == pytest.approx([3.0, math.nan, math.nan, 0.0], nan_ok=True)


def test_a_resumed_log_reads_as_one_run(store: SampleStore) -> None:
    first = plain_log()
    env = environment(first, store)
    for reward in (1.0, 2.0):
        with store.sample(0) as batch:
            batch.settle()
        iterate(
            env, ["a"], np.array([reward]), loss=reward / 0.5, diverged=math.nan, word=f"w{reward}"
        )
    second = plain_log()
    iterate(environment(second, store), ["a"], np.array([3.0]), loss=6.0)
    assert second.iterations == 3
    assert second.metrics["rewards"] == [1.0, 2.0, 3.0]
    assert second.metrics["loss"] == [2.0, 4.0, 6.0]
    assert np.isnan(second.metrics["diverged"]).all()
    assert second.metrics["word"] == ["w1.0", "w2.0"]
    kept = {(row["iteration"], row["value"]) for row in store.history() if row["name"] == "loss"}
    assert kept == {(0, 2.0), (1, 4.0), (2, 6.0)}


def test_plain_lines_are_aligned_and_the_names_come_again_when_there_are_new_ones() -> None:
    log = plain_log()
    env = environment(log)
    iterate(env, ["a"], np.array([0.5]))
    iterate(env, ["a"], np.array([1e6 / 3]))
    iterate(env, ["a"], np.array([0.5]), a_longer_name="[red]")
    lines = printed(log).splitlines()
    assert lines == [
        " iteration          bs     rewards  rewards_max",
        "         0           1         0.5          0.5",
        "         1           1   3.333e+05    3.333e+05",
        " iteration          bs     rewards  rewards_max  a_longer_name",
        "         2           1         0.5          0.5          [red]",
    ]


def test_long_plain_lines_are_not_folded() -> None:
    log = Log(console=Console(file=io.StringIO(), width=20))
    iterate(environment(log), ["a"], np.array([0.5]))
    assert len(printed(log).splitlines()) == 2


@pytest.mark.parametrize(("report", "lines"), [(1, 6), (2, 4), (5, 2), (0, 0), (None, 0)])
def test_report_says_how_often_to_print(report: int | None, lines: int) -> None:
    log = plain_log()
    log.report = report
    env = environment(log)
    for _ in range(5):
        iterate(env, ["a"], np.array([1.0]))
    assert len(printed(log).splitlines()) == lines


def test_a_terminal_gets_a_table_in_which_nothing_is_cut_off() -> None:
    log = Log(console=Console(file=io.StringIO(), force_terminal=True, width=30))
    env = environment(log)
    for reward in (0.25, 0.125):
        iterate(env, ["a"], np.array([reward]), another_metric=123456)
    shown = printed(log)
    assert shown.count("another_metric") == 1
    assert shown.count("123456") == 2
    assert "\x1b[" in shown


def test_df_has_a_row_for_each_sample() -> None:
    log = plain_log(keep=2)
    log.add_log("probability")
    log.add_log("absent")
    env = environment(log)
    for i in range(3):
        env.batch_state.samples = []
        iterate(env, [f"a{i}", f"b{i}"], torch.tensor([1.0, 2.0 + i]))
    frame = log.df
    assert list(frame.columns) == [
        "iteration",
        "samples",
        "sources",
        "rewards",
        "probability",
        "absent",
    ]
    assert frame["samples"].tolist() == ["a1", "b1", "a2", "b2"]
    assert frame["rewards"].tolist() == [1.0, 3.0, 1.0, 4.0]
    assert frame["absent"].isna().all()


class Late(Callback):
    """Writes a column when the batch is settled already, and one of things that no process can
    store.
    """

    def __init__(self) -> None:
        super().__init__(name="late", order=50)

    def setup(self) -> None:
        for name in ("late", "things"):
            self.environment.log.add_log(name)

    def after_batch(self) -> None:
        state = self.environment.batch_state
        state.late = [f"{sample}!" for sample in state.samples]
        state.things = [object() for _ in state.samples]
        state.samples[0], state.rewards = ("changed", 1), state.rewards * 2


def loop(url: str, **options: Any) -> Environment:
    def generate(n: int, rng: np.random.Generator) -> list[Any]:
        return [(f"s{i}", i) if i % 2 else f"s{i}" for i in rng.integers(0, 200, n).tolist()]

    return Environment(
        samplers=[FunctionSampler(generate, "gen", 30, 0.4)],
        rewards=[RewardCallback(lambda samples: torch.arange(len(samples), dtype=torch.float64))],
        cbs=[Late],
        buffer=Buffer(0.6, url=url),
        log=plain_log(**options),
    )


@pytest.mark.slow
def test_df_of_a_resumed_run_has_the_rows_of_all_runs(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = []
    for iters in (3, 5, 5):
        env = loop(store_url)
        env.fit(10, iters=iters)
        frames.append(env.log.df)
        env.buffer.close()
    first, second, third = frames
    assert list(first["iteration"].unique()) == [0, 1, 2]
    known = ["iteration", "samples", "sources", "rewards", "late"]
    assert second[known].head(len(first)).equals(first[known])
    assert third[known].equals(second[known])
    assert ("changed", 1) in third["samples"].tolist()
    assert {"gen", "gen_buffer"} == set(third["sources"])
    assert second["things"].isna().sum() == len(first)
    assert third["things"].isna().all()
    assert sum("log 'things' is not stored" in line for line in caplog.messages) <= 1


def test_df_keeps_as_many_stored_batches_as_it_says(store_url: str) -> None:
    kept = []
    for keep, iters in ((2, 3), (2, 4), (4, 4), (0, 5), (None, 5)):
        env = loop(store_url, keep=keep)
        env.fit(10, iters=iters)
        kept.append(env.log.df["iteration"].unique().tolist())
        env.buffer.close()
    assert kept == [[1, 2], [2, 3], [2, 3], [], []]


def test_metrics_are_drawn_over_their_iterations_also_when_resumed(store: SampleStore) -> None:
    first = plain_log()
    env = environment(first, store)
    for i in range(4):
        with store.sample(0) as batch:
            batch.settle()
        iterate(env, ["a"], np.array([i]), **({"late": i} if i % 2 else {}))
    resumed = plain_log()
    environment(resumed, store)
    for log in (first, resumed):
        figure = log.plot_metrics()
        assert [axes.get_title() for axes in figure.axes] == [
            "bs",
            "rewards",
            "rewards_max",
            "late",
        ]
        assert figure.axes[3].lines[0].get_xdata().tolist() == [1, 3]
        assert figure.axes[3].lines[0].get_ydata().tolist() == [1.0, 3.0]
    assert len(resumed.plot_metrics(["late"], smooth=False).axes) == 1


def test_metrics_are_printed_in_their_order_also_when_resumed(store: SampleStore) -> None:
    lines = []
    for _ in range(2):
        log = plain_log()
        with store.sample(0) as batch:
            iterate(environment(log, store), ["a"], np.array([0.5]), zeta=1, word="warm", alpha=2)
            batch.settle()
        lines.append(printed(log).splitlines()[0].split())
    assert (
        lines[0]
        == lines[1]
        == ["iteration", "bs", "rewards", "rewards_max", "zeta", "word", "alpha"]
    )


def test_df_before_the_first_batch_is_empty() -> None:
    assert plain_log().df.shape == (0, 4)


def test_df_knows_empty_batches_and_halves_of_characters(store: SampleStore) -> None:
    """The first batches of a run may be empty, where nothing is scored yet."""
    log = plain_log()
    env = environment(log, store)
    for samples in ([], ["whole", "half \ud800"], []):
        env.batch_state.samples = []
        with store.sample(0) as batch:
            iterate(env, samples, np.zeros(len(samples)))
            batch.settle()
        assert log.df["samples"].tolist() in ([], ["whole", "half \ud800"])
    assert log.df["iteration"].tolist() == [1, 1]


def test_df_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_pandas(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(MissingExtra, match="pip install"):
        _ = plain_log().df


def test_a_batch_that_could_not_be_stored_whole_is_stored_by_the_next_fit(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is away when the rest of a settled batch is to be stored, and still when the
    loop cleans up.
    """

    class Late(Callback):
        def after_batch(self) -> None:
            self.environment.log.update_metric("late", 7.0)
            self.environment.log.update_metric("word", "late")

        def before_train(self) -> None:
            self.environment.log.update_metric("early", 1.0)

    buffer = Buffer(1.0, url=store_url)
    buffer.add(["a", "b", "c", "d"])
    log = Log(console=Console(file=io.StringIO()))
    env = Environment(
        rewards=[RewardCallback(lambda samples: [1.0] * len(samples))],
        buffer=buffer,
        log=log,
        cbs=[Late],
    )
    with monkeypatch.context() as patch:

        def away(moment: str) -> None:
            if moment == "before" and buffer.store.iteration:
                raise OSError("away")

        inside.call_at_commits(patch, away)
        with pytest.raises(OSError, match="away"):
            env.fit(2, iters=1, report=0)
    env.fit(2, iters=1, report=0)
    assert (log.iterations, buffer.store.iteration) == (2, 2)
    assert (log.metrics["late"], log.metrics["word"], log.metrics["early"]) == (
        [7.0] * 2,
        ["late"] * 2,
        [1.0] * 2,
    )
    assert log.df.iteration.tolist() == [0, 0, 1, 1]
    resumed = Log(console=Console(file=io.StringIO()))
    Environment(buffer=buffer, log=resumed)
    assert (resumed.metrics["late"], resumed.metrics["word"]) == ([7.0] * 2, ["late"] * 2)
    buffer.close()


# -- numbers of iterations -------------------------------------------------------------------------


def test_metrics_of_two_batches_that_were_drawn_at_once_are_both_kept(store: SampleStore) -> None:
    """The second is the next iteration; a value of the same iteration is replaced as before."""
    store.add(["a", "b", "c", "d"])
    store.score(lambda samples: [1.0] * len(samples))
    store.log_metrics(0, {"loss": 9.0})
    first, second = hold(store.sample(1)), hold(store.sample(1))
    assert first.iteration == second.iteration == 0
    first.settle([1.0], metrics={"loss": 1.0, "bs": 1.0})
    asked: list[int] = []
    second.settle(
        [2.0],
        metrics={"loss": 2.0, "bs": 1.0},
        checkpoint=lambda iteration: asked.append(iteration) or {"c": b"%d" % iteration},
    )
    assert (first.iteration, second.iteration, asked) == (0, 1, [0, 1])
    losses = [(it["iteration"], it["value"]) for it in store.history() if it["name"] == "loss"]
    assert losses == [(0, 1.0), (1, 2.0)]
    assert store.checkpoint("c") == (2, b"1")
    with hold(store.sample(1)) as third:
        third.settle([3.0], metrics={"loss": 3.0}, is_iteration=False)
    assert store.history()[-1]["value"] == 3.0
    assert (store.iteration, store.check()) == (2, [])
