# Commands for those who work on sqlbuffer. `just --list` shows them; `PYTHON=python3.12 just test` takes another Python.

python := env("PYTHON", ".venv/bin/python")
folders := "sqlbuffer migrations tests examples benchmarks"

# Lint, check the types, and run the tests on both databases: what has to pass before a push.
test *options: lint types
    {{python}} -m pytest {{options}}

# Unit tests, and the integration tests on SQLite that take milliseconds: less than a minute.
test-fast *options:
    {{python}} -m pytest tests/unit tests/integration -m "not (slow or postgres or other_database or browser or integrations or notebooks or soak)" {{options}}

# Every test: those that need a browser or another library's environment too, and the long runs.
test-all *options: lint types
    {{python}} -m pytest -m "" {{options}}

# Check style and format.
lint:
    {{python}} -m ruff check {{folders}}
    {{python}} -m ruff format --check {{folders}}

# Check the types.
types:
    {{python}} -m mypy

# Put the code into its format, and repair what ruff can repair.
fmt:
    {{python}} -m ruff check --fix {{folders}}
    {{python}} -m ruff format {{folders}}

# Run what the README and the docs show: their Python, SQL and commands.
docs:
    {{python}} -m pytest -k "readme or guarantees or examples or docs"

# Build the documentation as a site, into the folder `site`.
site:
    {{python}} -m mkdocs build --strict

# Measure, and write tables and plots.
bench *options:
    {{python}} -m benchmarks {{options}}
