"""Train a DQN agent on CartPole with prioritised replay from a SQL database.

    python examples/dqn_cartpole.py --seed 0

The agent balances a pole on a cart. Its transitions wait in the buffer with their priorities, and
its networks, optimiser, steps and random numbers are stored with each settled batch. You may kill
the run at any moment: the same command resumes it from the last settled batch.

    python examples/dqn_cartpole.py --compare 5 --picture cartpole.png

trains the same agent on a buffer that is a list in memory, too, and compares both over five seeds.
"""

import collections
import contextlib
import copy
import io
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, Protocol

import curves
import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table

from sqlbuffer import Batch, Power, SampleStore, SqlBufferError, open_store

STEPS = 8_000
STEPS_EACH = 16
"""Steps of the environment between two draws."""
BATCH = 256
"""Transitions of a draw; within a draw none repeats."""
PART = 64
"""Transitions of a step of the optimiser: a draw is learned from in four steps."""
ALPHA = 0.6
DISCOUNT = 0.99
EXPLORED = 0.3
"""Share of the steps in which the share of random actions falls from 1 to `LEAST_RANDOM`."""
LEAST_RANDOM = 0.04
LEARNING_RATE = 2e-3
"""At the beginning; it falls to 0."""
TAU = 0.01
"""Share of the network in the target network at each step of the optimiser."""
SMALLEST = 1e-3
"""What is added to each priority, so that each transition can be drawn."""
LAST = 20
"""Episodes of which the mean return is reported."""

Transition = dict[str, Any]


# -- the environment -------------------------------------------------------------------------------


class CartPole:
    """A pole on a cart that is pushed to the left or to the right, for 200 steps at most.

    Source:
        Barto, Sutton and Anderson 1983, Neuronlike adaptive elements that can solve difficult
        learning control problems.
    """

    MOST_STEPS = 200
    SCALE = np.array([2.4, 2.0, 0.2, 2.0])

    def __init__(self) -> None:
        self.position = np.zeros(4)
        self.n_steps = 0

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode close to the middle."""
        self.position, self.n_steps = rng.uniform(-0.05, 0.05, 4), 0

    def seen(self) -> np.ndarray:
        """Return what the agent sees, (4,) float32 of about 1."""
        return (self.position / self.SCALE).astype(np.float32)

    def step(self, action: int) -> bool:
        """Push the cart for 0.02 s; return True if the pole has fallen or the cart has left."""
        _, speed, angle, turning = self.position.tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        push = ((10.0 if action else -10.0) + 0.05 * turning**2 * sin) / 1.1
        bend = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        speedup = push - 0.05 * bend * cos / 1.1
        change = np.array([speed, speedup, turning, bend])
        self.position, self.n_steps = self.position + 0.02 * change, self.n_steps + 1
        return abs(self.position[0]) > 2.4 or abs(self.position[2]) > math.radians(12)


# -- the agent -------------------------------------------------------------------------------------


class Agent:
    """A double DQN, with the episode that it plays.

    Args:
        steps: Steps of the environment in its life.
        seed: Seed of all its random numbers.

    Source:
        Mnih et al. 2015, Human-level control through deep reinforcement learning; van Hasselt, Guez
        and Silver 2016, Deep reinforcement learning with double Q-learning.
    """

    def __init__(self, steps: int, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = torch.nn.Sequential(
                torch.nn.Linear(4, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, 2),
            )
        self.target = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        self.rng = np.random.default_rng(seed)
        self.steps, self.step = steps, 0
        self.largest = 1.0
        self.pole = CartPole()
        self.pole.reset(self.rng)
        self.returns: collections.deque[int] = collections.deque(maxlen=LAST)

    @property
    def progress(self) -> float:
        """The part of its life that is over, in [0, 1]."""
        return self.step / self.steps

    def act(self, n: int) -> list[Transition]:
        """Play n steps; return the transitions."""
        return [self._act() for _ in range(n)]

    def _act(self) -> Transition:
        before = self.pole.seen()
        is_random = self.rng.random() < max(1 - self.progress / EXPLORED, LEAST_RANDOM)
        with torch.no_grad():
            best = int(self.network(torch.from_numpy(before)).argmax())
        action = int(self.rng.integers(2)) if is_random else best
        has_fallen = self.pole.step(action)
        after = self.pole.seen()
        if has_fallen or self.pole.n_steps == CartPole.MOST_STEPS:
            self.returns.append(self.pole.n_steps)
            self.pole.reset(self.rng)
        self.step += 1
        return {  # its number keeps equal transitions apart
            "step": self.step,
            "before": before,
            "action": action,
            "after": after,
            "has_fallen": has_fallen,
        }

    def learn(self, transitions: dict[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Take the steps of the optimiser for a batch; return the new priorities, (n,) floats."""
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - self.progress)
        priorities = np.empty(len(weights))
        n_parts = math.ceil(len(weights) / PART)
        for part in np.array_split(self.rng.permutation(len(weights)), n_parts):
            batch = {name: torch.from_numpy(values[part]) for name, values in transitions.items()}
            errors = self._errors(batch)
            losses = torch.nn.functional.huber_loss(
                errors, torch.zeros_like(errors), reduction="none"
            )
            self.optimizer.zero_grad()
            (torch.from_numpy(weights[part]).float() * losses).mean().backward()
            self.optimizer.step()
            priorities[part] = errors.detach().abs().numpy() + SMALLEST
            for old, new in zip(self.target.parameters(), self.network.parameters(), strict=True):
                old.data.lerp_(new.data, TAU)
        self.largest = max(self.largest, float(priorities.max()))
        return priorities

    def _errors(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the differences from the values that the next states tell, (n,)."""
        with torch.no_grad():
            actions = self.network(batch["after"]).argmax(1, keepdim=True)
            later = self.target(batch["after"]).gather(1, actions).squeeze(1)
            wanted = 1.0 + DISCOUNT * later * ~batch["has_fallen"]
        return self.network(batch["before"]).gather(1, batch["action"][:, None]).squeeze(1) - wanted

    def state(self) -> dict[str, Any]:
        """Return everything that the agent is made of."""
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "pole": (self.pole.position.tolist(), self.pole.n_steps),
            "numbers": (self.step, self.largest, list(self.returns)),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        position, self.pole.n_steps = state["pole"]
        self.pole.position = np.array(position)
        self.step, self.largest, returns = state["numbers"]
        self.returns.extend(returns)


# -- two buffers -----------------------------------------------------------------------------------


class Replay(Protocol):
    """What the training needs of a buffer."""

    def add(self, transitions: list[Transition], priority: float) -> None:
        """Store transitions."""

    def sample(self, n: int) -> Any:
        """Draw transitions by their priorities."""

    def settle(self, batch: Any, agent: Agent, priorities: np.ndarray) -> None:
        """Store what was learned from a batch."""

    def returns(self) -> list[float]:
        """Return the mean return of the last episodes after each batch."""


class SqlReplay:
    """A buffer in a database, which stores the agent too."""

    def __init__(self, store: SampleStore) -> None:
        self.store = store

    def resume(self, agent: Agent) -> None:
        """Give the agent its last stored state."""
        if (stored := self.store.checkpoint("agent")) is not None:
            agent.load(torch.load(io.BytesIO(stored[1]), weights_only=True))

    def add(self, transitions: list[Transition], priority: float) -> None:
        """Store transitions; those that a killed run has stored are known."""
        self.store.add(transitions)
        self.store.score(lambda new: np.full(len(new), priority))

    def sample(self, n: int) -> Batch:
        """Draw transitions by their priorities."""
        return self.store.sample(n)

    def settle(self, batch: Batch, agent: Agent, priorities: np.ndarray) -> None:
        """End the batch, and store its priorities and the agent, in one transaction."""
        state = io.BytesIO()
        torch.save(agent.state(), state)
        metrics = {"step": agent.step, "return": mean_return(agent)}
        batch.settle(priorities=priorities, checkpoint={"agent": state.getvalue()}, metrics=metrics)

    def returns(self) -> list[float]:
        """Return the mean return of the last episodes after each batch."""
        return [row["value"] for row in self.store.history() if row["name"] == "return"]


class ListBatch:
    """A batch of `ListReplay`."""

    def __init__(self, transitions: list[Transition], places: np.ndarray, p: np.ndarray) -> None:
        self.transitions, self.places, self.p = transitions, places, p

    def stacked(self) -> dict[str, np.ndarray]:
        """Return arrays of all transitions, by name."""
        names = self.transitions[0]
        return {name: np.array([each[name] for each in self.transitions]) for name in names}

    def importance_weights(self, beta: float) -> np.ndarray:
        """Return the weights of the loss, of which the largest is 1."""
        return (self.p / self.p.min()) ** -beta


class ListReplay:
    """The same buffer in memory: a list, and an array of priorities."""

    def __init__(self, max_size: int, seed: int) -> None:
        self.transitions: list[Transition] = []
        self.priorities = np.zeros(max_size)
        self.rng = np.random.default_rng(seed)
        self.n_added = 0
        self.learned: list[float] = []

    def add(self, transitions: list[Transition], priority: float) -> None:
        """Store transitions in the places of the oldest."""
        for transition in transitions:
            place = self.n_added % len(self.priorities)
            self.transitions[place : place + 1] = [transition]
            self.priorities[place] = priority
            self.n_added += 1

    def sample(self, n: int) -> ListBatch:
        """Draw transitions by their priorities, without replacement (Efraimidis and Spirakis)."""
        weights = self.priorities[: len(self.transitions)] ** ALPHA
        arrivals = self.rng.exponential(size=len(weights)) / weights
        n = min(n, len(weights))
        order = np.argpartition(arrivals, min(n, len(weights) - 1))
        places, end = order[:n], arrivals[order[n]] if n < len(weights) else math.inf
        drawn = [self.transitions[place] for place in places.tolist()]
        return ListBatch(drawn, places, -np.expm1(-weights[places] * end))

    def settle(self, batch: ListBatch, agent: Agent, priorities: np.ndarray) -> None:
        """Write the priorities."""
        self.priorities[batch.places] = priorities
        self.learned.append(mean_return(agent))

    def returns(self) -> list[float]:
        """Return the mean return of the last episodes after each batch."""
        return self.learned


def mean_return(agent: Agent) -> float:
    """Return the mean number of steps of the agent's last episodes."""
    return float(np.mean(agent.returns)) if agent.returns else 0.0


# -- the training ----------------------------------------------------------------------------------


Report = Callable[[Agent, int], None]
"""Called after each batch, with the steps that the agent has made since the last one."""


def train(agent: Agent, replay: Replay, report: Report) -> None:
    """Act, draw, learn, settle, until the agent has made all its steps."""
    while (n := min(STEPS_EACH, agent.steps - agent.step)) > 0:
        replay.add(agent.act(n), agent.largest)
        batch = replay.sample(BATCH)
        weights = batch.importance_weights(0.4 + 0.6 * agent.progress)
        replay.settle(batch, agent, agent.learn(batch.stacked(), weights))
        report(agent, n)


def open_replay(url: str, name: str, *, max_size: int, seed: int, fresh: bool = False) -> SqlReplay:
    """Open the buffer: a ring, drawn by priority ** 0.6."""
    return SqlReplay(
        open_store(
            url,
            name=name,
            mode="replay",
            weighting=Power(ALPHA),
            max_size=max_size,
            evict="oldest",
            seed=seed,
            fresh=fresh,
        )
    )


def run(url: str, *, steps: int, max_size: int, seed: int, console: Console) -> None:
    """Train one agent, from where an earlier run was killed."""
    replay = open_replay(url, f"cartpole-{seed}", max_size=max_size, seed=seed)
    agent = Agent(steps, seed)
    replay.resume(agent)
    if agent.step:
        console.print(f"resuming at step {agent.step} of {steps}")
    with progress(console, steps) as report:
        report(agent, agent.step)
        train(agent, replay, report)
    stats = replay.store.stats()
    console.print(f"mean return of the last {LAST} episodes  {mean_return(agent):.1f} (of 200)")
    console.print(f"steps                               {agent.step}")
    console.print(f"batches                             {stats.iteration}")
    console.print(f"transitions that wait               {stats.waiting}")
    replay.store.close()


@contextlib.contextmanager
def progress(console: Console, steps: int) -> Iterator[Report]:
    """Show a progress bar on a terminal, and about ten lines elsewhere; yield what moves it."""
    columns = (*Progress.get_default_columns(), TextColumn("return {task.fields[value]:.0f}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=steps, value=0.0)

        def report(agent: Agent, n: int) -> None:
            before = int(bar.tasks[task].completed)
            bar.update(task, advance=n, value=mean_return(agent))
            is_next = (before + n) * 10 // steps > before * 10 // steps
            if is_next and not console.is_terminal:
                print(
                    f"{before + n} of {steps} steps, return {mean_return(agent):.0f}",
                    file=sys.stderr,
                )

        yield report


# -- the comparison --------------------------------------------------------------------------------


class Trained(NamedTuple):
    """What the training of one agent has come to."""

    returns: list[float]
    """After each batch, the mean return of the last episodes."""
    seconds: float
    processor_s: float
    """Processor time of this process; a server has its own."""


def timed(agent: Agent, replay: Replay, report: Report) -> Trained:
    """Train an agent, and take the time."""
    began = time.perf_counter(), time.process_time()
    train(agent, replay, report)
    ended = time.perf_counter(), time.process_time()
    return Trained(replay.returns(), ended[0] - began[0], ended[1] - began[1])


def compare(
    url: str,
    *,
    steps: int,
    max_size: int,
    seeds: int,
    picture: pathlib.Path | None,
    console: Console,
) -> None:
    """Train an agent on each buffer for each seed, and show what came out."""
    found: dict[str, list[Trained]] = {"sqlbuffer": [], "list in memory": []}
    with progress(console, 2 * seeds * steps) as report:
        for seed in range(seeds):
            stored = open_replay(url, f"compare-{seed}", max_size=max_size, seed=seed, fresh=True)
            for name, replay in zip(found, (stored, ListReplay(max_size, seed)), strict=True):
                found[name].append(timed(Agent(steps, seed), replay, report))
            stored.store.close()
    print_comparison(found, steps, picture, console)


def print_comparison(
    found: dict[str, list[Trained]], steps: int, picture: pathlib.Path | None, console: Console
) -> None:
    """Print the means over the seeds, and draw the learning curves."""
    table = Table(
        "buffer", "return after half of the steps", "at the end", "seconds", "of them processor"
    )
    for name, each in found.items():
        returns = np.array([trained.returns for trained in each])
        half, end = (returns[:, i] for i in (returns.shape[1] // 2, -1))
        seconds, processor_s = np.mean([trained[1:] for trained in each], axis=0)
        cells = (curves.mean_shown(values, digits=0) for values in (half, end))
        table.add_row(name, *cells, f"{seconds:.1f}", f"{processor_s:.1f}")
    console.print(table)
    if picture is not None:
        values = {name: np.array([each.returns for each in found[name]]) for name in found}
        x = np.minimum(np.arange(1, values["sqlbuffer"].shape[1] + 1) * STEPS_EACH, steps)
        curves.draw(values, x, picture, labels=("steps", f"return, mean of {LAST} episodes"))


def main(
    steps: Annotated[int, typer.Option(help="Steps of the environment.", min=1)] = STEPS,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    url: Annotated[
        str, typer.Option(help="Any SQLite or PostgreSQL database.", envvar="SQLBUFFER_URL")
    ] = "sqlite:///cartpole.db",
    max_size: Annotated[
        int, typer.Option(help="Transitions that wait; the oldest leave.", min=BATCH)
    ] = 4_000,
    seeds: Annotated[
        int,
        typer.Option(
            "--compare",
            help="Compare so many seeds with a list in memory.",
            min=0,
        ),
    ] = 0,
    picture: Annotated[
        pathlib.Path | None,
        typer.Option(help="With --compare: the file to draw the learning curves to."),
    ] = None,
) -> None:
    """Train a DQN agent on CartPole; a killed run resumes when it is started again.

    The end of a batch, its priorities and the agent that has learned from it are stored in one
    transaction. Look at a run with
    `sqlbuffer history return --name cartpole-0 --url sqlite:///cartpole.db`, and at the transitions
    of the highest priorities with `sqlbuffer top --by score` and the same options.
    """
    console = Console(highlight=False)
    torch.set_num_threads(1)  # the network is small, and its threads would only wait for each other
    if seeds:
        compare(url, steps=steps, max_size=max_size, seeds=seeds, picture=picture, console=console)
    else:
        run(url, steps=steps, max_size=max_size, seed=seed, console=console)


if __name__ == "__main__":
    try:
        typer.run(main)
    except SqlBufferError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: the same command resumes the run")
