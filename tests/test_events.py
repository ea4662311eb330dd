"""Events and their JSON: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals_by_hand import claimed, created, random_story
from phyla.errors import JournalError, PhylaError
from phyla.events import (
    Born,
    Checkpoint,
    Claimed,
    Created,
    Event,
    Extended,
    Failed,
    Origin,
    Paused,
    Ref,
    Reported,
    Resized,
    Resumed,
    SpaceChanged,
    Stopped,
    decode,
    encode,
)
from phyla.settings import Settings

quick = settings(derandomize=True, deadline=None, max_examples=60, database=None)

texts = st.text(max_size=20)
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), texts
)
trees = st.recursive(
    values,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
numbers = st.integers(0, 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
notes = st.dictionaries(texts, trees, max_size=3)
hypers = st.dictionaries(texts, values, max_size=4)
refs = st.builds(Ref, numbers, numbers)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


checkpoints = st.builds(Checkpoint, texts, texts, numbers, maybe(numbers))
origins = st.builds(Origin, texts, texts, numbers, numbers, checkpoints)
scores = maybe(finite | st.sampled_from(["nan", "inf", "-inf"]))
whys = st.sampled_from(["raised", "unreported", "crashed", "hung", "lost", "given_back", "checkpoint"])
place = {"member": st.integers(-1, 2**40), "seq": numbers, "uid": texts, "time": finite}
run_settings = st.builds(
    Settings,
    seed=numbers,
    space=notes,
    size=st.integers(1, 9),
    intervals=maybe(st.integers(1, 9)),
    mode=st.sampled_from(["max", "min"]),
    metric=maybe(texts),
    target=maybe(finite),
    strategy=trees,
    compare=st.sampled_from(["progress", "latest"]),
    max_lead=maybe(st.integers(0, 9)),
    start=maybe(st.lists(notes, max_size=3)),
)
fields: dict[type, dict[str, st.SearchStrategy[Any]]] = {
    Created: {"run": texts, "version": texts, "settings": run_settings},
    Born: {"hypers": hypers, "origin": maybe(origins)},
    Claimed: {
        **{"interval": numbers, "span": numbers, "worker": texts, "saw": numbers, "hypers": hypers},
        **{"source": maybe(refs), "donor": maybe(refs), "ready": st.booleans(), "replaced": st.booleans()},
        **{"notes": maybe(notes), "cohort": maybe(numbers), "script": maybe(texts)},
    },
    Reported: {
        **{"interval": numbers, "span": numbers, "score": scores, "samples": maybe(st.lists(finite, max_size=5))},
        **{"metrics": maybe(notes), "steps": numbers | finite, "seconds": finite, "checkpoint": checkpoints},
        "synced": maybe(st.lists(refs, max_size=3)),
    },
    Failed: {"interval": numbers, "why": whys, "voids": maybe(refs), "error": maybe(texts), "worker": maybe(texts)},
    Extended: {"intervals": numbers},
    Resized: {"size": numbers, "first": numbers, "retired": st.lists(numbers, max_size=3)},
    SpaceChanged: {"space": notes, "first": numbers},
    Paused: {},
    Resumed: {},
    Stopped: {"why": texts},
}
events_of_every_kind = {kind: st.builds(kind, **place, **known) for kind, known in fields.items()}


def test_the_generator_of_events_knows_every_kind() -> None:
    assert set(events_of_every_kind) == set(Event.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", events_of_every_kind, ids=lambda kind: kind.__name__.lower())
@quick
@given(data=st.data())
def test_an_event_is_the_same_after_json(kind: type, data: st.DataObject) -> None:
    event = data.draw(events_of_every_kind[kind])
    text = encode(event)
    assert decode(text) == decode(text.decode()) == event
    assert type(decode(text)) is kind
    assert b"\n" not in text
    plain = json.loads(text)
    assert plain["kind"] == event.kind == kind.__name__.lower().removesuffix("changed")
    assert encode(decode(text)) == text


def test_every_event_has_a_uid_of_its_own_of_128_bits() -> None:
    uids = {claimed().uid for _ in range(100)}
    assert len(uids) == 100
    assert all(len(uid) == 32 and int(uid, 16) >= 0 for uid in uids)


def a_line() -> bytes:
    return encode(claimed(uid="u", source=Ref(0, 3), hypers={"lr": 0.1}))


@settings(quick, max_examples=300)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80), trees.map(lambda tree: json.dumps(tree))))
def test_foreign_payloads_only_raise_journal_errors(payload: bytes | str) -> None:
    with pytest.raises(JournalError, match="not an event"):
        decode(payload)


@settings(quick, max_examples=300)
@given(st.integers(0, len(a_line()) - 1), st.binary(min_size=0, max_size=3), st.integers(0, 3))
def test_a_damaged_line_is_an_event_or_a_journal_error(at: int, put: bytes, skip: int) -> None:
    line = a_line()
    try:
        event = decode(line[:at] + put + line[at + skip :])
    except JournalError:
        return
    assert isinstance(event, Event.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b"{}", b'{"kind":"resized"}', b'{"kind":"claimed"}', b"[" * 100_000, b'{"a":' * 100_000,
     b'{"kind":"born","member":0,"seq":1,"hypers":' + b'{"a":' * 100_000, b"\xff\xfe", a_line() + b"x", a_line()[:-1]],
    ids=lambda payload: repr(payload[:20]),
)  # fmt: skip
def test_payloads_that_are_no_event_are_refused_with_their_beginning_and_advice(payload: bytes) -> None:
    with pytest.raises(JournalError, match="written by a newer phyla, or changed by hand") as refused:
        decode(payload)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("size", -1), ("window", 0), ("keep", 0), ("ready", 0), ("retries", -1), ("seed", -1)],
)
def test_a_run_with_impossible_settings_is_refused_when_it_is_read(field: str, value: int) -> None:
    line = encode(created(**{field: value}))
    with pytest.raises(JournalError, match=field):
        decode(line)


@settings(quick, max_examples=200)
@given(st.lists(st.one_of(*events_of_every_kind.values()), max_size=4), st.integers(0, 30))
def test_events_from_nowhere_are_refused_by_the_fold_with_our_own_errors(strangers: list[Any], after: int) -> None:
    story = random_story(np.random.default_rng(7), after, size=2)
    for stranger in strangers:
        try:
            story.add(stranger)
        except PhylaError:
            continue
