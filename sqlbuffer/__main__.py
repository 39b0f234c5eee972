"""`python -m sqlbuffer` is the command line."""

from sqlbuffer.inspect.cli import main

main()
