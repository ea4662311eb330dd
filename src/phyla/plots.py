"""Pictures of a run, and of a comparison of runs. Needs matplotlib: pip install phyla[plot]."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phyla.comparison import Arm, Comparison
from phyla.errors import SettingsError
from phyla.record import Record, show_score
from phyla.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINNER, OTHERS, COPY = "#c1432e", "#9aa5b1", "#2e6fc1"
MOST_HYPERS = 8  # panels


def plot(run: Run, file: str | Path) -> None:
    """Draws a run: every member's score, the winner's true ancestry through its donors, and the schedule that made it.

    file: its ending says the format, as in run.png or run.svg. Raises SettingsError without matplotlib, without a score, or
    if the file cannot be written.
    """
    pyplot = _pyplot()
    _check_format(pyplot, Path(file))
    best = run.best
    if best is None:
        raise SettingsError(f"{run.name} has no score yet: there is nothing to draw")
    names = list(run.view.space)[:MOST_HYPERS]
    heights = [2.2] + [1.0] * len(names)
    figure, axes = pyplot.subplots(
        len(heights),
        figsize=(8, 1.25 * sum(heights)),
        sharex=True,
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    _scores(axes[0, 0], run, best)
    for axis, name in zip(axes[1:, 0], names, strict=True):
        _hyperparameter(axis, run, best, name)
    axes[-1, 0].set_xlabel("interval")
    axes[-1, 0].xaxis.set_major_locator(pyplot.MaxNLocator(integer=True))
    figure.align_ylabels()
    _save(pyplot, figure, file)


def check_file(file: Path) -> None:
    """Raises SettingsError without matplotlib, or if it draws nothing of this ending."""
    _check_format(_pyplot(), file)


def _save(pyplot: Any, figure: Any, file: str | Path) -> None:
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror or error}") from None
    finally:
        pyplot.close(figure)


def _check_format(pyplot: Any, file: Path) -> None:
    known = pyplot.Figure().canvas.get_supported_filetypes()
    if file.suffix and file.suffix[1:].lower() not in known:  # without an ending matplotlib adds its own
        raise SettingsError(f"{file}: there is no format {file.suffix}; expected one of {', '.join(sorted(known))}")


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise SettingsError("pictures need matplotlib: pip install 'phyla[plot]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    return pyplot


def _scores(axis: Axes, run: Run, best: Record) -> None:
    path = best.ancestry()
    for history in run.view.history:
        axis.plot(*_curve(history), color=OTHERS, lw=0.7, alpha=0.8)
    axis.plot(*_curve(path), color=WINNER, lw=2, label="the winner's ancestry")
    copied = [before for before, after in itertools.pairwise(path) if before.id != after.id]
    if copied:
        axis.scatter(*_curve(copied), color=COPY, s=28, zorder=3, label="copied here")
    axis.plot(*_curve([best]), "*", color=WINNER, ms=13, mec="white")
    finite = sorted(score for history in run.view.history for score in _curve(history)[1])
    low, high = (
        finite[len(finite) // 20],
        finite[-1 - len(finite) // 200],
    )  # early scores and outliers would flatten the rest
    margin = (high - low) * 0.08 or 1.0
    axis.set_ylim(low - margin, max(high, *_curve([best])[1]) + margin)
    axis.set_ylabel("score")
    axis.set_title(
        f"{run.name}: {run.view.size} members, best {show_score(best.score)} (member {best.id}, interval {best.interval})",
        loc="left", fontsize=11,
    )  # fmt: skip
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)


def _curve(records: Sequence[Record]) -> tuple[list[int], list[float]]:
    """The intervals and the scores of those that have a finite one."""
    points = [(r.interval, r.score) for r in records if r.score is not None and r.finite]
    return [x for x, _ in points], [y for _, y in points]


def _hyperparameter(axis: Axes, run: Run, best: Record, name: str) -> None:
    space: Any = run.view.space[name]

    def draw(path: Sequence[Record], **style: Any) -> None:
        edges = [r.interval - r.span for r in path] + [path[-1].interval]
        values: list[Any] = [r.hypers[name] for r in path]
        axis.step(edges, [*values, values[-1]], where="post", **style)

    for history in run.view.history:
        if history:
            draw(history, color=OTHERS, lw=0.6, alpha=0.6)
    draw(best.ancestry(), color=WINNER, lw=2)
    if getattr(space, "log", False) is True:
        axis.set_yscale("log")
    axis.set_ylabel(name)
    axis.spines[["top", "right"]].set_visible(False)


# A comparison ---------------------------------------------------------------------------------------------------------

COLOURS = ("#c1432e", "#2e6fc1", "#3f8f5b", "#b07b1e", "#7a4fa3", "#4b8f9c", "#a3416f", "#6b7480")
"""Of arms, in turn."""


def plot_comparison(comparison: Comparison, file: str | Path) -> None:
    """Draws arms: the best score so far over the intervals trained, and what each seed came to at the end.

    Lines are interquartile means over seeds, and bands and bars their 95 % bootstrap intervals. Raises SettingsError as
    `plot` does.
    """
    pyplot = _pyplot()
    _check_format(pyplot, Path(file))
    arms = comparison.arms
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10, 3.2 + 0.25 * max(0, len(arms) - 4)), width_ratios=(1.25, 1), layout="constrained"
    )
    for place, arm in enumerate(arms):
        colour = COLOURS[place % len(COLOURS)]
        at, (value, low, high) = arm.curve
        left.fill_between(at, low, high, color=colour, alpha=0.13, lw=0, step="post")
        left.plot(at, value, color=colour, lw=1.8, label=arm.name, drawstyle="steps-post")
        _final_scores(right, arm, place, colour)
    low, high = _limits(comparison)
    left.set_ylim(low, high)
    left.set_xlabel("intervals trained, of all members")
    selects = comparison.selected_by
    left.set_ylabel(
        f"best {selects} so far" if comparison.score == selects else f"{comparison.score} of best {selects}"
    )
    left.legend(frameon=False, fontsize=8, loc="lower right" if comparison.mode == "max" else "upper right")
    right.set_yticks(range(len(arms)), [arm.name for arm in arms])
    right.set_ylim(len(arms) - 0.5, -0.5)
    right.set_xlabel(f"final {comparison.score}, {'higher' if comparison.mode == 'max' else 'lower'} is better")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) != 1)}"
    title = f"{comparison.name}: interquartile means over {seeds}, 95% bootstrap intervals"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _save(pyplot, figure, file)


def _final_scores(axis: Axes, arm: Arm, place: int, colour: str) -> None:
    """A point a seed, equal ones stacked, and below them the interquartile mean in its interval."""
    scores = sorted(one.final for one in arm.trials if one.final is not None and math.isfinite(one.final))
    heights = [place - 0.08 - 0.07 * (at - scores.index(score)) for at, score in enumerate(scores)]
    axis.scatter(scores, heights, s=22, color=colour, alpha=0.6, lw=0)
    estimate = arm.estimate("final")
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        axis.plot(
            [estimate.low, estimate.high], [place + 0.16] * 2, color=colour, lw=5, alpha=0.4, solid_capstyle="butt"
        )
        axis.plot(estimate.value, place + 0.16, "|", color=colour, ms=14, mew=2.5)


def _limits(comparison: Comparison) -> tuple[float | None, float | None]:
    """Where the curves end in the picture: what is far off at first, would flatten all the rest."""
    curves = [curve for _, curve in (arm.curve for arm in comparison.arms)]
    shown = [part for curve in curves for part in (curve[0, curve.shape[1] // 5 :], curve[:, curve.shape[1] // 2 :])]
    finite = [score for part in shown for score in part.flat if math.isfinite(score)]
    if not finite:
        return None, None
    margin = 0.08 * (max(finite) - min(finite)) or 0.1
    return min(finite) - margin, max(finite) + margin
