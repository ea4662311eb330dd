"""What a member and a cohort have in common: one claim, trained by one turn of the user's loop, and how it ends."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from phyla.ahead import Draws
from phyla.checkpoints import Tree
from phyla.errors import CheckpointError, JournalError, LoopError, StateError
from phyla.record import Record
from phyla.stacks import Stacks
from phyla.states import States
from phyla.view import View
from phyla.worker import Claim, Outcome, Passed


class Savable(Protocol):
    """A live state."""

    def save(self) -> Tree: ...


class Home(Protocol):
    """What a turn needs of its population."""

    states: States
    stacks: Stacks
    draws: Draws

    @property
    def view(self) -> View: ...
    @property
    def needs_samples(self) -> bool: ...
    def use_threads(self) -> None: ...
    def complain(self, key: str, message: str, *, error: bool = True) -> None: ...
    def publish(
        self, claim: Claim, live: Savable, outcomes: Sequence[Outcome], passed: Sequence[Passed] | None = None
    ) -> Sequence[Record]: ...
    def unreported(self, turn: Turn) -> None: ...
    def raised(self, turn: Turn, error: BaseException) -> None: ...
    def left(self, turn: Turn, error: SystemExit) -> None: ...


class Turn:
    """One turn of the loop. `ended`: reported, or given up; `failed`: why it was given up."""

    id: int  # of the member, or of a cohort's first
    interval: int
    call: str  # what ends its interval well
    who: str  # what it is called, in errors

    def __init__(self, population: Home, claim: Claim):
        self._population = population
        self._claim = claim
        self.ended = False
        self.failed: str | None = None

    @property
    def settled(self) -> bool:
        """Whether the interval in hand has come to its end, well or not."""
        return self.ended

    def _ending(self) -> str:
        if self.failed is None:
            return f"has reported interval {self.interval} already"
        if self.failed == "given_back":
            return f"was given back in interval {self.interval}, when the loop was left or another member was claimed"
        return f"has failed in interval {self.interval} ({self.failed})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            if not self.ended:
                self._population.unreported(self)
            return False
        if isinstance(error, SystemExit) and not self.ended:
            self._population.left(self, error)
        if not isinstance(error, Exception) or isinstance(
            error, LoopError | StateError | CheckpointError | JournalError
        ):
            return False  # Ctrl-C, and what every member would meet too: the loop's end gives the claim back
        traceback.print_exception(kind, error, trace)
        if not self.ended:
            self._population.raised(self, error)
        return True
