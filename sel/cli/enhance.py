"""Enhance a photograph, all photographs below a folder, or those that a pattern matches, with a trained model.

    sel enhance --checkpoint=runs/quickstart --input=night.jpg --output=night_bright.png
    sel enhance --checkpoint=runs/quickstart --input=FOLDER --output=NEW_FOLDER
    sel enhance --checkpoint=runs/quickstart --input='holidays/**/*.jpg' --output=NEW_FOLDER

The end of the name decides the format: JPEG, PNG, WebP or TIFF. A folder keeps its structure and its names, but for
formats that are not written, which become PNG. Photographs of any size keep 16 bits, one grey channel, transparency,
EXIF and colour profile as far as the format holds them. Files that exist are not overwritten without --overwrite.
"""

from pathlib import Path

import jax
from absl import flags

from sel.cli.arguments import define_path, refuse_unused
from sel.cli.console import require, run
from sel.cli.jobs import Job, passed_over_line, plan
from sel.cli.waiting import PhotographProgress
from sel.diffusion import SAMPLERS
from sel.errors import UserError
from sel.files import make_folder
from sel.images import MAX_MEGAPIXELS, TooLargeError, read_photograph
from sel.images.writing import check_format, write_photograph
from sel.restorer import Restorer

_CHECKPOINT = define_path("checkpoint", "", "Folder of a training run, or one of its checkpoints.")
_INPUT = define_path("input", "", "Photograph, folder of photographs, or pattern such as 'photos/**/*.jpg'.")
_OUTPUT = define_path("output", "", "File to write, or folder if --input is a folder or a pattern.")
_METHOD = flags.DEFINE_enum("method", None, list(SAMPLERS), "Sampler; by default that of the checkpoint.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of the sampler; by default those of the checkpoint.", lower_bound=1)
_TILE = flags.DEFINE_integer("tile", None, "Largest side of what is computed at a time, a multiple of 64; default 640.")
_DEVICE = flags.DEFINE_enum("device", None, ["cpu", "gpu", "tpu"], "Where to compute; by default the fastest there is.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sampler's noise; the same seed repeats the same result.")
_ENSEMBLE = flags.DEFINE_bool("self_ensemble", False, "Mean over the eight ways to turn and mirror: 8 times the work.")
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels", MAX_MEGAPIXELS, "Largest photograph that is read, in millions of pixels.", lower_bound=0
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that exist.")
_RESUME = flags.DEFINE_bool("resume", False, "Pass over photographs whose result exists.")

# Problems that the last line names; each is shown when it occurs, too.
_NAMED = 3


def main() -> None:
    """Enhance every input; go on after a bad file and name it at the end."""
    refuse_unused(["overwrite"], unless=not _RESUME.value, reason="with --resume, which leaves existing files alone")
    choose_device(_DEVICE.value)
    todo = plan(_INPUT.value, Path(_OUTPUT.value), overwrite=_OVERWRITE.value, resume=_RESUME.value)
    jobs, problems = todo.jobs, todo.problems
    restorer = Restorer.from_checkpoint(
        _CHECKPOINT.value,
        seed=_SEED.value,
        method=_METHOD.value,
        num_steps=_STEPS.value,
        tile=_TILE.value,
        ensemble=_ENSEMBLE.value,
    )
    total = len(jobs) + len(problems)
    with PhotographProgress(len(jobs)) as progress:
        if todo.passed_over:
            progress.print(passed_over_line(todo.passed_over))
        for job in jobs:
            try:
                enhance(restorer, job, progress)
            except UserError as error:
                problems.append(error)
                if total > 1:
                    progress.print(f"left out: {error}")
            progress.finish()
    if problems:
        count = f"{len(problems)} of {total} photographs failed: " if total > 1 else ""
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise UserError(count + "; ".join(map(str, problems[:_NAMED])) + more)


def enhance(restorer: Restorer, job: Job, progress: PhotographProgress) -> None:
    """Read, enhance, write.

    Raises:
      UserError: names what went wrong and where.
    """
    try:
        photograph = read_photograph(job.source, max_megapixels=_MAX_MEGAPIXELS.value)
    except TooLargeError as error:
        raise UserError(f"{error}; --max_megapixels raises it") from None
    check_format(job.target, photograph)  # before the work
    make_folder(job.target.parent)
    progress.begin(job.source)
    try:
        enhanced = restorer.enhance(photograph.intensities(), progress)
    except UserError as error:
        raise UserError(f"{job.source}: {error}") from None
    write_photograph(job.target, photograph.replaced(enhanced))
    progress.print(f"{job.source} -> {job.target}" + (f" ({photograph.note})" if photograph.note else ""))


def choose_device(name: str | None) -> None:
    """Compute on a kind of device.

    Raises:
      UserError: if there is none.
    """
    if name is None:
        return
    jax.config.update("jax_platforms", name)
    try:
        jax.devices()
    except RuntimeError:
        raise UserError(
            f"--device={name}: there is no such device, or JAX is installed without support for it"
        ) from None


def start() -> None:
    """Parse the command line and run."""
    require("checkpoint", "input", "output")
    run(main)
