"""The metric `buffer size`."""

from __future__ import annotations

from sqlbuffer.training.callback import Callback


class BufferSizeCallback(Callback):
    """Writes the metric `buffer size`: the number of waiting samples once a batch is drawn.

    Examples:
        >>> from sqlbuffer import Buffer, BufferSizeCallback, Environment
        >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
        >>> environment = Environment(cbs=[BufferSizeCallback], buffer=buffer)
        >>> environment.fit(bs=3, iters=2, report=None)
        >>> environment.log.metrics["buffer size"]
        [7, 4]
    """

    def __init__(self) -> None:
        super().__init__(name="buffer size", order=0)

    def setup(self) -> None:
        """Announce the metric."""
        self.environment.log.add_metric(self.name)

    def after_sample(self) -> None:
        """Write the number of waiting samples."""
        self.environment.log.update_metric(self.name, len(self.environment.buffer))
