"""Rewards as they come: a batch is reported in parts, and settled by the last of them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from sqlbuffer import statements
from sqlbuffer.adding import store_rewards
from sqlbuffer.attachment import Attachment
from sqlbuffer.errors import InvalidArgument, InvalidReward
from sqlbuffer.names import as_ids, as_rewards
from sqlbuffer.race import Floats, Ints


@dataclasses.dataclass(frozen=True)
class Reported:
    """Rewards of some samples of a batch, each sample once."""

    ids: Ints
    rewards: Floats

    @classmethod
    def prepare(cls, batch_ids: Ints, ids: Sequence[int], rewards: Any) -> Reported:
        """Check them; where an id comes twice the later reward counts, unless it is NaN."""
        given = as_ids(ids)
        values = as_rewards(rewards, len(given))
        if None in values:
            raise InvalidReward("a sample is reported with its reward: None is not one; NaN stands for a failure.")
        if strangers := set(given) - set(batch_ids.tolist()):
            raise InvalidArgument(f"sample {min(strangers)} is not of this batch: ids must be some of batch.ids.")
        last = _last_of_each(given, values)
        return cls(np.array(list(last), dtype=np.int64), np.array(list(last.values()), dtype=np.float64))


def _last_of_each(ids: Sequence[int], rewards: Sequence[float | None]) -> dict[int, float]:
    """Return the last reward of each sample; a measurement that failed takes the place of none."""
    failed = dict.fromkeys(ids, math.nan)
    pairs = zip(ids, rewards, strict=True)
    return failed | {i: reward for i, reward in pairs if reward is not None and not math.isnan(reward)}


def report(connection: sa.Connection, *, attachment: Attachment, batch: int | None, reported: Reported) -> int | None:
    """Store rewards of a batch; return how many are still to come, None where the batch was closed before.

    What has been reported is no longer queued, so that adding it again requeues it: its further rewards leave that be.
    """
    is_ours = batch is None or attachment.run(connection, _open(attachment), batch=batch).one_or_none() is not None
    new = _mark(connection, attachment, batch, reported.ids) if is_ours and len(reported.ids) else []
    is_new = np.isin(reported.ids, new)
    deltas = Counter(settled=len(new))
    for part, stay_queued in ((is_new, not attachment.consumes), (~is_new, True)):
        ids, rewards = reported.ids[part], reported.rewards[part]
        deltas.update(store_rewards(connection, attachment, ids, rewards, stay_queued=stay_queued))
    left = int(attachment.run(connection, statements.unreported(), batch=batch).scalar_one()) if is_ours else None
    if new and not left:
        attachment.run(connection, statements.close_batch("settled_at"), batch=batch)
        deltas["iterations"] = 1
    attachment.count(connection, **deltas)
    return left


def _open(attachment: Attachment) -> sa.Select[Any]:
    return statements.open_batch(attachment.database.dialect)


def _mark(connection: sa.Connection, attachment: Attachment, batch: int | None, ids: Ints) -> list[int]:
    statement = statements.report_draws(attachment.database.dialect)
    columns = {"sample_id": ids.tolist()}
    return list(attachment.run_with(connection, statement, statements.INCOMING_IDS, columns, batch=batch).scalars())
