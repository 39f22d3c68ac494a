"""What the documentation shows has to work."""

import doctest
import re
from pathlib import Path

from experiments.run.reference import reference

ROOT = Path(__file__).parents[1]


def test_the_page_of_keys_is_up_to_date():
    """`python -m experiments.summary --keys > docs/configuration.md` writes it."""
    assert (ROOT / "docs/configuration.md").read_text() == reference()


def test_the_example_of_the_loss_page_runs():
    result = doctest.testfile(str(ROOT / "docs/loss.md"), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


def test_links_between_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+\.\w+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
