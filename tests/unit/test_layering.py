"""Imports run one way, what differs between databases is known to one package."""

import ast
import functools
import importlib
import importlib.metadata
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "sqlbuffer"


FILES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def trees() -> dict[pathlib.Path, ast.Module]:
    """Each module, parsed when a test asks for it."""
    return {file: ast.parse(file.read_text()) for file in FILES}


def name_of(file: pathlib.Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import, wherever it stands, with the dotted name of what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.AST]:
    return (
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


@pytest.mark.slow
def test_imports_run_downwards() -> None:
    """The contracts stand in pyproject.toml. In a process of its own: it disables all loggers."""
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_tests_import_from_helpers_alone() -> None:
    """No test file and no conftest.py is a library for others; one helper knows private names."""
    for file in (ROOT / "tests").rglob("*.py"):
        text, place = file.read_text(), file.relative_to(ROOT)
        if re.search(r"import.*\b(test_|conftest)|(test_|conftest).*import", text):
            named = [name for _, name in imports(ast.parse(text))]
            assert not [name for name in named if re.match(r"(test_\w+|conftest)\.", name)], place
        if file.name != "inside.py" and "_buffer" in re.findall(r"\.\s*(\w+)", text):
            private = [
                node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)
            ]
            assert "_buffer" not in {node.attr for node in private}, place


# Constants that a test changes for one of the modules that read them.
CHANGED_FOR_ONE = {
    "sqlbuffer.samples.columns.FEW",  # the single samples that it compares with make no columns
}


@pytest.mark.slow
def test_a_constant_that_tests_change_is_changed_for_all_that_read_it() -> None:
    """A module that imports it by name has a copy, which `setattr` does not reach."""
    texts = {file: file.read_text() for file in FILES}
    changed: set[str] = set()
    for file in (ROOT / "tests").rglob("*.py"):
        changed |= set(_changed(file.read_text()))
    assert "sqlbuffer.db.retry.PATIENCE_S" in changed
    for path in changed - CHANGED_FOR_ONE:
        module, _, name = path.rpartition(".")
        readers = set()
        for file in (file for file in FILES if name in texts[file]):
            own = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            lines = re.findall(rf"(?m)^ *from .* import .*\b{name}\b|^    {name},$", texts[file])
            named = imports(trees()[file]) if lines else ()
            imported = {each for _, each in named if each.endswith(f".{name}")}
            assert path not in imported, f"{own} has a copy of {path}: read it from its module"
            assert own != module or not imported, f"{path} is a copy: change {imported}"
            is_own = own == module and len(re.findall(rf"\b{name}\b", texts[file])) > 1
            readers |= {module} if is_own else set(re.findall(rf"\b\w+\.{name}\b", texts[file]))
        assert readers & {module, f"{module.rpartition('.')[2]}.{name}"}, f"nothing reads {path}"


def _changed(text: str) -> Iterator[str]:
    """Yield the paths of the constants of sqlbuffer that `monkeypatch.setattr` changes."""
    modules = {}
    for package, names in re.findall(r"from (sqlbuffer[\w.]*) import (\([^)]*\)|.*)", text):
        for name, alias in re.findall(r"(\w+)(?: as (\w+))?", names):
            modules[alias or name] = f"{package}.{name}"
    for module, name in re.findall(r"setattr\(\s*(\w+),\s*\"([A-Z_]+)\"", text):
        if module in modules:
            yield f"{modules[module]}.{name}"
    yield from re.findall(r"setattr\(\s*\"(sqlbuffer\.[\w.]+\.[A-Z_]+)\"", text)


@pytest.mark.slow
def test_one_package_knows_the_databases() -> None:
    for file, tree in trees().items():
        is_silent = re.search("sqlite|postgres|psycopg|dialect", file.read_text().lower()) is None
        if is_silent or name_of(file).startswith("db/backends/"):
            continue
        named = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if (
                isinstance(node, ast.Constant)
                and node.value in ("sqlite", "postgresql", "postgres")
            )
            or (
                isinstance(node, ast.Attribute)
                and node.attr == "name"
                and ast.unparse(node).endswith("dialect.name")
            )
            or (isinstance(node, ast.keyword) and re.match(r"(sqlite|postgresql)_", node.arg or ""))
        ]
        named += [
            word
            for node in ast.walk(tree)
            for word in (getattr(node, field, None) for field in ("id", "attr", "name", "arg"))
            if isinstance(word, str) and re.search("sqlite|postgres|psycopg", word.lower())
        ]
        drivers = [
            name
            for _, name in imports(tree)
            if re.match(r"sqlite3|psycopg|sqlalchemy\.dialects", name)
        ]
        assert not named + drivers, name_of(file)


@pytest.mark.slow
def test_only_what_learns_imports_torch() -> None:
    for file, tree in trees().items():
        found = [
            node for node, name in imports(tree) if name.split(".")[0] in ("torch", "safetensors")
        ]
        learns = ("predictor/", "training/", "loading/", "integrations/torchrl/")
        if name_of(file).startswith(learns) or name_of(file) in (
            "samples/state_dict.py",
            "_tensors.py",
        ):
            continue
        lazily = {node for function in functions(tree) for node, _ in imports(function)}
        allowed = lazily if name_of(file) == "samples/payload_reader.py" else set()
        assert set(found) <= allowed, name_of(file)


@pytest.mark.slow
def test_manners() -> None:
    """No print, no assert, no pickle but where a user asked for it, no seeding of what belongs to
    the user.
    """
    seeding = {"random.seed", "np.random.seed", "numpy.random.seed", "torch.manual_seed"}
    for file, tree in trees().items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & (seeding | {"eval", "exec", "print"}), name_of(file)
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], name_of(file)
        # A reward function and its samples are pickled for child processes, and never stored.
        if name_of(file) != "samples/codec.py" and not name_of(file).startswith("measuring/"):
            pickles = [
                name
                for _, name in imports(tree)
                if name.split(".")[0] in ("pickle", "dill", "cloudpickle")
            ]
            assert not pickles, name_of(file)


@pytest.mark.slow
def test_statements_are_built_in_one_place_and_executed_in_others() -> None:
    files = [file for file in FILES if name_of(file).startswith("db/queries/")]
    assert files
    for file in files:
        attributes = {
            node.attr for node in ast.walk(trees()[file]) if isinstance(node, ast.Attribute)
        }
        assert not attributes & {"execute", "scalars", "exec_driver_sql", "begin", "connect"}, (
            name_of(file)
        )


@pytest.mark.slow
def test_the_arithmetic_knows_no_database() -> None:
    packages = {
        name.split(".")[0]
        for _, name in imports(ast.parse((PACKAGE / "core" / "race.py").read_text()))
    }
    assert packages <= set(sys.stdlib_module_names) | {"numpy", "sqlbuffer", "__future__"}


# -- what is loaded when ---------------------------------------------------------------------------


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_package_is_imported_without_what_is_heavy() -> None:
    heavy = [
        "torch",
        "alembic",
        "pandas",
        "pyarrow",
        "psycopg",
        "typer",
        "matplotlib",
        "scipy",
        "rdkit",
    ]
    loaded = python(f"import sys, sqlbuffer; print(*sorted(set({heavy}) & set(sys.modules)))")
    assert loaded.split() == []


@pytest.mark.slow
def test_a_store_of_strings_works_without_torch(tmp_path: pathlib.Path) -> None:
    code = """
import sys, sqlbuffer
for _ in range(2):
    with sqlbuffer.open_store(sys.argv[1]) as store:
        store.add(["a", ("b", 1)])
        store.score(lambda samples: [1.0] * len(samples))
        store.sample(1).settle([1.0])
print(*sorted({"torch", "pandas", "psycopg"} & set(sys.modules)))
"""
    assert python(code, f"sqlite:///{tmp_path}/x.db").split() == []


# Every name that 0.3.0 documents, by the path at which 0.3.0 has it.
OLD_PATHS = """
    sqlbuffer AddResult Batch Buffer BufferSizeCallback Callback Checkpoint DatasetSampler
    sqlbuffer EnsembleAgent Environment ExpectedImprovement FunctionSampler Log Power
    sqlbuffer PredictiveAgent PredictiveBuffer RewardCallback SampleInfo SampleStore Sampler Shift
    sqlbuffer Softmax SqlBufferError Stats ThompsonSampling Uniform UpperConfidenceBound
    sqlbuffer WeightedBuffer open_store register
    sqlbuffer.errors BufferNotFound ClaimLost DatabaseUnavailable ForeignDatabase
    sqlbuffer.errors InconsistentDatabase InvalidArgument InvalidPayload InvalidReward LeaseLost
    sqlbuffer.errors MissingExtra SchemaMismatch SchemaTooNew SchemaTooOld SettingsMismatch
    sqlbuffer.errors SqlBufferError StaleIds TooLarge TrainingDiverged UnsupportedType
    sqlbuffer.hashing canonical_bytes digest digests register
    sqlbuffer.predictor PredictiveAgent evaluate predict
    sqlbuffer.race Power Shift Softmax Uniform Weighting exponentials inclusion_probability
    sqlbuffer.records AddResult SampleInfo Staleness Stats
    sqlbuffer.retraining measure retrain split
    sqlbuffer.store SampleStore open_store
    sqlbuffer.training BatchState Buffer BufferSizeCallback Callback Checkpoint DatasetSampler
    sqlbuffer.training Environment FunctionSampler Log PredictiveBuffer RewardCallback Sampler
    sqlbuffer.training WeightedBuffer
"""


def test_old_import_paths_give_the_same_objects() -> None:
    for line in OLD_PATHS.split("\n")[1:-1]:
        path, *names = line.split()
        module = importlib.import_module(path)
        for name in names:
            found = getattr(module, name)
            assert found is getattr(importlib.import_module(found.__module__), name), (
                f"{path}.{name}"
            )


@pytest.mark.slow
def test_every_public_name_is_there() -> None:
    code = """
import sqlbuffer
assert set(sqlbuffer.__all__) <= set(dir(sqlbuffer))  # before any is imported
missing = [name for name in sqlbuffer.__all__ if not hasattr(sqlbuffer, name)]
assert not missing, missing
assert not hasattr(sqlbuffer, "nope")
"""
    python(code)


@pytest.mark.slow
def test_the_package_loads_no_database_until_it_is_used() -> None:
    code = """
import sys, sqlbuffer
assert not {"sqlalchemy", "numpy", "cbor2"} & set(sys.modules)
assert sqlbuffer.records.Stats is sqlbuffer.Stats
assert sqlbuffer.store.open_store is sqlbuffer.open_store
assert "sqlalchemy" in sys.modules
"""
    python(code)


def test_the_public_names_are_those_of_the_design() -> None:
    import sqlbuffer

    promised = """
        Buffer WeightedBuffer PredictiveBuffer BufferSizeCallback
        Callback Environment Log Sampler DatasetSampler FunctionSampler RewardCallback
        PredictiveAgent SampleStore open_store
    """
    assert set(promised.split()) <= set(sqlbuffer.__all__)
    assert "errors" in sqlbuffer.__all__


def test_every_extra_that_a_message_names_is_there() -> None:
    """A way out that pip does not know is none."""
    known = set(importlib.metadata.metadata("sqlbuffer").get_all("Provides-Extra") or [])
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for file in [*FILES, *pages]:
        named = re.findall(r"sqlbuffer\[([\w,]+)\]", file.read_text())
        assert {name for names in named for name in names.split(",")} <= known, file
