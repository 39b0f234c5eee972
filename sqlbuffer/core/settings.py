"""The settings of a buffer that shape its draws, and the arithmetic that follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer._validation import require_choice, require_int
from sqlbuffer.core.race import exponentials, replayed_exponentials
from sqlbuffer.core.weighting import Weighting

DIRECTIONS = ("maximize", "minimize")
"""Which reward is better: the higher, or the lower."""

_SEED_DIGITS = 1_000
_LARGEST_SEED = 10**_SEED_DIGITS - 1
"""Python reads and writes integers of a few thousand digits at most."""


def direction_from(given: str | None) -> str | None:
    """Return a direction, checked; None stands for the stored one."""
    if given is None:
        return None
    rule = 'direction must be "maximize" or "minimize"'
    return require_choice(given, rule, DIRECTIONS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that shape the draws of a buffer; stored with it, and the same in every process."""

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
        """Return the exponential variates with which n samples join the race now.

        Args:
            hashes: n hashes of 16 bytes.
            requeues: (n,) int, how often each sample was added again after it had left the pool.
            entries: (n,) int, how often each sample has entered the race, this time included.
            turn: Batches drawn so far, without the released ones.

        Returns:
            (n,) float64, each in (0, 37).

        Raises:
            InvalidPayload: If a stored hash or number is corrupt.
        """
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
            # A sample that joins twice without a draw in between, such as one that has had the
            # weight 0, would otherwise meet the variate that a released draw has shown.
            again = again + (np.maximum(number, 1) - 1) * 2**32
            return exponentials(self.seed, flat, turn=turn, requeues=again)
        return replayed_exponentials(self.seed, flat, requeues=again, entries=number)

    def weights(self, scores: Floats, base: float | None) -> Floats:
        """Return the weights of n scores.

        Args:
            scores: (n,) float; NaN stands for a score that is not finite: the weight is 0, and the
                sample is never drawn.
            base: Lowest score of the pool, for weightings that need it.

        Returns:
            (n,) float64, non-negative.
        """
        known = ~np.isnan(scores)
        weights = np.zeros(len(scores)) if self.weighting.needs_score else np.ones(len(scores))
        weights[known] = self.weighting(scores[known], 0.0 if base is None else base)
        return weights
