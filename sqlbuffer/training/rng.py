"""Random states of a training loop: those of python, numpy and torch, and of given generators."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sqlbuffer.errors import InvalidArgument
from sqlbuffer.samples.state_dict import pack

States = dict[str, Any]


class Randomness:
    """Reads and writes the states of all global generators and of given ones.

    Args:
        generators: numpy Generators that the loop draws from.
    """

    def __init__(self, generators: Sequence[np.random.Generator] = ()) -> None:
        self._generators = list(generators)

    def states(self) -> States:
        """Return the states of all generators. A GPU that is not in use yet has no state."""
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(legacy=False),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
            "generators": [generator.bit_generator.state for generator in self._generators],
        }

    def put(self, states: States) -> None:
        """Set the states of all generators.

        Raises:
            InvalidArgument: If `states` is of another number of generators.
        """
        self._check(states)
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        torch.set_rng_state(states["torch"])
        for i, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, i)
        for generator, state in zip(self._generators, states["generators"], strict=True):
            generator.bit_generator.state = state

    def alongside(self, states: States, label: str) -> States:
        """Return states that follow from given states and a label alone, for other numbers."""
        self._check(states)
        seed = int.from_bytes(hashlib.blake2b(pack([states, label]), digest_size=7).digest(), "big")
        gpus = range(min(len(states["cuda"]), torch.cuda.device_count()))
        numpy_bits = type(np.random.get_bit_generator())  # type: ignore[attr-defined]
        return {
            "python": random.Random(seed).getstate(),
            "numpy": np.random.RandomState(numpy_bits(seed)).get_state(legacy=False),
            "torch": torch.Generator().manual_seed(seed).get_state(),
            "cuda": [torch.Generator(f"cuda:{i}").manual_seed(seed).get_state() for i in gpus],
            "generators": [
                type(each.bit_generator)(seed + i).state
                for i, each in enumerate(self._generators, 1)
            ],
        }

    def _check(self, states: States) -> None:
        if len(states["generators"]) != len(self._generators):
            raise InvalidArgument(
                f"the checkpoint has the states of {len(states['generators'])} generators, but "
                f"was given {len(self._generators)}: give Checkpoint the same generators=, or "
                "begin a new run with fresh=True."
            )
