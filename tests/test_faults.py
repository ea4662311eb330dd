"""The list of faults that a run must survive, and where each is brought about. Those that fit nowhere else stand here."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import phyla
import scripts
from phyla import host
from phyla.checkpoints import file_name
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.errors import CheckpointError
from phyla.events import RUN, Born, Claimed, Created, Failed, Reported
from phyla.journal.memory import MemoryJournal
from phyla.settings import Settings
from phyla.space import Float, describe
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.worker import Outcome, Worker, drive

TESTS = {
    1: ["test_sameness.py::test_a_process_that_is_killed_anywhere_"],
    2: ["test_sameness.py::test_a_process_that_is_killed_anywhere_"],
    3: ["test_liveness.py::test_fault_3_"],
    4: ["test_liveness.py::test_fault_4_"],
    5: ["test_faults.py::test_fault_5_"],
    6: ["test_faults.py::test_fault_6_"],
    7: ["test_faults.py::test_fault_7_"],
    8: ["test_faults.py::test_fault_8_"],
    9: ["test_disk.py::test_fault_09_"],
    10: ["test_disk.py::test_fault_10_"],
    11: ["test_disk.py::test_fault_11_"],
    12: ["test_disk.py::test_fault_12_"],
    13: ["test_disk.py::test_fault_13_"],
    14: ["test_disk.py::test_fault_14_"],
    16: ["test_journals.py::test_a_foreign_writer_is_waited_for", "test_journals.py::test_a_held_lock_is_waited_for"],
    17: ["test_disk.py::test_fault_17_"],
    18: ["test_liveness.py::test_fault_18_", "test_simulation.py::test_two_to_32_workers"],
    19: ["test_score.py::test_"],
    20: ["test_liveness.py::test_fault_20_", "test_launch.py::test_"],
    21: ["test_liveness.py::test_fault_21_", "test_launch.py::test_"],
    22: ["test_faults.py::test_fault_22_"],
    23: ["test_disk.py::test_fault_23_", "test_releases.py::test_an_old_run_goes_on"],
    25: ["test_faults.py::test_fault_25_"],
    26: ["test_processes.py::test_children_forked_in_the_body", "test_journals.py::test_forks_while_other_threads"],
    27: ["test_faults.py::test_fault_27_"],
}
"""Fault of FAULTS.md §3 -> the tests of it, by the beginning of their names. 15 and 24 come with their backends."""


@pytest.mark.parametrize("fault", TESTS)
def test_each_fault_of_the_list_has_its_tests(fault):
    for place in TESTS[fault]:
        file, name = place.split("::")
        assert re.search(rf"^def {name}", (Path(__file__).parent / file).read_text(), re.MULTILINE), place


# A run by hand ------------------------------------------------------------------------------------------------------------


class World:
    """A journal, a store, and workers that share them."""

    def __init__(self, size=2, **settings):
        self.journal, self.checkpoints = MemoryJournal(), MemoryCheckpoints()
        space = {"lr": Float(0.0, 1.0)}
        known = Settings(seed=1, space=describe(space), size=size, intervals=9, keep=2, **settings)
        born = [Born(member=m, seq=1, hypers={"lr": 0.5}) for m in range(size)]
        self.journal.append(Created(member=RUN, seq=1, run="run", version="0", settings=known), *born)

    def worker(self, name, **known):
        strategy = Evolve(Truncation(0.5), Perturb())
        return Worker(name, self.journal, self.checkpoints, strategy, **known)

    def claim(self, worker):
        return drive(worker.claim(), self.journal)

    def train(self, worker, score):
        claim = self.claim(worker)
        assert drive(worker.publish(claim, {"w": np.full(3, score)}, [Outcome(score)]), self.journal)
        return claim

    def failures(self):
        return [(e.member, e.why) for _, e in self.journal.read(0) if isinstance(e, Failed)]


def test_fault_5_a_process_under_an_old_name_is_another_worker():
    """The same host and the same pid, but another start: the old incarnation stays dead, and its claim is freed at once."""
    mine = host.new_worker_id()
    node, pid, started, boot, number = mine.rsplit(".", 4)
    before = ".".join([node, pid, str(int(started) - 1), boot, number])
    assert host.is_gone(before)
    assert not host.is_gone(mine)
    world = World()
    assert world.claim(world.worker(before)) is not None
    successor = world.worker(mine, gone=host.is_gone)
    assert {world.train(successor, 1.0).events[0].member for _ in range(2)} == {0, 1}
    assert [why for _, why in world.failures()] == ["lost"]


def test_fault_6_two_workers_that_free_the_same_lost_claim_free_it_once():
    world = World(size=1)
    world.claim(world.worker("dead"))
    others = [world.worker(name, gone=lambda worker: worker == "dead") for name in ("a", "b")]
    meet, claims = threading.Barrier(2), {}
    inner = world.journal.append

    def append(*events):
        if isinstance(events[0], Failed):
            with contextlib.suppress(threading.BrokenBarrierError):
                meet.wait(5)  # both are about to append it
        return inner(*events)

    world.journal.append = append

    def work(worker):
        steps = worker.claim()
        claims[worker.id] = next(step for step in iter(lambda: next(steps, "end"), None) if step in ("end", "claim.appended")
                                 or not isinstance(step, str))  # fmt: skip

    threads = [threading.Thread(target=work, args=(worker,)) for worker in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert world.failures() == [(0, "lost")]
    assert sorted(map(str, claims.values())).count("claim.appended") == 1
    assert len([e for _, e in world.journal.read(0) if isinstance(e, Claimed)]) == 2


def test_fault_7_a_donor_that_is_released_between_decision_and_claim_is_never_read():
    """The claim is void on arrival, recorded, and decided again; nobody meets a file that is gone."""
    world = World(size=2, compare="latest")
    quick, slow = world.worker("quick"), world.worker("slow")
    for score in (1.0, 0.0):
        world.train(quick, score)
    steps = slow.claim()
    for step in steps:
        if step == "claim.decided":
            break
    (decided,) = slow_decisions(steps)
    assert decided.source is not None
    for score in (2.0, 3.0, 4.0, 5.0, 6.0, 7.0):  # meanwhile its source moves out of what is kept
        world.train(quick, score)
    claim = drive(steps, world.journal)
    assert claim is not None
    assert all(isinstance(event, Claimed) for event in claim.events)
    assert [why for _, why in world.failures()] in ([], ["checkpoint"])
    for event in claim.events:
        record = slow.view.records[event.source]
        assert record.checkpoint.file in world.checkpoints.files()


def slow_decisions(steps):
    """What a suspended claim has decided: the events in its frame."""
    return steps.gi_frame.f_locals["events"]


def test_fault_8_a_report_without_a_checkpoint_is_no_donor():
    world = World(size=2, compare="latest")
    worker = world.worker("w")
    world.train(worker, 1.0)
    world.train(worker, 0.0)
    worker.read()
    best = max(worker.view.records.values(), key=lambda record: record.score)
    world.checkpoints.delete([best.checkpoint.file])
    with pytest.raises(CheckpointError):
        world.checkpoints.load(best.checkpoint)
    for score in (0.1, 0.2):
        world.train(worker, score)
    voided = [e.voids for _, e in world.journal.read(0) if isinstance(e, Failed) and e.why == "checkpoint"]
    assert set(voided) == {best.ref}
    after = [e for _, e in world.journal.read(0) if isinstance(e, Claimed)][-2:]
    assert all(tuple(best.ref) not in (tuple(e.source or ()), tuple(e.donor or ())) for e in after)
    assert all(isinstance(e, Reported) and e.checkpoint.file == file_name(e.member, e.seq - 1)
               for _, e in world.journal.read(0) if isinstance(e, Reported))  # fmt: skip


SCRIPT = """
    import os, signal, sys, time, numpy as np, phyla
    population = phyla.Population(
        "run", {{"lr": phyla.Float(0.0, 1.0)}}, {size}, 4, seed=1, max_lead=0, lease=60, progress=False{options}
    )
    for member in population:
        w = member.state(lambda member: np.zeros(2))
        {body}
        member.report(member["lr"] + 0.01 * member.id, w + 1)
"""


def events(folder, kind):
    return [event for event in phyla.open(folder / "runs/run").events() if isinstance(event, kind)]


def test_fault_22_sixteen_processes_that_start_at_once_make_one_run(tmp_path):
    zygote = scripts.Zygote("phyla")
    zygote.succeed(scripts.write(tmp_path, SCRIPT.format(size=8, options="", body="pass")), 16)
    zygote.close()
    assert len(events(tmp_path, Created)) == 1
    view = phyla.open(tmp_path / "runs/run").view
    assert view.finished
    assert sorted((r.id, r.interval) for r in view.records.values()) == [(m, i) for m in range(8) for i in range(1, 5)]


def test_fault_25_a_worker_that_dies_at_the_barrier_is_taken_over_and_the_barrier_opens(tmp_path):
    """With max_lead=0 nobody goes on before the slowest: it is killed while all others wait for it."""
    body = "open(f'pid-{member.id}-{member.interval}-{os.getpid()}', 'w'); time.sleep(60 * os.path.exists('hold'))"
    script = scripts.write(tmp_path, SCRIPT.format(size=3, options="", body=body))
    (tmp_path / "hold").touch()
    slow = scripts.start(script)
    scripts.until(lambda: list(tmp_path.glob("pid-*")))
    (tmp_path / "hold").unlink()
    others = [scripts.start(script) for _ in range(2)]
    scripts.until(lambda: len(events(tmp_path, Reported)) == 2)
    assert all(other.poll() is None for other in others)
    slow.send_signal(signal.SIGKILL)
    assert [scripts.finish(other, timeout=30).returncode for other in others] == [0, 0]
    scripts.finish(slow)
    assert [event.why for event in events(tmp_path, Failed)] == ["lost"]
    assert list(phyla.open(tmp_path / "runs/run").view.done) == [4, 4, 4]


def test_fault_27_what_kills_its_worker_again_and_again_counts_as_a_crash(tmp_path):
    """As the OOM killer does. After max_lost losses in a row, as often as there are retries, the member is replaced."""
    body = "(member.id, member.interval) == (1, 2) and not population.view.replacements[1] and os.kill(os.getpid(), 9)"
    script = scripts.write(tmp_path, SCRIPT.format(size=3, options=", max_lost=2, retries=1", body=body))
    codes = []
    while not codes or codes[-1]:
        codes.append(scripts.run(script).returncode)
        assert len(codes) < 10
    assert codes == [-9] * 4 + [0]
    assert [event.why for event in events(tmp_path, Failed)] == ["lost"] * 4
    run = phyla.open(tmp_path / "runs/run")
    assert list(run.view.done) == [4, 4, 4]
    (replaced,) = [record for record in run.records if record.replaced]
    assert (replaced.id, replaced.interval) == (1, 2)
