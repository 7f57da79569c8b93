"""Energy against accuracy: which numbers of time steps are worth choosing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hw_profiles import Figure
from mtt_lava import Sweep


def swept(pairs: list[tuple[float, float | None]]) -> Sweep:
    """Points of these accuracies and energies in pJ; as many synaptic operations as their number."""
    points: Any = tuple(SimpleNamespace(accuracy=accuracy) for accuracy, _ in pairs)
    costs: Any = tuple(
        SimpleNamespace(energy={"total": Figure(energy, "pJ", "simulated")}, synops=float(i))
        for i, (_, energy) in enumerate(pairs)
    )
    report: Any = None
    return Sweep("run", report, points, costs, ())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=8))
def test_the_front_is_what_no_other_point_beats(pairs: list[tuple[int, int]]) -> None:
    """A point is on it unless another is at least as good in both and better in one."""
    front = swept([(float(a), float(e)) for a, e in pairs]).front
    for on, (accuracy, energy) in zip(front, pairs, strict=True):
        beaten = any(a >= accuracy and e <= energy and (a, e) != (accuracy, energy) for a, e in pairs)
        assert on is not beaten


def test_the_best_is_the_most_accurate_of_several_the_cheapest() -> None:
    """What the page shows class by class."""
    result = swept([(0.5, 1.0), (0.9, 3.0), (0.9, 2.0)])
    assert result.best is result.points[2]


def test_operations_stand_in_for_unknown_energy() -> None:
    """One unknown energy, and all points are weighed by their synaptic operations."""
    assert swept([(0.5, 3000.0), (0.4, 1000.0)]).price == ("energy a sample, nJ (simulated, lower bound)", [3.0, 1.0])
    result = swept([(0.5, 3000.0), (0.4, None)])
    assert result.price == ("synaptic operations a sample", [0.0, 1.0])
    assert result.front == [True, False]
