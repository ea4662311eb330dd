"""Every error that phyla raises on purpose. Each message says what was given, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class PhylaError(Exception):
    """The root of all errors that phyla raises on purpose."""


class PhylaWarning(UserWarning):
    """Something that runs and probably does not do what was meant."""


class SettingsError(PhylaError, ValueError):
    """An argument, a space or a strategy that cannot work, found before anything was started."""


class RunDiffers(SettingsError):
    """A run of this name exists, and was created with other settings than the script names now."""


class LoopError(PhylaError, RuntimeError):
    """The loop used a member in a way that has no meaning: reported twice, asked for a state after its report, …"""


class ScoreError(PhylaError, ValueError):
    """A score that `report` cannot take."""


class StateError(PhylaError, TypeError):
    """A state that cannot be saved, or a saved one that does not fit what `init` made."""


class CheckpointError(PhylaError):
    """A checkpoint that is missing, torn, or not the one that was reported."""


class JournalError(PhylaError):
    """A journal that cannot be read or written: a gap, a foreign or newer schema, an unusable place."""


class Conflict(PhylaError):
    """Somebody else was first: the places in the journal that an append named are taken.

    taken: the (member, seq) pairs that already hold another writer's events.
    """

    def __init__(self, taken: Sequence[tuple[int, int]]):
        self.taken = tuple(taken)
        super().__init__("taken in the journal: " + ", ".join(f"(member {m}, seq {s})" for m, s in self.taken))


class ClaimLost(PhylaError):
    """The claim ended while its holder trained; what it trained is dropped and the member goes on elsewhere."""
