"""In which order examples are seen: a pure function of seed and epoch, known without reading anything.

The training sequence of a run is the concatenation of its epochs. Nothing in it depends on workers, ranks, batch size
or interruptions, so "examples seen" alone says where a run is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmdgen import rng
from mmdgen.errors import ConfigError

# Examples over which the order is mixed: some 8 shards of 16 models, of which a batch of 25 then has 20 or so, while
# few enough shards are in use at a time to stay open with their rest images decoded.
DEFAULT_BUFFER = 8192


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int, buffer: int = DEFAULT_BUFFER) -> np.ndarray:
    """Return the order of one epoch over shards of `shard_sizes` samples: a permutation of 0..N-1, i64 [N].

    Samples are numbered shard after shard. Whole shards are shuffled and laid in a ring; then the samples are sorted by
    their place on it plus a random number in [0, `buffer`). So a sample moves by a quarter of `buffer` on average, and
    any W consecutive ones (from the last to the first too) come from a stretch of W + 2 `buffer` places of the ring.
    Unlike a buffer that fills and drains, the ring mixes an epoch's first examples as well as all others. A `buffer` of
    N or more gives every order with equal chance; 0 or 1 leaves the shards whole.
    Raises `ConfigError` for negative numbers.
    """
    sizes = np.asarray(shard_sizes, np.int64)
    if sizes.ndim != 1 or (sizes < 0).any():
        raise ConfigError(f"shard sizes must be a list of counts, found {shard_sizes!r}")
    if epoch < 0 or buffer < 0:
        raise ConfigError(f"epoch and buffer must not be negative, found epoch {epoch} and buffer {buffer}")
    random = rng.generator(seed, "train", "order", epoch)
    starts = np.cumsum(sizes) - sizes
    shards = random.permutation(len(sizes))
    # Place p of the shuffled shards: the first sample of its shard, and how far p is into that shard.
    firsts, lengths = starts[shards], sizes[shards]
    total = int(sizes.sum())
    placed = np.repeat(firsts - (np.cumsum(lengths) - lengths), lengths) + np.arange(total)
    if buffer >= total:
        return placed[random.permutation(total)]
    return placed[np.argsort((np.arange(total) + random.random(total) * buffer) % total, kind="stable")]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Consecutive examples of the sequence: `index` i64 [n] in the split, and the `epoch` i64 [n] of each."""

    index: np.ndarray
    epoch: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class Sequencer:
    """The whole sequence of a run over the samples `chosen` (i64 [M], ascending split indices) of shards.

    `shard_sizes` are those of the whole split; a shard counts with its chosen samples. With `shuffle` the sequence is
    endless; without it is `chosen` once, in order, as epoch 0.
    """

    shard_sizes: tuple[int, ...]
    chosen: np.ndarray
    seed: int
    shuffle: bool = True
    buffer: int = DEFAULT_BUFFER

    def epoch(self, number: int) -> np.ndarray:
        """Return the split indices of epoch `number` in the order in which they are seen, i64 [M]."""
        if not self.shuffle:
            return self.chosen
        ends = np.cumsum(np.asarray(self.shard_sizes, np.int64))
        sizes = np.diff(np.searchsorted(self.chosen, ends), prepend=0)
        return self.chosen[epoch_order(sizes.tolist(), self.seed, number, self.buffer)]

    def pieces(self, start: int, size: int) -> Iterator[Piece]:
        """Yield the sequence from example `start` on in pieces of `size`; only the last of a finite one is smaller.

        A piece may reach over the end of an epoch. An endless sequence of no samples ends at once.
        """
        count = len(self.chosen)
        if not count:
            return
        number, skipped = divmod(start, count)
        if number and not self.shuffle:
            return
        left: list[Piece] = []  # less than a piece
        missing = size
        while True:
            order = self.epoch(number)[skipped:]
            while len(order):
                part, order = order[:missing], order[missing:]
                left.append(Piece(part, np.full(len(part), number, np.int64)))
                missing -= len(part)
                if not missing:
                    yield _join(left)
                    left, missing = [], size
            if not self.shuffle:
                if left:
                    yield _join(left)
                return
            number, skipped = number + 1, 0

    def batches(self, start: int, batch: int, rank: int = 0, world: int = 1) -> Iterator[Piece]:
        """Yield what `rank` of `world` sees from example `start` on: its `batch` of every `world * batch` examples.

        The ranks' parts of a global batch, in the order of the ranks, are that piece of the sequence: the same whatever
        `world` is. At the end of a finite sequence the last ranks get less, or nothing.
        """
        for piece in self.pieces(start, batch * world):
            own = slice(rank * batch, (rank + 1) * batch)
            if len(piece.index[own]):
                yield Piece(piece.index[own], piece.epoch[own])


def choose(count: int, limit: int | None, spread: bool = False) -> np.ndarray:
    """Return which of `count` samples are used, ascending i64: all, the first `limit`, or `limit` evenly spaced ones.

    Samples of one model lie side by side, so the first hundred may show two characters, and spaced ones dozens.
    Raises `ConfigError` when `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit must be at least one sample, found {limit}")
    if limit is None or limit >= count:
        return np.arange(count)
    return np.arange(limit) * count // limit if spread else np.arange(limit)


def _join(parts: list[Piece]) -> Piece:
    if len(parts) == 1:
        return parts[0]
    return Piece(np.concatenate([part.index for part in parts]), np.concatenate([part.epoch for part in parts]))
