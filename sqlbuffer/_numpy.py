"""numpy, imported when it is first used: a command that shows rows computes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        """Stands for the module; an attribute that was read once is found as fast as there."""

        def __getattr__(self, name):
            import numpy

            found = self.__dict__[name] = getattr(numpy, name)
            return found

    np = _Numpy()

__all__ = ["np"]
