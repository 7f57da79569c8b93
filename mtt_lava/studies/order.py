"""What the order of events is worth: in which a chip without a clock emits what one event causes is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtt_lava.data import Dataset
from mtt_lava.deploy import to_network
from mtt_lava.evaluation import event_parts, event_rules, recordable, spike_difference
from mtt_lava.run import Run, RunError, open_split
from mtt_lava.scoring import Score, score
from netx_export.event.backend import Simulator
from netx_export.text import table


@dataclass(frozen=True)
class Orders:
    """What `orders` found.

    Attributes
    ----------
    run : str
        What was run.
    scores : dict of (int or None) to Score
        Accuracy with each order: None is (channel, row, column), others are seeds.
    differences : dict of int to float
        For each seed the spike difference of the output counts from those of the first order.
    changed : dict of int to float
        Share of the recordings for which another output wins, or wins alone.
    """

    run: str
    scores: dict[int | None, Score]
    differences: dict[int, float]
    changed: dict[int, float]

    def __repr__(self) -> str:
        mean = float(np.mean(list(self.differences.values())))
        return f"<Orders: {len(self.differences)} orders of events, spike difference {mean:.1%}>"

    def rows(self) -> list[dict[str, Any]]:
        """One an order, for a table."""
        return [
            {
                "order": order,
                "accuracy": found.accuracy,
                "difference": self.differences.get(order) if order is not None else 0.0,
                "changed": self.changed.get(order) if order is not None else 0.0,
            }
            for order, found in self.scores.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"run": self.run, "samples": self.scores[None].samples, "orders": self.rows()}

    def __str__(self) -> str:
        rows = [["order of events", "accuracy in %", "spike difference in %", "other answers in %"]]
        for row in self.rows():
            name = "channel, row, column" if row["order"] is None else f"random, seed {row['order']}"
            rows.append([name, *(f"{100 * row[key]:.2f}" for key in ("accuracy", "difference", "changed"))])
        mean = float(np.mean(list(self.differences.values())))
        lines = table(rows, left=1)
        lines.append(f"{self.run}: another order changes {100 * mean:.2f} % of the output spikes (mean)")
        return "\n".join(lines)


def orders(
    run: Run, dataset: Dataset | None = None, seeds: Sequence[int] = (0, 1, 2, 3, 4), *, progress: bool = True
) -> Orders:
    """Run a network without a clock, with random orders of what one event makes a layer emit.

    Parameters
    ----------
    run : Run
        Of a network that counts output spikes.
    dataset : Dataset, optional
        Event recordings; default: the test split of the data that the run was trained on.
    seeds : sequence of int
        One an order, which is drawn once for every layer.
    progress : bool
        Show progress bars.

    Returns
    -------
    Orders

    Raises
    ------
    RunError
        The readout is a voltage, or the data has no events.
    """
    dataset = dataset or open_split(run.settings)
    run.check_data(dataset)
    network = to_network(run)
    if network.readout != "count":
        raise RunError(f"{network.source}: its readout is a voltage, and here output spikes are compared")
    counts: dict[int | None, np.ndarray] = {}
    for order in (None, *seeds):
        simulator = Simulator(network, reset=network.reset, order=order, **event_rules(run))
        parts = event_parts(dataset, recordable(network, 8))
        counts[order] = np.concatenate([simulator.run(events, progress=progress).readout for events in parts])
    first = counts[None]
    return Orders(
        f"{network.source} on {dataset.name}, {len(dataset)} recordings",
        {order: score(found, dataset.labels, network.readout) for order, found in counts.items()},
        {seed: spike_difference(first, counts[seed]) for seed in seeds},
        {seed: float((_winners(first) != _winners(counts[seed])).any(axis=1).mean()) for seed in seeds},
    )


def _winners(counts: np.ndarray) -> np.ndarray:
    """Which outputs have the most spikes of a recording; none where it is silent."""
    most = counts.max(axis=1, keepdims=True)
    return (counts == most) & (most > 0)
