"""Where a model comes from: true ancestry through donors, schedules along it, and golden lineages."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals_by_hand import SPACE, Story, hypers_of, random_story
from phyla.errors import SettingsError
from phyla.events import Ref, as_json_number
from phyla.lineage import Schedule, lineage, schedule
from phyla.record import Record
from phyla.space import Choice, Float, Hypers, Int, Space
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.testing.simulation import Faults, Simulation
from phyla.view import View, fold

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)
GOLDEN = Path(__file__).parent / "golden"


def lr(value: float) -> Hypers:
    return {"lr": value, "units": 1, "depth": 1}


def trained(
    story: Story, member: int, hypers: Hypers, source: Any = "own", steps: float = 10, score: float = 0.0
) -> Record:
    story.claim(member, source, hypers=hypers)
    return story.report(member, score, steps=steps)


def a_model_with_three_ancestors() -> tuple[Story, Record]:
    """Member 2 → member 1 → member 0, which trained by itself before: that past is not its model's."""
    story = Story(3, keep=9)
    first = trained(story, 2, lr(0.1), steps=5)
    trained(story, 2, lr(0.9))  # after the copy was taken: nobody descends from it
    trained(story, 1, lr(0.8))
    second = trained(story, 1, lr(0.2), source=first, steps=10)
    third = trained(story, 1, lr(0.2), steps=20)
    trained(story, 0, lr(0.7), steps=1000)
    last = trained(story, 0, lr(0.3), source=third, steps=2.5)
    assert last.ancestry() == [first, second, third, last]
    return story, last


# Schedules ----------------------------------------------------------------------------------------------------------


def test_a_schedule_follows_the_true_ancestry_through_donors_and_merges_equal_neighbours() -> None:
    _, last = a_model_with_three_ancestors()
    found = schedule(last)
    assert list(found) == [(0.0, lr(0.1)), (5.0, lr(0.2)), (35.0, lr(0.3))]
    assert found.total == 37.5
    assert len(found) == 3
    assert str(found).splitlines()[1] == "from step 5: lr 0.2, units 1, depth 1"


def test_a_copy_of_hyperparameters_alone_does_not_change_whose_past_it_is() -> None:
    story = Story(2)
    first = trained(story, 0, lr(0.1))
    other = trained(story, 1, lr(0.5))
    story.claim(0, hypers=lr(0.5), donor=other.ref)
    last = story.report(0, 1.0, steps=10)
    assert last.ancestry() == [first, last]
    assert list(schedule(last)) == [(0.0, lr(0.1)), (10.0, lr(0.5))]


def test_a_member_that_is_born_again_has_no_past() -> None:
    story = Story(1)
    trained(story, 0, lr(0.1))
    again = trained(story, 0, lr(0.2), source=None, steps=3)
    assert again.ancestry() == [again]
    assert list(schedule(again)) == [(0.0, lr(0.2))]
    assert schedule(again).total == 3
    assert again.total_steps == 13


def test_a_released_or_void_ancestor_is_still_an_ancestor() -> None:
    story = Story(1, keep=1)
    records = [trained(story, 0, lr(0.1 * n), score=n) for n in range(1, 6)]
    assert records[0].freed
    assert records[4].ancestry() == records
    assert len(schedule(records[4])) == 5


def test_where_values_return_they_are_pieces_of_their_own() -> None:
    story = Story(1)
    for value in (0.1, 0.2, 0.2, 0.1):
        last = trained(story, 0, lr(value))
    assert [hypers["lr"] for _, hypers in schedule(last)] == [0.1, 0.2, 0.1]


def test_intervals_of_no_steps_leave_no_piece() -> None:
    story = Story(1)
    trained(story, 0, lr(0.1), steps=0)
    trained(story, 0, lr(0.2), steps=4)
    last = trained(story, 0, lr(0.3), steps=0)
    assert list(schedule(last)) == [(0.0, lr(0.2))]
    untrained = trained(Story(1), 0, lr(0.4), steps=0)
    assert list(schedule(untrained)) == [(0.0, lr(0.4))]
    assert schedule(untrained).total == 0
    assert schedule(untrained).at(fraction=1) == lr(0.4)


@pytest.mark.parametrize(
    ("steps", "value"),
    [(0, 0.1), (4.999, 0.1), (5, 0.2), (34, 0.2), (35, 0.3), (37.5, 0.3), (1e9, 0.3), (float("inf"), 0.3)],
)
def test_a_piece_holds_from_its_start_to_the_next_and_the_last_for_ever(steps: float, value: float) -> None:
    assert schedule(a_model_with_three_ancestors()[1]).at(steps) == lr(value)


@pytest.mark.parametrize(
    ("fraction", "value"), [(0, 0.1), (0.13, 0.1), (0.14, 0.2), (0.93, 0.2), (0.94, 0.3), (1, 0.3)]
)
def test_a_fraction_is_of_the_whole_training(fraction: float, value: float) -> None:
    assert schedule(a_model_with_three_ancestors()[1]).at(fraction=fraction) == lr(value)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "either steps or fraction"),
        ({"steps": 1, "fraction": 0.5}, "either steps or fraction"),
        ({"steps": -1}, "from 0 on"),
        ({"steps": float("nan")}, "from 0 on"),
        ({"fraction": 1.01}, "from 0 to 1"),
        ({"fraction": -0.01}, "from 0 to 1"),
        ({"fraction": float("nan")}, "from 0 to 1"),
    ],
)
def test_other_places_are_refused(given: dict[str, float], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        schedule(a_model_with_three_ancestors()[1]).at(**given)


def test_what_at_returns_is_a_dict_of_ones_own() -> None:
    found = schedule(a_model_with_three_ancestors()[1])
    found.at(0)["lr"] = 55.0
    next(iter(found))[1]["lr"] = 55.0
    assert found.at(0) == lr(0.1)


@quick
@given(st.integers(0, 2**32 - 1))
def test_a_schedule_ends_where_the_steps_of_its_ancestors_end(seed: int) -> None:
    story = random_story(np.random.default_rng(seed), 60)
    for record in story.view.records.values():
        path, found = record.ancestry(), schedule(record)
        assert found.total == sum(ancestor.steps for ancestor in path)
        assert path[-1] is record
        assert path[0].source is None or path[0].parent is None
        assert all(a.position < b.position and b.source == a.ref for a, b in itertools.pairwise(path))
        assert found.starts[0] == 0
        assert all(a < b for a, b in itertools.pairwise(found.starts))
        steps = 0.0
        for ancestor in path:
            if ancestor.steps:
                assert found.at(steps) == ancestor.hypers
            steps += ancestor.steps


# Files --------------------------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), finite, st.text(max_size=9))
pieces = st.lists(st.tuples(st.floats(1e-3, 1e6), st.dictionaries(st.text(max_size=9), values, max_size=4)), min_size=1)


@quick
@given(pieces, st.floats(0, 1e6))
def test_a_schedule_is_the_same_after_its_file(found: list[tuple[float, Hypers]], more: float) -> None:
    starts = tuple(sorted({0.0, *(start for start, _ in found[1:])}))
    hypers = tuple(hypers for _, hypers in found)[: len(starts)]
    before = Schedule(starts[: len(hypers)], hypers, starts[len(hypers) - 1] + more)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "schedule.json"
        before.save(path)
        after = Schedule.load(path)
    assert after == before
    assert [[type(v) for v in h.values()] for _, h in after] == [[type(v) for v in h.values()] for h in hypers]


def test_the_file_is_the_documented_json(tmp_path: Path) -> None:
    schedule(a_model_with_three_ancestors()[1]).save(tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8")) == {
        "format": "phyla-schedule-1",
        "total": 37.5,
        "pieces": [
            {"start": 0.0, "hypers": lr(0.1)},
            {"start": 5.0, "hypers": lr(0.2)},
            {"start": 35.0, "hypers": lr(0.3)},
        ],
    }


def a_file(**changes: Any) -> str:
    known: dict[str, Any] = {"format": "phyla-schedule-1", "total": 9, "pieces": [{"start": 0, "hypers": {"lr": 1}}]}
    return json.dumps({key: value for key, value in {**known, **changes}.items() if value is not ...})


def piece(start: Any) -> dict[str, Any]:
    return {"start": start, "hypers": {}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("{", "Expecting"),
        ("[]", ""),
        ("null", ""),
        ("7", ""),
        ("[" * 100_000, ""),
        (a_file(format="phyla-schedule-2"), "its format is 'phyla-schedule-2'"),
        (a_file(format=...), "no 'format'"),
        (a_file(total=...), "no 'total'"),
        (a_file(pieces=...), "no 'pieces'"),
        (a_file(pieces=[]), "start at 0 and ascend"),
        (a_file(pieces=[piece(1)]), "start at 0 and ascend"),
        (a_file(pieces=[piece(0), piece(0)]), "start at 0 and ascend"),
        (a_file(pieces=[piece(0), piece(3), piece(2)]), "start at 0 and ascend"),
        (a_file(pieces=[piece(0), piece(float("nan"))]), "its total is"),
        (a_file(pieces=[piece(0), piece(10**400)]), ""),
        (a_file(pieces=[piece("x")]), "could not convert"),
        (a_file(pieces=[{"start": 0}]), "no 'hypers'"),
        (a_file(pieces=[{"start": 0, "hypers": 3}]), ""),
        (a_file(pieces=7), ""),
        (a_file(total=float("nan")), "its total is nan"),
        (a_file(total=float("inf")), "its total is inf"),
        (a_file(total=-1), "its total is -1"),
        (a_file(pieces=[piece(0), piece(20)]), "its last piece starts at 20"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_other_files_are_refused_by_name_with_the_reason(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        SettingsError, match=r"schedule.json is not a schedule that phyla wrote \(phyla-schedule-1\): .*" + why
    ):
        Schedule.load(path)


def test_a_missing_or_binary_file_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path / "missing", tmp_path / "binary", tmp_path):
        with pytest.raises(SettingsError, match="is not a schedule that phyla wrote"):
            Schedule.load(path)


# Lineage ------------------------------------------------------------------------------------------------------------


def test_copies_say_who_took_what_from_whom_and_when() -> None:
    story, last = a_model_with_three_ancestors()
    found = lineage(story.view)
    copied = [(copy.member, copy.interval, copy.donor.id, copy.donor.interval) for copy in found.copies]
    assert copied == [(1, 2, 2, 1), (0, 2, 1, 3)]
    assert found.copies[1].before is story.view.history[0][0]
    assert found.copies[1].after is last
    assert str(found.copies[1]) == "m0 ← m1 at 2: lr 0.7 → 0.3, score 0 → 0"
    assert found.ancestors(last) == last.ancestry()


def test_roots_are_the_members_from_whose_first_weights_the_newest_descend() -> None:
    story, _ = a_model_with_three_ancestors()
    assert lineage(story.view).roots() == {0: 2, 1: 2, 2: 2}
    trained(story, 1, lr(0.1), source=None)
    assert lineage(story.view).roots() == {0: 2, 1: 1, 2: 2}


def test_records_stand_in_the_journals_order_and_void_ones_do_not_count() -> None:
    story = Story(2, keep=3)
    story.generation(1, 2)
    lost = story.train(1, 3)
    story.train(0, 2)
    story.claim(0, source=lost)
    story.fail(0, "checkpoint", voids=lost)
    found = lineage(story.view)
    assert [(r.id, r.interval) for r in found.records] == [(0, 1), (1, 1), (0, 2)]
    assert found.roots() == {0: 0, 1: 1}


def test_a_copy_reads_well_whatever_the_hyperparameters_are_called() -> None:
    space: Space = {"learning rate": Float(0, 1), "act": Choice("", "re lu"), "n": Int(1, 9)}
    story = Story(2, space=space)
    story.claim(0, hypers={"learning rate": 0.5, "act": "", "n": 1})
    story.report(0, None)
    story.claim(1, hypers={"learning rate": 0.25, "act": "re lu", "n": 1})
    donor = story.report(1, 2.0)
    story.claim(0, source=donor, hypers={"learning rate": 0.25, "act": "re lu", "n": 1})
    story.report(0, 3.0)
    copy = lineage(story.view).copies[0]
    assert str(copy) == "m0 ← m1 at 2: learning rate 0.5 → 0.25, act  → re lu, score no score yet → 2"


def test_the_first_copy_of_a_member_that_never_reported_has_nothing_before() -> None:
    story = Story(2)
    donor = story.train(1, 2.0)
    story.claim(0, source=donor, hypers=hypers_of(0, SPACE))
    story.report(0, 1.0)
    copy = lineage(story.view).copies[0]
    assert copy.before is None
    assert str(copy) == "m0 ← m1 at 1: same hyperparameters, score none → 2"


def test_an_empty_run_has_an_empty_lineage() -> None:
    found = lineage(Story(3).view)
    assert (list(found.records), list(found.copies), found.roots()) == ([], [], {})


# Golden lineages: a fixed seed must reproduce the recorded ancestry exactly ------------------------------------------
# Only +, × and rounding enter these, so that every platform computes the same. To record anew, after a change that is meant:
#     PYTHONPATH=src:tests python -c "import test_lineage; test_lineage.record()"

GOLDEN_SPACE: Space = {"rate": Float(0.0, 1.0), "units": Int(1, 64), "act": Choice("relu", "gelu", "silu")}
GOLDEN_RUNS: dict[str, dict[str, Any]] = {
    "truncation": {"strategy": Evolve(Truncation(0.25), Perturb()), "run_seed": 1},
    "diverging": {"strategy": Evolve(Truncation(0.2), Perturb(0.5, 2.0, resample=0.25)), "run_seed": 2, "diverges": 6},
    "weights": {"strategy": Evolve(Truncation(0.5), Perturb(), "weights"), "run_seed": 3, "ready": 2},
}


def rows(view: View) -> list[dict[str, Any]]:
    """Every report, by member and interval, with what it descends from."""

    def place(ref: Ref | None) -> list[int] | None:
        return [ref.member, view.records[ref].interval] if ref is not None else None

    found = sorted((record for history in view.history for record in history), key=lambda r: (r.interval, r.id))
    return [
        {"member": r.id, "interval": r.interval, "score": as_json_number(r.score), "hypers": r.hypers}
        | {"source": place(r.source), "donor": place(r.donor), "replaced": r.replaced}
        for r in found
    ]


def golden_run(name: str, workers: int, faults: Faults) -> View:
    known = {"members": 8, "intervals": 8, "space": GOLDEN_SPACE, **GOLDEN_RUNS[name]}
    simulation = Simulation(5, workers=workers, faults=faults, **known)
    assert simulation.run() == []
    return fold(simulation.events)


def record() -> None:
    for name in GOLDEN_RUNS:
        found = rows(golden_run(name, 1, Faults.none()))
        (GOLDEN / f"{name}.json").write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n", encoding="utf-8")


@pytest.mark.parametrize("name", GOLDEN_RUNS)
@pytest.mark.parametrize("workers", [1, 7])
def test_a_golden_lineage_is_reproduced_exactly_by_any_number_of_workers(name: str, workers: int) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    view = golden_run(name, workers, Faults.none() if workers == 1 else Faults())
    assert rows(view) == expected
    assert any(row["donor"] for row in expected)
    assert len(lineage(view).copies) == sum(row["donor"] is not None for row in expected)
