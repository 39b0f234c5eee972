"""Imports run one way, what differs between databases is known to one room."""

import ast
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "sqlbuffer"

FLOORS = [
    {"errors", "records"},
    {"registry"},
    {"names"},
    {
        "datasets",
        "disposal",
        "dropout",
        "files",
        "heartbeat",
        "jsonable",
        "measures",
        "plotting",
        "race",
        "retries",
        "state",
        "urls",
        "watch",
    },
    {"hashing"},
    {"rendering"},
    {"codec", "dialect"},
    {"schema"},
    {"statements"},
    {"database"},
    {"lineage", "workers"},
    {"settings", "transaction"},
    {"attachment"},
    {"leases"},
    {"progress", "schedule"},
    {"pool"},
    {"adding", "weighing"},
    {"reporting", "swapping"},
    {"batches"},
    {"attending", "claims", "refreshing", "scoring"},
    {"labels", "reading", "removing"},
    {"audit"},
    {"repair"},
    {"copying"},
    {"store"},
    {"acquisition", "predictor", "retraining"},
    {"ensemble", "jobs"},
    {"training", "inspect"},
    {"__init__", "__main__"},
]
"""From the ground up. A room imports from floors below its own; on its own floor it knows only itself."""

FLOORS_WITHIN = {
    "dialect": [
        {"base", "columns", "wal"},
        {"libraries", "options", "privileges"},
        {"postgresql", "sqlite"},
        {"__init__"},
    ],
    "statements": [{"rows"}, {"buffer", "copying", "drawing", "jobs", "pool", "samples", "scoring"}, {"__init__"}],
}
"""The same for the modules of a room that is a package. From other rooms it is entered by its `__init__` alone."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FLOOR_WITHIN = {
    room: {module: floor for floor, modules in enumerate(floors) for module in modules}
    for room, floors in FLOORS_WITHIN.items()
}
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text()) for file in FILES}


def room_of(file: pathlib.Path) -> str:
    """A module, or the package that it is part of."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def name_of(file: pathlib.Path) -> str:
    return str(file.relative_to(PACKAGE))


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import, wherever it stands, with the dotted name of what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def rooms_imported(tree: ast.AST) -> set[str]:
    """The rooms of the package that a module imports from."""
    rooms = set()
    for _, name in imports(tree):
        package, _, rest = name.partition(".")
        if package == "sqlbuffer":
            first = rest.split(".")[0]
            rooms.add(first if first in FLOOR_OF else "__init__")
    return rooms


def modules_imported(tree: ast.AST, room: str) -> set[str]:
    """The modules of a room that a module imports from; what names none of them comes from its `__init__`."""
    paths = (name.split(".") for _, name in imports(tree))
    firsts = {"".join(path[2:3]) for path in paths if path[:2] == ["sqlbuffer", room]}
    return {first if first in FLOOR_WITHIN[room] else "__init__" for first in firsts}


def functions(tree: ast.AST) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_imports_run_downwards() -> None:
    for file, tree in TREES.items():
        room = room_of(file)
        assert room in FLOOR_OF, f"put {room} on its floor"
        upwards = {other for other in rooms_imported(tree) if other != room and FLOOR_OF[other] >= FLOOR_OF[room]}
        assert not upwards, f"{name_of(file)} imports {upwards} from its own floor or from above"


def test_imports_run_downwards_within_a_room() -> None:
    for file, tree in TREES.items():
        room, module = room_of(file), file.stem
        if room in FLOOR_WITHIN:
            floors = FLOOR_WITHIN[room]
            assert module in floors, f"put {module} on its floor of {room}"
            upwards = {other for other in modules_imported(tree, room) if floors[other] >= floors[module]}
            assert not upwards, f"{name_of(file)} imports {upwards} from its own floor of {room} or from above"
        for other in FLOOR_WITHIN.keys() - {room}:
            inside = modules_imported(tree, other) - {"__init__"}
            assert not inside, f"{name_of(file)} reaches into {other} for {inside}"


def test_rooms_of_the_edge_do_not_import_in_circles() -> None:
    """Within training and inspect, too, modules can be put into an order."""
    for package in ("training", "inspect"):
        files = {file.stem: file for file in (PACKAGE / package).glob("*.py") if file.stem != "__init__"}
        needs = {
            name: {
                imported.split(".")[2]
                for _, imported in imports(ast.parse(file.read_text()))
                if imported.startswith(f"sqlbuffer.{package}.")
            }
            & set(files)
            for name, file in files.items()
        }
        # `from sqlbuffer.cli import output` names the module last.
        done: set[str] = set()
        while ready := {name for name in files if name not in done and needs[name] - {name} <= done}:
            done |= ready
        assert done == set(files), f"{set(files) - done} import each other"


def test_one_room_knows_the_databases() -> None:
    for file, tree in TREES.items():
        if room_of(file) == "dialect":
            continue
        named = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if (isinstance(node, ast.Constant) and node.value in ("sqlite", "postgresql", "postgres"))
            or (isinstance(node, ast.Attribute) and node.attr == "name" and ast.unparse(node).endswith("dialect.name"))
            or (isinstance(node, ast.keyword) and re.match(r"(sqlite|postgresql)_", node.arg or ""))
        ]
        drivers = [name for _, name in imports(tree) if re.match(r"sqlite3|psycopg|sqlalchemy\.dialects", name)]
        assert not named + drivers, name_of(file)


def test_only_what_learns_imports_torch() -> None:
    for file, tree in TREES.items():
        found = [node for node, name in imports(tree) if name.split(".")[0] in ("torch", "safetensors")]
        if room_of(file) in ("datasets", "dropout", "ensemble", "predictor", "state", "training"):
            continue
        lazily = {node for function in functions(tree) for node, _ in imports(function)}
        allowed = lazily if room_of(file) in ("codec", "hashing") else set()
        assert set(found) <= allowed, name_of(file)


def test_manners() -> None:
    """No print, no assert, no pickle but where a user asked for it, no seeding of what belongs to the user."""
    seeding = {"random.seed", "np.random.seed", "numpy.random.seed", "torch.manual_seed"}
    for file, tree in TREES.items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & (seeding | {"eval", "exec", "print"}), name_of(file)
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], name_of(file)
        if file.name != "codec.py":
            pickles = [name for _, name in imports(tree) if name.split(".")[0] in ("pickle", "dill", "cloudpickle")]
            assert not pickles, name_of(file)


def test_statements_are_built_in_one_place_and_executed_in_others() -> None:
    files = [file for file in FILES if room_of(file) == "statements"]
    assert files
    for file in files:
        attributes = {node.attr for node in ast.walk(TREES[file]) if isinstance(node, ast.Attribute)}
        assert not attributes & {"execute", "scalars", "exec_driver_sql", "begin", "connect"}, name_of(file)


def test_the_arithmetic_knows_no_database() -> None:
    packages = {name.split(".")[0] for _, name in imports(ast.parse((PACKAGE / "race.py").read_text()))}
    assert packages <= set(sys.stdlib_module_names) | {"numpy", "sqlbuffer", "__future__"}


# -- what is loaded when ----------------------------------------------------------------------------------------------


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_imported_without_what_is_heavy() -> None:
    heavy = ["torch", "alembic", "pandas", "pyarrow", "psycopg", "typer", "matplotlib", "scipy", "rdkit"]
    loaded = python(f"import sys, sqlbuffer; print(*sorted(set({heavy}) & set(sys.modules)))")
    assert loaded.split() == []


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


def test_every_public_name_is_there() -> None:
    code = """
import sqlbuffer
missing = [name for name in sqlbuffer.__all__ if not hasattr(sqlbuffer, name)]
assert not missing, missing
assert not hasattr(sqlbuffer, "nope")
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
