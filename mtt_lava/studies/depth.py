"""Does a network of usual depth train at all? Plain stacks of convolutions, for every chip and by every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtt_lava.data import open_dataset
from mtt_lava.evaluation import Point, evaluate
from mtt_lava.run import Run, RunError, Settings
from mtt_lava.studies.parts import machine, trained
from netx_export.text import table

STACKS = {
    3: "8 P 16 P 32 P",
    5: "8 P 16 16 P 32 32 P",
    7: "8 8 P 16 16 P 32 32 32 P",
    9: "8 8 P 16 16 16 P 32 32 32 P 32",
}
"""Channels of 3x3 convolutions; P is a 2x2 sum pool. A dense layer comes last."""


def stack(depth: int, width: int = 8, size: int = 34, classes: int = 10) -> dict[str, Any]:
    """A plain stack of convolutions as `mtt_lava.load_model` takes it.

    Parameters
    ----------
    depth : int
        Number of convolutions, of `STACKS`.
    width : int
        Channels of the first one; the others follow.
    size : int
        Height and width of the input, which has two polarities; at least 8.
    classes : int
        Outputs.

    Raises
    ------
    RunError
        An unknown depth.
    """
    if depth not in STACKS:
        raise RunError(f"no stack of {depth} convolutions: use one of {', '.join(map(str, STACKS))}")
    layers: list[dict[str, Any]] = []
    for part in STACKS[depth].split():
        if part == "P":
            layers.append({"type": "pool", "kernel": 2})
        else:
            layers.append({"type": "conv", "channels": int(part) * width // 8, "kernel": 3, "padding": 1})
    layers.append({"type": "dense", "features": classes})
    return {"name": f"stack{depth}", "input": [2, size, size], "layers": layers}


@dataclass(frozen=True)
class Grown:
    """One network of `depth`.

    Attributes
    ----------
    depth, weights : int
    profile, method : str
    point : Point
        On the test data: without a clock where the chip has none, else at T of training.
    lowered : dict of str to float
        Accuracy on training samples ``before`` and ``after`` the network was lowered to integers.
    recovered : float
        Training accuracy of the first epoch after that.
    """

    depth: int
    weights: int
    profile: str
    method: str
    point: Point
    lowered: dict[str, float]
    recovered: float

    @property
    def dead(self) -> list[str]:
        """Layers that never fired, and output classes that never won."""
        layers = [name for name, spikes in self.point.spikes.items() if not spikes]
        return layers + [f"class {k}" for k, share in enumerate(self.point.score.wins) if not share]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.__dict__, "point": self.point.to_dict(), "dead": self.dead}


@dataclass(frozen=True)
class Depths:
    """What `depths` found."""

    grown: list[Grown]
    settings: Settings

    def __repr__(self) -> str:
        return f"<Depths: {len(self.grown)} networks on {self.settings.data}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a network, for a table."""
        names = ("depth", "weights", "profile", "method")
        return [{name: getattr(one, name) for name in names} | one.point.row() for one in self.grown]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        networks = [one.to_dict() for one in self.grown]
        return {"machine": machine(), "settings": self.settings.model_dump(mode="json"), "networks": networks}

    def __str__(self) -> str:
        head = ["convolutions", "weights", "profile", "method", "at T", "accuracy", "silent", "tied"]
        rows = [[*head, "lowering: before", "after", "first epoch", "dead"]]
        for one in self.grown:
            score = one.point.score
            row = [str(one.depth), f"{one.weights:,}", one.profile, one.method, one.point.label]
            row += [f"{100 * share:.1f}" for share in (score.accuracy, score.silent, score.tied)]
            row += [f"{100 * share:.1f}" for share in (one.lowered["before"], one.lowered["after"], one.recovered)]
            rows.append([*row, ", ".join(one.dead) or "none"])
        settings, samples = self.settings, self.grown[0].point.samples
        note = (
            f"accuracy, silent and tied in % of {samples} test samples of {settings.data}; {settings.epochs} epochs on "
            f"{settings.samples or 'all'} samples, T = {settings.time_steps}, one seed; lowering: training accuracy "
            f"before norms are folded and weights rounded, after, and in the epoch that follows; dead: layers that "
            f"never fire and classes that never win; {machine()}"
        )
        return "\n".join([*table(rows), note])


def depths(
    out: Path,
    stacks: Sequence[int] = tuple(STACKS),
    profiles: Sequence[str] = ("loihi1", "loihi2", "speck2e"),
    methods: Sequence[str] = ("sdt", "mtt"),
    width: int = 8,
    data: str = "digits-dvs",
    *,
    progress: bool = True,
    **settings: Any,
) -> Depths:
    """Train every stack for every profile by every method; what `out` holds already is not trained again.

    Parameters
    ----------
    out : pathlib.Path
        Folder of the run folders, ``<profile>-<method>-<depth>``.
    stacks, profiles, methods : sequence
        Which.
    width : int
        Channels of the first convolution.
    data : str
        A data set of events with two polarities.
    progress : bool
        Show progress bars.
    **settings
        Other fields of `mtt_lava.Settings`, the same for all.

    Returns
    -------
    Depths

    Raises
    ------
    RunError
        An unknown depth, or data of another kind.
    """
    dataset = open_dataset(data, split="train", root=settings.get("root"))
    columns, rows, polarities = dataset.sensor_size
    if polarities != 2 or columns != rows:
        raise RunError(f"bench depth takes square event data of two polarities; {data} is {dataset.sensor_size}")
    models = {depth: stack(depth, width, rows, len(dataset.classes)) for depth in stacks}
    grown = []
    for depth, model in models.items():
        for profile in profiles:
            for method in methods:
                # Whether it learns is asked, not whether it fits: nine convolutions are too many for Speck's cores.
                values = settings | Settings.way(method) | {"profile": profile, "allow_unfit": True}
                one = Settings.make(model, data=data, **values)
                run = trained(one, out / f"{profile}-{method}-{depth}", progress)
                grown.append(_grown(run, depth, progress))
    return Depths(grown, one)


def _grown(run: Run, depth: int, progress: bool) -> Grown:
    clocked = run.settings.chip.facts.clocked.value is not False
    point = evaluate(run, [run.settings.time_steps], event_driven=not clocked, progress=progress)[-1]
    line = next(line for line in run.metrics if "lowered" in line)
    settings = run.settings
    return Grown(depth, run.network.weights, settings.profile, settings.label, point, line["lowered"], line["accuracy"])
