"""Run a reward function over samples, in this process, in child processes or in an executor.

This package knows no database: it takes samples, and gives one outcome for each.
"""
