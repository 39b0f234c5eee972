"""The arithmetic of the exponential race. Arrays in, arrays out; no SQL.

Sample i arrives at time Exp(1) / w_i. The k first arrivals are k draws without replacement with
probability proportional to weight (Efraimidis and Spirakis 2006). The arrival time is stored as
the sample's *race key*, and the largest key drawn so far is the *clock*. Exponentials have no
memory, so the rest of a waiting key beyond the clock is again distributed as Exp(1) / w_i. The
race therefore stays exact without an end, while samples join late and weights change.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIE = slice(8, 16)
"""Bytes of a hash that break ties; other bytes decide which rows are held out of training."""

_REPLAY = 0x5245504C4159
"""First word that is mixed in replay mode, so that no variate is one of consume mode."""

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def exponentials(seed: int, hashes: NDArray[np.uint8], *, turn: int, requeues: Ints) -> Floats:
    """Return one Exp(1) variate for each sample, computed from seed, hash, turn and requeues alone.

    The same arguments give the same variate on every database, in any order of insertion. The clock
    is not among the arguments: a difference in its last bit would change every later draw.

    Args:
        seed: Seed of the buffer, any integer; taken modulo 2**64.
        hashes: (n, 16) uint8, the canonical hashes.
        turn: Batches drawn so far, without the released ones.
        requeues: (n,) int, how often each sample was added again after it had left the pool.

    Returns:
        (n,) float64, each in (0, 37).

    Source:
        The mix is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    return _variates(seed, *_words(hashes), np.uint64(turn % 2**64), requeues.astype(np.uint64))


def replayed_exponentials(
    seed: int, hashes: NDArray[np.uint8], *, requeues: Ints, entries: Ints
) -> Floats:
    """Return one Exp(1) variate for each sample in replay mode: samples enter after each draw.

    The count of entries takes the place of the turn: a turn occurs twice if a batch is released,
    and concurrent draws share a turn. Two entries with one variate would make batches dependent.

    Args:
        seed: Seed of the buffer, any integer; taken modulo 2**64.
        hashes: (n, 16) uint8, the canonical hashes.
        requeues: (n,) int, how often each sample was added again after it had left the pool.
        entries: (n,) int, how often each sample has entered the race since then, this time
            included.

    Returns:
        (n,) float64, each in (0, 37).
    """
    counts = requeues.astype(np.uint64), entries.astype(np.uint64)
    return _variates(_REPLAY, np.uint64(seed % 2**64), *_words(hashes), *counts)


def _words(hashes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(hashes).view("<u8").astype(np.uint64).reshape(-1, 2)
    return words[:, 0], words[:, 1]


def _variates(first: int, *words: NDArray[np.uint64] | np.uint64) -> Floats:
    """Return Exp(1) variates, from words that are mixed in their order."""
    with np.errstate(over="ignore"):
        bits = _mix(np.array([first % 2**64], dtype=np.uint64))
        for word in words:
            bits = _mix(bits ^ word)
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(uniform)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = bits + np.uint64(_GOLDEN)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_MIX_1)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_MIX_2)
    return bits ^ (bits >> np.uint64(31))


def joined(clock: float, variates: Floats, weights: Floats) -> Floats:
    """Return (n,) keys of samples that join the race: `clock + e / w`, +inf if w is 0 or NaN.

    Args:
        clock: Where the race stands.
        variates: (n,) Exp(1) variates e.
        weights: (n,) weights w.
    """
    with np.errstate(divide="ignore", over="ignore"):
        keys = clock + variates / weights
    return np.where(weights > 0, keys, np.inf)


def rescaled(keys: Floats, clock: float, old: Floats, new: Floats) -> Floats:
    """Return (n,) keys after a change of weights: `old / new` stretches the rest beyond the clock.

    A key at or before the clock was drawn and released; it stays.

    Args:
        keys: (n,) race keys.
        clock: Where the race stands.
        old: (n,) positive weights before.
        new: (n,) positive weights after.
    """
    with np.errstate(over="ignore"):
        return np.where(keys > clock, clock + (keys - clock) * (old / new), keys)


def turned_back(keys: Floats, clock: float) -> Floats:
    """Return (n,) keys after the clock has been set to 0: each difference stays, up to rounding.

    Far behind the clock, rounding would make different keys equal. There only their order counts,
    so they are kept apart by the last bit.
    """
    each, which = np.unique(keys, return_inverse=True)
    back: Floats = each - clock
    if not np.all(np.diff(back[each <= clock]) > 0.0):
        for i in range(int(np.sum(each <= clock)) - 2, -1, -1):
            if back[i] >= back[i + 1]:
                back[i] = np.nextafter(back[i + 1], -np.inf)
    return back[which]


def is_ascending(keys: Floats) -> bool:
    """Return True if each of (n,) keys is larger than the one before, and none is NaN."""
    return bool(np.count_nonzero(keys[:-1] < keys[1:]) >= len(keys) - 1)


def inclusion_probability(weights: Floats, start: float, threshold: float) -> Floats:
    """Return the probability of each sample to be drawn, `1 - exp(-w (t - c))`.

    Args:
        weights: (n,) weights w.
        start: Where the race stood before the draw, c.
        threshold: First key that was not drawn, t; infinity if all were drawn.

    Returns:
        (n,) float64 in [0, 1].

    Source:
        Priority sampling's threshold (Duffield, Lund and Thorup 2007) applied to exponential keys.
    """
    return (
        -np.expm1(-weights * max(threshold - start, 0.0))
        if math.isfinite(threshold)
        else np.ones_like(weights)
    )


def arrival_probability(weights: Floats, keys: Floats, clock: float, threshold: float) -> Floats:
    """Return the probability of each arrival to be in a draw, given the first key not drawn.

    Keys at or before the clock are *overdue*: their samples were drawn and released, and come first
    with probability 1. A draw that ends among them, or with the last of them, tells nothing of the
    samples behind them: NaN for all. A draw that takes all samples has an infinite threshold, and
    takes each with probability 1.

    Args:
        weights: (n,) weights of the arrivals.
        keys: (n,) their keys.
        clock: Where the race stood before the draw.
        threshold: First key that was not drawn, infinity if none was left.

    Returns:
        (n,) float64 in [0, 1], or NaN for all.
    """
    is_overdue = keys <= clock
    if math.isfinite(threshold) and len(keys) and is_overdue.all():
        return np.full_like(weights, math.nan)
    return np.where(is_overdue, 1.0, inclusion_probability(weights, clock, threshold))


def is_blurred(clock: float, weights: Floats) -> bool:
    """Tell whether the clock is too large for float64 to resolve arrivals of samples of `weights`.

    It is too large if the spacing of float64 there exceeds a millionth of the mean gap between
    arrivals. Samples of tiny weight lead to it: their draw moves the clock by about 1 / weight.
    """
    # As np.nansum, which takes three times as long.
    total = min(float(np.add.reduce(np.where(np.isnan(weights), 0.0, weights))), 1e300)
    return total > 0 and float(np.spacing(clock)) * 1e6 > 1.0 / total
