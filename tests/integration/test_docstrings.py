"""Docstrings of public names: each has its sections, and every example runs as it is shown.

The examples run on SQLite, after the lines that `docs/reference/index.md` shows.
"""

import doctest
import importlib
import inspect
import io
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

import sqlbuffer
from helpers import documents
from helpers.cleanup import hold
from sqlbuffer import Batch, Callback, SampleStore, plots
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.training.callback import EVENTS

ROOT = pathlib.Path(__file__).parents[2]
HOOKS = {*EVENTS, "abort_batch", "checkpoint", "restore"}
ELSEWHERE = {
    "core.labels": ["LabelledRows"],
    "core.leases": ["Job", "Lease"],
    "core.predictor_versions": ["PredictorVersion"],
    "core.read": ["Waiting"],
    "exchange.table": ["Table"],
    "loading.dataset": ["LabelledDataset"],
    "loading.stream": ["Stream", "StreamLoader"],
    "retraining.train": ["retrain"],
    "records": ["ForgetResult", "MeasureResult", "PruneResult", "Staleness"],
}
"""Public names that are not imported from `sqlbuffer`; methods return objects of the classes."""


PLAIN = r"(Any|bool|bytes|dict|float|int|list|str|tuple|Floats|Ints|Tensor)\b"
"""Types of results that say too little: the docstring says what is returned."""


def public_objects() -> Iterator[tuple[str, Any]]:
    yield from ((name, getattr(sqlbuffer, name)) for name in sqlbuffer.__all__ if name != "errors")
    yield from ((f"plots.{name}", getattr(plots, name)) for name in plots.__all__)
    for module, names in ELSEWHERE.items():
        found = importlib.import_module(f"sqlbuffer.{module}")
        yield from ((name, getattr(found, name)) for name in names)


def members(name: str, cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that sqlbuffer has written for a class."""
    for member, value in inspect.getmembers(cls):
        function = value.fget if isinstance(value, property) else value
        is_ours = (getattr(function, "__module__", None) or "").startswith("sqlbuffer")
        if not member.startswith("_") and is_ours and inspect.isfunction(function):
            yield f"{name}.{member}", value


PUBLIC = dict(public_objects())
MEMBERS = {
    label: member
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing) and not issubclass(thing, BaseException)
    for label, member in members(name, thing)
}
EVERYTHING = PUBLIC | MEMBERS


def needs_example(label: str) -> bool:
    owner = EVERYTHING.get(label.split(".")[0])
    return label in PUBLIC or owner in (SampleStore, Batch)


def section(thing: Any, *titles: str) -> str:
    doc = inspect.getdoc(thing) or ""
    found = re.findall(rf"^(?:{'|'.join(titles)}):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    return "\n".join(found)


def parameters(thing: Any) -> set[str]:
    """Return the names that a caller gives; objects that methods return have no caller."""
    is_made = inspect.isclass(thing) and (thing in MADE_BY_METHODS or thing in (SampleStore, Batch))
    if isinstance(thing, property) or is_made or issubclass_of(thing, BaseException):
        return set()
    return {name.strip("*") for name in inspect.signature(thing).parameters} - {"self"}


def issubclass_of(thing: Any, base: type) -> bool:
    return inspect.isclass(thing) and issubclass(thing, base)


MADE_BY_METHODS = [PUBLIC[name] for names in ELSEWHERE.values() for name in names]


def is_hook(label: str) -> bool:
    name, _, member = label.partition(".")
    return member in HOOKS and issubclass_of(PUBLIC.get(name), Callback)


def faults(label: str, thing: Any) -> Iterator[str]:
    """Yield what the docstring of a public name lacks."""
    doc = inspect.getdoc(thing)
    if not doc:
        yield "a docstring"
        return
    if needs_example(label) and not section(thing, "Examples").strip().startswith(">>>"):
        yield "an example"
    if is_hook(label):
        return
    named = re.findall(r"^    \*{0,2}(\w+):", section(thing, "Args", "Attributes"), re.MULTILINE)
    yield from (f"Args of {name}" for name in sorted(parameters(thing) - set(named)))
    if inspect.isclass(thing) or isinstance(thing, property):
        return
    returned = str(inspect.signature(thing).return_annotation)
    if re.match(PLAIN, returned) and not re.search(r"\b[Rr]eturns?\b|\bTell\b", doc):
        yield "Returns"
    raised = re.findall(r"^        raise (\w+)\(", inspect.getsource(thing), re.MULTILINE)
    yield from (f"Raises of {error}" for error in set(raised) if error not in doc)


def test_docstrings_are_complete() -> None:
    lacking = {
        label: found for label, thing in EVERYTHING.items() if (found := [*faults(label, thing)])
    }
    assert lacking == {}


def test_faults_are_found() -> None:
    def bare(n: int) -> "int":
        """Do it."""
        raise InvalidArgument(n)

    def nothing() -> None: ...

    assert [*faults("SampleStore.bare", bare)] == [
        *("an example", "Args of n", "Returns", "Raises of InvalidArgument")
    ]
    assert [*faults("Log.nothing", nothing)] == ["a docstring"]


def examples() -> dict[str, doctest.DocTest]:
    """Return the examples of every docstring, once for those that are inherited."""
    found: dict[str, tuple[str, Any]] = {}
    for label, thing in EVERYTHING.items():
        if ">>>" in (doc := inspect.getdoc(thing) or ""):
            found.setdefault(doc, (label, thing))
    parser = doctest.DocTestParser()
    return {label: parser.get_doctest(doc, {}, label, None, 0) for doc, (label, _) in found.items()}


EXAMPLES = examples()
SETUP = documents.blocks_of((ROOT / "docs" / "reference" / "index.md").read_text())[0].code


class Shown(doctest.OutputChecker):
    """Compares what an example printed with what its docstring shows, in the folder /home/me."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(
            want, got.replace(str(pathlib.Path.cwd()), "/home/me"), optionflags
        )


@pytest.fixture
def namespace(
    request: pytest.FixtureRequest,
    sqlite_template: bytes,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[str, Any]]:
    """What an example finds, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    doc = EXAMPLES[request.getfixturevalue("label")].docstring
    for file in set(re.findall(r"sqlite:///(\w+\.db)", SETUP + doc)):
        pathlib.Path(file).write_bytes(sqlite_template)  # the tables need not be made each time
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(SETUP, found)
    yield found
    for value in found.values():
        if isinstance(value, Batch):
            hold(value)
        elif isinstance(value, (SampleStore, sqlbuffer.Buffer)):
            value.close()


@pytest.mark.parametrize("label", EXAMPLES)
def test_examples_run(label: str, namespace: dict[str, Any]) -> None:
    test, out = EXAMPLES[label], io.StringIO()
    test.globs = namespace
    runner = doctest.DocTestRunner(Shown(), optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=out.write, clear_globs=False)
    assert not runner.failures, out.getvalue()
