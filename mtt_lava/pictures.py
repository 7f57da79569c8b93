"""Pictures of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtt_lava.temporal import METHODS
from netx_export.files import replacing

if TYPE_CHECKING:
    from hw_profiles import Placement
    from mtt_lava.scoring import Score


def _colour(method: str) -> str | None:
    """Its own, or None for any: curves can have other names too."""
    return METHODS[method].colour if method in METHODS else None


def _line(method: str) -> dict[str, Any]:
    """How its curve is drawn: dashed where it is a method in another way, as ``mtt-steps`` is."""
    base, _, other = method.partition("-")
    return {"color": _colour(base), "linestyle": "--" if other else "-", "marker": "o", "label": method.upper()}


def _accuracy_axis(axes: Any) -> None:
    """Accuracy upwards, in per cent."""
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes.set_ylabel("test accuracy, %")


def accuracy_figure(
    curves: Mapping[str, tuple[Sequence[int], np.ndarray]], trained_at: int, title: str = "Accuracy at any T"
) -> Any:
    """Accuracy against the number of time steps.

    Parameters
    ----------
    curves : mapping of str to (time steps, accuracies)
        For every method its time steps, and accuracies (seeds, time steps) between 0 and 1; the mean is drawn, and
        the range over seeds shaded.
    trained_at : int
        T of training, marked.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    # Not pyplot: it would choose a window system, and keep the figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for method, (time_steps, accuracies) in curves.items():
        accuracies = np.atleast_2d(accuracies)
        (line,) = axes.plot(time_steps, accuracies.mean(0), **_line(method))
        if len(accuracies) > 1:
            low, high = accuracies.min(0), accuracies.max(0)
            axes.fill_between(time_steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.axvline(trained_at, color="0.6", linestyle=":", label=f"trained at T = {trained_at}")
    axes.set_xscale("log")
    ticks = sorted({t for time_steps, _ in curves.values() for t in time_steps})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    _accuracy_axis(axes)
    axes.set(xlabel="time steps T at inference", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def paper_figure(
    accuracies: Mapping[str, np.ndarray], time_steps: Sequence[int], settings: Any, parts: str = "folds"
) -> Any:
    """Accuracy against T, and without a clock at the right edge.

    Parameters
    ----------
    accuracies : mapping of str to numpy.ndarray
        For every method (parts, points): at each of `time_steps`, then event-driven; more columns are not drawn.
    time_steps : sequence of int
    settings : mtt_lava.run.Settings
        Of the runs.
    parts : str
        What they are: folds or seeds.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    edge = 2.5 * time_steps[-1]
    for method, values in accuracies.items():
        clocked, event, colour = values[:, : len(time_steps)], values[:, len(time_steps)], _colour(method)
        axes.plot(time_steps, clocked.mean(0), "o-", color=colour, label=method.upper())
        axes.fill_between(time_steps, clocked.min(0), clocked.max(0), color=colour, alpha=0.2, linewidth=0)
        ends = [[event.mean() - event.min()], [event.max() - event.mean()]]
        axes.errorbar([edge], [event.mean()], yerr=ends, fmt="D", color=colour, capsize=4)
    axes.axvline(settings.time_steps, color="0.6", linestyle=":", label=f"trained at T = {settings.time_steps}")
    axes.set_xscale("log")
    axes.set_xticks([*time_steps, edge], [*map(str, time_steps), "event-\ndriven"])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    title = f"{settings.model.name} on {settings.data}, {settings.profile}; range over {parts}"
    axes.set(xlabel="time steps T at inference", ylabel="test accuracy", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def recipe_figure(gains: Mapping[str, tuple[np.ndarray, np.ndarray]], columns: Sequence[str], title: str) -> Any:
    """Accuracy that each change of a recipe gains, at each number of time steps.

    Parameters
    ----------
    gains : mapping of str to (gain, standard error)
        For every change two arrays, one value a column, as shares.
    columns : sequence of str
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    places, width = np.arange(len(columns)), 0.8 / max(len(gains), 1)
    for i, (name, (gain, error)) in enumerate(gains.items()):
        place = places + (i - (len(gains) - 1) / 2) * width
        axes.bar(place, 100 * gain, width, yerr=100 * error, label=name, capsize=2)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(places, columns)
    axes.set(ylabel="accuracy gained in points", title=f"{title}: changes of the recipe, +- standard error")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small")
    return figure


def sweep_figure(
    names: Sequence[str],
    prices: Sequence[float],
    accuracies: Sequence[float],
    front: Sequence[bool],
    what: str,
    title: str,
) -> Any:
    """Accuracy against what it costs, one point a number of time steps, with the Pareto front.

    Parameters
    ----------
    names : sequence of str
        Of the points.
    prices, accuracies : sequence of float
    front : sequence of bool
        Which points are on the front.
    what : str
        What the prices are, with their unit.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    best = sorted((price, accuracy) for price, accuracy, on in zip(prices, accuracies, front, strict=True) if on)
    axes.step(*zip(*best, strict=True), where="post", color=METHODS["mtt"].colour, alpha=0.5, label="Pareto front")
    axes.plot(prices, accuracies, "o", color=METHODS["mtt"].colour, label="time steps T")
    for name, price, accuracy in zip(names, prices, accuracies, strict=True):
        axes.annotate(name, (price, accuracy), xytext=(4, -11), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.minorticks_off()
    _accuracy_axis(axes)
    axes.set(xlabel=what, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def confusion_figure(score: Score, classes: Sequence[str], title: str) -> Any:
    """The confusion matrix as a heat map, with the number of samples in every cell that is not empty.

    Parameters
    ----------
    score : Score
    classes : sequence of str
        Their names.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    counts, n = score.confusion, len(classes)
    size = 0.45 * n + 2
    figure = Figure(figsize=(size + 0.5, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if count > counts.max() / 2 else "black"
            text = f"{count:.1f}".removesuffix(".0")
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.axvline(n - 0.5, color="0.6", linewidth=0.8)
    long = max(map(len, classes)) > 3
    axes.set_xticks(range(n + 1), [*classes, "silent"], rotation=90 if long else 0)
    axes.set_yticks(range(n), classes)
    axes.set(xlabel="answer (in the cells: samples)", ylabel="true class", title=title)
    return figure


CHIPS_DRAWN = 8


def placement_figure(placement: Placement) -> Any:
    """The chips of a board with their cores, each filled by as much as it is used.

    Parameters
    ----------
    placement : hw_profiles.Placement
        A core is a box with a bar for each of its resources, in the colours of its layers: how much of the resource is
        in use; resources whose limit is unknown have no bar. At most `CHIPS_DRAWN` chips are drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    facts = placement.profile.facts
    each = facts.cores_per_chip.value or max((core.number + 1 for core in placement.cores), default=1)
    chips = min(placement.chips or 1, CHIPS_DRAWN)
    # Cores stand as tiles do, column after column, where the chip's mesh is known.
    high = (facts.tiles_north_south.value or 0) * 2 if (facts.cores_per_tile.value or 0) == 4 else 0
    high = high or (1 if each <= 16 else round((each / 2) ** 0.5))
    wide = -(-each // high)
    across = min(chips, 2)
    down = -(-chips // across)
    figure = Figure(
        figsize=(max(5, 0.42 * wide * across) + 1.5, max(1.6, 0.42 * high * down) + 0.9), layout="constrained"
    )
    parts = sorted((part for core in placement.cores for part in core.parts), key=lambda part: part.layer)
    layers = list(dict.fromkeys(part.name for part in parts))
    colours = {name: colormaps["tab20"](i % 20) for i, name in enumerate(layers)}
    used = {core.number: core for core in placement.cores}
    for chip, axes in enumerate(np.ravel(figure.subplots(down, across))):
        axes.set_axis_off()
        if chip >= chips:
            continue
        for at in range(each):
            column, row = divmod(at, high)
            axes.add_patch(Rectangle((column, -row - 1), 0.9, 0.9, fill=False, edgecolor="0.75", linewidth=0.6))
            if high == 1 or not row:
                # Above the first core of a column, where there are several rows.
                where = {"y": -1.08, "va": "top"} if high == 1 else {"y": 0.02, "va": "bottom"}
                axes.text(column + 0.45, s=str(at), ha="center", fontsize=8 if high == 1 else 6, **where)
            core = used.get(chip * each + at)
            if core is None:
                continue
            limits = {name: limit for name, limit in core.limits.items() if limit}
            for i, (name, limit) in enumerate(limits.items()):
                size, top = 0.9 / len(limits), 0.0
                for part in core.parts:
                    tall = 0.9 * part.used[name] / limit
                    place = (column + i * size, top - row - 1)
                    axes.add_patch(Rectangle(place, size, tall, facecolor=colours[part.name], linewidth=0))
                    top += tall
        axes.set(xlim=(-0.2, wide + 0.1), ylim=(-high - 0.5, 0.5), aspect="equal")
        if chips > 1:
            axes.set_title(f"chip {chip}", fontsize=9)
    names = [] if not placement.cores else [n for n, limit in placement.cores[0].limits.items() if limit is not None]
    title = str(placement).splitlines()[0]
    more = f"; {CHIPS_DRAWN} of the chips are drawn" if (placement.chips or 1) > CHIPS_DRAWN else ""
    figure.suptitle(
        f"{placement.profile.title}\n{title}{more}\nbars of a core, by the share of its limit: {', '.join(names)}",
        fontsize=9,
    )
    handles = [Patch(color=colours[name], label=name) for name in layers]
    if handles:
        figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all; the ending names the format (.png, .svg)."""
    from matplotlib.cbook import is_math_text
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if is_math_text(text.get_text()) is True and not text.get_text().startswith(r"$\mathdefault"):
            text.set_parse_math(False)  # a name with dollars is no formula, which might not even be one
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
