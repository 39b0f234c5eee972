"""Buffers behind the interfaces of other libraries, each of which needs an extra."""
