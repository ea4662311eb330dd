"""Explore each hyperparameter in a way of its own.

phyla's own, for methods that move some hyperparameters otherwise than others: a factor of two for one learning rate, noise for
another, and a discount that moves by its distance from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.space import Hypers, Space
from phyla.strategies import contract, given
from phyla.strategies.contract import Explore
from phyla.strategies.perturb import Perturb

if TYPE_CHECKING:
    from phyla.view import View


@dataclass(frozen=True, init=False, repr=False)
class ByName:
    """The explore that is named for a hyperparameter moves it, and nothing else; all that are not named, `otherwise`.

    moves: by the hyperparameter's name, an explore that looks at that one alone. otherwise: None leaves the others as they
        are.
    A discount or a momentum needs no move of its own: with `Float(0.9, 0.9999, log="1-x")` every explore acts on 1 - x, so
    that a factor of 2 takes 0.99 to 0.98, and 0.5 to 0.995.
    Raises SettingsError for no moves, or what is no explore; `check`, for a name that the space does not have, or that
    is structural, since that follows the weights.

    >>> from phyla import Gaussian
    >>> ByName({"lr": Perturb(0.5, 2.0), "clip": Gaussian(0.1)}, otherwise=None)
    ByName({'clip': Gaussian(0.1), 'lr': Perturb(0.5, 2.0)}, otherwise=None)
    """

    moves: tuple[tuple[str, Explore], ...]  # in order of name
    otherwise: Explore | None

    def __init__(
        self,
        moves: Mapping[str, Explore] | Sequence[tuple[str, Explore]],
        otherwise: Explore | None = Perturb(),  # noqa: B008 (it is frozen)
    ):
        try:
            by_name = dict(moves)
        except (TypeError, ValueError):
            by_name = {}
        if not by_name or not all(isinstance(name, str) for name in by_name):
            raise SettingsError(
                f'ByName: expected explores by name, as in ByName({{"lr": phyla.Perturb(0.5, 2.0)}}), got {moves!r}'
            )
        for name, move in by_name.items():
            given.part(f"ByName: the move of {name!r}", move, "phyla.Perturb(0.5, 2.0)")
        if otherwise is not None:
            given.part("ByName: otherwise", otherwise, "phyla.Perturb(), or None")
        object.__setattr__(self, "moves", tuple(sorted(by_name.items())))
        object.__setattr__(self, "otherwise", otherwise)

    def __repr__(self) -> str:
        otherwise = f", otherwise={self.otherwise!r}" if self.otherwise != Perturb() else ""
        return f"ByName({dict(self.moves)!r}{otherwise})"

    def check(self, space: Space, settings: Settings) -> None:
        """Raises SettingsError for a name that cannot be moved here."""
        for name, move in self.moves:
            if name not in space:
                raise SettingsError(f"ByName: it names {name!r}; the space has {', '.join(map(repr, space))}")
            if space[name].structural:
                raise SettingsError(
                    f"ByName: it names {name!r}, which is structural: it follows the weights, unchanged"
                )
            contract.check(move, {name: space[name]}, settings)
        contract.check(self.otherwise, self._others(space), settings)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        parts = [(move, {name: space[name]}) for name, move in self.moves]
        return [
            said
            for part, its_space in [*parts, (self.otherwise, self._others(space))]
            for said in contract.advise(part, its_space, settings)
        ]

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        """The donor's hypers, explored: a new dict. Draws are made in order of name, those of `otherwise` last."""
        explored = dict(hypers)
        for name, move in self.moves:
            explored |= move({name: hypers[name]}, {name: space[name]}, view, member, rng)
        others = self._others(space)
        if self.otherwise is not None:
            explored |= self.otherwise({name: hypers[name] for name in others}, others, view, member, rng)
        return explored

    def _others(self, space: Space) -> Space:
        named = dict(self.moves)
        return {name: hyperparameter for name, hyperparameter in space.items() if name not in named}
