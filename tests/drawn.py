"""What an exploit does for each number that it may draw: all outcomes, not samples of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from journals_by_hand import Story
from phyla.record import Record
from phyla.strategies.contract import Exploit


class Every:
    """In the place of a generator: gives each of the numbers that `integers` may draw, one after the other."""

    def __init__(self) -> None:
        self.next = 0
        self.most = 1

    def integers(self, most: int) -> int:
        self.most = most
        return self.next


def outcomes(story: Story, member: int, exploit: Exploit) -> list[Record | None]:
    """One for each number that it may draw; a single one if it draws none."""
    rng: Any = Every()
    found = []
    while rng.next < rng.most:
        found.append(exploit(story.view, member, rng))
        rng.next += 1
    return found


def donors(story: Story, member: int, exploit: Exploit) -> list[int]:
    """The ids of all whom the member may copy, ascending."""
    return sorted({record.id for record in outcomes(story, member, exploit) if record is not None})


def told(scores: Sequence[float | None], **known: Any) -> Story:
    """A story in which these were reported, by one member each."""
    story = Story(len(scores), **known)
    story.generation(*scores)
    return story
