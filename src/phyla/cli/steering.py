"""What is said to a run while it lives: `phyla change`, `pause`, `resume`, `stop`."""

from __future__ import annotations

from collections.abc import Sequence

from phyla import host, runs, steer
from phyla.cli.standing import of_this_machine
from phyla.cli.text import inert, print_json
from phyla.errors import SettingsError
from phyla.events import Born, Event, Extended, Paused, Resized, Resumed, SpaceChanged, Stopped, encode
from phyla.runs import Run
from phyla.space import space_from


def change(run: str, *, intervals: int | None, size: int | None, space: Sequence[str], json: bool) -> int:
    """Appends what is to change; 0."""
    speeches = []
    if intervals is not None:
        speeches.append(steer.extend(intervals))
    if size is not None:
        speeches.append(steer.resize(size))
    if space:
        speeches.append(steer.bounds(_bounds(space)))
    if not speeches:
        raise SettingsError("say what is to change, with --intervals, --size or --space")
    return _say(run, speeches, json, "nothing changed: the run has these already")


def _bounds(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        try:
            found[key] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise SettingsError(f"--space {one}: expected NAME.low=NUMBER or NAME.high=NUMBER, as in lr.high=0.1")
    return found


def pause(run: str, *, json: bool) -> int:
    return _say(run, [steer.pause], json, "it was paused already")


def resume(run: str, *, json: bool) -> int:
    return _say(run, [steer.resume], json, "it was neither paused nor stopped")


def stop(run: str, *, json: bool) -> int:
    return _say(run, [steer.stop("phyla stop")], json, "it was finished already")


def _say(run: str, speeches: Sequence[steer.Speech], json: bool, nothing: str) -> int:
    events = steer.say(run, *speeches)
    if json:
        print_json([_decoded(event) for event in events])
        return 0
    for event in events:
        if (line := _in_words(event)) is not None:
            print(inert(line))
    print(f"{inert(run)}: {_later(runs.open(run), events) if events else nothing}")
    return 0


def _lives(run: Run) -> bool | None:
    """Whether a worker of the run lives; None: only other machines know."""
    workers = run.beats()
    if any(of_this_machine(worker) and not host.is_gone(worker) for worker in workers):
        return True
    return None if any(not of_this_machine(worker) for worker in workers) else False


def _later(run: Run, events: Sequence[Event]) -> str:
    """Who hears of it, and what is to be done where nobody does."""
    ends, lives = isinstance(events[-1], Paused | Stopped), _lives(run)
    if not ends and (run.view.paused or run.view.stopped is not None):
        return f"it is {'paused' if run.view.paused else 'stopped'} still: phyla resume {run.name} lets it go on"
    if lives:
        return "workers see it before their next claim"
    if lives is None:
        again = "" if ends else "; where none lives, start its script again to go on"
        return f"workers on other machines see it before their next claim{again}"
    return "no worker lives" + ("" if ends else ": start its script again to go on")


def _decoded(event: Event) -> object:
    import json

    return json.loads(encode(event))


def _in_words(event: Event) -> str | None:
    match event:
        case Extended():
            return f"each member trains {event.intervals} intervals"
        case Resized(retired=[]):
            return f"{event.size} members: the new ones copy one of the best, and train from interval {event.first} on"
        case Resized():
            left = ", ".join(map(str, event.retired))
            return f"{event.size} members: without {left}, which stood worst; what they reported stays in the record"
        case SpaceChanged():
            space = "; ".join(f"{name} {part}" for name, part in space_from(event.space).items())
            return f"from interval {event.first} on: {space}"
        case Paused():
            return "paused: nothing is claimed until `phyla resume`"
        case Resumed():
            return "it goes on"
        case Stopped():
            return "stopped: its workers end after what they train now"
        case Born():
            return None
    return None
