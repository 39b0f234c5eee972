"""Audit, repair and copy of a whole buffer."""
