"""The pages in docs/api: one for each public function and class, made of its docstring.

    python -m docs.api

writes them. `tests/test_docs.py` runs their examples and compares the pages with the docstrings.
"""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
MODULES = ("sel", "sel.diffusion", "sel.objective", "sel.metrics")


def public(module: ModuleType) -> dict[str, Any]:
    """Public functions and classes of a module, by name, in the order of its `__all__`."""
    named = {name: getattr(module, name) for name in module.__all__}
    return {name: value for name, value in named.items() if inspect.isroutine(value) or inspect.isclass(value)}


def pages() -> dict[str, str]:
    """The text of every page, by file name; README.md is their index."""
    found, index = {}, ["# Public functions and classes", ""]
    index += [
        "Each page gives arguments, shapes, errors and, for functions, an example that a test runs. From docstrings,"
    ]
    index += ["by `python -m docs.api`.", ""]
    for name in MODULES:
        module = importlib.import_module(name)
        index += [f"## `{name}`", "", inspect.getdoc(module).split("\n\n")[0], ""]  # type: ignore[union-attr]
        for own, value in public(module).items():
            found[f"{name}.{own}.md"] = page(f"{name}.{own}", value)
            index.append(f"- [{own}]({name}.{own}.md): {_summary(value)}")
        index.append("")
    return {"README.md": "\n".join(index), **found}


def page(title: str, value: Any) -> str:
    """One page: what it is called, how it is called, and what its docstring says."""
    source = inspect.unwrap(value)
    path = Path(inspect.getsourcefile(source)).relative_to(ROOT)  # type: ignore[arg-type]
    parts = [f"# `{title}`", f"[{path}](../../{path})", _signature(source), markdown(inspect.getdoc(source) or "")]
    if inspect.isclass(source):
        for name, member in vars(source).items():
            method = inspect.unwrap(getattr(member, "__func__", member))
            if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_")) and method.__doc__:
                parts += [f"## `{name}`", _signature(method), markdown(inspect.getdoc(method) or "")]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(docstring: str) -> str:
    """A Google-style docstring as Markdown; what is indented, such as formulas, already is a block there."""
    lines, section = [], ""
    for line in docstring.splitlines():
        if heading := re.fullmatch(r"(Args|Attributes|Returns|Raises|Examples):", line):
            section = heading[1]
            lines += [f"**{'Arguments' if section == 'Args' else section}**", ""]
        elif section and line and not line.startswith(" "):
            section = ""
            lines.append(line)
        elif section in ("Args", "Attributes", "Raises"):
            lines.append(_item(line))
        elif section == "Returns":
            lines.append(line.lstrip())
        else:
            lines.append(line)
    return re.sub(r"\*\*Examples\*\*\n\n((?:  .*\n|\n)*  .*)", _code, "\n".join(lines))


def _item(line: str) -> str:
    """`  name: text` begins an item; deeper lines go on with it."""
    return re.sub(r"^ {2,4}(?! )(\*{0,2}[\w.]+):", r"- `\1`:", line)


def _code(match: re.Match) -> str:
    return f"**Examples**\n\n```python\n{textwrap.dedent(match[1])}\n```"


def _summary(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


def _signature(value: Any) -> str:
    """The function as its source writes it, with the names of its types."""
    if not inspect.isfunction(value):
        return ""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    assert isinstance(function, ast.FunctionDef)
    function.body, function.decorator_list = [ast.Expr(ast.Constant(...))], []
    function.args.args = [one for one in function.args.args if one.arg not in ("self", "cls")]
    head = ast.unparse(function).split("\n")[0].removeprefix("def ").removesuffix(":")
    if len(head) > 100:
        head = f"{function.name}(\n" + "".join(f"    {ast.unparse(one)},\n" for one in _each(function.args))
        head += ")" + (f" -> {ast.unparse(function.returns)}" if function.returns else "")
    return f"```python\n{head}\n```"


def _each(arguments: ast.arguments) -> list[ast.arguments]:
    """Every argument by itself, and the mark between positional and keyword arguments."""
    empty = {"posonlyargs": [], "args": [], "kwonlyargs": [], "kw_defaults": [], "defaults": []}
    none = [None] * (len(arguments.args) - len(arguments.defaults))
    single = [
        ast.arguments(**{**empty, "args": [a], "defaults": [d] if d else []})
        for a, d in zip(arguments.args, none + arguments.defaults, strict=True)
    ]
    if arguments.kwonlyargs:
        single.append(ast.arguments(**{**empty, "args": [ast.arg("*")]}))
    single += [
        ast.arguments(**{**empty, "args": [a], "defaults": [d] if d else []})
        for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return single + ([ast.arguments(**empty, kwarg=arguments.kwarg)] if arguments.kwarg else [])


def main() -> None:
    """Write the pages, and remove those of what is no longer there."""
    folder, written = ROOT / "docs/api", pages()
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in written:
            old.unlink()
    for name, text in written.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
