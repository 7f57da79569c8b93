"""Accuracy that a network cannot get by saying nothing."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtt_lava.pictures import plot_confusion
from mtt_lava.scoring import Score, ScoreError, score


def plainly(readout: list[list[float]], labels: list[int], kind: str) -> dict[str, Any]:
    """What `score` must say, sample by sample, in fractions."""
    n, classes = len(readout), len(readout[0])
    silent = tied = 0
    confusion = [[Fraction(0)] * (classes + 1) for _ in range(classes)]
    for values, label in zip(readout, labels, strict=True):
        if all(v == 0 for v in values) if kind == "count" else all(v == values[0] for v in values):
            silent += 1
            confusion[label][classes] += 1
            continue
        winners = [c for c in range(classes) if values[c] == max(values)]
        tied += len(winners) > 1
        for c in winners:
            confusion[label][c] += Fraction(1, len(winners))
    return {
        "samples": n,
        "accuracy": sum(confusion[c][c] for c in range(classes)) / n,
        "silent": Fraction(silent, n),
        "tied": Fraction(tied, n),
        "fires": [Fraction(sum(values[c] > 0 for values in readout), n) for c in range(classes)],
        "wins": [sum(row[c] for row in confusion) / n for c in range(classes)],
        "confusion": confusion,
    }


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[list[float]], list[int], str]:
    """Few different values, so that ties and silence are common."""
    kind = draw(st.sampled_from(["count", "voltage"]))
    classes = draw(st.integers(1, 5))
    value: Any = st.integers(0, 2)
    if kind == "voltage":
        value = draw(st.sampled_from([st.integers(-2, 2), st.sampled_from([-1.5, -0.25, 0.0, 0.25])]))
    readout = draw(st.lists(st.lists(value, min_size=classes, max_size=classes), min_size=1, max_size=8))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=len(readout), max_size=len(readout)))
    return readout, labels, kind


@given(answers())
def test_it_says_what_counting_by_hand_says(given_: tuple[list[list[float]], list[int], str]) -> None:
    """Every share and every cell, for counts and voltages, ties and silence."""
    readout, labels, kind = given_
    got, wanted = score(np.array(readout), np.array(labels), kind).to_dict(), plainly(readout, labels, kind)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], np.array(value, dtype=float), atol=1e-12, err_msg=name)


@given(answers())
def test_every_sample_is_won_or_silent(given_: tuple[list[list[float]], list[int], str]) -> None:
    """Wins and silence add up to one, a row of the confusion matrix to the samples of its class."""
    readout, labels, kind = given_
    got = score(np.array(readout), np.array(labels), kind)
    assert sum(got.wins) + got.silent == pytest.approx(1)
    np.testing.assert_allclose(got.confusion.sum(1), np.bincount(labels, minlength=len(readout[0])))


@pytest.mark.parametrize(("kind", "value"), [("count", 0), ("voltage", 0), ("voltage", -3), ("voltage", 0.5)])
def test_a_silent_network_is_never_right(kind: str, value: float) -> None:
    """No spike, or all voltages equal: accuracy 0, not the share of class 0."""
    got = score(np.full((4, 3), value), np.zeros(4, int), kind)
    assert (got.accuracy, got.silent, got.tied, got.wins) == (0, 1, 0, (0, 0, 0))
    assert got.fires == ((1, 1, 1) if value > 0 else (0, 0, 0))
    assert got.confusion.tolist() == [[0, 0, 0, 4], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_equal_counts_above_zero_are_a_tie() -> None:
    """Outputs that all spike as often say something: 1/k."""
    got = score(np.full((2, 4), 3), np.array([0, 3]), "count")
    assert (got.accuracy, got.silent, got.tied) == (0.25, 0, 1)


@pytest.mark.parametrize(("label", "accuracy"), [(0, 0.5), (2, 0.5), (1, 0)])
def test_a_tie_is_worth_a_fair_draw(label: int, accuracy: float) -> None:
    """Half where the label is one of two that tie, nothing where it is not."""
    assert score(np.array([[-1, -5, -1]]), np.array([label]), "voltage").accuracy == accuracy


def test_the_largest_of_negative_voltages_wins() -> None:
    """An output need not end above 0 to win; it fires only if it does."""
    got = score(np.array([[-3.0, -1.0], [2.0, -9.0]]), np.array([1, 0]), "voltage")
    assert (got.accuracy, got.fires, got.wins) == (1, (0.5, 0), (0.5, 0.5))


def test_one_class() -> None:
    """A count is right where it is not 0; a voltage alone has nothing to differ from."""
    readout, labels = np.array([[2], [0]]), np.array([0, 0])
    assert score(readout, labels, "count").accuracy == 0.5
    assert score(readout, labels, "voltage").silent == 1


def test_json_holds_everything() -> None:
    """Plain lists and numbers, the matrix too."""
    content = json.loads(json.dumps(score(np.array([[1, 0], [1, 1]]), np.array([0, 1]), "count").to_dict()))
    assert content == {
        "samples": 2,
        "accuracy": 0.75,
        "silent": 0,
        "tied": 0.5,
        "fires": [1, 0.5],
        "wins": [0.75, 0.25],
        "confusion": [[1, 0, 0], [0.5, 0.5, 0]],
    }


def test_long_names_of_classes_do_not_widen_the_table() -> None:
    """Their numbers stand above the columns, names and numbers before the rows."""
    got: Score = score(np.array([[1, 0], [0, 0]]), np.array([0, 1]), "count")
    assert got.table(["right hand wave", "drums"]).splitlines() == [
        "             true    0   1  silent",
        "right hand wave 0    1   .       .",
        "          drums 1    .   .       1",
        "            fires  50%  0%",
        "             wins  50%  0%     50%",
    ]


def test_the_picture_shows_what_the_matrix_says() -> None:
    """A number in every cell that is not empty, names of classes at the rows, a last column of silent samples."""
    got = score(np.array([[1, 0], [1, 1], [0, 0]]), np.array([0, 1, 1]), "count")
    axes = plot_confusion(got, ["cat", "dog"], "title")
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "1", (1, 0): "0.5", (1, 1): "0.5", (1, 2): "1"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog", "silent"]


@pytest.mark.parametrize(
    ("readout", "labels", "kind", "words"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "count", r"readout is \(0, 3\); must be \(samples, classes\)"),
        (np.zeros((3, 0)), np.zeros(3, int), "count", r"readout is \(3, 0\)"),
        (np.zeros(3), np.zeros(3, int), "count", r"readout is \(3,\)"),
        (np.zeros((3, 2)), np.zeros(2, int), "count", r"labels are \(2,\); must be \(3,\)"),
        (np.zeros((1, 2)), np.array([2]), "count", r"integers in 0\.\.1"),
        (np.zeros((1, 2)), np.array([-1]), "count", r"integers in 0\.\.1"),
        (np.zeros((1, 2)), np.array([0.0]), "count", r"integers in 0\.\.1"),
        (np.array([[0, 1], [0, np.nan]]), np.array([0, 0]), "voltage", "sample 1 is not finite"),
        (np.array([[np.inf, 1]]), np.array([0]), "count", "sample 0 is not finite"),
        (np.array([[0, 1], [0, -1]]), np.array([0, 0]), "count", "sample 1 has a negative spike count"),
        (np.zeros((1, 2)), np.array([0]), "rate", "readout 'rate' is unknown; there is: count, voltage"),
    ],
)
def test_what_cannot_be_scored_is_refused(readout: Any, labels: Any, kind: str, words: str) -> None:
    """One line that says what is wrong, rather than a number that means nothing."""
    with pytest.raises(ScoreError, match=words) as error:
        score(readout, labels, kind)
    assert "\n" not in str(error.value)
