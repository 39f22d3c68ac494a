"""Batches: a function of (seed, step) alone, mu and x0 cut alike, every pair once an epoch, split among processes."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from sel.data import Pair, batches, large_enough, training_dataset
from sel.data.augment import Crop, cut, draw_crops, smallest_side
from sel.errors import UserError


def _pair(number: int, height: int = 12, width: int = 14) -> Pair:
    """A pair whose pixels tell where they come from: row, column, pair; x0 is mu + 1."""
    rows, columns = np.mgrid[:height, :width]
    mu = np.stack([rows, columns, np.full_like(rows, number)], -1).astype(np.uint8)
    return Pair(str(number), mu, mu + 1)


PAIRS = tuple(_pair(i, 12 + i % 3, 14 + i % 2) for i in range(5))
SETTINGS = {"batch_size": 4, "crop_size": 8, "seed": 7}


def _equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("resize_chance", [0.0, 0.5])
@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_iterating_starting_late_and_indexing_agree_bit_for_bit(prefetch, resize_chance):
    pairs = tuple(_pair(i, 16, 20) for i in range(5))
    dataset = training_dataset(pairs, resize_chance=resize_chance, **SETTINGS)
    iterator = batches(dataset, prefetch=prefetch)
    iterated = [next(iterator) for _ in range(13)]  # 52 samples: ten epochs of five
    iterator.close()
    for start in (0, 1, 4, 5, 12):
        late = batches(dataset, start, prefetch=prefetch)
        for step in range(start, 13):
            assert _equal(next(late), iterated[step])
        late.close()
    again = training_dataset(pairs, resize_chance=resize_chance, **SETTINGS)
    for step in (12, 3, 7):
        assert _equal(again[step], iterated[step])
    far = batches(dataset, 10**12, prefetch=prefetch)
    assert _equal(next(far), dataset[10**12])
    far.close()


def test_shapes_and_types_and_seed():
    batch = training_dataset(PAIRS, **SETTINGS)[0]
    assert sorted(batch) == ["index", "mu", "x0"]
    for images in (batch["mu"], batch["x0"]):
        assert images.shape == (4, 8, 8, 3)
        assert images.dtype == np.uint8
    other = training_dataset(PAIRS, **{**SETTINGS, "seed": 8})
    dataset = training_dataset(PAIRS, **SETTINGS)
    assert not any(_equal(dataset[step], other[step]) for step in range(4))
    assert not any(_equal(dataset[0], dataset[step]) for step in range(1, 4))


def test_both_images_are_cut_alike_from_one_pair():
    dataset = training_dataset(PAIRS, **SETTINGS)
    for step in range(10):
        batch = dataset[step]
        np.testing.assert_array_equal(batch["x0"], batch["mu"] + 1)
        for mu in batch["mu"].astype(int):
            assert np.ptp(mu[..., 2]) == 0
            # A square of neighbouring pixels, whole rows and columns, in one of eight orientations.
            assert sorted(np.unique(mu[..., 0], return_counts=True)[1]) == [8] * 8
            assert np.ptp(mu[..., 0]) == np.ptp(mu[..., 1]) == 7
            steps = {tuple(map(int, mu[1, 0, :2] - mu[0, 0, :2])), tuple(map(int, mu[0, 1, :2] - mu[0, 0, :2]))}
            assert {tuple(map(abs, step)) for step in steps} == {(1, 0), (0, 1)}


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_every_epoch_takes_each_pair_once_in_a_new_order(count):
    pairs = tuple(_pair(i) for i in range(count))
    dataset = training_dataset(pairs, batch_size=3, crop_size=8, seed=0)
    order = np.concatenate([dataset[step]["mu"][:, 0, 0, 2] for step in range(4 * count)])
    epochs = order.reshape(12, count)
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == {1: 1, 2: 2, 5: 12, 7: 12}[count]


def test_all_orientations_and_corners_occur_evenly():
    dataset = training_dataset((_pair(0, 9, 10),), batch_size=48, crop_size=8, seed=0)
    images = np.concatenate([dataset[step]["mu"] for step in range(50)]).astype(int)
    places = np.unique(images[..., :2].min((1, 2)), axis=0, return_counts=True)[1]
    assert len(places) == 2 * 3
    turned = np.unique((images[:, 0, 1, :2] - images[:, 0, 0, :2], images[:, 1, 0, :2] - images[:, 0, 0, :2]), axis=1)
    assert turned.shape[1] == 8
    assert np.abs(places - len(images) / 6).max() < 5 * np.sqrt(len(images) / 6)


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_processes_share_the_global_batch(process_count):
    whole = training_dataset(PAIRS, resize_chance=0.0, **SETTINGS)
    parts = [
        training_dataset(PAIRS, process_index=i, process_count=process_count, **SETTINGS) for i in range(process_count)
    ]
    for step in (0, 1, 9):
        joined = {name: np.concatenate([part[step][name] for part in parts]) for name in ("mu", "x0")}
        # Every process knows which pairs the whole batch is of.
        assert all(np.array_equal(part[step]["index"], whole[step]["index"]) for part in parts)
        assert _equal({**joined, "index": whole[step]["index"]}, whole[step])


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1), size=st.integers(1, 9), extra=st.tuples(st.integers(0, 6), st.integers(0, 6))
)
def test_crops_always_fit(seed, size, extra):
    least = smallest_side(size, 0.5)
    image = np.zeros((least + extra[0], least + extra[1], 3), np.uint8)
    for crop in draw_crops(np.random.default_rng(seed), [image.shape[:2]] * 16, size, 0.5):
        scale = 5 / 4 if crop.shrink else 1
        assert 0 <= crop.top <= (crop.top + size) * scale <= image.shape[0]
        assert 0 <= crop.left <= (crop.left + size) * scale <= image.shape[1]
        assert cut(image, crop, size).shape == (size, size, 3)


def test_a_shrunk_crop_is_a_crop_of_the_shrunk_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 55, 3), np.uint8)
    shrunk = np.asarray(Image.fromarray(image).resize((44, 32), Image.Resampling.BICUBIC))
    for top, left in ((0, 0), (3, 7), (16, 28)):
        crop = Crop(top=top, left=left, turns=0, mirror=False, shrink=True)
        # The same weights computed from another origin: one level from rounding.
        difference = cut(image, crop, 16).astype(int) - shrunk[top : top + 16, left : left + 16]
        assert np.abs(difference).max() <= 1


def test_resizing_happens_with_its_chance():
    draws = draw_crops(np.random.default_rng(0), [(40, 40)] * 4000, 8, 0.2)
    assert abs(np.mean([crop.shrink for crop in draws]) - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 4000)
    assert not any(crop.shrink for crop in draw_crops(np.random.default_rng(0), [(40, 40)] * 400, 8, 0.0))


def test_turns_and_mirror_by_definition():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for turns in range(4):
        turned = np.rot90(image, turns)
        np.testing.assert_array_equal(cut(image, Crop(0, 0, turns, False, False), 2), turned)
        np.testing.assert_array_equal(cut(image, Crop(0, 0, turns, True, False), 2), turned[:, ::-1])


def test_images_smaller_than_the_crop_are_named():
    with pytest.raises(
        UserError,
        match="2 of 5 pairs are too small for crops of 13 pixels, which need at least 13 x 13; the first is 0, 12 x 14",
    ):
        training_dataset(PAIRS, **{**SETTINGS, "crop_size": 13})
    with pytest.raises(UserError, match=r"shrunk to 0.8 \(resize_chance 0.2\), which need at least 13 x 13"):
        training_dataset(PAIRS, resize_chance=0.2, **{**SETTINGS, "crop_size": 10})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"crop_size": 0}, "crop_size"),
        ({"resize_chance": 1.5}, "resize_chance"),
        ({"resize_chance": float("nan")}, "resize_chance"),
        ({"process_index": 2, "process_count": 2}, "process_index"),
        ({"process_index": -1}, "process_index"),
        ({"process_count": 3}, "multiple of process_count"),
        ({"seed": -1}, "seed must be at least 0, found -1"),
    ],
)
def test_wrong_arguments_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        training_dataset(PAIRS, **{**SETTINGS, **wrong})


def test_no_pairs_and_negative_steps():
    with pytest.raises(ValueError, match="pairs is empty"):
        training_dataset((), **SETTINGS)
    with pytest.raises(ValueError, match="at least 0, found -1 and 4"):
        batches(training_dataset(PAIRS, **SETTINGS), -1)
    with pytest.raises(ValueError, match="at least 0, found 0 and -2"):
        batches(training_dataset(PAIRS, **SETTINGS), prefetch=-2)


def test_threads_change_neither_batches_nor_their_order():
    dataset = training_dataset(PAIRS, **SETTINGS)
    for threads in (1, 2, 5, 16):
        iterator = batches(dataset, 3, prefetch=20, threads=threads)
        for step in range(3, 30):
            assert _equal(next(iterator), dataset[step])
        iterator.close()
    with pytest.raises(ValueError, match="threads must be at least 1, found 0"):
        batches(dataset, threads=0)


@pytest.mark.parametrize("prefetch", [0, 4])
def test_the_iterator_returns_to_a_marked_place_in_the_middle_of_an_epoch(prefetch):
    pairs = tuple(_pair(i) for i in range(7))  # 7 pairs in batches of 4: no epoch ends with a batch
    iterator = batches(training_dataset(pairs, **SETTINGS), 2, prefetch=prefetch)
    next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = [next(iterator) for _ in range(5)]
    other = batches(training_dataset(pairs, **SETTINGS), 2, prefetch=prefetch)
    other.set_state(state)
    assert all(_equal(next(other), batch) for batch in rest)
    iterator.close()
    other.close()


def test_processes_resume_with_another_number_of_processes():
    """A run that goes on with half of its machines sees the global batches that it would have seen."""
    pairs = tuple(_pair(i) for i in range(7))
    parts = [training_dataset(pairs, process_index=i, process_count=2, **SETTINGS) for i in range(2)]
    iterators = [batches(part, 5) for part in parts]
    whole = batches(training_dataset(pairs, **SETTINGS), 5)
    for _ in range(6):
        pieces, batch = [next(iterator) for iterator in iterators], next(whole)
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in ("mu", "x0")}
        assert _equal({**joined, "index": pieces[1]["index"]}, batch)
    for iterator in (*iterators, whole):
        iterator.close()


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_a_shrunk_crop_does_not_depend_on_what_the_filter_does_not_reach(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (50, 60, 3), np.uint8)
    crop = Crop(int(rng.integers(0, 25)), int(rng.integers(0, 33)), 0, False, True)
    box = [1.25 * x for x in (crop.left, crop.top, crop.left + 15, crop.top + 15)]
    whole = Image.fromarray(image).resize((15, 15), Image.Resampling.BICUBIC, box=tuple(box))
    # Weights are computed from another origin, in 64 bits, and rounded to 22: one level where a sum is near a half.
    difference = cut(image, crop, 15).astype(int) - np.asarray(whole)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01


def test_pairs_smaller_than_the_crop_are_left_out_when_someone_is_told():
    problems = []
    kept = large_enough(PAIRS, crop_size=13, report=problems.append)
    assert [pair.name for pair in kept] == ["1", "2", "4"]
    assert [str(p) for p in problems] == [
        f"pair {name}, 12 x {width}, is too small for crops of 13 pixels, which need at least 13 x 13"
        for name, width in (("0", 14), ("3", 15))
    ]
    assert large_enough(PAIRS, crop_size=12) == PAIRS
    with pytest.raises(UserError, match="5 of 5 pairs are too small for crops of 40 pixels"):
        large_enough(PAIRS, crop_size=40, report=problems.append)
    assert len(problems) == 2


def test_cut_leaves_the_image_alone_and_gives_an_array_of_its_own():
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    image.flags.writeable = False
    for crop in (Crop(0, 0, 0, False, False), Crop(1, 2, 3, True, False), Crop(0, 1, 2, False, True)):
        cut(image, crop, 8)[:] = 0
