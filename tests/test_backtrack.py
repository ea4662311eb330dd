"""Backtrack: whoever would copy goes back to its own best ancestor instead, where that is better and still there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import phyla
from drawn import donors, outcomes
from journals_by_hand import Story, random_story
from phyla.decide import decide
from phyla.doctor import examine
from phyla.errors import SettingsError
from phyla.events import Recorded, Ref
from phyla.record import Record
from phyla.strategies.backtrack import Backtrack
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.protect import Protect
from phyla.strategies.truncation import Truncation

NAN = float("nan")
BACK = Backtrack(Truncation(0.25))


def fallen(*generations: list[float], **known: Any) -> Story:
    """Four members came to these scores, a list for each interval; by this exploit's own retention."""
    story = Story(4, BACK.retain, **{"keep": 2, **known})
    for scores in generations:
        story.generation(*scores)
    return story


def found(story: Story, member: int) -> list[Record | None]:
    return outcomes(story, member, BACK)


# Whom it copies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_worst_goes_back_to_its_own_peak_where_that_is_better_than_the_donor(mode: str) -> None:
    sign = 1 if mode == "max" else -1
    rows = [[sign * s for s in row] for row in ([9.0, 1, 2, 3], [4.0, 1, 2, 3], [2.0, 1, 2, 3], [0.0, 1, 2, 5])]
    story = fallen(*rows, mode=mode)
    assert story.kept(0) == [1, 3, 4]
    (peak,) = found(story, 0)
    assert peak is story.view.history[0][0]
    choice = decide(story.view, 0, Evolve(BACK, None))
    assert choice.source == choice.donor == peak.ref
    assert choice.hypers == peak.hypers


def test_it_copies_the_donor_where_that_is_better_or_as_good() -> None:
    for best in (9.0, 9.5):
        story = fallen([9.0, 1, 2, 3], [0.0, 1, 2, best])
        assert [record and record.id for record in found(story, 0)] == [3]


def test_only_those_that_would_copy_go_back() -> None:
    story = fallen([9.0, 8.0, 7.0, 6.0], [0.0, 1.0, 2.0, 3.0])
    assert [bool(donors(story, m, BACK)) for m in range(4)] == [True, False, False, False]
    other = fallen([9.0, 8.0, 7.0, 6.0], [3.0, 2.0, 1.0, 0.0])
    assert [donors(other, m, BACK) for m in range(4)] == [[], [], [], [3]]


def test_the_past_of_weights_that_were_overwritten_does_not_count() -> None:
    story = fallen([9.0, 1, 2, 3])
    for m, score in ((1, 1.0), (2, 2.0), (3, 3.0)):
        story.train(m, score)
    story.train(0, 1.0, source=story.newest(3))  # from here on its ancestors are member 3's
    story.generation(0.0, 1, 2, 5)
    assert story.newest(0).peak == Ref(3, story.view.history[3][0].seq)
    assert [record and record.id for record in found(story, 0)] == [3]
    assert found(story, 0)[0] is story.newest(3)


def test_the_past_of_the_donor_does() -> None:
    story = fallen([0.0, 1, 2, 9])
    story.claim(0, source=story.newest(3))
    peak = story.newest(3)
    for m in (1, 2, 3):
        story.train(m, float(m))
    story.report(0, 4.0)
    for last in (3.0, 3.5, 2.0):
        story.generation(0.0, 1, 2, last)
    assert found(story, 0) == [peak]
    assert peak.available


def test_after_it_went_back_the_peak_stays_until_it_is_beaten() -> None:
    story = fallen([9.0, 1, 2, 3], [0.0, 1, 2, 3])
    peak = story.view.history[0][0]
    for score in (2.5, 8.0, 0.0):
        choice = decide(story.view, 0, Evolve(BACK, None))
        story.train(0, score, source=choice.source, donor=choice.donor)
        for m in (1, 2, 3):
            story.train(m, float(m))
        assert story.newest(0).peak == peak.ref
    assert found(story, 0) == [peak]
    story.train(0, 9.5, source=peak, donor=peak.ref)
    assert story.newest(0).peak == story.newest(0).ref
    story.train(0, 9.0)
    assert not peak.available


def test_a_peak_whose_checkpoint_is_lost_is_not_gone_back_to() -> None:
    story = fallen([9.0, 1, 2, 3], [0.0, 1, 2, 3])
    peak = story.view.history[0][0]
    story.claim(0, source=peak)
    story.fail(0, "checkpoint", voids=peak)
    assert [record and record.id for record in found(story, 0)] == [3]


def test_without_its_retention_there_is_nothing_to_go_back_to() -> None:
    story = Story(4, keep=2)
    story.generation(10.0, 1, 2, 30)  # the best of the run, which is always kept, is another's
    for row in ([9.0, 1, 2, 3], [8.0, 1, 2, 3], [0.0, 1, 2, 3]):
        story.generation(*row)
    assert [record and record.id for record in found(story, 0)] == [3]


def test_diverged_members_are_rescued_as_ever() -> None:
    story = fallen([9.0, 1, 2, 3], [NAN, 1, 2, 3])
    choice = decide(story.view, 0, Evolve(BACK, Perturb()))
    assert choice.replaced
    assert choice.donor is not None
    assert choice.donor.member != 0


# What it keeps ------------------------------------------------------------------------------------------------------


def test_what_it_keeps_is_bounded_by_what_is_kept_anyway() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        story = random_story(rng, 0, size=5, keep=2)
        story.retain = BACK.retain
        story = story.retold()
        for _ in range(300):
            m = int(rng.integers(5))
            if not story.view.busy[m]:
                story.decide(m, Evolve(BACK, Perturb()))
            elif rng.random() < 0.1:
                story.fail(m, ("lost", "given_back", "raised")[int(rng.integers(3))])
            else:
                story.report(m, float(rng.normal()))
            named = BACK.retain(story.view)
            assert len(named) <= 2 * 5  # two kept reports of five members
            kept = sum(not record.freed for record in story.view.records.values())
            assert kept <= 2 * 5 + 5 + 1 + len(named)


@pytest.mark.parametrize("lead", [0, 1])
def test_every_ancestor_that_a_decision_may_need_is_still_there_however_far_others_are(lead: int) -> None:
    """Whoever decides late must find what those who decided early found, or sameness is lost."""
    checked = 0
    for seed in range(5):
        rng = np.random.default_rng([seed, 8])
        story = Story(6, BACK.retain, keep=lead + 2, max_lead=lead)
        for _ in range(200):
            free, busy = story.view.claimable(), np.flatnonzero(story.view.busy)
            if len(free) and (not len(busy) or rng.random() < 0.5):
                m = int(rng.choice(free))
                for record in story.view.peers(m):
                    if record.peak not in (None, record.ref):
                        checked += 1
                        assert story.view.records[record.peak].available
                story.decide(m, Evolve(BACK, Perturb()))
            else:
                m = int(rng.choice(busy))
                story.report(m, float(rng.normal() + story.view.done[m]))
    assert checked > 200


def test_it_keeps_what_the_inner_exploit_asks_for_too() -> None:
    class Hoarder:
        def __call__(self, view: Any, member: int, rng: Any) -> None: ...

        def retain(self, view: Any) -> list[Ref]:
            return [Ref(0, 3)]

    story = Story(2, keep=2)
    for score in (1.0, 2.0):
        story.generation(score, score)
    assert Backtrack(Hoarder()).retain(story.view) == {Ref(0, 3), story.newest(0).ref, story.newest(1).ref} | {
        record.ref for history in story.view.history for record in history
    }


# A real run ---------------------------------------------------------------------------------------------------------


def trained(exploit: Any, size: int = 8, intervals: int = 30) -> tuple[phyla.Population, dict[Ref, np.ndarray], int]:
    """A population that gets better until interval 6, when all of its weights are spoilt. What each report ended with."""
    population = phyla.Population(
        "collapse", {"lr": phyla.Float(0.5, 1.0)}, size, intervals,
        exploit=exploit, max_lead=0, seed=3, journal="memory", progress=False,
    )  # fmt: skip
    ended, most = dict[Ref, np.ndarray](), 0
    for member in population:
        state = member.state(lambda member: {"w": np.array([float(member.id)])})
        record = population.view.open[member.id]
        if record is not None and record.source is not None:
            assert np.array_equal(state["w"], ended[record.source])
        state["w"] = state["w"] + member["lr"]
        if member.interval == 6:
            state["w"] = state["w"] - 100
        member.report(float(state["w"][0]), state)
        newest = population.view.newest(member.id)
        assert newest is not None
        ended[newest.ref] = state["w"].copy()
        most = max(most, len(population.run.checkpoints.files()))
    return population, ended, most


def test_a_population_that_collapsed_trains_on_from_its_old_weights_and_keeps_few_checkpoints() -> None:
    population, ended, most = trained(Backtrack(Truncation(0.25)))
    records = list(population.view.records.values())
    back = [record for record in records if record.donor is not None and record.donor.member == record.id]
    assert len(back) >= 2  # the others copied these
    for record in back:
        assert record.parent is not None
        assert record.parent.interval <= 5 < record.interval
        assert float(ended[record.ref][0]) == pytest.approx(float(ended[record.parent.ref][0]) + record.hypers["lr"])
        assert all(record.parent.score >= other.score for other in record.parent.ancestry())  # type: ignore[operator]
    assert all(population.view.newest(m).score > 15 for m in range(8))  # type: ignore[union-attr, operator]
    assert most <= 8 * (2 + 2) + 2
    lost, _, without = trained(Truncation(0.25))
    assert all(lost.view.newest(m).score < -50 for m in range(8))  # type: ignore[union-attr, operator]
    assert without <= 8 * 2 + 2
    events = [Recorded(n, event) for n, event in enumerate(population.run.events(), 1)]
    assert not list(examine(events, population.run.checkpoints, Evolve(Backtrack(Truncation(0.25)), Perturb())))


def test_a_protected_member_does_not_go_back_either() -> None:
    story = fallen([9.0, 1, 2, 3], [0.0, 1, 2, 3])
    assert donors(story, 0, BACK) == [0]
    assert donors(story, 0, Protect(BACK, 0)) == []


@pytest.mark.parametrize("exploit", [None, Truncation, 0.2])
def test_what_is_no_exploit_is_refused(exploit: Any) -> None:
    with pytest.raises(SettingsError, match=r"Backtrack: the exploit must be one such as phyla.Truncation\(0.2\), got"):
        Backtrack(exploit)
