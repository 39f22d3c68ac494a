"""What the documentation shows has to work."""

import doctest
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

import sel
from docs import api
from experiments.run.reference import reference

ROOT = Path(__file__).parents[1]


def test_the_page_of_keys_is_up_to_date():
    """`python -m experiments.summary --keys > docs/configuration.md` writes it."""
    assert (ROOT / "docs/configuration.md").read_text() == reference()


@pytest.mark.parametrize("page", ["loss.md", "lowlight.md"])
def test_the_example_of_a_page_runs(page):
    result = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert result.attempted > 4
    assert result.failed == 0


def test_links_between_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+\.\w+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_pages_of_public_functions_are_those_of_their_docstrings():
    """`python -m docs.api` writes them."""
    assert {path.name: path.read_text() for path in (ROOT / "docs/api").glob("*.md")} == api.pages()


@pytest.mark.parametrize("module", api.MODULES)
def test_the_example_of_each_public_function_runs(module):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for name, value in api.public(importlib.import_module(module)).items():
        (test,) = finder.find(value, f"{module}.{name}", globs={})
        assert test.examples or inspect.isclass(value), f"{module}.{name} has no Examples"
        runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.usefixtures("compile_little")
def test_the_cells_of_the_tour_run_in_order():
    """Without a kernel: its cells are plain Python, and what they define is there for the next."""
    notebook, names = json.loads((ROOT / "docs/tour.ipynb").read_text()), {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"docs/tour.ipynb, {cell['id']}", "exec"), names)
    psnr, as_array, pair = sel.metrics.psnr, names["as_array"], names["pair"]
    before, after = (psnr(as_array(image), as_array(pair.x0)) for image in (pair.mu, names["enhanced"]))
    assert after > before + 5
    assert all(abs(names["params"][name] - true) < 0.3 for name, true in (("gain", 2.5), ("offset", -0.05)))
