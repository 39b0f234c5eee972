"""What commands and pages show of a buffer: rows as dicts, read in one transaction."""
