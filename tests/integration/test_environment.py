"""The loop: its events, what it runs, and where it goes on."""

import io
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from helpers import inside
from sqlbuffer.cli.claims import release_batches
from sqlbuffer.errors import InvalidArgument, InvalidReward
from sqlbuffer.store import open_store
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.buffer_size import BufferSizeCallback
from sqlbuffer.training.callback import EVENTS, BatchState, Callback, as_floats, mean_of
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import DatasetSampler, FunctionSampler, Sampler
from sqlbuffer.training.weighted_buffer import WeightedBuffer

ITERATION = [
    *("before_batch", "sample_batch", "before_filter_batch", "filter_batch", "after_sample"),
    *("before_compute_reward", "compute_reward", "after_compute_reward"),
    *(
        "reward_modification",
        "after_reward_modification",
        "get_model_outputs",
        "after_get_model_outputs",
    ),
    *("compute_loss", "zero_grad", "before_step", "step", "after_batch"),
]
BUILD = ["build_buffer", "filter_buffer", "after_build_buffer"]


class Recorder(Callback):
    """Writes down every event."""

    def __init__(self, seen: list[Any], name: str = "recorder", order: int = 0) -> None:
        super().__init__(name=name, order=order)
        self.seen = seen

    def __call__(self, event: str) -> None:
        self.seen.append(event)


class At(Callback):
    """Does something at one event of one iteration."""

    def __init__(
        self, event: str, iteration: int, action: Callable[[], Any], order: int = 50
    ) -> None:
        super().__init__(name="at", order=order)
        self.event, self.iteration, self.action = event, iteration, action

    def __call__(self, event: str) -> None:
        if event == self.event and self.environment.log.iterations == self.iteration:
            self.action()


def stop_with(error: type[BaseException]) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def number(samples: list[str]) -> np.ndarray:
    return np.array([float(sample[1:]) for sample in samples])


def new_samples(n: int, rng: np.random.Generator) -> list[str]:
    return [f"s{i}" for i in rng.integers(0, 10**6, n)]


@pytest.fixture
def environment(store_url: str) -> Iterator[Callable[..., Environment]]:
    """Makes environments over one database; those made later see what the earlier ones stored."""
    opened: list[Buffer] = []

    def make(**options: Any) -> Environment:
        buffer = options.pop("buffer") if "buffer" in options else Buffer(1.0, url=store_url)
        opened.append(buffer)
        options.setdefault("samplers", [FunctionSampler(new_samples, "gen", 40)])
        options.setdefault("rewards", [RewardCallback(number)])
        return Environment(buffer=buffer, log=Log(console=Console(file=io.StringIO())), **options)

    yield make
    for buffer in opened:
        buffer.close()


# -- events ----------------------------------------------------------------------------------------


def test_events_come_in_order(environment: Callable[..., Environment]) -> None:
    seen: list[str] = []
    env = environment(cbs=[Recorder(seen)])
    assert seen == ["setup"]
    env.fit(20, iters=3)
    assert seen == [
        *("setup", "before_train"),
        *(*BUILD, *ITERATION),
        *ITERATION,
        *(*BUILD, *ITERATION),
        "after_train",
    ]
    assert set(seen) == set(EVENTS)


def test_callbacks_answer_in_their_order(environment: Callable[..., Environment]) -> None:
    seen: list[Any] = []

    class Named(Callback):
        def before_batch(self) -> None:
            seen.append(self.name)

    cbs = [Named("third", 10), Named("first", -1), Named("fourth", 10), Named("second", 2)]
    environment(agent=Named("agent", 2), cbs=cbs).fit(10, iters=1)
    assert seen == ["first", "agent", "second", "third", "fourth"]


def test_callbacks_become_attributes(environment: Callable[..., Environment]) -> None:
    env = environment(cbs=[BufferSizeCallback, Callback("mine"), None])
    assert env.mine.environment is env
    assert getattr(env, "buffer size").environment is env
    assert env.gen is env.samplers[0]
    assert env.reward is env.rewards[0]


@pytest.mark.parametrize("name", ["fit", "stop", "cbs", "batch_state", "samplers"])
def test_a_callback_cannot_take_the_name_of_something_else(
    environment: Callable[..., Environment], name: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"'{name}' cannot name a callback"):
        environment(cbs=[Callback(name)])


def test_callbacks_of_one_fit_are_set_up_and_removed(
    environment: Callable[..., Environment],
) -> None:
    seen: list[str] = []
    env = environment()
    guest = Recorder(seen, "guest")
    env.fit(10, iters=1, cbs=[guest])
    assert seen[:2] == ["setup", "before_train"]
    assert seen[-1] == "after_train"
    assert guest.environment is None
    assert not hasattr(env, "guest")
    env.fit(10, iters=1)
    assert seen[-1] == "after_train"
    assert seen.count("after_batch") == 1


def test_time_is_kept_by_event_and_by_phase(environment: Callable[..., Environment]) -> None:
    env = environment()
    env.fit(10, iters=2)
    assert set(env.log.timelog) == {
        *(
            "build_buffer",
            "sample_batch",
            "compute_reward",
            "get_model_outputs",
            "compute_loss",
            "after_batch",
        ),
    }
    assert len(env.buffer.event_timelog["sample_batch"]) == 2
    assert all(isinstance(second, float) for second in env.buffer.event_timelog["step"])


@pytest.mark.parametrize(
    "make",
    [
        lambda url: Buffer(1.0, url=url),
        lambda url: WeightedBuffer(1.0, 0, url=url),
        lambda url: PredictiveBuffer(1.0, 0, None, 8, 0, 1, 8, 1e-3, url=url),
        lambda url: BufferSizeCallback(),
        lambda url: Log(),
        lambda url: Sampler("gen"),
        lambda url: RewardCallback(number),
    ],
)
def test_nothing_but_a_method_has_the_name_of_an_event(
    make: Callable[[str], Callback], sqlite_url: str
) -> None:
    callback = make(sqlite_url)
    for event in (*EVENTS, "abort_batch"):
        assert not hasattr(callback, event) or event in dir(type(callback)), event
        assert event not in vars(callback)
    if isinstance(callback, Buffer):
        callback.close()


# -- the batch -------------------------------------------------------------------------------------


def test_batch_state_is_a_dict_and_has_attributes() -> None:
    state = BatchState()
    state["found"] = 1
    state.made = 2
    assert (state.found, state["made"]) == (1, 2)
    assert state.samples == []
    with pytest.raises(AttributeError, match="the batch has no 'rumour'"):
        _ = state.rumour


def test_filtering_a_batch_cuts_latent_rows_with_their_samples() -> None:
    env = type("Env", (), {"batch_state": BatchState()})()
    state, callback = env.batch_state, Callback()
    callback.environment = env
    state.samples, state.sources = list("abcd"), ["vae", "gen", "vae", "vae"]
    state.latent_data = {"vae": torch.tensor([[1.0], [2.0], [3.0]])}
    callback._filter_batch([True, False, False, True])
    assert (state.samples, state.sources) == (["a", "d"], ["vae", "vae"])
    assert state.latent_data["vae"].tolist() == [[1.0], [3.0]]


def test_floats_come_from_anything() -> None:
    assert as_floats(torch.tensor([1.5], dtype=torch.bfloat16, requires_grad=True)).tolist() == [
        1.5
    ]
    assert as_floats([1, 2]).tolist() == [1.0, 2.0]
    assert mean_of([1.0, np.nan, 3.0, np.inf]) == 2.0
    assert mean_of(0.0) == 0.0
    assert math.isnan(mean_of([]))


# -- building --------------------------------------------------------------------------------------


def builds(env: Environment, bs: int, iters: int, **options: Any) -> list[int]:
    """The iterations in which the buffer is built."""
    built: list[int] = []
    recorder = Callback("builder")
    recorder.build_buffer = lambda: built.append(env.log.iterations)
    env.fit(bs, iters=iters, cbs=[recorder], **options)
    return built


@pytest.mark.parametrize(
    ("waiting", "bs", "options", "built"),
    [
        (0, 20, {}, [0, 2, 4]),
        (1000, 20, {}, [0]),
        (1000, 20, {"buffer_frequency": 2}, [0, 2, 4]),
        (1000, 20, {"buffer_frequency": 0}, [0]),
        (1000, -1, {}, [0, 1, 2, 3, 4]),
    ],
)
def test_the_buffer_is_built_when_it_is_due(
    environment: Callable[..., Environment], waiting: int, bs: int, options: Any, built: list[int]
) -> None:
    env = environment()
    env.buffer.add([f"t{i}" for i in range(waiting)])
    assert builds(env, bs, 5, **options) == built


def test_a_dataset_is_drawn_from_without_repeats(environment: Callable[..., Environment]) -> None:
    batches: list[Any] = []
    env = environment(samplers=[DatasetSampler([f"d{i}" for i in range(100)], "data", 30)])
    env.fit(10, iters=1, cbs=[At("after_sample", 0, lambda: batches.append(dict(env.batch_state)))])
    assert len(set(batches[0]["samples"])) == 10
    assert batches[0]["sources"] == ["data_buffer"] * 10


def test_shares_of_a_batch_come_from_where_they_should(
    store_url: str, environment: Callable[..., Environment]
) -> None:
    sources: list[str] = []
    env = environment(
        buffer=Buffer(0.5, url=store_url),
        samplers=[
            FunctionSampler(new_samples, "gen", 40, 0.3),
            DatasetSampler([f"s{i}" for i in range(-50, 0)], "data", p_batch=0.2),
        ],
    )
    env.fit(
        10, iters=1, cbs=[At("after_sample", 0, lambda: sources.extend(env.batch_state.sources))]
    )
    assert sources == ["gen_buffer"] * 5 + ["gen"] * 3 + ["data"] * 2
    assert env.buffer.store.stats().measured == 10, (
        "also what was not drawn from the buffer is stored"
    )


def test_shares_above_one_are_refused(
    store_url: str, environment: Callable[..., Environment]
) -> None:
    with pytest.raises(InvalidArgument, match="add up to more than 1"):
        environment(buffer=Buffer(0.8, url=store_url), samplers=[Sampler("gen", p_batch=0.3)])


def test_without_a_buffer_the_samplers_leave_it_the_rest(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    monkeypatch.setenv("SQLBUFFER_URL", sqlite_url)
    env = Environment(samplers=[Sampler("one", p_batch=0.25), Sampler("two", p_batch=0.5)])
    assert env.buffer.p_total == 0.25
    env.buffer.close()


@pytest.mark.parametrize(
    "options", [{"samplers": [new_samples]}, {"rewards": [number]}, {"cbs": ["log"]}]
)
def test_what_is_no_callback_is_refused(
    environment: Callable[..., Environment], options: dict[str, Any]
) -> None:
    with pytest.raises(
        InvalidArgument,
        match="is not a callback: put a function that makes samples into a FunctionSamp",
    ):
        environment(**options)


@pytest.mark.parametrize("kind", [Checkpoint, FunctionSampler, RewardCallback])
def test_a_class_that_needs_arguments_is_no_callback(
    environment: Callable[..., Environment], kind: type
) -> None:
    name = kind.__name__
    with pytest.raises(InvalidArgument, match=rf"^{name} is a class that needs .*object, {name}\("):
        environment(cbs=[kind])


@pytest.mark.parametrize("function", [lambda n: [], lambda: [], lambda n, rng, more: []])
def test_a_function_with_other_arguments_is_refused(function: Any) -> None:
    rule = r"sampler 'gen' must take \(n, rng\); got .*, whose arguments are \("
    with pytest.raises(InvalidArgument, match=rule):
        FunctionSampler(function, "gen")
    with pytest.raises(InvalidArgument, match=r"take a list of samples.*whose arguments are"):
        RewardCallback(lambda samples, more: [0.0])


def test_an_empty_batch_is_said_once(
    environment: Callable[..., Environment], caplog: pytest.LogCaptureFixture
) -> None:
    environment(samplers=[]).fit(10, iters=3)
    said = [record.message for record in caplog.records if "empty batch" in record.message]
    assert len(said) == 1
    assert said[0].startswith("iteration 0 has an empty batch: the buffer has no sample to draw")


@pytest.mark.parametrize("given", ["CCO", b"CCO", {"a": 1}, None, 3])
def test_a_sampler_gives_a_list(environment: Callable[..., Environment], given: Any) -> None:
    env = environment(samplers=[FunctionSampler(lambda n, rng: given, "gen", 4)])
    with pytest.raises(InvalidArgument, match="sampler 'gen' must give a list of samples, got"):
        env.fit(10, iters=1)


def test_samples_depend_on_seed_name_and_iteration_alone(
    environment: Callable[..., Environment],
) -> None:
    env = environment()
    env.fit(10, iters=1)
    sampler = env.samplers[0]
    drawn = sampler._build_buffer()
    assert drawn == sampler._build_buffer()
    assert drawn != FunctionSampler._draw(sampler, 40, "sample_batch")
    env.log.iterations += 1
    assert drawn != sampler._build_buffer()


@pytest.mark.parametrize("options", [{"p_batch": 1.5}, {"p_batch": -0.1}, {"buffer_size": -1}])
def test_samplers_refuse_bad_shares(options: Any) -> None:
    with pytest.raises(InvalidArgument, match="of sampler 'gen' must be"):
        Sampler("gen", **options)


# -- rewards ---------------------------------------------------------------------------------------


def test_rewards_are_weighted_and_summed(environment: Callable[..., Environment]) -> None:
    twice = [
        RewardCallback(number, "one", weight=2.0, reuse=False),
        RewardCallback(lambda samples: torch.ones(len(samples)), "two", reuse=False),
    ]
    env = environment(rewards=twice)
    env.fit(10, iters=1)
    samples, rewards = env.buffer.store.labelled()
    assert rewards.tolist() == (2 * number(samples) + 1).tolist()
    assert env.log.metrics["two"] == [1.0]
    assert env.log.metrics["one"] == [pytest.approx(2 * number(samples).mean())]


@pytest.mark.parametrize(
    "wrong", [lambda samples: 1.0, lambda samples: [1.0], lambda samples: [[1.0]] * len(samples)]
)
def test_a_reward_function_must_return_one_number_a_sample(
    environment: Callable[..., Environment], wrong: Callable[[list[str]], Any]
) -> None:
    env = environment(rewards=[RewardCallback(wrong, "oracle")])
    with pytest.raises(InvalidReward, match=r"'oracle' returned shape .* for 10 samples"):
        env.fit(10, iters=1)


@pytest.mark.parametrize("wrong", [["good"] * 10, [[1.0], 2.0] * 5, {"a": 1.0}])
def test_a_reward_function_must_return_numbers(
    environment: Callable[..., Environment], wrong: Any
) -> None:
    env = environment(rewards=[RewardCallback(lambda samples: wrong, "oracle")])
    with pytest.raises(
        InvalidReward, match=r"'oracle' returned .* for 10 samples: .* one number for each"
    ):
        env.fit(10, iters=1)
    assert env.buffer.store.stats().claimed == 0


def test_what_is_stored_is_not_measured_again(environment: Callable[..., Environment]) -> None:
    measured: list[str] = []

    def oracle(samples: list[str]) -> list[float]:
        measured.extend(samples)
        return [float("nan") if sample == "s3" else float(sample[1:]) for sample in samples]

    samples = [f"s{i}" for i in range(10)]
    env = environment(
        samplers=[FunctionSampler(lambda n, rng: samples, "gen", 10)],
        rewards=[RewardCallback(oracle)],
    )
    env.fit(10, iters=3)
    assert env.log.metrics["bs"] == [10, 10, 10]
    assert len(set(env.log.metrics["rewards"])) == 1
    assert sorted(measured) == samples


def test_without_reuse_everything_is_measured(environment: Callable[..., Environment]) -> None:
    sizes: list[int] = []
    oracle = RewardCallback(
        lambda samples: (sizes.append(len(samples)), number(samples))[1], reuse=False
    )
    samplers = [FunctionSampler(lambda n, rng: ["s1", "s2"], "gen", 2)]
    environment(samplers=samplers, rewards=[oracle]).fit(2, iters=2)
    assert sizes == [2, 2]


def test_several_rewards_cannot_be_reused(environment: Callable[..., Environment]) -> None:
    env = environment(
        rewards=[RewardCallback(number, "one"), RewardCallback(number, "two", reuse=False)]
    )
    with pytest.raises(
        InvalidArgument, match="'one' would reuse stored rewards, but 'two' adds to them"
    ):
        env.fit(10, iters=1)


def test_rewards_are_added_to_tensors(environment: Callable[..., Environment]) -> None:
    class TensorReward(Callback):
        def compute_reward(self) -> None:
            self.environment.batch_state.rewards += torch.ones(
                len(self.environment.batch_state.samples)
            )

    env = environment(
        cbs=[TensorReward("tensors", 5)], rewards=[RewardCallback(number, reuse=False)]
    )
    env.fit(10, iters=1)
    samples, rewards = env.buffer.store.labelled()
    assert rewards == pytest.approx(number(samples) + 1)


# -- the loss --------------------------------------------------------------------------------------


class TinyAgent(Callback):
    """One parameter, stepped in the loop."""

    def __init__(self) -> None:
        super().__init__(name="agent", order=2)
        self.parameter = torch.nn.Parameter(torch.tensor(1.0))
        self.opt = torch.optim.SGD([self.parameter], lr=0.5)

    def zero_grad(self) -> None:
        self.opt.zero_grad()

    def step(self) -> None:
        self.opt.step()


def test_a_loss_is_stepped_along(environment: Callable[..., Environment]) -> None:
    class Loss(Callback):
        def compute_loss(self) -> None:
            self.environment.batch_state.loss += self.environment.agent.parameter**2

    agent = TinyAgent()
    environment(agent=agent, losses=[Loss("loss", 20)]).fit(10, iters=2)
    assert agent.parameter.item() == 0.0


def test_without_a_loss_there_is_no_step(environment: Callable[..., Environment]) -> None:
    agent = TinyAgent()
    environment(agent=agent).fit(10, iters=2)
    assert agent.parameter.item() == 1.0


def test_an_agent_that_is_no_callback_is_kept_as_it_is(
    environment: Callable[..., Environment],
) -> None:
    agent = object()
    env = environment(agent=agent)
    env.fit(10, iters=1)
    assert env.agent is agent


# -- how long it runs ------------------------------------------------------------------------------


def test_a_second_run_goes_on_where_the_first_stopped(
    environment: Callable[..., Environment],
) -> None:
    first = environment()
    first.fit(10, iters=3)
    second = environment()
    second.fit(10, iters=5)
    assert second.log.iterations == second.buffer.store.iteration == 5
    assert second.log.metrics["rewards"][:3] == first.log.metrics["rewards"]
    assert [len(values) for values in second.log.metrics.values()] == [5, 5, 5, 5]
    seen: list[str] = []
    environment().fit(10, iters=5, cbs=[Recorder(seen)])
    assert seen == ["setup", "before_train", "after_train"]


def test_fits_add_up(environment: Callable[..., Environment]) -> None:
    env = environment()
    env.fit(10, iters=2)
    env.fit(10, iters=2)
    assert env.log.iterations == 4
    again = environment()
    again.fit(10, iters=2)
    assert again.log.iterations == 4
    again.fit(10, iters=3)
    assert again.log.iterations == 5


def test_stop_ends_the_fit_after_this_iteration(environment: Callable[..., Environment]) -> None:
    env = environment()
    env.fit(10, iters=9, cbs=[At("before_batch", 2, env.stop)])
    assert env.log.iterations == 3
    env.fit(10, iters=9, cbs=[At("before_train", 3, env.stop)])
    assert env.log.iterations == 3
    env.fit(10, iters=2)
    assert env.log.iterations == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize(
    "event", ["build_buffer", "after_sample", "compute_reward", "step", "after_batch"]
)
def test_an_exception_gives_the_claim_back(
    environment: Callable[..., Environment], error: type[BaseException], event: str
) -> None:
    env = environment()
    with pytest.raises(error):
        env.fit(10, iters=4, cbs=[At(event, 1, stop_with(error))], buffer_frequency=1)
    assert env.buffer.store.stats().claimed == 0
    is_settled = event == "after_batch"
    assert env.buffer.store.iteration == env.log.iterations == 1 + is_settled
    env.fit(10, iters=2)
    assert env.buffer.store.iteration == env.log.iterations == 3 + is_settled
    assert [len(values) for values in env.log.metrics.values()] == [3 + is_settled] * 4
    assert env.buffer.store.check() == []


class Thief(Callback):
    """Another process that releases a batch of the loop, which has measured it: once."""

    def __init__(self, url: str, iteration: int) -> None:
        super().__init__(name="thief", order=50)
        self.url, self.iteration, self.stolen = url, iteration, []

    def step(self) -> None:
        env = self.environment
        if env.log.iterations == self.iteration and not self.stolen:
            self.stolen = list(env.batch_state.samples)
            with open_store(self.url, weighting="uniform") as other:
                assert release_batches([inside.handle_of(other)], [env.buffer._batch.id]) == 1

    def after_batch(self) -> None:
        self.environment.log.update_metric("late", self.environment.log.iterations)
        self.environment.log.update_metric("word", f"w{self.environment.log.iterations}")


@pytest.mark.slow
@pytest.mark.parametrize("iteration", [0, 1, 3])
def test_an_iteration_whose_batch_was_lost_is_repeated(
    store_url: str,
    environment: Callable[..., Environment],
    caplog: pytest.LogCaptureFixture,
    iteration: int,
) -> None:
    measured: list[str] = []
    thief = Thief(store_url, iteration)

    def oracle(samples: list[str]) -> np.ndarray:
        measured.extend(samples)
        return number(samples)

    env = environment(rewards=[RewardCallback(oracle)], cbs=[thief])
    env.fit(10, iters=4, report=1)
    log, store = env.log, env.buffer.store
    assert [
        line
        for line in caplog.messages
        if "was released before it was settled: its rewards are stored" in line
    ] != []
    assert log.iterations == store.iteration == 4
    assert (store.stats().measured, store.stats().claimed, store.check()) == (40, 0, [])
    assert store.rewards_of(thief.stolen) == number(thief.stolen).tolist()
    assert len(measured) == len(set(measured)) == 40, (
        "what was measured for the lost batch is not measured again"
    )
    assert log.df["samples"].tolist()[10 * iteration :][:10] == thief.stolen, (
        "its samples were first in line"
    )

    history: dict[str, list[float]] = {}
    for row in store.history():
        history.setdefault(row["name"], []).append(row["value"])
    assert {name: len(values) for name, values in log.metrics.items()} == dict.fromkeys(
        [*history, "word"], 4
    )
    assert history == {name: values for name, values in log.metrics.items() if name != "word"}
    assert log.metrics["late"] == [0, 1, 2, 3]
    assert len(log.console.file.getvalue().splitlines()) == 1 + 4
    resumed = environment().log
    assert (resumed.iterations, resumed.metrics) == (4, log.metrics)
    assert resumed.df.equals(log.df)


def test_cleaning_up_does_not_hide_what_went_wrong(
    environment: Callable[..., Environment], caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Callback):
        def abort_batch(self) -> None:
            raise RuntimeError("dropped it")

    env = environment(cbs=[Clumsy("clumsy", -5)])
    with caplog.at_level(logging.ERROR), pytest.raises(ZeroDivisionError):
        env.fit(10, iters=1, cbs=[At("step", 0, stop_with(ZeroDivisionError))])
    assert "'clumsy' could not clean up" in caplog.text
    assert env.buffer.store.stats().claimed == 0


@pytest.mark.parametrize("bs", [0, -2, 2.5, "10", None, True])
def test_a_batch_size_must_make_sense(environment: Callable[..., Environment], bs: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"bs must be 1 or more, or -1.*got"):
        environment().fit(bs, iters=1)


@pytest.mark.parametrize("name", ["iters", "report", "buffer_frequency"])
@pytest.mark.parametrize("wrong", [-1, 2.5, "10", True])
def test_a_number_of_iterations_must_make_sense(
    environment: Callable[..., Environment], name: str, wrong: Any
) -> None:
    env = environment()
    with pytest.raises(
        InvalidArgument, match=f"{name} must be a number of iterations.*got {wrong!r}"
    ):
        env.fit(10, **{"iters": 1, name: wrong})
    env.fit(np.int64(10), iters=np.int64(1), report=None)
    assert env.log.iterations == 1


def test_an_empty_buffer_gives_empty_batches(environment: Callable[..., Environment]) -> None:
    env = environment(samplers=[])
    env.fit(10, iters=3)
    assert env.log.metrics.pop("bs") == [0] * 3
    assert list(env.log.metrics) == ["rewards", "rewards_max", "reward"]
    assert all(map(math.isnan, itertools.chain(*env.log.metrics.values())))
    assert env.buffer.store.iteration == 3


def test_a_terminal_gets_a_progress_bar(environment: Callable[..., Environment]) -> None:
    env = environment()
    env.log.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    env.fit(10, iters=2, report=1)
    assert "2/2" in env.log.console.file.getvalue()
    plain = environment()
    plain.fit(10, iters=4, report=1)
    assert "\x1b" not in plain.log.console.file.getvalue()
    assert len(plain.log.console.file.getvalue().splitlines()) == 3
