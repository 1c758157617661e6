"""The order of the examples and the flip: pure functions, so properties say all about them. No torch, no dataset."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdgen import rng
from mmdgen.errors import ConfigError
from mmdgen.geometry import quaternion_matrix
from mmdgen.pose.vocabulary import THA1
from mmdgen.train.flip import flip_flow, flip_picture, flip_pose, is_flipped, mirror_of
from mmdgen.train.order import DEFAULT_BUFFER, Sequencer, choose, epoch_order

pytestmark = pytest.mark.train

SIZES = st.lists(st.integers(0, 9), max_size=8)
SEEDS = st.integers(0, 2**40)
BUFFERS = st.integers(0, 60)


# --- one epoch ---


@given(SIZES, SEEDS, st.integers(0, 1000), BUFFERS)
def test_an_epoch_is_a_permutation_and_pure(sizes, seed, epoch, buffer):
    order = epoch_order(sizes, seed, epoch, buffer)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    assert np.array_equal(order, epoch_order(tuple(sizes), seed, epoch, buffer))


def test_seeds_and_epochs_differ():
    orders = {tuple(epoch_order([20] * 5, seed, epoch, 30)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_order_is_the_same_for_ever():
    # A run that was interrupted under an older version goes on with the same examples.
    assert epoch_order([4, 3, 5], 7, 2, 4).tolist() == [10, 4, 9, 11, 6, 5, 0, 1, 2, 3, 7, 8]
    assert epoch_order([4, 3, 5], 7, 2, 100).tolist() == [9, 10, 6, 7, 8, 4, 11, 3, 2, 0, 1, 5]


def shard_of(order: np.ndarray, sizes: list[int]) -> np.ndarray:
    return np.searchsorted(np.cumsum(sizes), order, side="right")


@given(SIZES, SEEDS, st.integers(0, 1))
def test_without_a_buffer_shards_stay_whole(sizes, seed, buffer):
    if sum(sizes) <= buffer:
        return
    order = epoch_order(sizes, seed, 0, buffer)
    runs = [list(run) for _, run in itertools.groupby(order.tolist(), lambda i: int(shard_of(np.array([i]), sizes)[0]))]
    assert len(runs) == sum(size > 0 for size in sizes)
    assert all(run == list(range(run[0], run[0] + len(run))) for run in runs)


def test_shards_are_shuffled_evenly():
    firsts = [int(epoch_order([2] * 5, seed, 0, 0)[0]) // 2 for seed in range(1000)]
    assert all(150 <= count <= 250 for count in np.bincount(firsts, minlength=5))  # 200 +- 4 sigma


def test_a_buffer_as_large_as_the_epoch_gives_every_order():
    orders = [tuple(epoch_order([1, 2, 1], seed, 0, 4)) for seed in range(2400)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 2400
    assert sum((count - 100) ** 2 / 100 for count in counts) < 50  # chi-squared of 23 degrees: 0.1 % beyond 49.7


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), SEEDS, st.integers(0, 40), st.integers(1, 20))
def test_a_window_comes_from_a_short_stretch_of_the_ring(sizes, seed, buffer, window):
    total = sum(sizes)
    if buffer >= total:
        return
    order = epoch_order(sizes, seed, 3, buffer)
    ring = epoch_order(sizes, seed, 3, 0)
    place = np.empty(total, np.int64)
    place[ring] = np.arange(total)
    wrapped = np.concatenate([order, order[: window - 1]])
    for start in range(total):
        seen = np.sort(place[wrapped[start : start + window]])
        widest_gap = max(np.diff(seen, append=seen[0] + total))
        assert total - widest_gap + 1 <= window + 2 * buffer


def test_locality_and_mixing_of_a_large_epoch():
    size, buffer, batch = 256, 1024, 25
    sizes = [size] * 64
    order = epoch_order(sizes, 5, 0, buffer)
    ring = epoch_order(sizes, 5, 0, 0)
    total = len(order)
    place = np.empty(total, np.int64)
    place[ring] = np.arange(total)
    # Locality: no batch touches more shards than the bound says, and a full shuffle touches many more.
    bound = math.ceil((batch + 2 * buffer - 1) / size) + 1
    shards = shard_of(order, sizes)
    most = max(len(set(shards[start : start + batch])) for start in range(0, total, batch))
    assert most <= bound
    whole = shard_of(epoch_order(sizes, 5, 0, total), sizes)
    assert min(len(set(whole[start : start + batch])) for start in range(0, total - batch, batch)) > most
    # Mixing: samples move by a quarter of the buffer on average, in the first and the last tenth as everywhere.
    moved = (place[order] - np.arange(total) + total // 2) % total - total // 2
    moved = np.abs(moved - np.median(moved))
    assert moved.mean() == pytest.approx(buffer / 4, rel=0.15)
    for tenth in np.array_split(moved, 10):
        assert tenth.mean() == pytest.approx(buffer / 4, rel=0.3)
    # What it is for: a batch, the first one too, shows many models (16 samples each here).
    models = order // 16
    assert min(len(set(models[start : start + batch])) for start in range(0, total - batch, batch)) >= 15
    assert len(set(models[:batch])) >= 18
    assert len(set((ring // 16)[:batch])) <= 3


def test_the_default_buffer_of_the_articles_dataset():
    sizes = [1024] * 488  # 500,000 samples of 63 poses a model
    order = epoch_order(sizes, 1, 0)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    batches = [order[start : start + 25] for start in range(0, len(order) - 25, 5000)]
    assert np.mean([len(set(batch // 63)) for batch in batches]) > 22
    assert max(len(set(batch // 1024)) for batch in batches) <= (25 + 2 * DEFAULT_BUFFER) // 1024 + 2


@pytest.mark.parametrize(("sizes", "epoch", "buffer"), [([3, -1], 0, 1), ([3], -1, 1), ([3], 0, -1)])
def test_negative_numbers_are_refused(sizes, epoch, buffer):
    with pytest.raises(ConfigError, match=r"negative|counts"):
        epoch_order(sizes, 1, epoch, buffer)


# --- the sequence of a run ---


def sequencer(sizes: list[int], seed: int = 1, shuffle: bool = True, buffer: int = 5, limit: int | None = None):
    return Sequencer(tuple(sizes), choose(sum(sizes), limit), seed, shuffle, buffer)


def flat(pieces, count: int) -> list[tuple[int, int]]:
    """The first `count` examples of some pieces as (epoch, index)."""
    examples = ((int(e), int(i)) for piece in pieces for e, i in zip(piece.epoch, piece.index, strict=True))
    return list(itertools.islice(examples, count))


FULL = st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any)


@given(FULL, SEEDS, BUFFERS, st.integers(1, 7))
def test_epochs_follow_each_other(sizes, seed, buffer, size):
    total = sum(sizes)
    seen = flat(sequencer(sizes, seed, buffer=buffer).pieces(0, size), 3 * total)
    for epoch in range(3):
        part = seen[epoch * total : (epoch + 1) * total]
        assert [e for e, _ in part] == [epoch] * total
        assert [i for _, i in part] == epoch_order(sizes, seed, epoch, buffer).tolist()


@given(FULL, SEEDS, st.integers(0, 80), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_going_on_anywhere_gives_the_rest_of_the_sequence(sizes, seed, start, size, other, shuffle):
    run = sequencer(sizes, seed, shuffle)
    count = 60 if shuffle else max(0, sum(sizes) - start)
    assert flat(run.pieces(start, size), count) == flat(run.pieces(0, other), start + count)[start:]
    if not shuffle:
        assert len(flat(run.pieces(start, size), 10**6)) == count


@given(FULL, st.integers(0, 30), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_ranks_share_each_global_batch(sizes, start, batch, world, shuffle):
    run = sequencer(sizes, 3, shuffle)
    whole = list(itertools.islice(run.pieces(start, batch * world), 6))
    ranks = [list(itertools.islice(run.batches(start, batch, rank, world), 6)) for rank in range(world)]
    for number, piece in enumerate(whole):
        parts = [own[number] for own in ranks if number < len(own)]
        assert np.array_equal(np.concatenate([part.index for part in parts]), piece.index)
        assert np.array_equal(np.concatenate([part.epoch for part in parts]), piece.epoch)
        if shuffle:
            assert [len(part) for part in parts] == [batch] * world
    assert max(len(own) for own in ranks) == len(whole)


@given(FULL, st.integers(1, 30), SEEDS)
def test_a_limited_run_sees_only_what_was_chosen(sizes, limit, seed):
    run = sequencer(sizes, seed, limit=limit)
    kept = min(limit, sum(sizes))
    seen = flat(run.pieces(0, 4), 2 * kept)
    assert sorted(i for _, i in seen[:kept]) == sorted(i for _, i in seen[kept:]) == list(range(kept))


def test_an_empty_sequence_ends():
    assert list(sequencer([0, 0]).pieces(0, 3)) == []
    assert list(sequencer([2], shuffle=False).pieces(2, 3)) == []
    assert list(sequencer([2], shuffle=False).pieces(5, 3)) == []


@given(st.integers(0, 200), st.integers(1, 250), st.booleans())
def test_choosing(count, limit, spread):
    chosen = choose(count, limit, spread)
    assert len(chosen) == min(count, limit)
    assert (np.diff(chosen) > 0).all()
    assert chosen.dtype == np.int64
    if spread and len(chosen) > 1:
        assert set(np.diff(chosen)) <= {count // len(chosen), -(-count // len(chosen))}
    elif not spread:
        assert chosen.tolist() == list(range(len(chosen)))
    assert np.array_equal(choose(count, None, spread), np.arange(count))


def test_choosing_nothing_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        choose(5, 0)


# --- the flip ---


def test_flips_are_keyed_and_half():
    decisions = np.array([[is_flipped(4, epoch, index) for index in range(500)] for epoch in range(4)])
    assert np.array_equal(decisions[2], [is_flipped(4, 2, index) for index in range(500)])
    assert 0.45 < decisions.mean() < 0.55
    assert all(0.4 < (a != b).mean() < 0.6 for a, b in itertools.combinations(decisions, 2))
    assert 0.4 < (decisions[0] != [is_flipped(5, 0, index) for index in range(500)]).mean() < 0.6


@pytest.mark.parametrize("order", [THA1.names, THA1.names[::-1], ("mouth", "right_eye", "left_eye")])
def test_flipping_a_pose_twice_changes_nothing(order):
    mirror = mirror_of(order)
    pose = rng.generator(1, "pose").normal(size=(10, len(order))).astype(np.float32)
    assert np.array_equal(flip_pose(flip_pose(pose, mirror), mirror), pose)
    assert flip_pose(pose, mirror).dtype == np.float32
    left, right = order.index("left_eye"), order.index("right_eye")
    assert np.array_equal(flip_pose(pose, mirror)[:, left], pose[:, right])


def rotation(axis: int, angle: float) -> np.ndarray:
    quaternion = np.zeros(4)
    quaternion[axis], quaternion[3] = math.sin(angle / 2), math.cos(angle / 2)
    return quaternion_matrix(quaternion)[:3, :3]


def test_flipped_rotations_are_those_of_the_mirrored_head():
    # The mirror x -> -x takes the turn R of neck and head to M R M: the flipped pose must give just that.
    mirror, (columns, signs) = np.diag([-1.0, 1.0, 1.0]), mirror_of(THA1.names)

    def turn(pose: np.ndarray) -> np.ndarray:
        result = np.eye(3)
        for name in ("neck_z", "head_y", "head_x"):
            parameter = THA1.parameters[THA1.index(name)]
            result = result @ rotation(parameter.axis, float(pose[THA1.index(name)]) * parameter.limit)
        return result

    for number in range(5):
        pose = rng.generator(2, number).uniform(-1, 1, 6)
        assert np.allclose(turn(pose[columns] * signs), mirror @ turn(pose) @ mirror, atol=1e-12)
        assert not np.allclose(turn(pose), mirror @ turn(pose) @ mirror, atol=1e-3)


def test_flipping_exchanges_the_eyes_and_keeps_the_mouth():
    pose = THA1.pose(head_x=0.1, head_y=0.2, neck_z=-0.3, left_eye=0.4, right_eye=0.5, mouth=0.6)
    expected = THA1.pose(head_x=0.1, head_y=-0.2, neck_z=0.3, left_eye=0.5, right_eye=0.4, mouth=0.6)
    assert np.array_equal(flip_pose(pose, mirror_of(THA1.names)), expected)


@pytest.mark.parametrize("names", [("head_x", "brow"), ("left_eye", "mouth")])
def test_what_cannot_be_mirrored_is_refused(names):
    with pytest.raises(ConfigError, match="cannot be mirrored"):
        mirror_of(names)


def test_a_flipped_flow_leads_between_the_flipped_pictures():
    random = rng.generator(9)
    size = 12
    expression = random.integers(0, 256, (size, size, 4), dtype=np.uint8)
    y, x = np.indices((size, size))
    target_x, target_y = random.integers(0, size, (2, size, size))
    flow = np.stack([target_x - x, target_y - y], axis=2).astype(np.float32)

    def follow(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
        return picture[(y + flow[..., 1]).astype(int), (x + flow[..., 0]).astype(int)]

    posed = follow(expression, flow)
    assert np.array_equal(follow(flip_picture(expression), flip_flow(flow)), flip_picture(posed))
    assert np.array_equal(flip_flow(flip_flow(flow)), flow)
    assert np.array_equal(flip_picture(expression), expression[:, [*range(size - 1, -1, -1)]])
