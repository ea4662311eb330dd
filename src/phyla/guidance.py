"""Advice: settings that work but seldom work well, and populations whose members have become copies of one another.

The numbers are those of reports on Population Based Training: too short an interval is greedy and too long one never adapts
(IPBT, arXiv 2511.09190; PBT-Zoo, TMLR 2025), one donor for all loses diversity (Jaderberg et al. 2017, arXiv 1711.09846).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space
from phyla.strategies.contract import advise
from phyla.strategies.evolve import Evolve
from phyla.view import View

FEWEST, MOST = 20, 100
"""Times that each member becomes ready in a whole run, between which PBT was seen to work."""

RECENT = 10
"""Times ready, over which lineages are told apart: further back, the members of every good population are one family."""

FEW_LINEAGES, NARROW = 1.5, 0.02
"""Effective lineages, and the spread of hyperparameters as a share of their range, below which a population is one model."""

_LOWER = r"loss|error|err|nll|perplexity|ppl|bpc|bpb|mse|rmse|mae|fid|wer|cer|regret|cost"
_HIGHER = r"accuracy|acc|reward|return|bleu|rouge|f1|auc|auroc|map|iou|psnr|ssim|r2|winrate"


# Before anything is trained -------------------------------------------------------------------------------------------


def at_start(settings: Settings, space: Space, strategy: object) -> list[str]:
    """What a run is advised against, a sentence each; strategy: None where it is not known."""
    return [*_about_intervals(settings, strategy), *_about_the_metric(settings), *advise(strategy, space, settings)]


def ready_points(settings: Settings) -> int | None:
    """How often a member becomes ready in the whole run; None where nobody knows how long that is."""
    if settings.intervals is None:
        return None
    return max(0, settings.intervals - settings.burn_in) // settings.ready


def _about_intervals(settings: Settings, strategy: object) -> Iterator[str]:
    found = ready_points(settings)
    if found is None or settings.size < 2 or (isinstance(strategy, Evolve) and strategy.exploit is None):
        return
    if found < FEWEST:
        yield (
            f"each member becomes ready {found} times in the whole run; fewer than {FEWEST} leave little time to adapt. "
            f"Shorter intervals{', or a smaller ready=' if settings.ready > 1 else ''} give more"
        )
    elif found > MOST and not getattr(strategy, "looks_ahead", False):
        yield (
            f"each member becomes ready {found} times in the whole run; more than {MOST} select what is better soon, not "
            f"what is better at last. ready={math.ceil(found * settings.ready / MOST)} or longer intervals look further ahead"
        )


def _about_the_metric(settings: Settings) -> Iterator[str]:
    if settings.metric is None:
        return
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", settings.metric).lower())
    lower, higher = (any(re.fullmatch(names, word) for word in words) for names in (_LOWER, _HIGHER))
    if lower and not higher and settings.mode == "max":
        yield f'the metric is called {settings.metric!r}, and its highest value wins: is mode="min" meant?'
    if higher and not lower and settings.mode == "min":
        yield f'the metric is called {settings.metric!r}, and its lowest value wins: is mode="max" meant?'


# While it trains ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Diversity:
    """How different the members are that train.

    ancestors: members from whose first weights somebody descends. effective: exp of the entropy of these lineages, 1 where all
    descend from one. recent: the same for where they stood `RECENT` times ready ago. spread: by name, the standard
    deviation of each hyperparameter as a share of its range, on its axis; of an unordered choice, the share of members that do
    not have the commonest value. members: of which this is told.
    """

    ancestors: int
    effective: float
    recent: float
    spread: dict[str, float]
    members: int

    @property
    def collapsed(self) -> bool:
        """Whether the members are one model with one set of hyperparameters, by and large."""
        return self.members >= 4 and self.recent < FEW_LINEAGES and all(s < NARROW for s in self.spread.values())


def diversity(view: View) -> Diversity | None:
    """Of the members that train, as they stand; None before two of them have reported."""
    members = [history[-1] for m, history in enumerate(view.history) if history and view.active[m]]
    if len(members) < 2:
        return None
    back = RECENT * view.settings.ready
    paths = [record.ancestry() for record in members]
    roots = _effective([path[0] for path in paths])
    recent = _effective([_at(path, record.interval - back) for path, record in zip(paths, members, strict=True)])
    spread = {
        name: _spread([record.hypers[name] for record in members], view.space, name)
        for name, hyperparameter in view.space.items()
        if not hyperparameter.structural
    }
    return Diversity(len({path[0].id for path in paths}), roots, recent, spread, len(members))


def _at(path: list[Record], interval: int) -> Record:
    """Where a lineage stood after so many intervals; its beginning, if it is younger."""
    return next((record for record in reversed(path) if record.interval <= interval), path[0])


def _effective(ancestors: list[Record]) -> float:
    shares = np.array(list(Counter(record.ref for record in ancestors).values())) / len(ancestors)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _spread(values: list[object], space: Space, name: str) -> float:
    hyperparameter = space[name]
    known = [value for value in values if hyperparameter.contains(value)]
    if not known:
        return 0.0
    if getattr(hyperparameter, "ordered", None) is False:
        return 1 - Counter(map(repr, known)).most_common(1)[0][1] / len(known)
    return float(np.std([hyperparameter.encode(value) for value in known]))  # type: ignore[arg-type]


def on_diversity(view: View) -> list[str]:
    """What is to be said of a population whose members have become one."""
    found = diversity(view)
    if found is None or view.finished or not found.collapsed:
        return []
    return [
        f"the population has collapsed: its {found.members} members descend from {found.recent:.2g} effective lineages of "
        f"{RECENT * view.settings.ready} intervals ago, and no hyperparameter varies by more than {NARROW:.0%} of its range. "
        "Perturb(resample=0.25), a larger fraction of donors, or a larger ready= keep more of them apart"
    ]


def show_diversity(found: Diversity) -> str:
    """In words: `1.8 effective lineages (3.2 of the last 10 times ready); spread lr 12%, dropout 30%`."""
    spread = ", ".join(f"{name} {share:.0%}" for name, share in found.spread.items())
    lineages = f"{found.effective:.2g} effective lineages ({found.recent:.2g} over the last {RECENT} times ready)"
    return f"{lineages}; spread {spread or 'of nothing: all is structural'}"
