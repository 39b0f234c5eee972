"""Engines, transactions, tables, SQL statements, and the differences between the databases."""

REVISION = "0009"
"""The Alembic revision that this release works with."""
