"""Real workers, killed, stopped and asked to end at random; what came of it.

    python tests/chaos.py [--seconds 60] [--workers 4] [--members 8] [--seed 0]

Each body writes what it does to a file of its own making, so that what the journal says can be held against what was trained.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import phyla
import scripts
from phyla import host, steer
from phyla.doctor import Problem, examine
from phyla.events import Claimed, Failed, Recorded
from phyla.strategies.rebuild import rebuild

SCRIPT = """
    import os, sys, time, numpy as np, phyla
    members = int(sys.argv[1])
    log = os.open("trained.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    population = phyla.Population(
        "run", {"lr": phyla.Float(1e-3, 1.0, log=True)}, members, 100_000, seed=1, lease=2.0, keep=3, retries=5,
        max_lost=1_000_000, progress=False,
    )
    def say(what, member):
        os.write(log, f"{what} {member.id} {member.interval} {os.getpid()}\\n".encode())
    for member in population:
        w = member.state(lambda member: np.zeros(1000))
        say("begins", member)
        for _ in range(20):
            w = w + member["lr"]
            time.sleep(0.002)
        member.report(float(w[0]), w)
        say("reported", member)
"""


@dataclass
class Outcome:
    """What chaos came to. Counts are of intervals, but for `struck` (signals by name); times are seconds."""

    published: int = 0
    lost: int = 0  # the body was told that it has reported, and the journal does not count it
    twice: int = 0  # counted more than once
    repeated: int = 0  # begun again by somebody, because a body did not end
    struck: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)  # from a kill to the next claim of a member that was held
    problems: list[Problem] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        spent = sorted(self.recoveries)
        p95 = spent[int(0.95 * (len(spent) - 1))] if spent else float("nan")
        struck = ", ".join(f"{count} {name}" for name, count in self.struck.most_common())
        median = statistics.median(spent) if spent else float("nan")
        return (
            f"{self.published} intervals published, {self.lost} lost, {self.twice} twice; struck: {struck}; "
            f"{self.repeated} unpublished intervals repeated; failed: {dict(self.failed)}; from a kill to the next claim of "
            f"that member: median {median:.3f} s, p95 {p95:.3f} s ({len(spent)} times); doctor: {len(self.problems)} problems"
        )


def chaos(folder: Path, seconds: float, workers: int, members: int, seed: int) -> Outcome:
    """Trains, and strikes; then lets everybody end, and looks."""
    rng, outcome = random.Random(seed), Outcome()
    script = scripts.write(folder, SCRIPT)
    running: list[subprocess.Popen[str]] = []
    try:
        running += [scripts.start(script, members) for _ in range(workers)]
        return _strike(folder, seconds, members, rng, running, script, outcome)
    finally:
        for process in running:
            process.kill()


def _strike(folder, seconds, members, rng, running, script, outcome):
    where = folder / "runs/run"
    scripts.until(lambda: (folder / "trained.log").exists() and (folder / "trained.log").stat().st_size > 200)
    begun, kills, run = time.monotonic(), [], phyla.open(where)
    while time.monotonic() - begun < seconds:
        time.sleep(rng.uniform(0.05, 0.5))
        place = rng.randrange(len(running))
        process, name = running[place], rng.choice(("SIGKILL", "SIGKILL", "SIGTERM", "SIGSTOP"))
        outcome.struck[name] += 1
        if name == "SIGSTOP":
            process.send_signal(signal.SIGSTOP)
            time.sleep(rng.uniform(0.1, 4.0))
            process.send_signal(signal.SIGCONT)
            continue
        held = [claim.member for claim in run.view.open if claim is not None and f".{process.pid}." in claim.worker]
        process.send_signal(getattr(signal, name))
        if name == "SIGKILL":
            kills.append((time.time(), process.pid, held))
        code = process.wait(timeout=20)
        assert code in (-9, -15, 143), process.stderr.read()  # -15: it had not joined yet
        running[place] = scripts.start(script, members)
    steer.say(where, steer.stop("enough"))
    for process in running:
        done = scripts.finish(process, timeout=60)
        assert done.returncode == 0, done.stderr
    return judged(folder, outcome, kills)


def judged(folder: Path, outcome: Outcome, kills: list[tuple[float, int, list[int]]]) -> Outcome:
    run = phyla.open(folder / "runs/run")
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    outcome.problems = list(examine(events, run.checkpoints, rebuild(run.settings.strategy)))
    counted = Counter((record.id, record.interval) for history in run.view.history for record in history)
    lines = [line.split() for line in (folder / "trained.log").read_text().splitlines()]
    begun = Counter((int(member), int(interval)) for what, member, interval, _ in lines if what == "begins")
    taken = {(record.id, record.interval, host_pid(record.worker)) for record in run.view.records.values()}
    told = {(int(m), int(i)) for what, m, i, pid in lines if what == "reported" and (int(m), int(i), int(pid)) in taken}
    outcome.published = len(counted)
    outcome.lost = len(told - counted.keys())
    outcome.twice = sum(count > 1 for count in counted.values())
    outcome.repeated = sum(count - 1 for count in begun.values())
    outcome.failed = Counter(event.why for _, event in events if isinstance(event, Failed))
    for at, pid, held in kills:
        for member in held:
            claims = [event for _, event in events if isinstance(event, Claimed) and event.member == member]
            if not any(host_pid(claim.worker) == pid and claim.time <= at for claim in claims):
                continue
            after = [claim.time for claim in claims if claim.time > at]
            outcome.recoveries += [min(after) - at] if after else []
    return outcome


def host_pid(worker: str) -> int:
    return int(worker.rsplit(".", 4)[1])


def left_behind(folder: Path) -> list[str]:
    """Processes that still work in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and (entry / "cwd").readlink() == folder:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = chaos(Path(folder).resolve(), given.seconds, given.workers, given.members, given.seed)
        print(outcome)
        time.sleep(0.6)
        print(f"processes left behind: {left_behind(Path(folder).resolve()) or 'none'}")
        for problem in outcome.problems[:10]:
            print(problem)
    sys.exit(bool(outcome.lost or outcome.twice or outcome.problems))


if __name__ == "__main__":
    assert host.boot() is not None
    main()
