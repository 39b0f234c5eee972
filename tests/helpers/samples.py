"""Samples that the tests use, and their scores."""

import numpy as np


def scores_of(samples: list[str]) -> np.ndarray:
    """The number in a sample's name: `s12` has score 12."""
    return np.array([float(sample[1:]) for sample in samples])
