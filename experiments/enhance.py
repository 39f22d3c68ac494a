"""Enhance a photograph, or all photographs of a folder, with a trained model.

    python -m experiments.enhance --checkpoint=runs/quickstart --input=night.jpg --output=night_bright.png
    python -m experiments.enhance --checkpoint=runs/quickstart --input=FOLDER --output=NEW_FOLDER

The result is PNG. Files that exist are not overwritten without --overwrite.
"""

from collections import Counter
from pathlib import Path

from absl import flags

from experiments.console import console, require, run, with_progress
from experiments.scoring import Restorer, make_folder
from sel.data import list_images, read_image, write_png
from sel.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Folder of a training run, or one of its checkpoints.")
_INPUT = flags.DEFINE_string("input", "", "Photograph, or folder of photographs.")
_OUTPUT = flags.DEFINE_string("output", "", "PNG file to write, or folder if --input is one.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sampler's noise; the same seed repeats the same result.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that exist.")


def main() -> None:
    """Enhance every input; go on after a bad file and name it at the end."""
    jobs = plan(Path(_INPUT.value), Path(_OUTPUT.value), overwrite=_OVERWRITE.value)
    restorer = Restorer.from_checkpoint(_CHECKPOINT.value, _SEED.value)
    failures = []
    for source, target in with_progress(jobs, "enhancing"):
        try:
            image = read_image(source)
        except UserError as error:
            failures.append(str(error))
            continue
        make_folder(target.parent)
        write_png(target, restorer(image))
        console.print(f"{source} -> {target}")
    if failures:
        count = f"{len(failures)} of {len(jobs)} photographs could not be read: " if len(jobs) > 1 else ""
        raise UserError(count + "; ".join(failures))


def plan(source: Path, output: Path, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """Which file becomes which.

    Raises:
      UserError: if the input is missing, or an output exists, is claimed twice or is no PNG.
    """
    if source.is_dir():
        if output.exists() and not output.is_dir():
            raise UserError(f"--output={output}: this is a file; for a folder of photographs, give a folder")
        jobs = [(path, output / f"{path.stem}.png") for path in list_images(source)]
    elif source.exists():
        if output.suffix.lower() != ".png":
            raise UserError(f"--output={output}: the result is PNG, so the name must end in .png")
        jobs = [(source, output)]
    else:
        raise UserError(f"--input={source}: there is no such file or folder")
    claims = Counter(target for _, target in jobs)
    for path, target in jobs:
        if claims[target] > 1:
            raise UserError(f"{path}: another photograph of the folder would be written to {target} too")
        if target.exists() and not overwrite:
            raise UserError(f"{target} exists already; choose another --output or give --overwrite")
    return jobs


if __name__ == "__main__":
    require("checkpoint", "input", "output")
    run(main)
