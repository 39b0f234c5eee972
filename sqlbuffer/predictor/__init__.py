"""The torch model, its uncertainty and its metrics; no database."""
