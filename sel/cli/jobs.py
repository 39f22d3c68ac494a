"""Which photograph becomes which file."""

import glob
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sel.errors import UserError
from sel.images.storage import image_tree
from sel.images.writing import FORMATS

# Files passed over that are named.
_SHOWN = 5


@dataclass(frozen=True)
class Job:
    """A photograph and the file that it becomes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
      jobs: the work.
      problems: with what else was found.
      passed_over: files of a folder whose names are none of images.
    """

    jobs: list[Job]
    problems: list[UserError]
    passed_over: list[Path]


def plan(source: str, output: Path, *, overwrite: bool, resume: bool = False) -> Plan:
    """Find the photographs and say where they go, before any work.

    Args:
      source: a file, a folder, or a pattern of file names with `*`, `?`, `[...]` or `**`.
      output: for a file, a file or a folder that exists; otherwise a folder, which gets the structure below the folder,
        or below the part of the pattern that is none. It may lie inside `source`: what is in it is no input.
      overwrite: whether targets may exist.
      resume: whether photographs whose target exists are left out.

    Raises:
      UserError: if there is no input, or a target exists, is claimed twice, is an input or can't be written.
    """
    problems: list[UserError] = []
    passed_over: list[Path] = []
    if Path(source).is_dir():
        jobs = _below(Path(source), output, problems, passed_over)
    elif os.path.lexists(source):
        if not output.is_dir() and output.suffix.lower() not in FORMATS:
            raise UserError(
                f"--output={output}: give a folder that exists or the name of a file that ends in one of "
                f"{', '.join(FORMATS)}"
            )
        photograph = Path(source)
        jobs = _named({Path(photograph.name): photograph}, output) if output.is_dir() else [Job(photograph, output)]
    elif glob.has_magic(source):
        jobs = _matching(source, output)
    else:
        raise UserError(f"--input={source}: there is no such file or folder")
    if resume:
        jobs = [job for job in jobs if not job.target.exists()]
    _check(jobs, overwrite)
    return Plan(jobs, problems, passed_over)


def _below(folder: Path, output: Path, problems: list[UserError], passed_over: list[Path]) -> list[Job]:
    _check_folder(output)
    tree = image_tree(folder, report=problems.append, passed_over=passed_over.append)
    # Paths begin with the name of the folder.
    found = {Path(*place.parts[1:]): source for place, source in tree.items() if isinstance(source, Path)}
    jobs = _outside(_named(found, output), output)
    if not jobs and not problems:
        raise UserError(f"--input={folder}: this folder holds no image" + passed_over_line(passed_over, "; "))
    return jobs


def passed_over_line(files: list[Path], begin: str = "") -> str:
    """Say how many files were passed over, and name some; nothing if there are none."""
    if not files:
        return ""
    names = ", ".join(path.name for path in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"{begin}passed over {len(files)} {'file' if len(files) == 1 else 'files'}, no images by name: {names}{more}"


def _matching(pattern: str, output: Path) -> list[Job]:
    _check_folder(output)
    parts = Path(pattern).parts
    fixed = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if not os.path.isdir(name))
    jobs = _outside(_named({path.relative_to(fixed): path for path in found}, output), output)
    if not jobs:
        raise UserError(f"--input={pattern}: no file matches this pattern")
    return jobs


def _named(found: dict[Path, Path], output: Path) -> list[Job]:
    """Photographs keep their names, but for those of formats that are not written.

    These become NAME.png or, where that would be the name of several, NAME.gif.png and the like.
    """
    names = {place: place if place.suffix.lower() in FORMATS else place.with_suffix(".png") for place in found}
    claims = Counter(names.values())
    for place, name in names.items():
        if name != place and claims[name] > 1:
            names[place] = place.with_name(f"{place.name}.png")
    return [Job(source, output / names[place]) for place, source in found.items()]


def _outside(jobs: list[Job], output: Path) -> list[Job]:
    """Without what an earlier run has written; but a folder may be its own output, which `_check` refuses by name."""
    real = os.path.realpath(output)
    inside = [job for job in jobs if os.path.realpath(job.source).startswith(real + os.sep)]
    return jobs if len(inside) == len(jobs) else [job for job in jobs if job not in inside]


def _check_folder(output: Path) -> None:
    if os.path.lexists(output) and not output.is_dir():
        raise UserError(f"--output={output}: this is a file; for several photographs, give a folder")


def _check(jobs: list[Job], overwrite: bool) -> None:
    claims = Counter(job.target for job in jobs)
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if claims[job.target] > 1:
            raise UserError(f"{job.source}: another photograph would be written to {job.target} too")
        if os.path.realpath(job.target) in sources:
            raise UserError(f"{job.target}: this is a photograph to be enhanced; choose another --output")
        if os.path.lexists(job.target) and not overwrite:
            raise UserError(f"{job.target} exists already; choose another --output, or give --overwrite or --resume")
