"""Engines, transactions, tables, every SQL statement, and what differs between SQLite and PostgreSQL."""
