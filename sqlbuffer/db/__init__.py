"""Engines, transactions, tables, SQL statements, and the differences between the databases."""
