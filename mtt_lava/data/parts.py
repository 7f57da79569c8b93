"""Parts of a data set: some recordings, a held-out share, folds; and the whole. Nothing is read until asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .cache import digest
from .dataset import DataError, Dataset, check_seed, fingerprint_of
from .simulated import expect


class _Part(Sequence[np.ndarray]):
    """Some of the recordings of `events`, read when asked for."""

    def __init__(self, events: Sequence[np.ndarray], indices: np.ndarray) -> None:
        self._events = events
        self._indices = indices

    @property
    def fingerprint(self) -> str:
        return digest("subset", fingerprint_of(self._events), self._indices.tolist())

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._events[int(self._indices[index])]

    def expect(self, indices: Iterable[int]) -> None:
        expect(self._events, [int(self._indices[index]) for index in indices])


class _Joined(Sequence[np.ndarray]):
    """The recordings of several sequences, one after the other."""

    def __init__(self, parts: Sequence[Sequence[np.ndarray]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    @property
    def fingerprint(self) -> str:
        return digest("joined", *map(fingerprint_of, self._parts))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[which][index - int(self._ends[which]) + len(self._parts[which])]

    def expect(self, indices: Iterable[int]) -> None:
        which = np.searchsorted(self._ends, indices := np.asarray([*indices], np.int64), side="right")
        for number, (part, end) in enumerate(zip(self._parts, self._ends, strict=True)):
            expect(part, (indices[which == number] - (end - len(part))).tolist())


def join(*parts: Dataset) -> Dataset:
    """Return a data set of the recordings of all `parts`, such as both splits of one.

    Parameters
    ----------
    *parts : Dataset
        Of the same sensor, classes and duration.

    Returns
    -------
    Dataset
        Otherwise like the first.

    Raises
    ------
    DataError
        If there are none, or they differ.
    """
    if not parts:
        raise DataError("join: no data sets; give at least one")
    for name in ("sensor_size", "classes", "duration", "static"):
        one = getattr(parts[0], name)
        other = next((part for part in parts if getattr(part, name) != one), None)
        if other is not None:
            raise DataError(
                f"{parts[0].name} and {other.name}: {name} is {str(one)[:60]} and {str(getattr(other, name))[:60]}; "
                "must be the same"
            )
    return replace(
        parts[0],
        events=np.concatenate([np.asarray(part.events) for part in parts])
        if parts[0].static
        else _Joined([part.events for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )


def subset(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> Dataset:
    """Return a data set of some of the recordings of another.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int
        Which recordings, 0 .. N - 1, in the order wanted, such as ``range(2000)``; at least one.

    Returns
    -------
    Dataset
        Reads a recording when it is asked for. Its fingerprint follows from that of `dataset` and `indices`.

    Raises
    ------
    DataError
        If `indices` are no such numbers.
    """
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or len(chosen) == 0 or chosen.dtype.kind not in "iu":
        raise DataError(
            f"{dataset.name}: indices of type {chosen.dtype}, shape {chosen.shape}; "
            "must be whole numbers in a row, at least one, such as range(2000)"
        )
    low, high = int(chosen.min()), int(chosen.max())
    if low < 0 or high >= len(dataset):
        raise DataError(f"{dataset.name}: index {low if low < 0 else high}; must be 0..{len(dataset) - 1}")
    chosen = chosen.astype(np.int64)
    return replace(
        dataset,
        # The images of a static data set are an array, not a sequence of recordings.
        events=np.asarray(dataset.events)[chosen] if dataset.static else _Part(dataset.events, chosen),
        labels=dataset.labels[chosen],
    )


def split(
    dataset: Dataset, share: float, *, seed: int = 0, groups: Sequence[Any] | np.ndarray | None = None
) -> tuple[Dataset, Dataset]:
    """Hold out a share of the recordings of every class.

    Parameters
    ----------
    dataset : Dataset
    share : float
        Of the n recordings of a class, round(share * n) are held out; but where n is 2 or more, at least one is held
        out and at least one is left, and a class of one stays where it is. Between 0 and 1.
    seed : int
        Settles which.
    groups : sequence, optional
        Of every recording a number or name, such as the person recorded: all recordings of one stay together, so that
        nobody is in both parts. Shares are then as near as whole groups come.

    Returns
    -------
    rest, held : Dataset
        Every recording is in one of the two, in the order of `dataset`.

    Raises
    ------
    DataError
        If `share`, `seed` or `groups` is none, or no class has two recordings, or there is one group.
    """
    check_seed(seed)
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share < 1:
        raise DataError(f"share is {share!r}; must be between 0 and 1")
    if groups is not None:
        which, counts, order = _groups(dataset, groups, 2, seed)
        wanted = share * counts.sum(0)
        taken = np.zeros(len(counts), bool)
        for group in order:
            have = counts[taken].sum(0)
            taken[group] = np.sum((have + counts[group] - wanted) ** 2) < np.sum((have - wanted) ** 2)
        if taken.all() or not taken.any():
            taken[order[-1]] ^= True  # the smallest
        held = np.flatnonzero(taken[which])
        return _without(dataset, held), subset(dataset, held)
    order, place, size = _shuffled(dataset.labels, seed)
    held = order[place < np.where(size > 1, np.clip(np.rint(share * size), 1, size - 1), 0)]
    if len(held) == 0:
        raise DataError(f"{dataset.name}: no class has two recordings; there must be one to hold out and one to leave")
    return _without(dataset, held), subset(dataset, np.sort(held))


def folds(
    dataset: Dataset, count: int, *, seed: int | None = 0, groups: Sequence[Any] | np.ndarray | None = None
) -> list[tuple[Dataset, Dataset]]:
    """Divide the recordings into `count` folds for cross-validation.

    Parameters
    ----------
    dataset : Dataset
    count : int
        2 .. number of recordings.
    seed : int or None
        Settles which recording is in which fold; None: of a class the first is in the first fold, and so on.
    groups : sequence, optional
        Of every recording a number or name, such as the person recorded: all recordings of one stay together, so that
        nobody is in both parts. Folds are then as even as whole groups allow.

    Returns
    -------
    list of (rest, held) of Dataset
        Every recording is held out in one fold. Without groups, folds differ by at most one in the number of
        recordings of a class, and of all.

    Raises
    ------
    DataError
        If `count`, `seed` or `groups` is none, or there are fewer groups than folds.
    """
    if seed is not None:
        check_seed(seed)
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 2 <= count <= len(dataset):
        raise DataError(f"count is {count!r}; must be a whole number, 2..{len(dataset)}")
    if groups is not None:
        which, counts, order = _groups(dataset, groups, int(count), seed)
        totals = np.zeros((count, counts.shape[1]), np.int64)
        fold = np.zeros(len(counts), np.int64)
        for group in order:
            # Where there are fewest of its classes, then fewest of all: an empty fold comes first.
            fold[group] = min(range(count), key=lambda k: (int(totals[k] @ counts[group]), int(totals[k].sum())))
            totals[fold[group]] += counts[group]
        each = [np.flatnonzero(fold[which] == k) for k in range(count)]
        return [(_without(dataset, held), subset(dataset, held)) for held in each]
    order, _, _ = _shuffled(dataset.labels, seed)
    parts = [order[fold::count] for fold in range(count)]
    return [(_without(dataset, held), subset(dataset, np.sort(held))) for held in parts]


def _shuffled(labels: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return indices class by class, in each class shuffled; each one's place in its class; and its class's size."""
    order = np.arange(len(labels)) if seed is None else np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    _, starts, which, sizes = np.unique(labels[order], return_index=True, return_inverse=True, return_counts=True)
    return order, np.arange(len(labels)) - starts[which], sizes[which]


def _groups(
    dataset: Dataset, groups: Sequence[Any] | np.ndarray, least: int, seed: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each recording's group; recordings (groups, classes); and the groups, shuffled, then largest first."""
    names = list(map(str, groups))
    if len(names) != len(dataset):
        raise DataError(f"{dataset.name}: {len(names)} groups for {len(dataset)} recordings; there must be one each")
    known, which = np.unique(names, return_inverse=True)
    if len(known) < least:
        raise DataError(f"{dataset.name}: {len(known)} groups; there must be at least {least}")
    counts = np.zeros((len(known), len(dataset.classes)), np.int64)
    np.add.at(counts, (which, dataset.labels), 1)
    order = np.arange(len(known)) if seed is None else np.random.default_rng(seed).permutation(len(known))
    return which, counts, order[np.argsort(-counts.sum(1)[order], kind="stable")]


def _without(dataset: Dataset, held: np.ndarray) -> Dataset:
    return subset(dataset, np.setdiff1d(np.arange(len(dataset)), held))
