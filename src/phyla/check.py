"""`phyla check`: is a member that stayed in memory the same as one that was restored from its checkpoint?

The script's own loop is run for a few intervals, in memory, with nothing written:

    resident   a member trains interval 1, and goes on with interval 2 at once
    restored   another member trains, then the first is restored from its interval 1 and trains interval 2
    reborn     the first is made anew by `init` and trains interval 1 once more

Both ends of interval 2 have the same bits, and both of interval 1, or something reaches the body that is not its state, its
hyperparameters or its member. What that is, is found out by trying: again without `reuse`, again with the script's variables
as they had been.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json as _json
import math
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TypeAlias

import xxhash

from phyla.checkpoints import Tree, codec
from phyla.errors import LoopError, PhylaError, SettingsError
from phyla.events import Claimed, Ref
from phyla.member import Member
from phyla.population import Population
from phyla.record import Record
from phyla.state import Local
from phyla.states import Live, States
from phyla.tree import leaves
from phyla.worker import HELD, Claim, Outcome

TRIED = 8  # members that may diverge before the check gives up
LARGEST = 2**20  # bytes of a script's variable that is looked at
ATTRIBUTES = 100  # of an object, that are looked at

Variables: TypeAlias = "dict[str, bytes]"
"""A script's variables, encoded; `name.attribute` for those of its objects."""

TWICE = (
    "the body does not give the same result twice from the same state, hyperparameters and seed",
    "seed every generator from member.seed (Python's, NumPy's and torch's global ones are seeded already), make iterators "
    "inside the body, keep nothing in objects that outlive a turn, and switch deterministic kernels on",
)
"""A cause, and what to do about it."""


class _Finished(BaseException):
    """Ends the script when all turns are through."""


@dataclasses.dataclass
class Finding:
    """What the check came to: the paths in the state that differ, why, and what to do about it."""

    differs: list[str]
    cause: str = ""
    advice: str = ""

    @property
    def same(self) -> bool:
        return not self.differs


def check(script: Path, args: list[str], *, json: bool = False) -> int:
    """Runs the check on a script and prints what was found; 0 if resident and restored are the same, 1 if not."""
    try:
        finding = examine(script, args)
    except PhylaError:
        raise
    except Exception as error:  # the script's own
        _show(error)
        return 1
    if json:
        print(_json.dumps({"same": finding.same, **dataclasses.asdict(finding)}))
    elif finding.same:
        print(f"{script}: resident and restored are the same, to the bit.")
    else:
        print(f"{script}: resident and restored differ.")
        for line in finding.differs[:8]:
            print(f"  {line}")
        if len(finding.differs) > 8:
            print(f"  … and {len(finding.differs) - 8} more")
        print(f"Why: {finding.cause}\nWhat to do: {finding.advice}")
    return 0 if finding.same else 1


def _show(error: Exception) -> None:
    """Prints a traceback without the frames of phyla and of what runs the script for it."""
    inner = (str(Path(__file__).parent), runpy.__file__, "<frozen ")
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list([f for f in shown.stack if not f.filename.startswith(inner)])
    print("".join(shown.format()), end="", file=sys.stderr)


def examine(script: Path, args: list[str]) -> Finding:
    """Runs the script with the check's turns in the place of its loop's."""
    if not script.is_file():
        raise SettingsError(f"there is no script {script}")
    turns = _Turns()
    argv, path = sys.argv, sys.path[:]
    sys.argv, sys.path[0] = [str(script), *args], str(script.resolve().parent)
    Population.checker = turns
    try:
        runpy.run_path(str(script), run_name="__main__")
    except _Finished:
        pass
    finally:
        sys.argv, sys.path[:] = argv, path
        Population.checker = None
    if turns.finding is None:
        raise LoopError(f"{script} came to its end without training: no loop iterated over a Population")
    return turns.finding


class _Turns:
    """The check's turns over a population, which the script's own loop body is run for."""

    def __init__(self) -> None:
        self.finding: Finding | None = None

    def __call__(self, population: Population) -> Iterator[Member]:
        self._prepare(population)
        self._frame = _user_frame()
        for a in sorted(self._hypers)[:TRIED]:
            self.a = a
            self._states.drop()
            yield from self._train(self.a, 1)
            first, before = self._tree, self._variables()
            if self._finite:
                yield from self._train(self.a, 2, HELD)
                resident = self._tree
            if self._finite:
                break
        else:
            raise LoopError(
                f"the check needs a member that does not diverge, and {self.a + 1} were tried: narrow the space"
            )
        self.b = 1 if self.a == 0 else 0
        yield from self._restored(first)
        restored = self._tree
        self.finding = Finding(difference(resident, restored))
        if self.finding.differs:
            yield from self._find_cause(first, before, resident, restored)
        else:
            yield from self._reborn(first)
        raise _Finished

    def _reborn(self, first: Any) -> Iterator[Member]:
        """The first member is made by `init` once more and trains interval 1 again."""
        finding, newborn = self.finding, self._states.newborn[self.a]
        assert finding is not None
        self._states.drop()
        yield from self._train(self.a, 1)
        if differs := difference(newborn, self._states.newborn[self.a]):
            finding.differs = differs
            finding.cause = "init does not make the same state twice for the same member"
            finding.advice = (
                "make everything in init anew, and seed generators of your own from member.seed (Python's, NumPy's and torch's "
                "global ones are seeded already)"
            )
        elif differs := difference(first, self._tree):
            finding.differs, finding.cause, finding.advice = differs, *TWICE

    def _find_cause(self, first: Any, before: dict[str, Any], resident: Any, restored: Any) -> Iterator[Member]:
        finding, states = self.finding, self._states
        assert finding is not None
        if self._states.locals:
            names = ", ".join(sorted(self._states.locals))
            finding.cause = f"{names} is a Local: it stays in one process, and a restored member begins with a new one"
            finding.advice = (
                "nothing, if that is meant: a Local is outside the promise; else put it into the state, or into a Part"
            )
            return
        if states.has_reused:
            states.reuses = False
            yield from self._restored(first)
            states.reuses = True
            if not difference(resident, self._tree):
                names = ", ".join(map(repr, sorted(self._init_read - states.set_by_name()))) or "something"
                finding.cause = (
                    f"reuse=True keeps the objects of one member for all, and {names} is taken by init alone"
                )
                apply = "member.state(init, reuse=True, apply=lambda state, member: …)"
                finding.advice = f"set {names} in apply, {apply}; or leave reuse out"
                return
        changed = [name for name, value in self._variables().items() if name in before and value != before[name]]
        if changed:
            yield from self._restored(first, {name: before[name] for name in changed})
            if not difference(resident, self._tree):
                culprits = []
                for name in changed:
                    yield from self._restored(first, {other: before[other] for other in changed if other != name})
                    if difference(resident, self._tree):
                        culprits.append(name)
                names = ", ".join(map(repr, culprits or changed))
                finding.cause = f"the loop carries {names} from one member's turn into the next"
                finding.advice = f"put {names} into the state that init returns and that is handed to report"
                return
        yield from self._restored(first)
        if difference(restored, self._tree):
            finding.cause, finding.advice = TWICE
        else:
            suspects = f" (what changed in the script: {', '.join(map(repr, changed))})" if changed else ""
            finding.cause = f"something outlives a turn that is not in the state{suspects}"
            finding.advice = "put it into the state that init returns, or make it anew in every turn"

    # Turns ----------------------------------------------------------------------------------------------------------

    def _prepare(self, population: Population) -> None:
        self._population = population
        born = population.view.born
        population.states = self._states = _Witness()
        population.publish = self._publish  # type: ignore[method-assign, assignment]
        self._hypers = {member: event.hypers for member, event in enumerate(born) if event is not None}
        self._init_read: set[str] = set()

    def _restored(self, first: Any, variables: Variables | None = None) -> Iterator[Member]:
        """The other member trains, then the first is restored from its interval 1 and trains interval 2."""
        self._states.drop()
        yield from self._train(self.b, 1)
        if variables and self._frame is not None:
            assign(self._frame, variables)
        yield from self._train(self.a, 2, first)

    def _train(self, member: int, interval: int, tree: Any = None) -> Iterator[Member]:
        source = Ref(member, 3) if interval > 1 else None
        event = Claimed(
            member=member,
            seq=2 * interval,
            interval=interval,
            worker="check",
            saw=0,
            hypers=self._hypers[member],
            source=source,
        )
        turn = Member(self._population, Claim((event,), (tree,), (0,), (0,), 0.0))
        yield turn
        if not turn.ended:
            raise LoopError("the loop's body ended without a report; call member.report(score, state) at its end")
        if interval == 1:
            self._init_read |= turn.read_by_init

    def _publish(self, claim: Claim, live: Live, outcomes: Sequence[Outcome]) -> Sequence[Record]:
        """In the place of the population's: keeps the bytes instead."""
        event = claim.events[0]
        data = _encoded(live.save())
        self._tree = codec.decode(data)
        (outcome,) = outcomes
        self._finite = outcome.score is None or math.isfinite(outcome.score)
        self._states.keep(Ref(event.member, event.seq + 1), live, len(data))
        return ()

    def _variables(self) -> Variables:
        return variables(self._frame) if self._frame is not None else {}


class _Witness(States):
    """Remembers what `init` made."""

    def __init__(self) -> None:
        super().__init__()
        self.newborn: dict[int, Tree] = {}  # by member
        self.locals: set[str] = set()  # the paths of Locals

    def obtain(self, turn: Any, claim: Claimed, tree: Any, *args: Any) -> Live:
        live = super().obtain(turn, claim, tree, *args)
        if tree is None:
            self.newborn[claim.member] = codec.decode(_encoded(live.save()))
            self.locals |= {path for path, part in live.made.parts.items() if isinstance(part, Local)}
        return live


def variables(frame: FrameType) -> Variables:
    """What a script's loop can see and change, encoded: plain values and arrays, its own, its module's and its objects'."""
    found: Variables = {}
    for name, value in {**frame.f_globals, **frame.f_locals}.items():
        if name.startswith("__") or callable(value) or isinstance(value, ModuleType | Member | Population):
            continue
        found |= _small({name: value}) or _small({f"{name}.{key}": each for key, each in _attributes(value)})
    return found


def _attributes(value: Any) -> list[tuple[str, Any]]:
    return list(vars(value).items())[:ATTRIBUTES] if hasattr(value, "__dict__") else []


def _small(values: dict[str, Any]) -> Variables:
    """Those of these values that a checkpoint could hold, and that are not large."""
    found = {}
    for name, value in values.items():
        with contextlib.suppress(PhylaError, TypeError, ValueError):
            if getattr(value, "nbytes", 0) <= LARGEST and len(data := _encoded({"value": value})) <= LARGEST:
                found[name] = data
    return found


def assign(frame: FrameType, values: Variables) -> None:
    """Sets what `variables` gave again."""
    local = frame.f_locals
    for dotted, data in values.items():
        value = codec.decode(data)["value"]
        name, _, attribute = dotted.partition(".")
        if attribute:
            setattr(local[name] if name in local else frame.f_globals[name], attribute, value)
        elif name in local:
            local[name] = value
        else:
            frame.f_globals[name] = value
    if sys.version_info < (3, 13) and local is not frame.f_globals:
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def _encoded(tree: Tree) -> bytes:
    return b"".join(bytes(part) for part in codec.encode(tree))


def _user_frame() -> FrameType | None:
    """The frame of the script's loop: the first one outside phyla."""
    frame: FrameType | None = sys._getframe(1)
    package = str(Path(__file__).parent)
    while frame is not None and frame.f_code.co_filename.startswith(package):
        frame = frame.f_back
    return frame


def difference(one: Any, other: Any) -> list[str]:
    """The leaves in which two saved states differ, in words."""
    first, second = dict(leaves(one["state"], "state")), dict(leaves(other["state"], "state"))
    lines = []
    for path in first.keys() | second.keys():
        a, b = first.get(path), second.get(path)
        if digest(a) != digest(b):
            lines.append(f"{path}{_how_far(a, b)}")
    return sorted(lines)


def digest(leaf: Any) -> str:
    return xxhash.xxh3_128_hexdigest(_encoded({"leaf": leaf}))


def _how_far(a: Any, b: Any) -> str:
    try:
        gap = float(abs(a - b).max()) if getattr(a, "shape", None) else float(abs(a - b))
    except Exception:  # two leaves of any kinds: if they have no distance, none is told
        return ""
    return f" (by up to {gap:.3g})"
