"""The examples of prioritised replay and of active learning: killed or stopped, they go on."""

import functools
import importlib
import io
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from helpers import example, killed_agent
from helpers.forked import EXAMPLES, Forked
from helpers.polling import until
from sqlbuffer.core.weighting import Power
from sqlbuffer.store import SampleStore, open_store

STEPS = 160
STEPS_EACH = 16
RING: dict[str, Any] = {
    "mode": "replay",
    "weighting": Power(0.6),
    "evict": "oldest",
    "max_size": 4_000,
}


def start(name: str, folder: pathlib.Path, *options: str) -> Forked:
    return Forked(functools.partial(example.run, name), list(options), folder)


def output_of(process: Forked) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def transitions(store: SampleStore) -> dict[int, str]:
    return {i: repr(sample) for i, sample in store.samples_of(store.waiting().ids).items()}


def test_a_killed_agent_goes_on_from_its_step(store_url: str, tmp_path: pathlib.Path) -> None:
    options = ("--steps", str(STEPS), "--url", store_url)
    with open_store(store_url, name="cartpole-0", seed=0, **RING) as store:
        process = start("dqn_cartpole", tmp_path, *options)
        until(lambda: store.iteration >= 2, timeout_s=60)
        process.kill()
        process.communicate(timeout=60)
        before, step = transitions(store), store.iteration * STEPS_EACH
        assert 0 < step < STEPS
        output = output_of(start("dqn_cartpole", tmp_path, *options))
        assert f"resuming at step {step} of {STEPS}" in output
        after = transitions(store)
        assert after.items() >= before.items(), "no stored transition is lost"
        steps = [sample["step"] for sample in store.samples_of(list(after)).values()]
        assert sorted(steps) == list(range(1, STEPS + 1)), "each step is stored once"
        assert (store.iteration, store.stats().claimed) == (STEPS // STEPS_EACH, 0)
        (newest,) = (row["value"] for row in store.history()[-2:] if row["name"] == "step")
        assert newest == STEPS
        assert store.check() == []


def agent_of(store: SampleStore) -> dict[str, Any]:
    stored = store.checkpoint("agent")
    assert stored is not None
    state: dict[str, Any] = torch.load(io.BytesIO(stored[1]), weights_only=True)
    return state


def let_live(url: str, folder: pathlib.Path, fatal: str | None) -> None:
    process = Forked(functools.partial(killed_agent.live, url, fatal), [], folder)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (0 if fatal is None else -signal.SIGKILL), errors


@pytest.mark.parametrize(
    ("kind", "moments"), [("sqlite", killed_agent.MOMENTS), ("postgresql", ("drawn", "learned"))]
)
def test_an_agent_that_is_killed_ends_as_one_that_is_not(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, kind: str, moments: tuple[str, ...]
) -> None:
    """To the last bit: each process is killed at another moment, and the next one goes on."""
    url, alive = request.getfixturevalue(f"{kind}_url"), f"sqlite:///{tmp_path}/alive.db"
    for at, *fatal in ((alive, None), *((url, moment) for moment in moments), (url, None)):
        let_live(at, tmp_path, *fatal)
    with (
        open_store(url, name="cartpole-0", read_only=True) as store,
        open_store(alive, name="cartpole-0", read_only=True) as expected,
    ):
        assert killed_agent.story(store) == killed_agent.story(expected)
        found, wanted = agent_of(store), agent_of(expected)
        for networks in ("network", "target", "optimizer"):
            torch.testing.assert_close(
                found.pop(networks), wanted.pop(networks), rtol=0.0, atol=0.0
            )
        assert found == wanted
        assert store.check() == []


def test_agents_are_compared(tmp_path: pathlib.Path) -> None:
    options = ("--compare", "1", "--steps", "64", "--picture", "curves.png")
    output = output_of(start("dqn_cartpole", tmp_path, *options))
    assert "sqlbuffer" in output
    assert "list in memory" in output
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with open_store(f"sqlite:///{tmp_path}/cartpole.db", name="compare-0") as store:
        assert (store.iteration, len(store)) == (4, 64)


@pytest.fixture
def learn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[float]]]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    digits = importlib.import_module("digits")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield functools.partial(digits.learn, argmax=0.5, report=lambda: None)
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("acquisition", ["margin", "random"])
def test_digits_are_labelled_once(
    store_url: str, learn: Callable[..., list[float]], acquisition: str
) -> None:
    (first,) = learn(store_url, acquisition, 0, labels=20)
    assert 0.2 < first < 0.9
    again = learn(store_url, acquisition, 0, labels=40)
    assert again[0] == first
    assert again[1] > 0.3
    with open_store(store_url, name=f"{acquisition}-0") as store:
        assert (store.stats().measured, store.iteration, store.stats().claimed) == (40, 2, 0)
        assert len(set(store.waiting().scores)) > 1 or acquisition == "random"
        assert store.check() == []
