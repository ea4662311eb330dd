"""What a run is created with: recorded in its first event, because decisions depend on it.

Every argument of `Population` is one of three kinds. *identity*: recorded here, and a script that names another value is told
so. *by event*: recorded here, and changed later by an event of the run's stream; a script may name the created or the current
value. *local*: the business of this one process, recorded nowhere.

| argument    | kind     | argument   | kind     | argument     | kind  |
|-------------|----------|------------|----------|--------------|-------|
| name        | identity | ready      | identity | seconds      | local |
| space       | by event | burn_in    | identity | lease        | local |
| size        | by event | exploit    | identity | durability   | local |
| intervals   | by event | explore    | identity | sync_every   | local |
| seed        | identity | strategy   | identity | strict       | local |
| metric      | identity | inherit    | identity | allow_pickle | local |
| mode        | identity | compare    | identity | fresh        | local |
| window      | identity | max_lead   | identity | path         | local |
| start       | identity | keep       | identity | journal      | local |
| target      | identity | retries    | identity | checkpoints  | local |
| threads     | identity | max_lost   | identity | progress     | local |
|             |          |            |          | arms         | local |
|             |          |            |          | interval_timeout | local |
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

# What a journal may hold is checked when it is read (Population has checked it before, and says more).
_FromZero = Annotated[int, msgspec.Meta(ge=0)]
_FromOne = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded settings of a run. Counts are of members, intervals or claims; see `Population` for their meaning."""

    seed: _FromZero  # below 2**63; all of the run's randomness is keyed by it
    space: dict[str, Any]  # each hyperparameter, described (space.describe)
    size: _FromOne  # members
    intervals: _FromOne | None  # each member's budget; None: until the target is reached
    mode: Literal["max", "min"] = "max"
    metric: str | None = None  # the score's key, where `report` is given a dict
    target: float | None = None  # a score that ends the run
    window: _FromOne = 10  # newest samples whose mean ranks a member
    ready: _FromOne = 1  # intervals from one chance to exploit to the next
    burn_in: _FromZero = 0  # intervals before the first
    strategy: Any = None  # described (strategies.describe)
    compare: Literal["progress", "latest"] = "progress"
    max_lead: _FromZero | None = None  # intervals that a member may be ahead of the slowest; None: no limit
    keep: _FromOne = 2  # newest checkpoints of each member that are kept
    retries: _FromZero = 2  # of one interval, before a member is replaced
    max_lost: _FromOne = 3  # losses since the last report that count as one crash
    threads: _FromOne | None = None  # for numeric libraries, in each worker
    start: list[dict[str, Any]] | None = None  # where the first members come from


def differences(recorded: Settings, named: Settings, current: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(argument, recorded, named) for each setting that a script names differently from the run.

    current: today's values of what events have changed since; naming those is no difference. A seed, a number of threads
    or a size that the script leaves open takes the run's.
    """
    found = []
    for field in msgspec.structs.fields(Settings):
        was, now = getattr(recorded, field.name), getattr(named, field.name)
        if was != now and not (field.name in current and current[field.name] == now):
            found.append((field.name, was, now))
    return found
