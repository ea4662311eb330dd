"""What a user's loop sees: members, their states, their reports, and what becomes of a body that fails."""

import itertools
import random
import signal
import threading
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import phyla
import scripts
from phyla.events import Claimed, Failed, Reported, Stopped
from phyla.population import HOPELESS
from phyla.states import States
from phyla.testing.simulation import outcome

# Most bodies here read no hyperparameter, and that is not what they are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*has no effect:phyla.errors.PhylaWarning")

SPACE = {"lr": phyla.Float(1e-3, 1.0, log=True)}


def make(name="run", space=SPACE, size=4, intervals=3, **options):
    return phyla.Population(
        name, space, size, intervals, **{"seed": 0, "journal": "memory", "progress": False, **options}
    )


def zeros(member):
    return np.zeros(2)


def train(population, score=lambda member, w: member.id):
    """A body that adds 1 to its weights; returns the members as they came."""
    members = []
    for member in population:
        w = member.state(zeros) + 1
        members.append(member)
        member.report(score(member, w), w)
    return members


def events(population, kind):
    return [event for event in population.run.events() if isinstance(event, kind)]


def ours(caught):
    """The warnings that are phyla's: torch, when it is first used, may have some of its own."""
    return [
        one for one in caught if isinstance(one.message, phyla.PhylaWarning) and "no effect" not in str(one.message)
    ]


def failures(population):
    return [(event.member, event.interval, event.why) for event in events(population, Failed)]


# Members and intervals ------------------------------------------------------------------------------------------------


def test_every_member_trains_every_interval_once_and_intervals_count_from_1():
    members = train(make(size=5, intervals=4))
    assert Counter((m.id, m.interval) for m in members) == Counter(itertools.product(range(5), range(1, 5)))


def test_those_furthest_behind_come_first():
    intervals = [m.interval for m in train(make(size=5, intervals=4))]
    assert intervals == sorted(intervals)


def test_a_member_goes_on_from_its_own_weights_or_from_its_donors():
    population, reported = make(size=6, intervals=6), {}
    for member in population:
        w = member.state(zeros)
        donor = member.donor
        assert w[0] == (
            reported[donor.id, donor.interval] if donor else reported.get((member.id, member.interval - 1), 0)
        )
        w = w + 1 + member["lr"]
        reported[member.id, member.interval] = w[0]
        member.report(member.id, w)
    assert any(record.donor for record in population.run.records)


def test_claim_gives_members_until_nothing_is_left_and_then_none():
    population, seen = make(size=3, intervals=2), 0
    while (member := population.claim()) is not None:
        member.report(1.0, member.state(zeros) + 1)
        seen += 1
    assert seen == 6
    assert population.claim() is None


def test_a_member_is_a_read_only_mapping_of_plain_values():
    space = {**SPACE, "units": phyla.Int(1, 8), "act": phyla.Choice("relu", "tanh"), "flag": phyla.Choice(True, False)}
    member = make(space=space).claim()
    assert {**{"seed": 3}, **member} == {"seed": 3, **dict(member)}
    assert [type(value) for value in member.values()] == [float, int, str, bool]
    assert list(member) == list(space)
    assert len(member) == 4
    with pytest.raises(TypeError):
        member["lr"] = 0.1
    with pytest.raises(KeyError, match=r"'lrr'.*has 'lr', 'units', 'act', 'flag'"):
        member["lrr"]


def test_hyperparameters_stay_in_bounds_and_in_type():
    space = {**SPACE, "units": phyla.Int(1, 3), "act": phyla.Choice("a", "b", "c", ordered=True)}
    population = make(space=space, size=6, intervals=12)
    train(population)
    records = population.run.records
    assert all(
        1e-3 <= r.hypers["lr"] <= 1 and r.hypers["units"] in (1, 2, 3) and r.hypers["act"] in "abc" for r in records
    )
    assert all(type(r.hypers["units"]) is int for r in records)


def test_seeds_are_new_for_each_member_and_interval_and_below_2_to_the_31():
    seeds = [m.seed for m in train(make(size=5, intervals=5))]
    assert len(set(seeds)) == 25
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)


def test_the_seed_in_init_depends_on_the_member_only():
    seeds = defaultdict(set)

    def init(newborn):
        seeds[newborn.id].add(newborn.seed)
        return np.zeros(2)

    population = make(intervals=6)
    for member in population:
        member.report(member.id, member.state(init) + 1)
    assert {len(found) for found in seeds.values()} == {1}
    assert len(set.union(*seeds.values())) == 4


def test_the_global_generators_are_seeded_for_each_member_and_interval():
    def draws():
        drawn = {}
        for member in make(size=3, intervals=2):
            random.random()  # whatever somebody drew before
            state = member.state(zeros)
            drawn[member.id, member.interval] = random.random(), np.random.random(), torch.rand(()).item()
            member.report(1, state + 1)
        return drawn

    first = draws()
    assert len(set(first.values())) == 6
    assert draws() == first


def test_init_draws_the_same_for_a_member_whenever_it_is_called():
    drawn = defaultdict(set)

    def init(newborn):
        drawn[newborn.id].add((random.random(), np.random.random(), torch.rand(()).item()))
        return np.zeros(2)

    for member in make(size=3, intervals=5):
        member.report(member.id, member.state(init) + 1)
    assert [len(found) for found in drawn.values()] == [1, 1, 1]


def test_the_same_seed_makes_the_same_run_and_another_seed_another():
    def run(seed):
        population = make(size=6, intervals=6, seed=seed)
        train(population, lambda member, w: w[0] * member["lr"])
        return outcome(population.view)

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_without_a_seed_one_is_drawn_and_recorded():
    seeds = {make(seed=None).run.settings.seed for _ in range(3)}
    assert len(seeds) == 3


def test_two_populations_in_one_script_are_two_runs(tmp_path):
    one, two = (make(name, path=tmp_path, journal=None, intervals=1) for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        a.report(1, a.state(zeros))
        b.report(2, b.state(zeros))
    assert (one.best.score, two.best.score) == (1, 2)


# A loop that is left --------------------------------------------------------------------------------------------------


def test_a_break_gives_the_claim_back_and_the_next_loop_goes_on():
    population = make()
    for member in population:
        if member.interval == 2:
            break
        member.report(1, member.state(zeros) + 1)
    scripts.until(lambda: failures(population))
    assert failures(population) == [(member.id, 2, "given_back")]
    assert population.view.troubled == set()
    train(population)
    assert population.view.finished


def test_an_exception_that_the_script_catches_gives_the_claim_back():
    population, claimed = make(), []

    def loop():
        for member in population:
            claimed.append(member.id)
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        loop()
    scripts.until(lambda: failures(population))
    assert failures(population) == [(*claimed, 1, "given_back")]


def test_a_given_back_interval_repeats_the_same_decision():
    population = make(intervals=4)
    for member in population:
        if member.interval == 3 and not failures(population):
            population.claim().report(0, np.zeros(2))  # gives the loop's back
            continue
        member.report(member.id, member.state(zeros) + 1)
    claims = defaultdict(list)
    for event in events(population, Claimed):
        claims[event.member, event.interval].append((event.hypers, event.source, event.donor))
    again = [decisions for decisions in claims.values() if len(decisions) > 1]
    assert again
    assert all(decision == decisions[0] for decisions in again for decision in decisions)


def test_claiming_again_gives_the_first_member_back_and_refuses_its_report(caplog):
    population = make(size=3, intervals=1)
    first = population.claim()
    second = population.claim()
    assert failures(population) == [(first.id, 1, "given_back")]
    with pytest.raises(phyla.LoopError, match="given back"):
        first.report(1, np.ones(2))
    second.report(2, np.ones(2))
    assert [record.score for record in population.run.records] == [2]


def test_with_member_records_what_raises_and_goes_on(capsys):
    population = make(size=3, intervals=2)
    for member in population:
        with member:
            if member.id == 1 and member.interval == 2 and not failures(population):
                raise ValueError("bad luck")
            member.report(1, member.state(zeros) + 1)
    assert failures(population) == [(1, 2, "raised")]
    assert events(population, Failed)[0].error == "ValueError: bad luck"
    printed = capsys.readouterr().err
    assert 'raise ValueError("bad luck")' in printed
    assert "ValueError: bad luck" in printed
    assert population.view.finished


@pytest.mark.parametrize(("error", "why"), [(KeyboardInterrupt, "given_back"), (SystemExit, "raised")])
def test_what_ends_the_script_passes_through_with_member(error, why, monkeypatch):
    monkeypatch.setattr("phyla.departures.THROWN_SECONDS", 0.2)
    population, claimed = make(), []

    def loop():
        for member in population:
            claimed.append(member.id)
            with member:
                raise error

    with pytest.raises(error):
        loop()
    scripts.until(lambda: failures(population))
    assert failures(population) == [(*claimed, 1, why)]


def test_what_raises_after_the_report_is_shown_and_the_report_counts(capsys):
    population = make(size=2, intervals=1)
    for member in population:
        with member:
            member.report(1, np.ones(2))
            raise RuntimeError("too late")
    assert "too late" in capsys.readouterr().err
    assert failures(population) == []
    assert len(population.run.records) == 2


def test_a_member_that_fails_is_tried_again_with_another_seed_and_then_replaced():
    population, seeds = make(size=4, intervals=3, retries=2, exploit=phyla.Truncation(0.5)), []
    for member in population:
        with member:
            if member.id == 2 and member.interval == 2 and len(seeds) < 3:
                seeds.append(member.seed)
                raise RuntimeError
            member.report(member.id, member.state(zeros) + 1)
    assert len(set(seeds)) == 3
    claims = [event for event in events(population, Claimed) if (event.member, event.interval) == (2, 2)]
    assert [claim.replaced for claim in claims] == [False, False, False, True]
    assert claims[-1].donor is not None
    assert population.view.done.tolist() == [3, 3, 3, 3]


def test_a_member_that_cannot_be_replaced_from_anybody_is_born_again():
    population, tries = make(size=2, intervals=1, retries=0), []
    for member in population:
        with member:
            if not tries:
                tries.append(dict(member))
                raise RuntimeError
            tries.append(dict(member))
            member.report(1, member.state(zeros) + 1)
    assert population.view.replacements.sum() == 1
    assert tries[0] not in tries[1:]
    assert len(population.run.records) == 2


def test_a_member_that_always_fails_keeps_nobody_from_training_and_ends_the_loop_in_the_end(capsys):
    population = make(size=4, intervals=3, retries=1)

    def loop():
        for member in population:
            with member:
                if member.id == 2 and member.interval == 2:
                    raise RuntimeError("cursed")
                member.report(1, member.state(zeros) + 1)

    with pytest.raises(
        phyla.LoopError, match=r"member 2 has 6 times in a row raised.*RuntimeError: cursed.*replaced 2 times"
    ):
        loop()
    assert HOPELESS == 3
    assert population.view.done.tolist() == [2, 2, 1, 2]
    capsys.readouterr()


def test_a_body_without_a_report_is_a_failure_and_says_so(caplog):
    population, skipped = make(size=2, intervals=2), []
    for member in population:
        state = member.state(zeros)
        if member.interval == 2 and not skipped:
            skipped.append(member.id)
            continue
        member.report(1, state + 1)
    assert failures(population) == [(skipped[0], 2, "unreported")]
    assert f"member {skipped[0]}" in caplog.text
    assert "report" in caplog.text
    assert population.view.finished


def test_a_script_that_raises_shows_its_own_traceback_first_and_goes_on_when_run_again(tmp_path):
    script = scripts.write(
        tmp_path,
        """
        import sys, numpy as np, phyla
        population = phyla.Population("run", {"lr": phyla.Float(0, 1)}, size=3, intervals=2, seed=0)
        for member in population:
            if member.interval == 2 and "fail" in sys.argv:
                raise ValueError("the data is gone")
            member.report(member["lr"], member.state(lambda member: np.zeros(2)) + 1)
        """,
    )
    failed = scripts.run(script, "fail")
    assert failed.returncode == 1
    said = [line for line in failed.stderr.splitlines(keepends=True) if ": note: " not in line]
    assert said[0] == "Traceback (most recent call last):\n"
    assert said[-1] == "ValueError: the data is gone\n"
    assert "phyla/" not in failed.stderr
    run = phyla.open(tmp_path / "runs/run")
    (failure,) = [event for event in run.events() if isinstance(event, Failed)]
    assert (failure.why, failure.interval, failure.error) == ("raised", 2, "ValueError: the data is gone")
    done = int(run.view.done.sum())
    assert done == 3
    scripts.succeed(script)
    assert run.view.finished
    assert sum(isinstance(event, Reported) for event in run.events()) == 6


SLOW_BODY = """
    import sys, time, numpy as np, phyla
    population = phyla.Population("run", {"lr": phyla.Float(0, 1)}, size=3, intervals=2, seed=0, progress=False)
    for member in population:
        state = member.state(lambda member: np.zeros(2)) + 1
        if member.interval == 2 and len(sys.argv) > 1:
            print("training", flush=True)
            ACTION
        member.report(1, state)
"""


def test_ctrl_c_gives_the_claim_back(tmp_path):
    script = scripts.write(tmp_path, SLOW_BODY.replace("ACTION", "time.sleep(60)"))
    process = scripts.start(script, "slowly")
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    done = scripts.finish(process, 10)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr
    run = phyla.open(tmp_path / "runs/run")
    assert [event.why for event in run.events() if isinstance(event, Failed)] == ["given_back"]
    scripts.succeed(script)


def test_sys_exit_keeps_its_code_and_is_the_bodys_own_doing(tmp_path):
    script = scripts.write(tmp_path, SLOW_BODY.replace("ACTION", "sys.exit(7)"))
    assert scripts.run(script, "leave").returncode == 7
    run = phyla.open(tmp_path / "runs/run")
    assert [event.why for event in run.events() if isinstance(event, Failed)] == ["raised"]


def test_a_process_that_is_gone_costs_no_lease(tmp_path):
    script = scripts.write(tmp_path, SLOW_BODY.replace("ACTION", "import os; os._exit(9)"))
    assert scripts.run(script, "die").returncode == 9
    started = time.monotonic()
    scripts.succeed(script)
    assert time.monotonic() - started < 10
    run = phyla.open(tmp_path / "runs/run")
    (failure,) = [event for event in run.events() if isinstance(event, Failed)]
    assert failure.why == "lost"
    assert "gone" in failure.error


def test_an_exception_that_takes_long_to_reach_the_top_is_recorded_all_the_same(tmp_path):
    script = scripts.write(
        tmp_path,
        """
        import sys, time, numpy as np, phyla
        def slow(kind, error, trace):
            time.sleep(0.5)
            sys.__excepthook__(kind, error, trace)
        sys.excepthook = slow
        for member in phyla.Population("run", {"lr": phyla.Float(0, 1)}, size=3, intervals=2, seed=0):
            raise ValueError("slow")
        """,
    )
    assert scripts.run(script).stderr.endswith("ValueError: slow\n")
    run = phyla.open(tmp_path / "runs/run")
    assert [event.why for event in run.events() if isinstance(event, Failed)] == ["raised"]


# Scores ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_is_never_changed_and_the_worst_copies_it(mode):
    best, worst = (3, 0) if mode == "max" else (0, 3)
    population = make(mode=mode, intervals=6)
    train(population)
    for record in population.run.records:
        if record.donor is not None:
            assert record.id == worst
            assert record.donor.member == best
    assert len({str(r.hypers) for r in population.run.records if r.id == best}) == 1
    assert population.best.id == best


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_diverged_member_is_replaced_at_its_next_claim_and_never_copied(mode, bad):
    population = make(mode=mode, size=5, intervals=4, exploit=phyla.Truncation(0.2))
    train(population, lambda member, w: bad if member.id == 2 and member.interval == 2 else member.id)
    view = population.view
    (next_one,) = [r for r in view.history[2] if r.interval == 3]
    assert next_one.replaced
    assert next_one.donor.member != 2
    assert all(view.records[r.donor].score == r.donor.member for r in population.run.records if r.donor)
    assert np.isfinite(population.best.score)


def test_if_all_diverge_all_are_born_again_with_new_weights_and_hyperparameters():
    population, seeds = make(size=3, intervals=2), []

    def init(newborn):
        seeds.append(newborn.seed)
        return np.zeros(2)

    for member in population:
        w = member.state(init)
        assert w[0] == 0
        member.report(float("nan"), w + 1)
    assert len(set(seeds)) == 6
    assert population.best is None
    first, second = ([r.hypers for r in population.run.records if r.interval == i] for i in (1, 2))
    assert not any(hypers in first for hypers in second)


def test_a_member_without_a_score_is_neither_copied_nor_replaced():
    population = make(size=5, intervals=5)
    train(population, lambda member, w: None if member.id in (0, 4) else member.id)
    for record in population.run.records:
        if record.id in (0, 4):
            assert record.donor is None
            assert not record.replaced
            assert record.score is None
        assert record.donor is None or record.donor.member not in (0, 4)
    assert population.best.id == 3


def test_a_score_is_what_float_takes():
    tensor = torch.tensor(5.0, requires_grad=True)
    given = [1, 2.5, True, np.float32(0.5), np.array(3.0), torch.tensor(4.0), tensor, jnp.array(6.0)]
    population = make(size=len(given), intervals=1)
    train(population, lambda member, w: given[member.id])
    assert [r.score for r in population.run.members] == [1, 2.5, 1, 0.5, 3, 4, 5, 6]


@pytest.mark.parametrize("container", [list, tuple, np.array, torch.tensor, jnp.array])
def test_samples_rank_a_member_by_the_mean_of_its_newest_ones(container):
    population = make(size=2, intervals=4, window=3, exploit=None)
    train(population, lambda member, w: container([10.0 * member.interval, 10.0 * member.interval + 2]))
    history = population.view.history[0]
    assert [r.samples for r in history] == [[10, 12], [20, 22], [30, 32], [40, 42]]
    assert [r.score for r in history] == [11, (12 + 20 + 22) / 3, (22 + 30 + 32) / 3, (32 + 40 + 42) / 3]


def test_samples_from_before_a_copy_do_not_count():
    population = make(size=4, intervals=4, window=10)
    train(population, lambda member, w: [float(member.id), member.id + member.interval])
    copies = [r for r in population.run.records if r.donor]
    assert copies
    assert all(r.score == np.mean(r.samples) for r in copies)


def test_no_samples_are_no_score_yet():
    population = make(size=2, intervals=2, exploit=None)
    train(population, lambda member, w: [] if member.interval == 1 else [2.0])
    assert [r.score for r in population.view.history[0]] == [None, 2]


def test_of_a_dict_the_metric_is_the_score_and_the_rest_is_recorded():
    population = make(size=2, intervals=1, metric="loss", mode="min")
    for member in population:
        member.report(
            {"loss": torch.tensor(member.id + 1.0), "accuracy": np.float32(0.5), "note": "a"},
            np.ones(2),
            metrics={"n": 3},
        )
    assert population.best.score == 1
    assert population.best.metrics == {"accuracy": 0.5, "note": "a", "n": 3}


def test_a_dict_may_hold_samples():
    population = make(size=2, intervals=1, metric="returns")
    for member in population:
        member.report({"returns": [1.0, 3.0], "loss": 2.0}, np.ones(2))
    assert population.best.score == 2


def test_steps_add_up_in_the_users_own_unit_and_never_go_back():
    population, before = make(size=4, intervals=5), {}
    for member in population:
        assert member.steps == before.get(member.id, 0)
        before[member.id] = member.steps + 100 + member.id
        member.report(member.id, member.state(zeros) + 1, steps=100 + member.id)
    assert any(r.donor for r in population.run.records)
    assert [r.total_steps for r in population.run.members] == [500, 505, 510, 515]


# When to exploit, and whom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ready", "burn_in"), [(1, 0), (2, 0), (3, 0), (1, 3), (2, 3)])
def test_nobody_exploits_before_burn_in_or_more_often_than_ready(ready, burn_in):
    population = make(size=6, intervals=12, ready=ready, burn_in=burn_in, exploit=phyla.Truncation(0.5))
    train(population)
    ready_at = [e.interval - 1 for e in events(population, Claimed) if e.ready and e.member == 0]
    assert ready_at == list(range(max(ready, burn_in), 12, ready))
    copied_at = [r.interval - 1 for r in population.view.history[0] if r.donor]
    assert copied_at == ready_at


def test_hyperparameters_change_only_with_the_weights():
    population = make(size=6, intervals=10)
    train(population)
    for history in population.view.history:
        for one, other in itertools.pairwise(history):
            assert (one.hypers != other.hypers) <= (other.donor is not None)


def test_explored_hyperparameters_are_the_donors_times_a_factor():
    population = make(size=6, intervals=8, explore=phyla.Perturb(0.5, 2.0))
    train(population)
    view = population.view
    copies = [r for r in population.run.records if r.donor]
    for record in copies:
        old, new = view.records[record.donor].hypers["lr"], record.hypers["lr"]
        assert new in (pytest.approx(old / 2), pytest.approx(old * 2), 1e-3, 1.0)


@pytest.mark.parametrize("inherit", ["both", "weights", "hypers"])
def test_inherit_says_what_is_copied(inherit):
    population = make(size=4, intervals=4, inherit=inherit, explore=None)
    train(population)
    view = population.view
    copies = [r for r in population.run.records if r.donor]
    assert copies
    for record in copies:
        own = next(r for r in view.history[record.id] if r.interval == record.interval - 1)
        donor = view.records[record.donor]
        assert record.hypers == (own if inherit == "weights" else donor).hypers
        assert record.source == (own if inherit == "hypers" else donor).ref


def test_without_exploit_nobody_copies_and_nothing_changes():
    population = make(size=4, intervals=5, exploit=None)
    train(population)
    assert all(r.donor is None for r in population.run.records)
    assert all(len({str(r.hypers) for r in history}) == 1 for history in population.view.history)


def test_a_strategy_of_ones_own_decides_all():
    def shift(view, member, rng):
        return phyla.Decision(phyla.KEEP, {"lr": 0.5}, notes={"by": "me", "n": member})

    population = make(size=2, intervals=2, strategy=shift)
    train(population)
    assert [r.hypers for r in population.run.members] == [{"lr": 0.5}] * 2
    assert population.run.members[1].notes == {"by": "me", "n": 1}


class Pair(NamedTuple):
    """Two workers of one run, in one process."""

    one: phyla.Population
    two: phyla.Population


@pytest.fixture
def pair(tmp_path):
    def open_both(**options):
        return Pair(*(make(path=tmp_path, **{"journal": None, **options}) for _ in range(2)))

    return open_both


def test_max_lead_keeps_everybody_waiting_for_the_slowest(pair):
    one, two = pair(size=3, intervals=2, max_lead=0)
    slow = one.claim()
    for _ in range(2):
        member = two.claim()
        member.report(1, member.state(zeros) + 1)
    claimed = []
    waiting = threading.Thread(target=lambda: claimed.append(two.claim()))
    waiting.start()
    time.sleep(0.3)
    assert claimed == []
    slow.report(1, slow.state(zeros) + 1)
    waiting.join(10)
    assert claimed[0].interval == 2


def test_without_max_lead_nobody_waits(pair):
    one, two = pair(size=3, intervals=3)
    slow = one.claim()
    fast = [two.claim() for _ in iter(range(0))]
    for _ in range(6):
        member = two.claim()
        fast.append(member.interval)
        member.report(1, member.state(zeros) + 1)
    assert fast == [1, 1, 2, 2, 3, 3]
    slow.report(1, slow.state(zeros) + 1)


@pytest.mark.parametrize(("compare", "donors_interval"), [("progress", 1), ("latest", 3)])
def test_a_member_that_is_behind_is_compared_at_its_own_progress(pair, compare, donors_interval):
    one, two = pair(size=3, intervals=3, compare=compare, keep=5)
    slow = one.claim()
    for _ in range(6):
        member = two.claim()
        member.report(1 + member.id, member.state(zeros) + 1)
    slow.report(0, slow.state(zeros) + 1)
    again = one.claim()
    assert (again.id, again.interval) == (slow.id, 2)
    assert again.donor.interval == donors_interval


def test_no_more_checkpoints_are_kept_than_keep_says(tmp_path):
    population = make(path=tmp_path, journal=None, size=3, intervals=12, keep=3, sync_every=0.01)
    train(population, lambda member, w: -w[0])
    files = Counter(file.name.split("-")[0] for file in (tmp_path / "run/checkpoints").iterdir())
    assert set(files) == {"m0", "m1", "m2"}
    assert max(files.values()) <= 3 + 2  # the best, and the newest that is known to be durable
    for record in population.run.members:
        population.run.load(record)
    population.run.load(population.best)
    assert population.best.interval == 1


def test_the_target_ends_the_run_for_every_worker(pair):
    one, two = pair(size=3, intervals=100, target=5.0)
    waiting = two.claim()
    for member in one:
        w = member.state(zeros) + 1
        member.report(w[0], w)
    assert one.best.score == 5
    assert len(events(one, Stopped)) == 1
    waiting.report(0, np.ones(2))
    assert two.claim() is None


def test_a_target_goes_with_mode():
    population = make(mode="min", target=-3.0, intervals=None)
    train(population, lambda member, w: -w[0])
    assert population.best.score == -3


def test_when_the_seconds_are_over_nothing_more_is_claimed_and_a_rerun_goes_on(tmp_path):
    population = make(path=tmp_path, journal=None, intervals=1000, seconds=0.3)
    started = time.monotonic()
    for member in population:
        time.sleep(0.02)
        member.report(1, member.state(zeros) + 1)
    assert time.monotonic() - started < 5
    done = population.view.done.sum()
    assert 0 < done < 100
    assert not failures(population)
    again = make(path=tmp_path, journal=None, intervals=1000, seconds=0.1)
    train(again)
    assert again.view.done.sum() > done


# Where members start --------------------------------------------------------------------------------------------------


def test_start_with_dicts_gives_the_first_members_exactly_those():
    population = make(start=[{"lr": 0.5}, {"lr": 0.25}], size=5)
    born = [event.hypers["lr"] for event in population.run.events() if event.kind == "born"]
    assert born[:2] == [0.5, 0.25]
    assert all(value != 0.5 and value in (pytest.approx(0.5 * 0.8), pytest.approx(0.5 * 1.2)) for value in born[2::2])


def test_start_with_dicts_draws_what_they_leave_out():
    space = {**SPACE, "wd": phyla.Float(0.0, 1.0)}
    population = make(start=[{"lr": 0.5}], size=3, space=space)
    born = [event.hypers for event in population.run.events() if event.kind == "born"]
    assert born[0]["lr"] == 0.5
    assert len({hypers["wd"] for hypers in born}) == 3


@pytest.fixture
def old_run(tmp_path):
    old = make(
        "old", {"lr": phyla.Float(0.1, 9.0), "gone": phyla.Float(0, 1)}, path=tmp_path, journal=None, intervals=4
    )
    train(old, lambda member, w: w[0] + member.id)
    return phyla.open(tmp_path / "old")


def test_start_from_another_run_brings_its_weights_and_what_the_new_space_knows(old_run, tmp_path):
    space = {**SPACE, "new": phyla.Float(0.0, 1.0)}
    population = make("new", space, path=tmp_path, journal=None, start=old_run.top(2), size=4, intervals=2)
    first = {}
    for member in population:
        w = member.state(zeros)
        if member.interval == 1:
            first[member.id] = w.copy(), dict(member)
        member.report(1, w + 1)
    best = sorted(old_run.members, key=lambda r: r.score, reverse=True)[:2]
    for place, (w, hypers) in first.items():
        heir = best[place % 2]
        assert (w == old_run.load(heir)).all()
        assert hypers.keys() == {"lr", "new"}
    for place in (0, 1):
        assert first[place][1]["lr"] == min(best[place].hypers["lr"], 1.0)
    births = [event for event in population.run.events() if event.kind == "born"]
    for place, event in enumerate(births):
        heir = best[place % 2]
        assert (event.origin.uid, event.origin.member) == (heir.uid, heir.id)
        assert event.origin.run == str(tmp_path / "old")


def test_start_from_a_checkpoint_that_is_gone_says_so(old_run, tmp_path):
    start = old_run.top(1)
    (tmp_path / "old/checkpoints" / start[0].origin.checkpoint.file).unlink()
    population = make("new", path=tmp_path, journal=None, start=start)
    with pytest.raises(phyla.PhylaError, match=r"start=.*old.*missing"):
        train(population)


def test_a_start_that_does_not_fit_init_says_so(old_run, tmp_path):
    population = make("new", path=tmp_path, journal=None, start=old_run.top(1))
    member = population.claim()
    with pytest.raises(phyla.StateError, match=r"shape \[2\].*shape \[3\]"):
        member.state(lambda newborn: np.zeros(3))


# States ---------------------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    x: np.ndarray
    y: list


@dataclass
class Box:
    w: np.ndarray
    count: int = 0


def jax_state(newborn):
    return {"params": (jnp.zeros(2), [jnp.ones(())]), "key": jax.random.key(newborn.seed)}


STATES = {
    "array": lambda newborn: np.zeros(3),
    "number": lambda newborn: 0.0,
    "tensor": lambda newborn: torch.zeros(2),
    "namedtuple": lambda newborn: Point(np.zeros(2), [0, "a", None]),
    "dataclass": lambda newborn: Box(np.zeros(2)),
    "jax": jax_state,
    "module": lambda newborn: torch.nn.Linear(2, 1),
    "mixed": lambda newborn: {
        "model": torch.nn.Linear(2, 1),
        "w": np.zeros(2),
        "n": 0,
        "deep": [{"a": (jnp.zeros(1),)}],
    },
}


def step(state):
    """Trains whatever it is."""
    match state:
        case torch.nn.Module():
            with torch.no_grad():
                for parameter in state.parameters():
                    parameter += 1
            return state
        case Box():
            return Box(state.w + 1, state.count + 1)
        case Point():
            return Point(state.x + 1, [state.y[0] + 1, *state.y[1:]])
        case dict():
            return {key: step(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(map(step, state))
        case jax.Array() if jnp.issubdtype(state.dtype, jax.dtypes.prng_key):
            return jax.random.split(state)[0]
    return state + 1


def flat(state):
    """All numbers in a state."""
    match state:
        case torch.nn.Module():
            return [parameter.detach().numpy().tobytes() for parameter in state.parameters()]
        case Box():
            return flat([state.w, state.count])
        case dict():
            return flat(list(state.values()))
        case list() | tuple():
            return [leaf for value in state for leaf in flat(value)]
        case jax.Array() if jnp.issubdtype(state.dtype, jax.dtypes.prng_key):
            return flat(jax.random.key_data(state))
        case str() | None:
            return [state]
    return [np.asarray(state).tobytes()]


@pytest.mark.parametrize("kind", STATES)
def test_a_state_comes_back_as_it_was_reported(kind):
    """Kept in memory or restored from its checkpoint, the same."""

    def run(budget):
        population, reported = make(size=3, intervals=4), {}
        population.states = States(budget)
        for member in population:
            state = member.state(STATES[kind])
            source = (member.donor.id if member.donor else member.id), member.interval - 1
            assert flat(state) == reported.get(source, flat(state))
            state = step(state)
            reported[member.id, member.interval] = flat(state)
            member.report(member.id, state)
        return outcome(population.view)

    assert run(2**28) == run(0)


def test_what_changes_in_place_need_not_be_handed_to_report():
    population = make(size=2, intervals=2)
    for member in population:
        state = member.state(
            lambda newborn: {"model": torch.nn.Linear(2, 1), "rng": np.random.default_rng(newborn.seed)}
        )
        before = flat(state["model"])
        step(state["model"])
        assert flat(state["model"]) != before
        member.report(member.id)
    assert len({r.checkpoint.digest for r in population.run.records}) == 4


def test_residents_do_not_share_what_init_makes_global(caplog):
    """A model that init takes from outside serves all members in turn, and each finds its own weights in it."""
    model = torch.nn.Linear(1, 1, bias=False)

    def init(newborn):
        torch.nn.init.zeros_(model.weight)
        return {"model": model}

    population, expected = make(size=3, intervals=5, exploit=None), Counter()
    for member in population:
        weight = member.state(init)["model"].weight
        assert weight.item() == expected[member.id]
        with torch.no_grad():
            weight += member.id + 1
        expected[member.id] = weight.item()
        member.report(weight.item())
    assert expected == {0: 5, 1: 10, 2: 15}


def test_a_state_that_does_not_change_warns_once():
    def loop():
        for member in make(size=3, intervals=3):
            member.report(1, member.state(zeros))

    with pytest.warns(phyla.PhylaWarning, match="did not change") as caught:
        loop()
    (warning,) = ours(caught)
    assert warning.filename == __file__


def test_an_interval_without_steps_may_leave_the_state_unchanged():
    for member in make(size=2, intervals=3):
        member.report(1, member.state(zeros), steps=0)


def test_report_without_a_state_at_all_is_allowed_for_stateless_bodies():
    population = make(size=2, intervals=2, exploit=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", phyla.PhylaWarning)
        for member in population:
            member.report(member["lr"])
    assert population.run.load(population.best) is None


@pytest.mark.parametrize("strict", [False, True])
def test_a_new_hyperparameter_that_nobody_reads_is_named(strict):
    space = {**SPACE, "momentum": phyla.Float(0.0, 1.0)}
    population = make(space=space, size=4, intervals=6, strict=strict)

    def train_without_momentum():
        for member in population:
            w = member.state(zeros) + member["lr"]
            member.report(member.id, w)

    if strict:
        with pytest.raises(phyla.StateError, match=r"'momentum'.*no effect"):
            train_without_momentum()
    else:
        with pytest.warns(phyla.PhylaWarning, match=r"'momentum'.*no effect") as caught:
            train_without_momentum()
        (warning,) = caught
        assert warning.filename == __file__


def test_what_init_reads_has_been_read():
    def init(newborn):
        return {"w": np.zeros(2), "lr": newborn["lr"]}

    for member in make(size=4, intervals=6, strict=True):
        state = member.state(init)
        member.report(member.id, {**state, "w": state["w"] + 1})


@pytest.mark.parametrize("strict", [False, True])
def test_a_learning_rate_that_falls_back_is_named(strict):
    saved = {}

    def init(newborn):
        model = torch.nn.Linear(1, 1)
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=newborn["lr"], momentum=0.9)}

    population = make(size=4, intervals=6, strict=strict)

    def train_with_a_restore_of_ones_own():
        for member in population:
            state = member.state(init)
            if member.donor is not None:  # a user's own resume, which undoes what phyla has set
                state["optimizer"].param_groups[0]["lr"] = saved[member.donor.id]
            saved[member.id] = state["optimizer"].param_groups[0]["lr"]
            step(state["model"])
            member.report(member.id)

    if strict:
        with pytest.raises(phyla.StateError, match=r"lr of state\['optimizer'\]"):
            train_with_a_restore_of_ones_own()
    else:
        with pytest.warns(phyla.PhylaWarning, match=r"lr of state\['optimizer'\].*donor's value") as caught:
            train_with_a_restore_of_ones_own()
        assert len(ours(caught)) == 1


def sgd(newborn):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=newborn["lr"], momentum=0.9)
    return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}


def test_new_hyperparameters_are_live_after_a_copy_and_the_decay_goes_on():
    population = make(size=4, intervals=8)
    for member in population:
        state = member.state(sgd)
        group = state["optimizer"].param_groups[0]
        assert group["initial_lr"] == member["lr"]
        assert group["lr"] == pytest.approx(member["lr"] * 0.9 ** (member.interval - 1))
        step(state["model"])
        state["optimizer"].step()
        state["scheduler"].step()
        member.report(member.id)
    assert any(r.donor for r in population.run.records)


class Scaled(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.w = torch.nn.Parameter(torch.randn(2))


def test_with_reuse_the_objects_are_made_once_and_everybody_finds_its_own_weights():
    made, objects = [], set()

    def init(newborn):
        made.append(newborn.id)
        return {"model": Scaled(newborn["lr"])}

    def apply(state, member):
        state["model"].scale = member["lr"]

    population, reported, born = make(size=4, intervals=4), {}, {}
    for member in population:
        state = member.state(init, reuse=True, apply=apply)
        model = state["model"]
        objects.add(id(model))
        assert model.scale == member["lr"]
        source = (member.donor.id if member.donor else member.id), member.interval - 1
        assert flat(model) == reported.get(source, flat(model))
        if member.interval == 1:
            born[member.id] = str(flat(model))
        step(model)
        reported[member.id, member.interval] = flat(model)
        member.report(member.id)
    assert len(objects) == 1
    assert made == sorted(made, key=made.index)
    assert len(made) == 4  # one for each newborn
    assert len(set(born.values())) == 4


def test_reused_objects_train_as_new_ones_do():
    def run(**options):
        population = make(size=4, intervals=5)
        for member in population:
            state = member.state(sgd, **options)
            step(state["model"])
            state["optimizer"].zero_grad()
            state["model"](torch.rand(3, 1)).sum().backward()
            state["optimizer"].step()
            state["scheduler"].step()
            member.report(member.id)
        return outcome(population.view)

    assert run() == run(reuse=True)


class Legacy:
    """A thing without state_dict."""

    def __init__(self):
        self.raw = b""
        self.calls = 0


def test_a_part_says_how_it_is_saved_and_the_state_shows_the_object():
    def init(newborn):
        return {"booster": phyla.Part(Legacy(), get=lambda b: b.raw, set=lambda b, raw: setattr(b, "raw", raw)), "n": 0}

    population = make(size=4, intervals=4)
    for member in population:
        state = member.state(init)
        assert isinstance(state["booster"], Legacy)
        assert state["booster"].raw == b"x" * (member.interval - 1)
        state["booster"].raw += b"x"
        member.report(member.id, {**state, "n": state["n"] + 1})
    assert population.run.load(population.best) == {
        "booster": b"x" * population.best.interval,
        "n": population.best.interval,
    }


def test_a_part_is_by_default_its_attributes():
    population = make(size=4, intervals=4)
    for member in population:
        state = member.state(lambda newborn: phyla.Part(Legacy()))
        assert state.calls == member.interval - 1
        state.calls += 1
        member.report(member.id)


def test_a_part_may_be_a_directory(tmp_path):
    def get(obj):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model/weights.bin").write_bytes(obj.raw)
        return tmp_path / "model"

    def put(obj, path):
        obj.raw = (path / "weights.bin").read_bytes()

    population = make(size=4, intervals=3)
    for member in population:
        state = member.state(lambda newborn: {"m": phyla.Part(Legacy(), get, put)})
        assert state["m"].raw == b"x" * (member.interval - 1)
        state["m"].raw += b"x"
        member.report(member.id)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_local_is_made_once_for_each_member_and_stays_through_copies(reuse):
    made = itertools.count()
    population = make(size=4, intervals=5)
    for member in population:
        state = member.state(
            lambda newborn: {
                "model": torch.nn.Linear(1, 1),
                "deep": [phyla.Local(lambda: {"n": next(made), "seen": []})],
            },
            reuse=reuse,
        )
        buffer = state["deep"][0]
        assert buffer["seen"] == [(member.id, interval) for interval in range(1, member.interval)]
        buffer["seen"].append((member.id, member.interval))
        step(state["model"])
        member.report(member.id)
    assert any(r.donor for r in population.run.records)
    assert next(made) == 4
    assert population.run.load(population.best).keys() == {"model", "deep"}


def test_a_local_alone_is_no_state_to_save():
    population = make(size=2, intervals=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", phyla.PhylaWarning)
        for member in population:
            buffer = member.state(lambda newborn: phyla.Local(list))
            buffer.append(member.id)
            member.report(len(buffer))
    assert {r.score for r in population.run.records if r.interval == 2} == {2}


def test_structural_hyperparameters_follow_the_weights():
    space = {**SPACE, "units": phyla.Int(1, 64, structural=True)}
    population = make(space=space, size=6, intervals=8)
    for member in population:
        w = member.state(lambda newborn: np.zeros(newborn["units"]))
        assert w.shape == (member["units"],)
        member.report(member.id, w + 1)
    view = population.view
    copies = [r for r in population.run.records if r.donor]
    assert copies
    assert all(r.hypers["units"] == view.records[r.donor].hypers["units"] for r in copies)


# What it came to ------------------------------------------------------------------------------------------------------


def test_best_prints_what_a_user_wants_to_know():
    population = make(size=4, intervals=4)
    train(population, lambda member, w: w[0] + member.id / 10)
    text = str(population.best)
    assert text.startswith("score 4.3 (member 3, interval 4)\n")
    for word in ("hyperparameters  lr ", "schedule         lr ", "checkpoint       m3-"):
        assert word in text


def test_best_is_none_before_the_first_score():
    assert make().best is None


def test_the_best_ever_stays_the_best_and_final_is_what_stands_at_the_end():
    population = make(size=2, intervals=3, exploit=None)
    train(population, lambda member, w: 10 - w[0])
    assert (population.run.best.interval, population.run.best.score) == (1, 9)
    assert (population.run.final.interval, population.run.final.score) == (3, 7)
    population.run.load(population.run.best)


def test_restore_gives_live_objects_with_the_best_weights():
    population, weights = make(size=4, intervals=5), {}
    for member in population:
        state = member.state(sgd)
        step(state["model"])
        weights[member.id, member.interval] = flat(state["model"])
        member.report(member.id + member.interval)
    best = population.best
    state = population.run.restore(best, sgd)
    assert flat(state["model"]) == weights[best.id, best.interval]
    assert state["optimizer"].param_groups[0]["initial_lr"] == best.hypers["lr"]
    assert state["model"](torch.ones(1, 1)).requires_grad


def test_training_along_the_winners_schedule_reproduces_it():
    target = np.array([1.0, -2.0])

    def loss(w):
        return float(((w - target) ** 2).sum())

    def epoch(w, lr):
        return w - lr * 2 * (w - target)

    population = make(space={"lr": phyla.Float(1e-3, 0.6, log=True)}, size=8, intervals=10, mode="min")
    for member in population:
        w = epoch(member.state(zeros), member["lr"])
        member.report(loss(w), w)
    best, schedule = population.best, population.run.schedule()
    assert schedule.total == best.interval
    w = np.zeros(2)
    for turn in range(best.interval):
        w = epoch(w, schedule.at(turn)["lr"])
    assert loss(w) == best.score


def test_primary_is_known_only_after_the_end():
    population = make()
    with pytest.raises(phyla.LoopError, match="after the loop"):
        population.primary  # noqa: B018
    train(population)
    assert population.primary is True


ONCE = """
    import os, sys, time, pathlib, numpy as np, phyla
    per, processes, launch = sys.argv[1], int(sys.argv[2]), sys.argv[3]

    def meet(where):
        pathlib.Path(f"{launch}.{where}.{os.getpid()}").touch()
        while len(list(pathlib.Path().glob(f"{launch}.{where}.*"))) < processes:
            time.sleep(0.01)

    def fetch():
        with open("calls", "a") as file:
            file.write("x")
        ACTION

    population = phyla.Population("run", {"lr": phyla.Float(0, 1)}, size=4, intervals=2, seed=0, progress=False)
    meet("start")
    population.once("data", fetch, per=per)
    assert pathlib.Path("data").exists()
    for member in population:
        member.report(member["lr"], member.state(lambda member: np.zeros(2)) + 1)
    print("primary" if population.primary else "other", flush=True)
    meet("end")
"""


@pytest.mark.parametrize("per", ["host", "run"])
def test_once_calls_in_one_worker_while_the_others_wait_and_one_of_all_is_primary(tmp_path, per):
    script = scripts.write(tmp_path, ONCE.replace("ACTION", "time.sleep(0.3); pathlib.Path('data').touch()"))
    for launch in range(2):  # of a rerun, one is primary too
        ended = scripts.together(script, 4, per, 4, launch)
        assert [done.returncode for done in ended] == [0] * 4, ended[0].stderr
        assert (tmp_path / "calls").read_text() == "x"
        assert sorted(done.stdout for done in ended) == ["other\n"] * 3 + ["primary\n"]


@pytest.mark.parametrize("death", ["raise OSError('no network')", "os._exit(1)"])
def test_once_passes_on_when_a_call_fails(tmp_path, death):
    action = f"""
        if open("calls").read() == "x":
            {death}
        pathlib.Path("data").touch()
    """
    source = ONCE.replace("        ACTION", action).replace('    meet("end")\n', "")
    ended = scripts.together(scripts.write(tmp_path, source), 3, "run", 3, 1)
    assert sorted(done.returncode for done in ended) == [0, 0, 1]
    assert (tmp_path / "calls").read_text() == "xx"
    failed = next(done for done in ended if done.returncode)
    assert ("OSError: no network" in failed.stderr) == ("raise" in death)


def test_a_second_loop_over_a_finished_run_yields_nothing_and_says_why(capsys, caplog):
    population = make(progress=True)
    train(population)
    assert capsys.readouterr().err.count("is finished") == 1
    assert train(population) == []
    assert capsys.readouterr().err == ""
    assert "fresh=True" in caplog.text


@pytest.mark.parametrize("iterate", ["iter(population)", "population.cohorts()"])
def test_a_turn_that_is_held_till_the_interpreter_ends_does_not_hold_it_up(tmp_path, iterate):
    script = scripts.write(
        tmp_path,
        f"""
        import phyla
        population = phyla.Population("held", {{"lr": phyla.Float(0.1, 1.0)}}, size=4, intervals=2, progress=False)
        turns = {iterate}
        turn = next(turns)
        """,
    )
    scripts.succeed(script, timeout=30)
