"""One process on one buffer: add, score, draw, settle, refresh."""
