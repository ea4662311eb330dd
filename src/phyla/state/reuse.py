"""Live objects that are kept and given to one member after another: which options each should find in them.

`init` runs once a process for such objects, so it does not say what it would set for other hyperparameters. It is
reckoned: an option named like a hyperparameter is proportional to it, the other learning rates of the same group and of its
schedulers go along, and what `apply` sets is set.

It is reckoned from the checkpoint and not from the live objects, whose first member differs between processes: the same claim
must give the same bits in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from phyla.checkpoints.leaves import is_array, is_torch
from phyla.state import kinds
from phyla.state.kinds import Tree
from phyla.state.options import Made, objects, options_of

_LEADERS = ("lr", "max_lr", "initial_lr")  # the first of these that is set moves its group's other learning rates
_FAMILY = ("lr", "initial_lr", "max_lr", "min_lr")
_SCHEDULER_FAMILY = ("base_lrs", "max_lrs", "_last_lr")
_RATES = _FAMILY + _SCHEDULER_FAMILY


class Ratio(NamedTuple):
    """A value before and after; what is proportional to it follows."""

    old: Any
    new: Any

    def of(self, value: Any) -> Any:
        """What a value becomes: `new` exactly where it was `old`; itself where a ratio has no meaning."""
        if value == self.old and (type(value) is bool) == (type(self.old) is bool):
            return self.new
        if type(value) in (list, tuple):
            return type(value)(map(self.of, value))
        if not all(type(x) in (int, float) for x in (value, *self)) or not self.old or self.old == self.new:
            return value
        scaled = value * (self.new / self.old)
        return round(scaled) if all(type(x) is int for x in (value, *self)) else scaled


def made_for(
    state: Any,
    live: Made,
    saved: Tree,
    hypers: Mapping[str, Any],
    apply: Callable[[Any, Any], object] | None = None,
    member: Any = None,
) -> Made:
    """What `init` would have made for these hyperparameters.

    state, live: the kept objects, and what `init` made of them. saved: the checkpoint that is to be loaded into them next.
    apply(state, member), if given, is called on the live objects when their options are as `init` had set them, with a
    scheduled learning rate showing its base; what it changes is set.
    """
    checkpoint = Made.of(saved)
    at = dict(objects(state, live.parts))
    applied = _call(apply, state, member, live, at) if apply is not None else {}
    options: dict[str, Tree] = {}
    leaders: dict[int, list[Ratio | None]] = {}  # how the rates of each optimizer's groups move, by its id
    rates = list(_rates(live.options))
    for path in sorted(live.options, key=lambda path: "param_groups" not in live.options[path]):
        known = path in checkpoint.options
        then = checkpoint.options[path] if known else live.options[path]
        reckoner = _Reckoner(live.hypers, checkpoint.hypers if known else live.hypers, hypers, rates)
        mine = leaders.get(
            id(getattr(at.get(path), "optimizer", None)), [ratio for each in leaders.values() for ratio in each]
        )
        options[path] = reckoner.tree(then, live.options[path], applied.get(path), mine)
        leaders[id(at.get(path))] = reckoner.leaders
    return replace(live, options=options, hypers=dict(hypers))


def _call(
    apply: Callable[[Any, Any], object], state: Any, member: Any, live: Made, at: Mapping[str, Any]
) -> dict[str, Tree]:
    """The options as `apply` leaves them."""
    for path, made in live.options.items():
        if path in at:
            _put(at[path], made)
    apply(state, member)
    return {path: options_of(at[path]) for path in live.options if path in at}


def _put(obj: Any, made: Tree) -> None:
    """Sets an object's options in place."""
    groups = getattr(obj, "param_groups", None)
    if not isinstance(groups, list):
        obj.load_state_dict(kinds.copied(_overlaid(obj.state_dict(), made)))
        return
    for group, options in zip(groups, made["param_groups"], strict=False):
        for key, value in _shown(options).items():
            if is_torch(group.get(key)):
                group[key].fill_(value)
            else:
                group[key] = value


def _shown(group: Tree) -> Tree:
    """A group's options as `apply` finds them: at the base of its schedule, which may begin with 0."""
    return {**group, "lr": group["initial_lr"]} if "initial_lr" in group and "lr" in group else group


def _overlaid(saved: Tree, options: Tree) -> Tree:
    """A state dict with these options in it."""
    if type(saved) is dict and isinstance(options, dict):
        return {key: _overlaid(child, options.get(key)) for key, child in saved.items()}
    if type(saved) in (list, tuple) and isinstance(options, list | tuple) and len(saved) == len(options):
        return type(saved)(map(_overlaid, saved, options))
    return saved if options is None or is_array(saved) else options


@dataclass
class _Reckoner:
    """Reckons one object's options.

    live, then, now: the hyperparameters that the live object was made for, those that the checkpoint's options were set for,
    and those to reckon for. rates: all learning rates that `init` gave the live objects. leaders: what has moved the rates
    of each of its groups.
    """

    live: Mapping[str, Any]
    then: Mapping[str, Any]
    now: Mapping[str, Any]
    rates: Sequence[Any]
    leaders: list[Ratio | None] = field(default_factory=list)

    def tree(self, then: Tree, live: Tree, applied: Tree, leaders: Sequence[Ratio | None]) -> Tree:
        """The options now. then, live, applied: those of the checkpoint, of the live object, and as `apply` left them."""
        if type(then) is list:
            places = range(len(then))
            return [self.tree(then[i], _child(live, i), _child(applied, i), leaders) for i in places]
        if type(then) is not dict:
            return then
        if isinstance(then.get("param_groups"), list):
            return {
                "param_groups": [self._group(group, live, applied, i) for i, group in enumerate(then["param_groups"])]
            }
        ratios = self._set(then, live, applied, any(leaders))
        now = {}
        for key in sorted(then, key=lambda key: not _holds_groups(then[key])):
            value = then[key]
            if key in ratios:
                now[key] = ratios[key].of(value)
            elif key in _SCHEDULER_FAMILY and isinstance(value, list):
                moved = _fitted(leaders or self.leaders, len(value))
                now[key] = [ratio.of(v) if ratio is not None else v for ratio, v in zip(moved, value, strict=True)]
            else:
                now[key] = self.tree(value, _child(live, key), _child(applied, key), leaders)
        return {key: now[key] for key in then}

    def _group(self, then: Tree, live: Tree, applied: Tree, place: int) -> Tree:
        """One group of an optimizer."""
        live, applied = (_child(_child(tree, "param_groups"), place) for tree in (live, applied))
        ratios = self._set(then, _shown(live) if live else None, applied, False)
        leader = next((ratios[key] for key in _LEADERS if key in ratios), None)
        self.leaders.append(leader)
        if leader is not None:
            ratios = {**{key: leader for key in _FAMILY if key in then}, **ratios}
        return {key: ratios[key].of(value) if key in ratios else value for key, value in then.items()}

    def _set(self, then: Tree, live: Tree, applied: Tree, led: bool) -> dict[str, Ratio]:
        """What `apply` or a hyperparameter's name sets among these options, and what each is then proportional to.

        led: the learning rates among them follow something else, unless they are surely set themselves.
        """
        ratios, doubtful = {}, {}
        for key, value in then.items():
            old = then["initial_lr"] if key == "lr" and "initial_lr" in then else value
            before, after = _child(live, key), _child(applied, key)
            if after is None or type(value) is dict or _holds_dicts(value):
                after = before  # nothing that `apply` sets
            if after != before:
                ratios[key] = self._alias(key, after, before) or Ratio(old, after)
            elif key in self.now and key in self.then:
                ratios[key] = Ratio(self.then[key], self.now[key])
            elif key in self.now and key in self.live:  # the checkpoint is of a run that did not know this name
                ratios[key] = Ratio(old, Ratio(self.live[key], self.now[key]).of(before))
            elif applied is not None and old != before and (alias := self._alias(key, before, before)):
                ratios[key] = alias
            elif applied is not None and old != before and self._coincides():
                doubtful[key] = Ratio(old, before)
        led = led or any(key in ratios for key in _LEADERS)
        return {**{key: ratio for key, ratio in doubtful.items() if not (led and key in _RATES)}, **ratios}

    def _alias(self, key: str, value: Any, before: Any) -> Ratio | None:
        """The hyperparameter whose very value was set, if what `init` gave the live object (or any rate) was that one's too."""
        like = self.rates if key in _RATES else (before,)
        for name, new in self.now.items():
            if type(new) is type(value) and new == value and name in self.then and self.live.get(name) in like:
                return Ratio(self.then[name], new)
        return None

    def _coincides(self) -> bool:
        """Whether some hyperparameter is what the live object was made for, and not what the checkpoint was: then an option
        that `apply` seems to have left alone may have been set to what it was."""
        return any(self.live.get(name) == new != self.then.get(name) for name, new in self.now.items())


def _rates(options: Any, key: Any = None) -> Iterator[Any]:
    """All learning rates among some options."""
    if isinstance(options, Mapping):
        for name, child in options.items():
            yield from _rates(child, name)
    elif isinstance(options, list):
        for child in options:
            yield from _rates(child, key)
    elif key in _RATES:
        yield options


def _child(tree: Tree, key: Any) -> Tree:
    if isinstance(tree, dict):
        return tree.get(key)
    return tree[key] if isinstance(tree, list) and isinstance(key, int) and key < len(tree) else None


def _holds_dicts(value: Tree) -> bool:
    return isinstance(value, list) and any(type(child) is dict for child in value)


def _holds_groups(value: Tree) -> bool:
    return isinstance(value, dict) and (
        isinstance(value.get("param_groups"), list) or any(map(_holds_groups, value.values()))
    )


def _fitted(leaders: Sequence[Ratio | None], count: int) -> Sequence[Ratio | None]:
    """One ratio for each of a scheduler's groups; if it is not known which are its, then only one that holds for all."""
    if len(leaders) == count:
        return leaders
    return [leaders[0] if leaders and all(ratio == leaders[0] for ratio in leaders) else None] * count
