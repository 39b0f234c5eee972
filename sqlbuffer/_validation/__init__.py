"""Converters of arguments."""

from sqlbuffer._validation.scalars import *  # noqa: F403
