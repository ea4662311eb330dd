"""What a test needs beside a `Story`: single events, and journals in which everything happens."""

from __future__ import annotations

from typing import Any

import numpy as np

from phyla.events import RUN, Checkpoint, Claimed, Created, Reported
from phyla.settings import Settings
from phyla.space import describe
from phyla.testing.story import SPACE, Story, hypers_of, snapshot

__all__ = ["SPACE", "Story", "claimed", "created", "hypers_of", "random_story", "reported", "snapshot"]


def claimed(**changes: Any) -> Claimed:
    """A Claimed event on its own."""
    return Claimed(**{"member": 0, "seq": 2, "interval": 1, "worker": "w", "saw": 4, "hypers": {}, **changes})


def reported(**changes: Any) -> Reported:
    """A Reported event on its own."""
    checkpoint = Checkpoint("m0-2.safetensors", "0" * 32, 1)
    return Reported(**{"member": 0, "seq": 3, "interval": 1, "checkpoint": checkpoint, **changes})


def created(**changes: Any) -> Created:
    """A Created event on its own, with these settings."""
    known: dict[str, Any] = {"seed": 0, "space": describe(SPACE), "size": 2, "intervals": 3, **changes}
    return Created(member=RUN, seq=1, run="r", version="0", settings=Settings(**known))


def random_story(rng: np.random.Generator, turns: int, size: int | None = None, **settings: Any) -> Story:
    """A legal journal in which everything happens: NaN, ties, no scores, copies, losses, retries, lost files, late claims."""
    chosen: dict[str, Any] = {
        "keep": int(rng.integers(1, 4)), "window": int(rng.integers(1, 6)), "retries": int(rng.integers(0, 3)),
        "max_lost": int(rng.integers(1, 4)), "ready": int(rng.integers(1, 4)), "burn_in": int(rng.integers(0, 3)),
        "mode": ("max", "min")[int(rng.integers(2))], "compare": ("progress", "latest")[int(rng.integers(2))],
    }  # fmt: skip
    story = Story(int(rng.integers(1, 6)) if size is None else size, **{**chosen, **settings})
    view = story.view
    for _ in range(turns):
        m = int(rng.integers(view.size))
        if view.open[m] is None:
            refs = list(view.records)
            late = bool(refs) and rng.random() < 0.1  # names a report that may be gone by now
            others = [r for r in view.peers(m) if r.id != m]
            source: Any = refs[int(rng.integers(len(refs)))] if late else "own"
            if not late and others and rng.random() < 0.3:
                source = others[int(rng.integers(len(others)))]
            elif rng.random() < 0.05:
                source = None
            story.claim(m, source, ready=bool(rng.random() < 0.5), replaced=bool(rng.random() < 0.1))
            continue
        match int(rng.integers(12)):
            case 0:
                story.fail(m, ("raised", "unreported", "crashed", "hung")[int(rng.integers(4))])
            case 1 | 2:
                story.fail(m, ("lost", "given_back")[int(rng.integers(2))])
            case 3:
                open_ = view.open[m]
                assert open_ is not None
                story.fail(m, "checkpoint", None if view.late[m] else open_.source)
            case _:
                value = (
                    float(rng.integers(-3, 4))
                    if rng.random() < 0.85
                    else [np.nan, np.inf, -np.inf, None][rng.integers(4)]
                )
                samples = [float(x) for x in rng.integers(0, 9, 3)] if rng.random() < 0.3 else None
                mine = [ref for ref in view.records if rng.random() < 0.1]
                story.report(m, value, steps=int(rng.integers(0, 5)), samples=samples, synced=mine or None)
    return story
