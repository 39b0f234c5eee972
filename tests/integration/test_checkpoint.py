"""The checkpoint: what it stores of agents and random states, what it refuses, and how far a run
goes back.
"""

import io
import math
import random
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.samples.state_dict import unpack
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.rng import Randomness
from sqlbuffer.training.samplers import FunctionSampler


def named(numbers: Any) -> list[str]:
    return [f"s{i}" for i in numbers]


class Policy(Callback):
    """An agent whose dropout and noise are torch's, in a loop."""

    def __init__(self, hidden: int = 4, order: int = 2) -> None:
        super().__init__(name="policy", order=order)
        self.model = nn.Sequential(nn.Linear(1, hidden), nn.Dropout(0.5), nn.Linear(hidden, 1))
        self.opt = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.opt, 0.9)

    def compute_loss(self) -> None:
        state = self.environment.batch_state
        x = torch.tensor([[float(sample[1:]) / 100] for sample in state.samples])
        state.loss = state.loss + (self.model(x) ** 2).mean()

    def zero_grad(self) -> None:
        self.opt.zero_grad()

    def step(self) -> None:
        self.opt.step()
        self.schedule.step()

    def weights(self) -> list[float]:
        return nn.utils.parameters_to_vector(self.model.parameters()).tolist()


class Notes(Callback):
    """Notes the policy and the samples of each iteration, and draws from what all draw from after
    the batch.
    """

    def __init__(self) -> None:
        super().__init__(name="notes", order=50)
        self.seen: dict[int, Any] = {}

    def after_batch(self) -> None:
        env = self.environment
        self.seen[env.log.iterations] = env.policy.weights(), list(env.batch_state.samples)
        torch.rand(3), np.random.rand(), random.random()


@pytest.fixture
def loop(store_url: str) -> Iterator[Callable[..., Environment]]:
    """Makes loops over one database; those that are given a seed begin with its policy and random
    states.
    """
    opened: list[Buffer] = []

    def make(
        checkpoint: Any = True,
        policy: Any = None,
        *,
        cbs: Any = (),
        seed: int | None = None,
        **options: Any,
    ) -> Environment:
        seeded(seed)
        opened.append(Buffer(1.0, url=store_url, **options))
        policy = Policy() if policy is None else policy
        return Environment(
            agent=policy,
            samplers=[
                FunctionSampler(lambda n, rng: named(np.random.randint(0, 500, n)), "numpy", 30)
            ],
            rewards=[RewardCallback(lambda samples: [float(sample[1:]) for sample in samples])],
            cbs=[Notes(), *([Checkpoint(policy)] if checkpoint is True else [checkpoint]), *cbs],
            buffer=opened[-1],
            log=Log(console=Console(file=io.StringIO())),
        )

    with torch.random.fork_rng():
        yield make
    for buffer in opened:
        buffer.close()


def seeded(seed: int | None) -> None:
    """Let all global generators begin again, as a process does."""
    torch.seed() if seed is None else torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def told(*environments: Environment) -> dict[int, Any]:
    """What the notes of several loops say, later ones over earlier ones."""
    return {i: seen for env in environments for i, seen in env.notes.seen.items()}


# -- states ----------------------------------------------------------------------------------------

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(
        [{"params": p[:1], "lr": 0.1 + 0.2}, {"params": p[1:]}], weight_decay=0.1
    ),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, centered=True),
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adafactor": torch.optim.Adafactor,
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
    "lbfgs": torch.optim.LBFGS,
}
SCHEDULES: dict[str, Callable[..., Any]] = {
    "step": lambda opt: torch.optim.lr_scheduler.StepLR(opt, 2),
    "one cycle": lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=50),
    "cosine": lambda opt: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, 3),
    "plateau": lambda opt: torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1),
    "lambda": lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.9**step),
    "two": lambda opt: torch.optim.lr_scheduler.SequentialLR(
        opt,
        [
            torch.optim.lr_scheduler.ConstantLR(opt),
            torch.optim.lr_scheduler.ExponentialLR(opt, 0.9),
        ],
        milestones=[3],
    ),
}


def trainee(optimiser: str, schedule: str, seed: int) -> Any:
    """A model with an optimiser and a schedule, in an object that is no callback."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    opt = OPTIMISERS[optimiser](list(model.parameters()))
    return types.SimpleNamespace(model=model, opt=opt, schedule=SCHEDULES[schedule](opt))


def train(agent: Any, first: int, last: int) -> list[Any]:
    """Train on rows that follow from the step alone; return all that has become of it."""
    for step in range(first, last):
        x = torch.from_numpy(np.random.default_rng(step).normal(size=(8, 3))).float()

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            agent.opt.zero_grad()
            loss = (agent.model(x) ** 2).mean()
            loss.backward()
            return loss

        loss = agent.opt.step(closure)
        agent.schedule.step(*([loss.item()] if "Plateau" in type(agent.schedule).__name__ else []))
    lrs = [group["lr"] for group in agent.opt.param_groups]
    return [lrs, {key: value.tolist() for key, value in agent.model.state_dict().items()}]


def in_a_loop(checkpoint: Checkpoint, iteration: int = 1) -> Checkpoint:
    """Put a checkpoint into something like a loop."""
    store = types.SimpleNamespace(iteration=iteration)
    buffer = types.SimpleNamespace(next_iteration=iteration, order=0, store=store)
    checkpoint.environment = types.SimpleNamespace(buffer=buffer, cbs=[checkpoint])
    return checkpoint


def handed_on(old: Any, new: Any) -> None:
    """Store one agent and give its state to another."""
    stored = in_a_loop(Checkpoint(old)).checkpoint()
    assert stored is not None
    in_a_loop(Checkpoint(new)).restore(stored)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimiser", "schedule"),
    [
        *((name, "step") for name in OPTIMISERS),
        *(("sgd", name) for name in SCHEDULES if name != "step"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:The epoch parameter in"
)  # torch warns of what its own SequentialLR does
def test_training_goes_on_to_the_last_bit(optimiser: str, schedule: str) -> None:
    one, other = (trainee(optimiser, schedule, seed) for seed in (0, 1))
    train(one, 0, 5)
    handed_on(one, other)
    assert train(other, 5, 9) == train(one, 5, 9)


def agents_of_all_kinds(seed: int) -> dict[str, Any]:
    made = trainee("adam", "step", seed)
    train(made, 0, 1 + seed)
    predictive = PredictiveAgent(
        nn.Linear(1, 1), nn.functional.mse_loss, lambda samples: torch.ones(len(samples), 1)
    )
    predictive.opt.param_groups[0]["lr"] = 0.5 + seed
    return {
        "module": nn.Linear(2, 2),
        "optimiser": made.opt,
        "schedule": made.schedule,
        "predictive": predictive,
        "several": types.SimpleNamespace(
            models=[nn.Linear(1, 1), nn.Linear(1, 2)], by_name={"a": nn.Linear(2, 1)}
        ),
    }


def test_agents_may_be_of_all_kinds() -> None:
    old, new = agents_of_all_kinds(0), agents_of_all_kinds(1)
    stored = in_a_loop(Checkpoint(old)).checkpoint()
    in_a_loop(Checkpoint(new)).restore(stored)
    assert in_a_loop(Checkpoint(new)).checkpoint() is not None
    assert new["predictive"].opt.param_groups[0]["lr"] == 0.5
    assert unpack(stored)["agents"].keys() == {
        *("module", "optimiser", "schedule", "schedule.optimizer"),
        *("predictive", "predictive.model", "predictive.opt"),
        *("several.models.0", "several.models.1", "several.by_name.a"),
    }
    assert torch.equal(new["several"].models[1].weight, old["several"].models[1].weight)
    assert new["schedule"].state_dict() == old["schedule"].state_dict()


def test_agents_of_a_list_are_named_by_themselves() -> None:
    assert list(Checkpoint([Policy(), nn.Linear(1, 1), nn.Linear(1, 1)]).agents) == [
        "policy",
        "Linear",
        "Linear-3",
    ]
    assert list(Checkpoint(nn.Sequential(nn.Linear(1, 1))).agents) == ["Sequential"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            nn.Linear(2, 3),
            nn.Linear(2, 4),
            r"does not fit Linear \(.*weight: stored \(3, 2\), now \(4, 2\)",
        ),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), r"bias: stored \(3,\), now nothing"),
        (
            torch.optim.SGD(nn.Linear(2, 3).parameters()),
            torch.optim.SGD(nn.Linear(2, 1).parameters()),
            r"group 0, parameter 0: stored \(3, 2\), now \(1, 2\)",
        ),
        (
            {"it": torch.optim.SGD(nn.Linear(2, 3).parameters())},
            {"it": torch.optim.Adam(nn.Linear(2, 3).parameters())},
            "stored SGD, now Adam",
        ),
        (
            {"it": trainee("sgd", "step", 0).schedule},
            {"it": trainee("sgd", "cosine", 0).schedule},
            "stored StepLR, now",
        ),
        (
            types.SimpleNamespace(model=nn.Linear(1, 1), name="old"),
            types.SimpleNamespace(net=nn.Linear(1, 1), name="old"),
            r"has the states of old\.model, but this run has old\.net",
        ),
    ],
)
def test_another_agent_is_refused_and_left_as_it_is(old: Any, new: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        handed_on(old, new)
    assert "fresh=True" in str(caught.value)


def test_where_one_agent_does_not_fit_none_is_changed() -> None:
    fits = nn.Linear(1, 1)
    before = fits.weight.item()
    with pytest.raises(InvalidArgument, match="does not fit b"):
        handed_on({"a": nn.Linear(1, 1), "b": nn.Linear(2, 1)}, {"a": fits, "b": nn.Linear(3, 1)})
    assert fits.weight.item() == before


def test_what_cannot_be_stored_is_named() -> None:
    opt = torch.optim.SGD(nn.Linear(1, 1).parameters())
    opt.param_groups[0]["rule"] = max
    with pytest.raises(
        UnsupportedType, match="agents/SGD/state/param_groups/0/rule cannot be stored"
    ):
        in_a_loop(Checkpoint(opt)).checkpoint()


def test_an_agent_without_state_is_refused(loop: Callable[..., Environment]) -> None:
    with pytest.raises(
        InvalidArgument, match=r"agent 'SimpleNamespace', SimpleNamespace, has no state to store"
    ):
        loop(Checkpoint(types.SimpleNamespace(rate=1.0))).fit(10, iters=1)


def test_the_predictor_is_stored_by_the_buffer(sqlite_url: str) -> None:
    agent = PredictiveAgent(
        nn.Linear(1, 1), nn.functional.mse_loss, lambda samples: torch.ones(len(samples), 1)
    )
    buffer = PredictiveBuffer(1.0, 0, agent, 8, 0, 1, 8, 1e-3, url=sqlite_url)
    env = Environment(
        cbs=[Checkpoint(agent)], buffer=buffer, log=Log(console=Console(file=io.StringIO()))
    )
    with pytest.raises(InvalidArgument, match="it is the predictor, which the buffer stores"):
        env.fit(10, iters=1)
    buffer.close()


@pytest.mark.parametrize("every", [0, -1, True, 1.5])
def test_every_is_a_number_of_iterations(every: Any) -> None:
    with pytest.raises(InvalidArgument, match="every must be a number of iterations"):
        Checkpoint(nn.Linear(1, 1), every)


def test_a_loop_has_one_checkpoint(loop: Callable[..., Environment]) -> None:
    with pytest.raises(InvalidArgument, match="a loop has one Checkpoint"):
        loop(cbs=[Checkpoint(nn.Linear(1, 1))])


@pytest.mark.slow
def test_an_agent_that_changes_after_its_batch_is_settled_is_refused(
    loop: Callable[..., Environment],
) -> None:
    class Late(Policy):
        def after_batch(self) -> None:
            self.schedule.step()

    with pytest.raises(
        InvalidArgument,
        match="agent 'policy' of order 2 runs after_batch when the batch is already settled",
    ):
        loop(policy=Late())
    loop(policy=Late(order=-1)).fit(10, iters=1)


# -- random states ---------------------------------------------------------------------------------


def drawn(generator: np.random.Generator) -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.normal(),
        torch.rand(()).item(),
        generator.random(),
    ]


def test_random_states_are_those_of_all_generators() -> None:
    generator = np.random.default_rng(3)
    randomness = Randomness([generator])
    drawn(generator)  # gauss and normal have one more number in stock now
    states = randomness.states()
    first = drawn(generator)
    assert not set(first) & set(drawn(generator))
    randomness.put(states)
    assert drawn(generator) == first


def test_parallel_streams_depend_on_states_and_label_alone() -> None:
    generator = np.random.Generator(np.random.Philox(3))
    randomness = Randomness([generator])
    states = randomness.states()
    streams = []
    for label in ("a", "b", "a"):
        drawn(generator)
        randomness.put(randomness.alongside(states, label))
        streams.append(drawn(generator))
    randomness.put(states)
    assert streams[0] == streams[2]
    assert not set(streams[0]) & set(streams[1])
    assert not set(streams[0]) & set(drawn(generator))
    numpys = [
        randomness.alongside(each, "a")["numpy"]["state"]["key"]
        for each in (states, randomness.states())
    ]
    assert not np.array_equal(*numpys)


def test_other_generators_are_refused() -> None:
    stored = in_a_loop(
        Checkpoint(nn.Linear(1, 1), generators=[np.random.default_rng(0)])
    ).checkpoint()
    assert stored is not None
    resumed = in_a_loop(Checkpoint(nn.Linear(1, 1)))
    with pytest.raises(InvalidArgument, match="has the states of 1 generators, but was given 0"):
        resumed.restore(stored)


# -- in a loop -------------------------------------------------------------------------------------


class Stumble(Callback):
    """Raises once, after the policy has stepped."""

    def __init__(self, event: str, iteration: int) -> None:
        super().__init__(name="stumble", order=3)
        self.moment: Any = (event, iteration)

    def __call__(self, event: str) -> None:
        if (event, self.environment.log.iterations) == self.moment:
            self.moment = None
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_goes_on_as_it_would_have(loop: Callable[..., Environment]) -> None:
    whole = loop(name="whole", seed=0)
    whole.fit(10, iters=8)
    first = loop(name="parts", seed=0)
    first.fit(10, iters=3)
    second = loop(name="parts", seed=1)
    second.fit(10, iters=8)
    assert list(second.notes.seen) == [3, 4, 5, 6, 7]
    assert told(first, second) == told(whole)
    assert second.buffer.store.checkpoint("checkpoint") == whole.buffer.store.checkpoint(
        "checkpoint"
    )


@pytest.mark.parametrize("event", ["build_buffer", "compute_reward", "step"])
@pytest.mark.parametrize("iteration", [0, 2])
@pytest.mark.slow
def test_an_interrupted_iteration_is_repeated(
    loop: Callable[..., Environment], event: str, iteration: int
) -> None:
    whole = loop(name="whole", seed=0)
    whole.fit(10, iters=6)
    for again in ("the same process", "another"):
        first = loop(name=again, seed=0, cbs=[Stumble(event, iteration)])
        with pytest.raises(KeyboardInterrupt):
            first.fit(10, iters=6)
        second = first if again == "the same process" else loop(name=again, seed=1)
        second.fit(10, iters=6 - (iteration if second is first else 0))
        assert told(first, second) == told(whole), again


class Thief(Callback):
    """Releases the batch of an iteration behind the loop's back, when the policy has
    stepped: once.
    """

    def __init__(self, iteration: int) -> None:
        super().__init__(name="thief", order=3)
        self.iteration: int | None = iteration

    def step(self) -> None:
        if self.environment.log.iterations == self.iteration:
            self.iteration = None
            self.environment.buffer._batch.release()


@pytest.mark.slow
@pytest.mark.parametrize("iteration", [0, 2, 3])
def test_an_iteration_whose_batch_was_lost_is_repeated(
    loop: Callable[..., Environment], iteration: int
) -> None:
    whole = loop(name="whole", seed=0)
    whole.fit(10, iters=6)
    robbed = loop(name="robbed", seed=0, cbs=[Thief(iteration)])
    robbed.fit(10, iters=6)
    assert told(robbed) == told(whole)
    assert robbed.log.metrics == whole.log.metrics
    assert robbed.buffer.store.checkpoint("checkpoint") == whole.buffer.store.checkpoint(
        "checkpoint"
    )


@pytest.mark.slow
def test_a_checkpoint_changes_nothing_in_a_run(loop: Callable[..., Environment]) -> None:
    runs = [
        loop(checkpoint, name=name, seed=0)
        for checkpoint, name in ((None, "without"), (True, "with"))
    ]
    for run in runs:
        run.notes.after_batch = lambda run=run: run.notes.seen.update(
            {run.log.iterations: run.policy.weights()}
        )
        seeded(0)
        run.fit(10, iters=4)
    assert told(runs[0]) == told(runs[1])


def every_three(loop: Callable[..., Environment], seed: int, **options: Any) -> Environment:
    seeded(seed)
    policy = Policy()
    return loop(Checkpoint(policy, every=3), policy, seed=seed, **options)


@pytest.mark.slow
def test_with_every_three_the_agent_goes_back_and_no_iteration_is_repeated(
    loop: Callable[..., Environment],
) -> None:
    first = every_three(loop, 0)
    first.fit(10, iters=8)
    second = every_three(loop, 1)
    second.fit(10, iters=8)
    assert told(second) == {}
    assert second.policy.weights() == first.notes.seen[5][0]
    assert second.buffer.store.checkpoint("checkpoint")[0] == 6

    third = every_three(loop, 2)
    third.fit(10, iters=10)
    assert list(third.notes.seen) == [8, 9]
    assert third.log.metrics["rewards"][:8] == first.log.metrics["rewards"]
    batches = [tuple(samples) for _, samples in told(first, third).values()]
    assert len(set(batches)) == 10, "random numbers that were drawn are not drawn again"


@pytest.mark.slow
def test_with_every_three_a_run_cut_at_a_checkpoint_goes_on_exactly(
    loop: Callable[..., Environment],
) -> None:
    whole = every_three(loop, 0, name="whole")
    whole.fit(10, iters=8)
    first = every_three(loop, 0, name="parts")
    first.fit(10, iters=6)
    second = every_three(loop, 1, name="parts")
    second.fit(10, iters=8)
    assert told(first, second) == told(whole)


# -- a run that is not the one it was --------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_has_lost_its_checkpoint_is_refused(loop: Callable[..., Environment]) -> None:
    loop().fit(10, iters=2)
    for _ in range(2):  # the second fit, too
        lost = loop(None)
        with pytest.raises(
            InvalidArgument, match=r"'default' holds the agents .*: add Checkpoint\(\.\.\.\) to cbs"
        ):
            lost.fit(10, iters=3)
    assert lost.buffer.store.iteration == 2


def test_a_run_with_another_agent_is_refused(loop: Callable[..., Environment]) -> None:
    loop().fit(10, iters=2)
    other = loop(policy=Policy(hidden=5))
    with pytest.raises(InvalidArgument, match=r"0\.weight: stored \(4, 1\), now \(5, 1\)"):
        other.fit(10, iters=3)
    assert other.buffer.store.stats().claimed == 0


def test_a_checkpoint_may_join_a_run(loop: Callable[..., Environment]) -> None:
    loop(None).fit(10, iters=2)
    joined = loop()
    joined.fit(10, iters=4)
    resumed = loop()
    resumed.fit(10, iters=4)
    assert resumed.policy.weights() == joined.policy.weights()


@pytest.mark.slow
def test_a_fresh_run_leaves_the_old_one_alone(loop: Callable[..., Environment]) -> None:
    old = loop()
    old.buffer.add(["s900"])
    old.fit(10, iters=2)
    stats = old.buffer.store.stats()
    fresh = loop(policy=Policy(hidden=5), fresh=True)
    fresh.buffer.add(["s900"])
    assert "a new run, stored as 'default-2'" in fresh.log.console.file.getvalue()
    fresh.fit(10, iters=3)
    assert (fresh.buffer.store.name, list(fresh.notes.seen)) == ("default-2", [0, 1, 2])
    assert fresh.buffer.store.stats().stored > 10
    assert old.buffer.store.stats() == stats
    again = loop(policy=Policy(hidden=5), name="default-2")
    again.fit(10, iters=3)
    assert again.policy.weights() == fresh.policy.weights()


@pytest.mark.parametrize("place", ["weight", "optimiser", "mask"])
def test_one_warning_tells_of_nan_in_a_stored_state(
    store_url: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy()
    policy.model.register_buffer("mask", torch.full((2,), -math.inf))  # as attention has one
    buffer = Buffer(1.0, url=store_url)
    buffer.add(named(range(9)))

    def spoil() -> None:
        if place == "weight":
            policy.model[0].weight.data[0, 0] = math.nan
        elif place == "optimiser":
            policy.opt.state[policy.model[0].weight]["exp_avg"][0, 0] = math.nan

    policy.step = lambda: (Policy.step(policy), spoil())[0]  # type: ignore[method-assign, func-returns-value]
    env = Environment(
        cbs=[policy, Checkpoint(policy)],
        rewards=[RewardCallback(lambda samples: [1.0] * len(samples))],
        buffer=buffer,
        log=Log(console=Console(file=io.StringIO())),
    )
    env.fit(bs=3, iters=1)
    env.fit(bs=3, iters=1)
    told = [line for line in caplog.messages if "NaN" in line]
    assert len(told) == (place != "mask")
    if told:
        assert "0.weight of policy.model" in told[0] or "exp_avg of policy.opt" in told[0]
        assert "out of the loss" in told[0]
    buffer.close()
