"""Early exit measured: how many time steps a network needs for an answer that is as good as its last.

In folds over all recordings each fold has the threshold that was chosen on the others, so that accuracy is over all
recordings and no threshold was chosen on those it is used on; with seeds on a data set's own split it is chosen on
training recordings that the run did not see, or the halves of the test data choose for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtt_lava.early_exit import RULES, EarlyExit, check, course_of, course_of_events, leave
from mtt_lava.run import RunError, Settings, unseen
from mtt_lava.studies.parts import machine, parts_of, trained
from netx_export.text import table


@dataclass(frozen=True)
class Exits:
    """What `leaving` found.

    Attributes
    ----------
    settings : Settings
        Of the runs.
    found : dict of str to list of EarlyExit
        For every rule: one over all folds, or one a seed.
    seeds : tuple of int
        None where the recordings were cut into folds.
    """

    settings: Settings
    found: dict[str, list[EarlyExit]]
    seeds: tuple[int, ...]

    def __repr__(self) -> str:
        return f"<Exits: {', '.join(self.found)}, {self.settings.model.name} on {self.settings.data}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a rule (and seed), for a table."""
        names = [{"seed": seed} for seed in self.seeds] or [{}]
        return [
            {"rule": rule, **name, "taken": one.steps.mean(), "accuracy": one.score.accuracy, "full": one.full.accuracy}
            for rule, of in self.found.items()
            for name, one in zip(names, of, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        rules = {rule: [each.to_dict() for each in of] for rule, of in self.found.items()}
        settings = self.settings.model_dump(mode="json")
        return {"machine": machine(), "settings": settings, "seeds": list(self.seeds), "rules": rules}

    def __str__(self) -> str:
        first = next(iter(self.found.values()))[0]
        taken = "ms" if first.time_steps is None else f"of {first.time_steps} time steps"
        head = ["exit by", taken, "accuracy in %", "to the end", "lost", "synops", "to the end", "nJ", "to the end"]
        rows = []
        for rule, of in self.found.items():
            steps = np.mean([each.steps.mean() for each in of]) / (1000 if first.time_steps is None else 1)
            accuracy = float(np.mean([each.score.accuracy for each in of]))
            full = float(np.mean([each.full.accuracy for each in of]))
            row = [rule, f"{steps:.2f}", f"{100 * accuracy:.2f}", f"{100 * full:.2f}", f"{100 * (full - accuracy):.2f}"]
            rows.append([*row, *_pair([each.synops for each in of]), *_pair([each.energy for each in of])])
        cut = f"mean of seeds {', '.join(map(str, self.seeds))}" if self.seeds else f"{len(first.thresholds)} folds"
        return "\n".join(
            [
                *table([head, *rows], left=1),
                f"over {first.score.samples} recordings of {self.settings.data}, {cut}; {first.choice}; "
                f"{self.settings.model.name}, {self.settings.method}, {self.settings.profile}, "
                f"{self.settings.epochs} epochs, last one; {machine()}",
                "silent recordings count as wrong, a tie among k outputs counts 1/k",
                *self._proof(),
            ]
        )

    def _proof(self) -> list[str]:
        """How many answers of the exported network are not those of the trained one, where it has a clock."""
        of = next(iter(self.found.values()))
        differing = [each.differing for each in of if each.differing is not None and each.time_steps is not None]
        answers = sum(each.score.samples * (each.time_steps or 0) for each in of)
        text = f"{sum(differing)} of {answers:,} answers, one a time step, differ from the trained network's"
        return [text] if len(differing) == len(of) else []


def _pair(found: Sequence[tuple[float, float] | None]) -> list[str]:
    known = [pair for pair in found if pair is not None]
    return ["", ""] if len(known) < len(found) else [f"{value:,.0f}" for value in np.mean(known, axis=0)]


def leaving(
    settings: Settings,
    out: Path,
    time_steps: int | None = None,
    loss: float = 0.005,
    count: int = 5,
    seeds: Sequence[int] = (),
    held: int | None = None,
    *,
    progress: bool = True,
) -> Exits:
    """Train in every fold or with every seed, and let every recording answer early by every rule that there is.

    What `out` holds already is not trained again.

    Parameters
    ----------
    settings : Settings
        Of all runs. For a chip without a clock only the lead of an output tells.
    out : pathlib.Path
        Folder of a run folder a fold, ``<fold>``, or ``seed<seed>``.
    time_steps : int, optional
        At most; default: those of training.
    loss : float
        Accuracy that may be lost, 0..1.
    count, seeds
        See `mtt_lava.studies.paper.paper`.
    held : int, optional
        With seeds: choose on so many training recordings that the runs do not see, instead of on halves.
    progress : bool
        Show progress bars.

    Returns
    -------
    Exits

    Raises
    ------
    RunError
        A loss that is none, a folder that holds something else, or fewer unseen recordings; or folds, which have none.
    """
    clocked = settings.chip.facts.clocked.value is not False
    rules, at_most = (RULES if clocked else ("margin",)), time_steps or settings.time_steps
    backend = "fast" if clocked else "event"
    if held and not seeds:
        raise RunError(
            "unseen recordings are for seeds: of folds each chooses for the others (give seeds, or leave out)"
        )
    courses, others = [], []
    for name, own, training, test in parts_of(settings, count, seeds):
        check(rules[0], loss, len(test))
        rest = unseen(own, training, held) if held else None
        run = trained(own, out / name, progress, training)
        if clocked:
            measure = partial(course_of, run, at_most, progress=progress)
        else:
            measure = partial(course_of_events, run, progress=progress)
        courses.append(measure(test))
        others.append(None if rest is None else measure(rest))
    together = [([course], other) for course, other in zip(courses, others, strict=True)]
    if not seeds:
        together = [(courses, None)]
    found = {
        rule: [leave(some, rule, loss, at_most if clocked else None, backend, other) for some, other in together]
        for rule in rules
    }
    return Exits(settings, found, tuple(seeds))
