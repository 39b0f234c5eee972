"""Looking at a buffer from outside: the command line."""
