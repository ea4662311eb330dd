"""What a comparison came to, as `phyla compare` prints it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from phyla.cli.text import Column, facts, plural, show, show_fit, styled, words
from phyla.compare import Contrast, Estimate, seeds_needed
from phyla.comparison import Arm, Comparison
from phyla.progress import duration

if TYPE_CHECKING:
    from rich.text import Text

WHAT: tuple[Literal["best"], Literal["final"]] = ("best", "final")
VERDICTS = {"better": "better", "worse": "worse", "alike": "not told apart", "too few": "too few seeds"}
STYLES = {"better": "green", "worse": "red"}


def show_comparison(comparison: Comparison, files: Sequence[Path]) -> None:
    """Prints the arms, how each does against the first, and what is to be said about that."""
    _show_arms(comparison)
    if comparison.held:
        _show_contrasts(comparison)
    notes = [*_not_told(comparison), *comparison.warnings]
    pairs: list[tuple[str, str | Text]] = [*_reading(comparison), *(("note", styled(one, "yellow")) for one in notes)]
    show("", facts([*pairs, *(("saved", str(file)) for file in files)]))


def _show_arms(comparison: Comparison) -> None:
    arms = comparison.arms
    estimates = {what: [arm.estimate(what) for arm in arms] for what in WHAT}
    digits = _digits([one for each in estimates.values() for one in each])
    better = "higher" if comparison.mode == "max" else "lower"
    head = words(
        (f"{comparison.name}  ", "bold"),
        (f"{plural(len(arms), 'arm')} from {plural(len(comparison.seeds), 'seed')}; ", ""),
        (f"{comparison.score}, {better} is better", ""),
    )
    changes = [", ".join(f"{key}={value}" for key, value in arm.changes.items()) for arm in arms]
    columns = [
        Column("arm", [styled(arm.name, "bold") for arm in arms]),
        Column("seeds", [str(len(arm.trials)) for arm in arms], right=True),
        *(Column(what, [show_estimate(one, digits) for one in estimates[what]]) for what in WHAT),
        Column("intervals", [f"{arm.mean('intervals'):,.6g}" for arm in arms], right=True, optional=True),
        Column("steps", [f"{arm.mean('steps'):,.6g}" for arm in arms], right=True, optional=True),
        Column("exploits", [f"{arm.mean('exploits'):,.3g}" for arm in arms], right=True, optional=True),
        Column("time", [duration(arm.mean("seconds")) for arm in arms], right=True, optional=True),
        *([Column("differs in", changes, optional=True)] if any(changes) else []),
    ]
    show_fit([head, ""], columns)


def _show_contrasts(comparison: Comparison) -> None:
    rows: list[tuple[Arm, str, Contrast]] = []
    for arm, *found in zip(comparison.held, *(comparison.contrasts(what) for what in WHAT), strict=True):
        rows += [(arm, what, one) for what, one in zip(WHAT, found, strict=True)]
    digits = _digits([one.difference for _, _, one in rows])
    title = f"against {comparison.arms[0].name}"
    columns = [
        Column(title, [styled(arm.name if what == WHAT[0] else "", "bold") for arm, what, _ in rows]),
        Column("", [what for _, what, _ in rows]),
        Column("difference", [show_estimate(one.difference, digits, sign=True) for _, _, one in rows]),
        Column("better in", [_percent(one.probability) for _, _, one in rows], optional=True),
        Column("p", [f"{one.p:.2g}" for _, _, one in rows]),
        Column("verdict", [styled(VERDICTS[one.verdict], STYLES.get(one.verdict, "")) for _, _, one in rows]),
    ]
    show_fit([""], columns)


def _reading(comparison: Comparison) -> list[tuple[str, str]]:
    """How to read it."""
    found = [
        (
            "best, final",
            "of the best report ever, and at the end; interquartile mean over seeds [95% bootstrap interval]",
        ),
        ("intervals …", "of a run, all members together, on average"),
    ]
    if arms := len(comparison.held):
        adjusted = f", adjusted for {arms} arms" if arms > 1 else ""
        found += [
            ("better in", "pairs of runs in which the arm has the better score"),
            ("p", f"of the signed-rank test by seed{adjusted}"),
        ]
    if comparison.score == comparison.selected_by:
        flatters = (
            "it is also what members were selected by, so it flatters; --metric NAME reports another, of held-out data"
        )
        found.append((comparison.score, f"{flatters}, say, that report(…, metrics=) was given"))
    return found


def _not_told(comparison: Comparison) -> list[str]:
    """Says which arms the final scores do not tell apart; and how many seeds it takes, where none could."""
    first, found = comparison.arms[0].name, []
    pairs = list(zip(comparison.held, comparison.contrasts("final"), strict=True))
    if alike := [arm.name for arm, one in pairs if one.verdict == "alike"]:
        seeds = plural(len(comparison.seeds), "seed")
        found.append(f"by their final scores, {seeds} do not tell {' and '.join(alike)} from {first}")
    if few := [(arm.name, one.seeds) for arm, one in pairs if one.verdict == "too few"]:
        found.append(
            f"{plural(few[0][1], 'seed')} cannot tell {' and '.join(name for name, _ in few)} from {first}, whatever the "
            f"scores; --seeds {seeds_needed(len(pairs))} is the least that can"
        )
    return found


def show_estimate(estimate: Estimate, digits: int | None, *, sign: bool = False) -> str:
    """`0.981 [0.975, 0.986]`; digits: after the point, None: four in all."""
    value, low, high = (_number(each, digits, sign) for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _number(value: float, digits: int | None, sign: bool) -> str:
    if not math.isfinite(value):
        return "none"
    plus = "+" if sign else ""
    return f"{value:{plus},.4g}" if digits is None else f"{value:{plus},.{digits}f}"


def _digits(estimates: Sequence[Estimate]) -> int | None:
    """Digits after the point, so that the narrowest interval has two that matter; None where all are points."""
    widths = [one.high - one.low for one in estimates if math.isfinite(one.high - one.low) and one.high > one.low]
    return min(8, max(0, 1 - math.floor(math.log10(min(widths))))) if widths else None


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.0%} [{estimate.low:.0%}, {estimate.high:.0%}]"
