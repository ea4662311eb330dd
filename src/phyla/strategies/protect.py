"""Protect: members that an exploit never replaces.

From Sample Factory (alex-petrenko/sample-factory), where the first policy of a population is never replaced: a reference that
trains to the end with the hyperparameters it was born with. A strategy around another one; phyla's own form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phyla.errors import SettingsError
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space
from phyla.strategies import contract, given
from phyla.strategies.contract import Exploit
from phyla.view import View


@dataclass(frozen=True, init=False)
class Protect:
    """`exploit` for all members but these, which copy nobody; others may copy them.

    members: the id of one, or of several. They count among the ranks of the others as ever, and one whose own state is lost
    (diverged, out of retries) is replaced like any other.
    Raises SettingsError for what are no ids; `check`, for a member that does not exist.

    >>> from phyla import Truncation
    >>> Protect(Truncation(0.25), 0)
    Protect(exploit=Truncation(fraction=0.25), members=(0,))
    """

    exploit: Exploit
    members: tuple[int, ...]  # ascending

    def __init__(self, exploit: Exploit, members: int | Sequence[int] = 0):
        given.part("Protect: the exploit", exploit, "phyla.Truncation(0.2)")
        several = members if isinstance(members, list | tuple) else [members]
        if not several:
            raise SettingsError("Protect: members must be the id of one member, or of several, got none")
        ids = {given.whole("Protect: a member", member, 0, None, "the id of one, from 0") for member in several}
        object.__setattr__(self, "exploit", exploit)
        object.__setattr__(self, "members", tuple(sorted(ids)))

    @property
    def retain(self) -> Any:
        """That of `exploit`, if it has one."""
        return getattr(self.exploit, "retain", None)

    @property
    def needs_samples(self) -> bool:
        return contract.needs_samples(self.exploit)

    def check(self, space: Space, settings: Settings) -> None:
        if strange := [member for member in self.members if member >= settings.size]:
            raise SettingsError(
                f"{self!r}: there is no member {strange[0]}; the last of {settings.size} is {settings.size - 1}"
            )
        contract.check(self.exploit, space, settings)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        return contract.advise(self.exploit, space, settings)

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        return None if member in self.members else self.exploit(view, member, rng)
