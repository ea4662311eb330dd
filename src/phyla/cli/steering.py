"""What is said to a run while it lives: `phyla change`, `pause`, `resume`, `stop`."""

from __future__ import annotations

from collections.abc import Sequence

from phyla import steer
from phyla.cli.text import inert, print_json
from phyla.errors import SettingsError
from phyla.events import Born, Event, Extended, Paused, Resized, Resumed, SpaceChanged, Stopped, encode
from phyla.space import space_from

LATER = "workers see it before their next claim"


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
    print(f"{inert(run)}: {LATER if events else nothing}")
    return 0


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
            return "it goes on; where no worker lives, start its script again"
        case Stopped():
            return "stopped: its workers end after what they train now"
        case Born():
            return None
    return None
