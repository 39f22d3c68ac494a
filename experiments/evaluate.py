"""Score a trained model on pairs: PSNR and SSIM of every image, without GT-mean scaling.

    python -m experiments.evaluate --checkpoint=runs/lol --data=LOL/val --output=lol_val.json

    python -m experiments.evaluate --checkpoint=runs/lol --dataset=lol_v2_real --data=LOL-v2 --output=lol_v2_real.json

DATA holds low/ and high/ with images of the same names, or a known set. Images that the checkpoint was trained on are
named.
"""

from pathlib import Path

from absl import flags

from experiments.console import console, require, run, score_table, with_progress
from experiments.data import warn_of_seen
from experiments.scoring import Restorer, make_folder, mean_row, scorable, score_pairs, write_json
from sel.data import find_dataset, load_pairs
from sel.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Folder of a training run, or one of its checkpoints.")
_DATA = flags.DEFINE_string("data", "", "Folder that holds low/ and high/, or --dataset.")
_DATASET = flags.DEFINE_string("dataset", "pairs", "Which set --data is, as config.data.name names them.")
_SPLIT = flags.DEFINE_string("split", "", "Part of the set; by default all pairs of a folder, or the test images.")
_OUTPUT = flags.DEFINE_string("output", "evaluation.json", "JSON file for the scores.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sampler's noise.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace --output if it exists.")


def main() -> None:
    """Score, print, write."""
    output = Path(_OUTPUT.value)
    if output.is_dir():
        raise UserError(f"--output={output} is a folder; give the name of a JSON file")
    if output.exists() and not _OVERWRITE.value:
        raise UserError(f"--output={output} exists already; choose another name or give --overwrite")
    paths = find_dataset(_DATASET.value, _DATA.value, _SPLIT.value or ("" if _DATASET.value == "pairs" else "test"))
    restorer = Restorer.from_checkpoint(_CHECKPOINT.value, _SEED.value)
    pairs = scorable(load_pairs(paths))
    seen = warn_of_seen(_CHECKPOINT.value, pairs)
    make_folder(output.parent)
    rows = [row for _, _, row in score_pairs(restorer, with_progress(pairs, "evaluating"))]
    mean = mean_row(rows)
    console.print(score_table([*rows, mean], f"{_DATA.value}, {len(pairs)} images"))
    origin = {"checkpoint": _CHECKPOINT.value, "seed": _SEED.value, "seen_in_training": seen}
    write_json(output, {**origin, "images": rows, "mean": mean})
    console.print(f"written to {output}")


if __name__ == "__main__":
    require("checkpoint", "data", "output")
    run(main)
