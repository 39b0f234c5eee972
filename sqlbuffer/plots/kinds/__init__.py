"""The kinds of pictures, one module each: `read` its data in a transaction, `picture` the data."""
