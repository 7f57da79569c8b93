"""Pictures of results: each function draws on matplotlib axes, those that it is given or new ones, and returns them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtt_lava.temporal import METHODS
from netx_export.files import replacing

if TYPE_CHECKING:
    from hw_profiles import Placement
    from mtt_lava.evaluation import Point
    from mtt_lava.scoring import Score

MOST_LAYERS = 12
"""That a legend names."""
ROWS = 60
"""Neurons of a layer that a raster shows, at most."""


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


def axes_or_new(axes: Any, size: tuple[float, float]) -> Any:
    """The axes to draw on: those given, or those of a new figure, in inches."""
    if axes is not None:
        return axes
    # Not pyplot: it would choose a window system, and keep the figure.
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()


def plot_accuracy(
    curves: Mapping[str, tuple[Sequence[int], np.ndarray]],
    trained_at: int,
    title: str = "Accuracy at any T",
    events: Mapping[str, np.ndarray] | None = None,
    samples: int | None = None,
    axes: Any = None,
) -> Any:
    """Accuracy against the number of time steps, and without a clock at the right edge.

    Parameters
    ----------
    curves : mapping of str to (time steps, accuracies)
        For every method its time steps, and accuracies (runs, time steps) between 0 and 1; the mean is drawn, and the
        range over runs, which are seeds or folds, shaded.
    trained_at : int
        T of training, marked.
    title : str
    events : mapping of str to numpy.ndarray, optional
        For methods, accuracies (runs,) without a clock.
    samples : int, optional
        How many each accuracy is of: a single run's standard error is shaded.
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes, events = axes_or_new(axes, (7, 4)), events or {}
    ticks = sorted({t for time_steps, _ in curves.values() for t in time_steps})
    edge = 2.5 * ticks[-1]
    for method, (time_steps, accuracies) in curves.items():
        (line,) = axes.plot(time_steps, np.atleast_2d(accuracies).mean(0), **_line(method))
        low, high = _spread(accuracies, samples)
        axes.fill_between(time_steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        if method in events:
            mean, (low, high) = events[method].mean(), _spread(events[method][:, None], samples)
            ends = np.stack([mean - low, high - mean])
            axes.errorbar([edge], [mean], ends, fmt="D", color=line.get_color(), capsize=4)
    axes.axvline(trained_at, color="0.6", linestyle=":", label=f"trained at T = {trained_at}")
    axes.set_xscale("log")
    last = [(edge, "event-\ndriven")] if events else []
    axes.set_xticks([*ticks, *(at for at, _ in last)], [*map(str, ticks), *(name for _, name in last)])
    axes.minorticks_off()
    _accuracy_axis(axes)
    axes.set(xlabel="time steps T at inference", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def _spread(accuracies: np.ndarray, samples: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end over runs (runs, ...), or of one run's standard error."""
    accuracies = np.atleast_2d(accuracies)
    if len(accuracies) > 1 or not samples:
        return accuracies.min(0), accuracies.max(0)
    (mean,) = accuracies
    error = np.sqrt(mean * (1 - mean) / samples)
    return mean - error, mean + error


def plot_realtime(
    curves: Mapping[int | None, tuple[np.ndarray, np.ndarray]], answered: float, title: str, axes: Any = None
) -> Any:
    """Accuracy as a recording goes on: a line without a clock, steps with one.

    Parameters
    ----------
    curves : mapping of int or None to (elapsed, accuracy)
        For every number of time steps, and None for no clock: microseconds, and accuracies between 0 and 1.
    answered : float
        Microseconds after which an answer can be given, on average; marked.
    title : str
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_new(axes, (7, 4))
    for time_steps, (elapsed, accuracy) in curves.items():
        if time_steps is None:
            axes.plot(elapsed / 1000, accuracy, "k-", linewidth=2, label="no clock")
        else:
            steps = f"T = {time_steps}"
            axes.step(elapsed / 1000, accuracy, "o-", where="post", markersize=3, label=steps)
    at = answered / 1000
    axes.axvline(at, color="0.6", linestyle=":", label=f"answer by margin, mean {at:.0f} ms")
    _accuracy_axis(axes)
    axes.set(xlabel="ms since the start of the recording", title=title, xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return axes


def plot_recipe(
    gains: Mapping[str, tuple[np.ndarray, np.ndarray]], columns: Sequence[str], title: str, axes: Any = None
) -> Any:
    """Accuracy that each change of a recipe gains, at each number of time steps.

    Parameters
    ----------
    gains : mapping of str to (gain, standard error)
        For every change two arrays, one value a column, as shares.
    columns : sequence of str
    title : str
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_new(axes, (7.5, 4))
    places, width = np.arange(len(columns)), 0.8 / max(len(gains), 1)
    for i, (name, (gain, error)) in enumerate(gains.items()):
        place = places + (i - (len(gains) - 1) / 2) * width
        axes.bar(place, 100 * gain, width, yerr=100 * error, label=name, capsize=2)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(places, columns)
    axes.set(ylabel="accuracy gained in points", title=f"{title}: changes of the recipe, +- standard error")
    axes.grid(alpha=0.3, axis="y")
    # Bars go both ways and leave no corner free.
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    return axes


def plot_sweep(
    names: Sequence[str],
    prices: Sequence[float],
    accuracies: Sequence[float],
    front: Sequence[bool],
    what: str,
    title: str,
    axes: Any = None,
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
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib.ticker import LogLocator

    axes = axes_or_new(axes, (7.5, 4))
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
    return axes


def plot_confusion(score: Score, classes: Sequence[str], title: str, axes: Any = None) -> Any:
    """The confusion matrix as a heat map, with the number of samples in every cell that is not empty.

    Parameters
    ----------
    score : Score
    classes : sequence of str
        Their names.
    title : str
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    counts, n = score.confusion, len(classes)
    size = 0.45 * n + 2
    axes = axes_or_new(axes, (size + 0.5, size))
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
    return axes


def plot_answers(points: Sequence[Point], axes: Any = None) -> Any:
    """What became of the samples: right, wrong, several outputs alike, none.

    Parameters
    ----------
    points : sequence of Point
        A bar for each.
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_new(axes, (5, 3.4))
    places, low = np.arange(len(points)), np.zeros(len(points))
    silent, tied = (np.array([getattr(point.score, name) for point in points]) for name in ("silent", "tied"))
    # A tie gives a part of a sample to accuracy: what is right without one is not known of the shares alone.
    right = np.array([point.accuracy for point in points])
    alone = {"counted right": right, "counted wrong": 1 - right - silent, "silent": silent}
    for (name, share), colour in zip(alone.items(), ("#55a868", "#dd8452", "0.6"), strict=True):
        axes.bar(places, 100 * share, bottom=100 * low, label=name, color=colour, width=0.7)
        low = low + share
    axes.plot(places, 100 * tied, "kx", label="tied, of all")
    axes.set_xticks(places, [point.label for point in points])
    axes.set(xlabel="time steps T", ylabel="samples, %", title="Answers", ylim=(0, 100))
    axes.legend(fontsize="small", loc="lower right")
    return axes


def plot_rates(points: Sequence[Point], neurons: Mapping[str, int], axes: Any = None) -> Any:
    """Spikes of a neuron for a sample, mean of each layer.

    Parameters
    ----------
    points : sequence of Point
    neurons : mapping of str to int
        How many each layer has.
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes, places = axes_or_new(axes, (5, 3.4)), np.arange(len(points))
    for layer in points[0].spikes:
        axes.plot(places, [point.spikes[layer] / neurons[layer] for point in points], "o-", label=layer, markersize=4)
    axes.set_xticks(places, [point.label for point in points])
    axes.set(xlabel="time steps T", ylabel="spikes a neuron and sample", title="Spikes of each layer")
    axes.grid(alpha=0.3)
    if len(points[0].spikes) <= MOST_LAYERS:
        axes.legend(fontsize="small")
    return axes


def plot_raster(spikes: Mapping[str, np.ndarray], title: str = "Spikes of one sample", axes: Any = None) -> Any:
    """Which neurons fire when, layer above layer.

    Parameters
    ----------
    spikes : mapping of str to numpy.ndarray
        For every layer (..., T), of one sample. Of large layers every so many-th neuron is drawn.
    title : str
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes, base, ticks = axes_or_new(axes, (5, 4)), 0, []
    for layer, fired in spikes.items():
        flat = fired.reshape(-1, fired.shape[-1])
        shown = flat[:: -(-len(flat) // ROWS)]
        neuron, t = np.nonzero(shown)
        axes.scatter(t, base + neuron, s=4, marker="s", linewidths=0)
        every = f", every {-(-len(flat) // ROWS)}th" if len(shown) < len(flat) else ""
        ticks.append((base + len(shown) / 2, f"{layer}\n{len(flat):,}{every}"))
        base += len(shown)
        axes.axhline(base, color="0.8", linewidth=0.6)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize="small")
    axes.set(xlabel="time step", title=title, ylim=(0, base))
    axes.xaxis.get_major_locator().set_params(integer=True)
    return axes


def plot_traces(voltages: Mapping[str, tuple[np.ndarray, int]], axes: Any = None) -> Any:
    """Membrane voltages of one neuron a layer, in thresholds.

    Parameters
    ----------
    voltages : mapping of str to (voltages, threshold)
        For every layer the voltage at the end of each time step, behind the reset, (T,), and the threshold in the same
        unit.
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_new(axes, (5, 3.4))
    for layer, (voltage, threshold) in voltages.items():
        axes.plot(np.arange(len(voltage)), voltage / threshold, ".-", label=layer, linewidth=1)
    axes.axhline(1, color="0.3", linestyle="--", linewidth=1, label="threshold")
    axes.set(xlabel="time step", ylabel="v, in thresholds", title="Membrane voltage, busiest neuron of a layer")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return axes


def plot_weights(trained: np.ndarray, integers: np.ndarray, title: str, axes: Any = None) -> Any:
    """Weights of a layer before and after they are rounded.

    Parameters
    ----------
    trained : numpy.ndarray
        As trained, in units of the integers.
    integers : numpy.ndarray
        The chip's.
    title : str
    axes : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_new(axes, (3, 2.2))
    low, high = min(trained.min(), integers.min()), max(trained.max(), integers.max())
    bins = np.linspace(low, high, 41) if high > low else 3
    axes.hist(trained.ravel(), bins, alpha=0.5, label="trained")
    axes.hist(integers.ravel(), bins, histtype="step", color="black", label="rounded")
    axes.set_title(title, fontsize="small")
    axes.tick_params(labelsize="small")
    axes.legend(fontsize="x-small")
    return axes


CHIPS_DRAWN = 8


def plot_placement(placement: Placement) -> Any:
    """The chips of a board with their cores, each filled by as much as it is used.

    Parameters
    ----------
    placement : hw_profiles.Placement
        A core is a box with a bar for each of its resources, in the colours of its layers: how much of the resource is
        in use; resources whose limit is unknown have no bar. At most `CHIPS_DRAWN` chips are drawn.

    Returns
    -------
    numpy.ndarray
        matplotlib.axes.Axes, one a chip.
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
    of_chips = np.ravel(figure.subplots(down, across))
    for chip, axes in enumerate(of_chips):
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
    return of_chips


def save_picture(axes: Any, path: Path) -> None:
    """Write the figure of axes, or of several, whole or not at all; the ending names the format (.png, .svg)."""
    figure = _plain(axes)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def png(axes: Any) -> bytes:
    """The figure of axes, or of several, as a PNG."""
    buffer = io.BytesIO()
    _plain(axes).savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _plain(axes: Any) -> Any:
    """Its figure, whose texts are taken as they stand."""
    from matplotlib.cbook import is_math_text
    from matplotlib.text import Text

    figure = np.ravel(axes)[0].figure
    for text in figure.findobj(Text):
        if is_math_text(text.get_text()) is True and not text.get_text().startswith(r"$\mathdefault"):
            text.set_parse_math(False)  # a name with dollars is no formula, which might not even be one
    return figure
