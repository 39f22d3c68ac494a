"""The import rule, and what importing the package may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = {"entropy", "diffusion", "models", "data", "metrics", "interop"}
BASE = {"types", "errors"}
ALLOWED = {
    "types": set(),
    "errors": set(),
    **dict.fromkeys(LEAVES, BASE),
    "interop": BASE | {"models"},
    "objective": BASE | LEAVES,
    "restoration": BASE | LEAVES,
    "training": BASE | LEAVES | {"objective", "restoration"},
}


def rooms_imported(path):
    """Rooms of `sel` that a file imports, and other top-level modules."""
    rooms, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "sel":
                names = [f"sel.{alias.name}" for alias in node.names]
        for name in names:
            top, *rest = name.split(".")
            if top == "sel" and rest:
                rooms.add(rest[0])
            elif top != "sel":
                others.add(top)
    return rooms, others


def test_rooms_import_only_what_lies_below_them():
    for path in sorted((ROOT / "sel").rglob("*.py")):
        room = path.relative_to(ROOT / "sel").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        rooms, others = rooms_imported(path)
        assert rooms - {room} <= ALLOWED[room], f"{path} imports {rooms - {room} - ALLOWED[room]}"
        assert not others & {"experiments", "configs", "tests", "benchmarks"}, path


def test_configs_import_ml_collections_and_their_default_only():
    for path in (ROOT / "configs").glob("*.py"):
        rooms, others = rooms_imported(path)
        assert not rooms, path
        assert others <= {"ml_collections", "configs"}, path


def test_the_package_prints_nothing_and_defines_no_flags():
    for path in (ROOT / "sel").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"), path
        assert "absl" not in rooms_imported(path)[1], path


def test_importing_sel_is_light():
    code = (
        "import sys, sel; heavy = {'flax', 'orbax', 'grain', 'tensorflow', 'absl.flags', 'PIL', 'skimage', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("room", sorted(LEAVES))
def test_everything_offered_is_documented(room):
    module = __import__(f"sel.{room}", fromlist=["__all__"])
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"sel.{room}.{name} has no docstring"
