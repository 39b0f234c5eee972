"""The pages of `sqlbuffer serve`: what a database holds, read while others write."""
