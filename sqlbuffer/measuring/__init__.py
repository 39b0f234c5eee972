"""Run a reward function over samples, in this process, in child processes or in an executor.

Only `measure.py` and `progress.py` know a buffer: the rest takes samples, and gives one outcome for
each.
"""
