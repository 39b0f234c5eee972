"""A figure of matplotlib that a notebook shows without pyplot and without `%matplotlib`."""

from __future__ import annotations

import io
import warnings
from typing import Any

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A Figure without a window; as the last value of a cell it is a picture."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Write the figure, without warnings of characters without a glyph and of few dates."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+|AutoDateLocator", UserWarning)
            super().savefig(*args, **kwargs)

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
