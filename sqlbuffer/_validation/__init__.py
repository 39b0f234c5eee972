"""Converters of arguments: one for each kind of argument, used everywhere.

numpy scalars, and arrays and tensors without dimensions, are numbers. A flag is a bool of Python or
numpy, and not a number. Every converter returns values of Python: SQLite would store a numpy
integer as bytes.
"""

from sqlbuffer._validation.arrays import (
    as_floats,
    as_ids,
    as_mask,
    as_priorities,
    as_rewards,
    as_scores,
)
from sqlbuffer._validation.lists import as_list, as_mapping, as_names, require_list
from sqlbuffer._validation.scalars import (
    EVICTIONS,
    LARGEST_INT,
    as_duration_s,
    as_evict,
    as_float,
    as_max_size,
    is_integer,
    is_learning_rate,
    is_part,
    is_positive,
    is_rate,
    is_share,
    plain,
    require_choice,
    require_count,
    require_flag,
    require_function,
    require_int,
    require_real,
)
from sqlbuffer._validation.text import as_name, is_storable, is_text

__all__ = [
    "EVICTIONS",
    "LARGEST_INT",
    "as_duration_s",
    "as_evict",
    "as_float",
    "as_floats",
    "as_ids",
    "as_list",
    "as_mapping",
    "as_mask",
    "as_max_size",
    "as_name",
    "as_names",
    "as_priorities",
    "as_rewards",
    "as_scores",
    "is_integer",
    "is_learning_rate",
    "is_part",
    "is_positive",
    "is_rate",
    "is_share",
    "is_storable",
    "is_text",
    "plain",
    "require_choice",
    "require_count",
    "require_flag",
    "require_function",
    "require_int",
    "require_list",
    "require_real",
]
