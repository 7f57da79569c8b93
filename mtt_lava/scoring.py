"""How right the answers of a network are, and how many it does not give.

The class whose output is largest wins. A silent sample is wrong: an output that says nothing is no answer, and must
not count as class 0. A tie among k outputs is right by 1/k where the label is among them: what a fair draw is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netx_export import text

KINDS = ("count", "voltage")
SHORT = 6
"""Names of classes up to so many letters stand above the columns of a confusion matrix; else numbers do."""


class ScoreError(text.UserError):
    """A readout that cannot be scored. One clear line."""


@dataclass(frozen=True)
class Score:
    """Answers against labels.

    Attributes
    ----------
    samples : int
    accuracy : float
        Share of samples classified rightly: a silent one is wrong, a tie among k outputs counts 1/k where the label is
        among them.
    silent : float
        Share of silent samples. Count readout: no output spikes; voltage readout: all voltages are equal (so with a
        single class always).
    tied : float
        Share of samples whose largest value several outputs share, silent ones not counted.
    fires : tuple of float
        For every class the share of samples in which its output spikes at least once; voltage readout: ends above 0.
    wins : tuple of float
        For every class the share of samples that it wins, ties count 1/k.
    confusion : numpy.ndarray
        (classes, classes + 1) samples: true class by winner, ties split 1/k; the last column is silent.
    """

    samples: int
    accuracy: float
    silent: float
    tied: float
    fires: tuple[float, ...]
    wins: tuple[float, ...]
    confusion: np.ndarray = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.samples} samples: accuracy {self.accuracy:.1%}, silent {self.silent:.1%}, tied {self.tied:.1%}"

    def __repr__(self) -> str:
        return f"<Score of {self}>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in self.__dict__.items()}
        return values | {"confusion": self.confusion.tolist()}

    def table(self, classes: Sequence[str]) -> str:
        """The confusion matrix for people, and below it how often every output fires and wins.

        Parameters
        ----------
        classes : sequence of str
            Their names.

        Examples
        --------
        >>> print(score(np.array([[3, 0], [2, 2], [0, 0]]), np.array([0, 1, 1]), "count").table(["cat", "dog"]))
         true  cat  dog  silent
          cat    1    .       .
          dog  0.5  0.5       1
        fires  67%  33%
         wins  50%  17%     33%
        """
        short = max(map(len, classes)) <= SHORT
        heads = list(classes) if short else [str(i) for i in range(len(classes))]
        names = heads if short else [f"{name} {i}" for i, name in enumerate(classes)]
        rows = [["true", *heads, "silent"]]
        rows += [[name, *map(_cell, row)] for name, row in zip(names, self.confusion, strict=True)]
        rows.append(["fires", *(f"{share:.0%}" for share in self.fires), ""])
        rows.append(["wins", *(f"{share:.0%}" for share in self.wins), f"{self.silent:.0%}"])
        return "\n".join(text.table(rows))


def _cell(samples: float) -> str:
    """Zeros as dots, so that what is wrong catches the eye."""
    return f"{samples:.1f}".removesuffix(".0") if samples else "."


def score(readout: np.ndarray, labels: np.ndarray, kind: str) -> Score:
    """Compare answers with labels.

    Parameters
    ----------
    readout : numpy.ndarray
        (N, classes), integers or floats: output spike counts, or voltages.
    labels : numpy.ndarray
        (N,) integers, 0 .. classes - 1.
    kind : {"count", "voltage"}
        What the readout is.

    Returns
    -------
    Score

    Raises
    ------
    ScoreError
        No sample, shapes or labels that do not fit, values that are not finite, negative counts, an unknown kind.

    Examples
    --------
    >>> silent, tie, right = [0, 0, 0], [4, 4, 1], [0, 2, 7]
    >>> result = score(np.array([silent, tie, right, right]), np.array([0, 1, 2, 2]), "count")
    >>> result.accuracy, result.silent, result.tied
    (0.625, 0.25, 0.25)
    """
    readout, labels = np.asarray(readout), np.asarray(labels)
    _check(readout, labels, kind)
    samples, classes = readout.shape
    largest = readout.max(1)
    silent = readout.min(1) == largest if kind == "voltage" else largest == 0
    share = ((readout == largest[:, None]) & ~silent[:, None]).astype(float)
    winners = share.sum(1)
    share /= np.maximum(winners, 1)[:, None]
    confusion = np.zeros((classes, classes + 1))
    np.add.at(confusion, labels, np.column_stack([share, silent]))
    return Score(
        samples,
        float(share[np.arange(samples), labels].sum() / samples),
        float(silent.mean()),
        float((winners > 1).mean()),
        tuple((readout > 0).mean(0).tolist()),
        tuple(share.mean(0).tolist()),
        confusion,
    )


def _check(readout: np.ndarray, labels: np.ndarray, kind: str) -> None:
    if kind not in KINDS:
        raise ScoreError(text.unknown("readout", kind, KINDS))
    if readout.ndim != 2 or 0 in readout.shape:
        raise ScoreError(f"readout is {readout.shape}; must be (samples, classes), at least one each")
    if labels.shape != readout.shape[:1]:
        raise ScoreError(f"labels are {labels.shape}; must be {readout.shape[:1]}, one a sample of the readout")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= readout.shape[1]:
        raise ScoreError(f"labels must be integers in 0..{readout.shape[1] - 1}, as the readout has so many outputs")
    if not np.isfinite(readout).all():
        raise ScoreError(f"readout of sample {np.argwhere(~np.isfinite(readout))[0, 0]} is not finite")
    if kind == "count" and readout.min() < 0:
        raise ScoreError(f"readout of sample {np.argwhere(readout < 0)[0, 0]} has a negative spike count")
