"""What the builders share: find pairs in a download, check each by decoding it, write them in order of their names."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from sel.data.builders.encoding import encoded
from sel.data.pairs import PairPaths
from sel.data.sources import DATASETS, missing_split, split_images, split_pairs
from sel.errors import UserError
from sel.images.storage import OnProblem, image_tree, refuse

# Told of each pair: the split, how many pairs it has, and (height, width), or None for a pair that was left out.
Observer = Callable[[str, int, tuple[int, int] | None], object]

Example = dict[str, str | bytes]

# Pairs decoded ahead of the writer: bounds memory, whatever the set.
_AHEAD = 16


def _warn(problem: UserError) -> None:
    warnings.warn(str(problem), stacklevel=2)


class PairedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A set of pairs; each example is `{"id", "low", "high"}`.

    Subclasses are named after a set in `sel.data.DATASETS`.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = ""
    CITATION = ""
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put the zip archive, or what it unpacks to, into this folder."

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | None = None,
        report: OnProblem | None = _warn,
        observer: Observer | None = None,
        file_format: str = "array_record",
        **options: Any,
    ):
        """Take what TFDS builders take, and more.

        Args:
          source: the download, a folder or a zip archive; by default the manual folder of TFDS.
          report: called with each problem; the pair is then left out. None: the first problem is raised.
          observer: called with each pair as it is written.
          file_format: format of the files; TFDS writes array_record without TensorFlow.
          **options: those of `tfds.core.GeneratorBasedBuilder`.
        """
        self._source = None if source is None else Path(source)
        self._report, self._observer = report, observer
        super().__init__(file_format=file_format, **options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{DATASETS[self.name].title}: low-light photographs and references of the same scenes.",
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(doc="Name of the pair in the download."),
                    "low": tfds.features.Image(doc="Low-light photograph."),
                    "high": tfds.features.Image(doc="Reference."),
                }
            ),
            disable_shuffling=True,
            # The ids of each split in order, so that listing a set doesn't read its images.
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterator[tuple[int, Example]]]:
        source = self._source or Path(dl_manager.manual_dir)
        images = image_tree(source, report=self._report)
        there = [split for split in DATASETS[self.name].splits if all(split_images(self.name, images, split))]
        if not there:
            raise missing_split(self.name, images, next(iter(DATASETS[self.name].splits)), source)
        found = {split: split_pairs(self.name, images, split, source, report=self._report) for split in there}
        return {split: self._generate_examples(split, pairs) for split, pairs in found.items()}

    def _generate_examples(self, split: str, pairs: Sequence[PairPaths]) -> Iterator[tuple[int, Example]]:
        ids = self.info.metadata[split] = []
        for pair, example, size in _ahead(pairs, self._report):
            if self._observer:
                self._observer(split, len(pairs), size)
            if example:
                ids.append(pair.name)
                yield len(ids) - 1, example
        if not ids:
            raise UserError(f"{pairs[0].low}: neither this pair nor any other of the {split} split can be used")


def _ahead(
    pairs: Sequence[PairPaths], report: OnProblem | None
) -> Iterator[tuple[PairPaths, Example | None, tuple[int, int] | None]]:
    """Encode pairs on several threads, a bounded number ahead; problems are reported in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(pairs), _AHEAD):
            some = pairs[start : start + _AHEAD]
            for pair, result in zip(some, pool.map(_encode, some), strict=True):
                if isinstance(result, UserError):
                    refuse(report, str(result))
                    yield pair, None, None
                else:
                    yield pair, *result


def _encode(pair: PairPaths) -> tuple[Example, tuple[int, int]] | UserError:
    try:
        pair.name.encode()
    except UnicodeEncodeError:
        return UserError(f"{pair.low}: its name is not UTF-8; rename it")
    try:
        (low, mu), (high, x0) = encoded(pair.low), encoded(pair.high)
    except UserError as error:
        return error
    if mu.shape != x0.shape:
        return UserError(f"{pair.low}: differs in size from {pair.high}")
    return {"id": pair.name, "low": low, "high": high}, (mu.shape[0], mu.shape[1])
