"""Datasets of torch over a buffer: labelled rows by place, and a stream of claimed batches."""
