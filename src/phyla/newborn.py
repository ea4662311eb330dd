"""What `init` is given: who it makes a state for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from phyla.record import Record
from phyla.space import Hypers, Value


class Newborn(Mapping[str, Value]):
    """A member's hyperparameters as a read-only mapping of plain Python values, and who it is.

    id: 0 to size - 1. interval: the one being trained, from 1. steps: that it has trained before, in the user's unit. donor:
    the report that was copied for it, or None. seed: below 2**31; here one that depends on run, member and replacements only.
    """

    def __init__(
        self,
        hypers: Hypers,
        *,
        id: int,
        interval: int,
        steps: int | float,
        donor: Record | None,
        seed: int,
        read: set[str],
    ):
        self._hypers = hypers
        self._read = read  # the names that somebody has read
        self.id = id
        self.interval = interval
        self.steps = steps
        self.donor = donor
        self.seed = seed

    def __getitem__(self, name: str) -> Value:
        try:
            value: Value = self._hypers[name]
        except KeyError:
            names = ", ".join(map(repr, self._hypers))
            raise KeyError(f"there is no hyperparameter {name!r} in the space; it has {names}") from None
        self._read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._hypers)

    def __len__(self) -> int:
        return len(self._hypers)

    def __repr__(self) -> str:
        return f"<member {self.id}, interval {self.interval}: {self._hypers}>"
