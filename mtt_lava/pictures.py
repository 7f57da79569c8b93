"""Pictures of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.files import replacing

COLOURS = {"sdt": "#c44e52", "nmt": "#dd8452", "mtt": "#4c72b0"}


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
        colour = COLOURS.get(method)
        axes.plot(time_steps, accuracies.mean(0), "o-", color=colour, label=method.upper())
        if len(accuracies) > 1:
            axes.fill_between(time_steps, accuracies.min(0), accuracies.max(0), color=colour, alpha=0.2, linewidth=0)
    axes.axvline(trained_at, color="0.6", linestyle=":", label=f"trained at T = {trained_at}")
    axes.set_xscale("log")
    ticks = sorted({t for time_steps, _ in curves.values() for t in time_steps})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    axes.set(xlabel="time steps T at inference", ylabel="test accuracy", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def paper_figure(accuracies: Mapping[str, np.ndarray], time_steps: Sequence[int], settings: Any) -> Any:
    """Accuracy against T, and without a clock at the right edge.

    Parameters
    ----------
    accuracies : mapping of str to numpy.ndarray
        For every method (folds, points): at each of `time_steps`, then event-driven; more columns are not drawn.
    time_steps : sequence of int
    settings : mtt_lava.run.Settings
        Of the runs.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    edge = 2.5 * time_steps[-1]
    for method, values in accuracies.items():
        clocked, event, colour = values[:, : len(time_steps)], values[:, len(time_steps)], COLOURS.get(method)
        axes.plot(time_steps, clocked.mean(0), "o-", color=colour, label=method.upper())
        axes.fill_between(time_steps, clocked.min(0), clocked.max(0), color=colour, alpha=0.2, linewidth=0)
        ends = [[event.mean() - event.min()], [event.max() - event.mean()]]
        axes.errorbar([edge], [event.mean()], yerr=ends, fmt="D", color=colour, capsize=4)
    axes.axvline(settings.time_steps, color="0.6", linestyle=":", label=f"trained at T = {settings.time_steps}")
    axes.set_xscale("log")
    axes.set_xticks([*time_steps, edge], [*map(str, time_steps), "event-\ndriven"])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    title = f"{settings.model.name} on {settings.data}, {settings.profile}; range over folds"
    axes.set(xlabel="time steps T at inference", ylabel="test accuracy", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all; the ending names the format (.png, .svg)."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
