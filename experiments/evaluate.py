"""Score a trained model on pairs: PSNR and SSIM of every image, without GT-mean scaling.

    python -m experiments.evaluate --checkpoint=runs/lol --data=LOL/val --output=lol_val.json

DATA holds low/ and high/ with images of the same names.
"""

from pathlib import Path

from absl import flags

from experiments.console import console, run, score_table
from experiments.scoring import Restorer, mean_row, score_pairs, with_progress, write_json
from sel.data import find_pairs, load_pairs
from sel.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a training run, or one of its checkpoints.")
_DATA = flags.DEFINE_string("data", None, "Folder that holds low/ and high/.")
_OUTPUT = flags.DEFINE_string("output", "evaluation.json", "JSON file for the scores.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sampler's noise.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace --output if it exists.")
flags.mark_flags_as_required(["checkpoint", "data"])


def main() -> None:
    """Score, print, write."""
    output = Path(_OUTPUT.value)
    if output.exists() and not _OVERWRITE.value:
        raise UserError(f"--output={output} exists already; choose another name or give --overwrite")
    paths = find_pairs(_DATA.value)
    restorer = Restorer.from_checkpoint(_CHECKPOINT.value, _SEED.value)
    pairs = load_pairs(paths)
    rows = [row for _, _, row in score_pairs(restorer, with_progress(pairs, "evaluating"))]
    rows.append(mean_row(rows))
    console.print(score_table(rows, f"{_DATA.value}, {len(pairs)} images"))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, {"checkpoint": _CHECKPOINT.value, "seed": _SEED.value, "images": rows[:-1], "mean": rows[-1]})
    console.print(f"written to {output}")


if __name__ == "__main__":
    run(main)
