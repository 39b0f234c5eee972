"""`python -m sqlbuffer` is the command line."""

from sqlbuffer.cli.main import main

main()
