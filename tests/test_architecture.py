"""The rules of the house, read off the source: who imports whom, what is documented, how functions take arguments."""

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sel

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "sel").rglob("*.py"))
PROGRAMS = sorted([*(ROOT / "experiments").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])

# Rooms import only from rooms of lower ranks, and from no other room of their own.
ORDER = (
    ("errors", "types"),
    ("choices", "extras", "files"),
    ("digests", "lock"),
    ("entropy", "diffusion", "models", "metrics", "images", "camera"),
    ("interop",),
    ("objective", "restoration"),
    ("data",),
    ("training",),
    ("restorer",),
    ("scoring",),
    ("cli",),
)
RANKS = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# Where files may be read or written.
ON_DISK = ("sel/cli/", "sel/data/", "sel/digests.py", "sel/files.py", "sel/images/", "sel/interop/", "sel/lock.py")
ON_DISK += ("sel/restorer.py", "sel/scoring/")
ON_DISK += tuple(
    f"sel/training/{n}.py" for n in ("checkpoint", "fine_tuning", "images_seen", "loop", "record", "run_checkpoints")
)

PACKAGES = ["sel", *(f"sel.{room.name}" for room in pkgutil.iter_modules(sel.__path__))]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, at its top or inside functions; for `from a import b` both `a` and `a.b`."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(path: Path) -> set[str]:
    parts = [name.split(".") for name in imports(path) if name.startswith("sel.")]
    return {part[1] for part in parts if part[1] in RANKS}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [path for path in SOURCES if path != ROOT / "sel" / "__init__.py"], ids=name_of)
def test_imports_go_upwards_only(path):
    room = path.relative_to(ROOT / "sel").parts[0].removesuffix(".py")
    assert room in RANKS, f"the room {room} has no rank"
    for other in rooms(path) - {room}:
        assert RANKS[other] < RANKS[room], f"{room} imports {other}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_library_knows_no_programs_flags_or_other_array_libraries(path):
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"experiments", "configs", "benchmarks", "tests", "tensorflow"}
    if not name_of(path).startswith("sel/cli/"):
        assert not tops & {"absl", "ml_collections", "rich"}


def test_programs_import_no_programs():
    programs = {f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("*.py")} - {"experiments.__init__"}
    programs |= {f"sel.cli.{name}" for name in ("enhance", "evaluate", "app", "export", "convert")}
    for path in [*SOURCES, *PROGRAMS]:
        assert not imports(path) & programs, path


def test_configurations_import_nothing_but_their_library_and_each_other():
    pure = {"collections", "itertools", "math", "random", "typing"}
    for path in (ROOT / "configs").rglob("*.py"):
        if path.stem == "config_dict":  # makes them of the library's classes
            continue
        allowed = {"ml_collections", "configs"} | (pure if path.stem == "space" else set())
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_disk_is_touched_in_few_places(path):
    if name_of(path).startswith(ON_DISK):
        return
    assert not {name.split(".")[0] for name in imports(path)} & {"os", "io", "pathlib", "shutil", "tempfile"}
    assert "open" not in called(path)


def called(path: Path) -> set[str]:
    calls = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    return {function.id for function in calls if isinstance(function, ast.Name)}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_library_does_not_print_and_annotations_are_real(path):
    assert "print" not in called(path) or name_of(path).startswith("sel/cli/")
    # jaxtyping checks annotations that exist when the program runs.
    assert "__future__" not in imports(path)


@pytest.mark.parametrize("path", [*SOURCES, *PROGRAMS], ids=name_of)
def test_functions_are_short(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            statements = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - statements[0].lineno + 1 if statements else 0
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_import_is_light():
    """No flags, no disk formats, no TensorFlow: `import sel` costs jax and nothing else."""
    heavy = ["absl", "flax", "grain", "ml_collections", "optax", "orbax", "PIL", "rich", "skimage", "torch"]
    script = f"import sel, sys, json; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_rooms_open_when_they_are_named():
    assert sel.diffusion is importlib.import_module("sel.diffusion")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sel.nothing


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "sel.py"])
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), name
    names = getattr(module, "__all__", [])
    for public in names:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{name}.{public}"


def public_functions():
    for package in PACKAGES:
        module = importlib.import_module(package)
        members = getattr(module, "__all__", None) or [n for n, f in vars(module).items() if inspect.isfunction(f)]
        for name in members:
            function = getattr(module, name)
            if inspect.isfunction(function) and not name.startswith("_") and function.__module__.startswith("sel."):
                yield pytest.param(function, id=f"{package}.{name}")


# Functions whose last arguments explain themselves without a name.
POSITIONAL_DEFAULTS = {
    "batches",
    "check_digests",
    "load_pairs",
    "make_schedule",
    "read_images",
    "sample_neighbor_weights",
}


@pytest.mark.parametrize("function", list(public_functions()))
def test_random_keys_come_first_and_options_have_names(function):
    parameters = list(inspect.signature(function).parameters.values())
    keys = [i for i, parameter in enumerate(parameters) if parameter.name == "key"]
    assert keys in ([], [0])
    if function.__name__ not in POSITIONAL_DEFAULTS:
        positional = [p.name for p in parameters if p.default is not p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == []
