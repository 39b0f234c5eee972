"""The settings of a buffer that shape its draws, and the arithmetic that follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats
from sqlbuffer._validation import require_choice, require_int
from sqlbuffer.core.race import Weighting, exponentials, replayed_exponentials

_SEED_DIGITS = 1_000
_LARGEST_SEED = 10**_SEED_DIGITS - 1
"""Python neither writes nor reads an integer of more than some thousand digits."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What shapes the draws of a buffer: stored with it, the same for everybody."""

    mode: str
    seed: int
    weighting: Weighting

    def __post_init__(self) -> None:
        mode = require_choice(
            self.mode, 'mode must be "consume" or "replay"', ("consume", "replay")
        )
        rule = f"seed must be an integer of at most {_SEED_DIGITS} digits"
        seed = require_int(self.seed, rule, least=-_LARGEST_SEED, most=_LARGEST_SEED)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "seed", seed)

    @property
    def consumes(self) -> bool:
        """True if a drawn sample leaves the pool."""
        return self.mode == "consume"

    def variates(
        self, hashes: Iterable[bytes], requeues: Sequence[int], entries: Sequence[int], *, turn: int
    ) -> Floats:
        """Return the exponential variates with which samples join the race now."""
        try:
            flat = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(requeues), 16)
        except (TypeError, ValueError) as exc:
            raise tampered(f"a stored hash does not have 16 bytes ({shown(exc)})") from exc
        try:
            again, number = (
                np.asarray(requeues, dtype=np.int64),
                np.asarray(entries, dtype=np.int64),
            )
        except (TypeError, ValueError, OverflowError) as exc:
            raise tampered(
                f"requeues or entries are stored as a value that is not a number ({shown(exc)})"
            ) from exc
        if self.consumes:
            return exponentials(self.seed, flat, turn=turn, requeues=again)
        return replayed_exponentials(self.seed, flat, requeues=again, entries=number)

    def weights(self, scores: Floats, base: float | None) -> Floats:
        """Return (n,) weights of scores in which NaN stands for a score that is not finite: weight 0, never drawn."""
        known = ~np.isnan(scores)
        weights = np.zeros(len(scores)) if self.weighting.needs_score else np.ones(len(scores))
        weights[known] = self.weighting(scores[known], 0.0 if base is None else base)
        return weights
