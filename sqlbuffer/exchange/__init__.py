"""Samples in and out: tables of Arrow, files, and tables of other libraries."""
