"""Labelled rows as a map-style dataset of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from sqlbuffer._validation import as_ids
from sqlbuffer.core.labels import LabelledRows


class LabelledDataset(Dataset[tuple[Any, float]]):
    """n labelled samples, each a pair (sample, reward); use `SampleStore.dataset`.

    Ids and rewards are as they were when the dataset was made, and samples are read from the
    database when they are asked for. A forked or spawned process has connections of its own.

    Attributes:
        rows: The n samples with their ids and rewards.

    Examples:
        >>> store.dataset()
        LabelledDataset(LabelledRows('molecules', size=2))
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(store.dataset(), batch_size=2)
        >>> next(iter(loader))
        [('C', 'CC'), tensor([0.2500, 0.5000], dtype=torch.float64)]
    """

    def __init__(self, rows: LabelledRows) -> None:
        self.rows = rows

    def __repr__(self) -> str:
        return f"LabelledDataset({self.rows!r})"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, float]:
        """Return a sample and its reward.

        Raises:
            IndexError: If there is no such row.
            StaleIds: If the sample was deleted, or the database has returned to an earlier state.
        """
        return self.rows[index], float(self.rows.rewards[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, float]]:
        """Return m samples and their rewards, read by one query.

        Raises:
            StaleIds: See `__getitem__`.
        """
        samples, rewards = self.rows.take(indices), self.rows.rewards[as_ids(indices)]
        return list(zip(samples, rewards.tolist(), strict=True))
