"""What reading a long journal costs: `python bench/fold.py [MEMBERS] [EVENTS] [LONG]`.

Folds a journal of 100,000 events of 1,000 members, from JSON and from decoded events, then one more event; and asks the
view what a worker asks at every claim. Goals: the whole journal in under 2 s, one more event in under 1 ms.
Then writes a SQLite journal of LONG events (1,000,000; 0: none), and opens the run without and with a snapshot, each time
in a new process. Goal: with it in under 3 s.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import phyla
from phyla import snapshot
from phyla.decide import decide
from phyla.events import RUN, Born, Checkpoint, Claimed, Created, Event, Recorded, Ref, Reported, decode, encode
from phyla.journal.sqlite import SqliteJournal
from phyla.settings import Settings
from phyla.space import Float, Int, Space, describe, draw
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.view import fold

SPACE: Space = {"lr": Float(1e-5, 1.0, log=True), "dropout": Float(0.0, 0.8), "units": Int(1, 64)}
STRATEGY = Evolve(Truncation(0.2), Perturb())


def journal(members: int, events: int) -> list[Event]:
    """The first events of an endless run."""
    return list(itertools.islice(endless(members), events))


def endless(members: int) -> Iterator[Event]:
    """The events of a run in which one report in five is followed by a copy; up to 64 claims are open at any time."""
    rng = np.random.default_rng(0)
    settings = Settings(seed=0, space=describe(SPACE), size=members, intervals=2**31)
    yield Created(member=RUN, seq=1, run="bench", version="0", settings=settings)
    hypers = [draw(SPACE, rng) for _ in range(members)]
    yield from (Born(member=m, seq=1, hypers=hypers[m]) for m in range(members))
    head, done, newest = [1] * members, [0] * members, dict[int, Ref]()
    workers = min(64, members // 2)
    for turn in itertools.count():
        interval, m = divmod(turn, members)
        exploits = m in newest and rng.random() < 0.2
        peer = int(rng.integers(members)) if exploits else m
        donor = newest.get(peer) if exploits and peer != m else None
        if donor is not None:
            hypers[m] = {"lr": rng.random(), "dropout": rng.random(), "units": int(rng.integers(1, 65))}
        head[m] += 1
        yield Claimed(
            member=m,
            seq=head[m],
            interval=interval + 1,
            worker=f"host-{turn % workers}-{turn % workers:08x}",
            saw=max(0, 1 + members + 2 * (turn - workers)),
            hypers=hypers[m],
            source=donor or newest.get(m),
            donor=donor,
            ready=interval > 0,
            time=turn + 0.123456,
        )
        late = turn - workers
        if late >= 0:
            m = late % members
            head[m] += 1
            done[m] += 1
            yield Reported(
                member=m,
                seq=head[m],
                interval=done[m],
                score=float(rng.normal(done[m])),
                seconds=1.25 + late / 1e6,
                checkpoint=Checkpoint(f"m{m}-{head[m] - 1}.safetensors", rng.bytes(16).hex(), 4096),
                time=turn + 0.654321,
            )
            newest[m] = Ref(m, head[m])


def seconds(fn: Callable[[], object], times: int) -> float:
    """The median of some calls, in seconds of this process, so that a busy machine matters less."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        fn()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def bench_fold(members: int, events: int) -> None:
    lines = [encode(event) for event in journal(members, events)]
    size = sum(map(len, lines)) / 1e6

    def decoded() -> list[Recorded]:
        return [Recorded(position, decode(line)) for position, line in enumerate(lines, 1)]

    recorded = decoded()
    decoding, folding = seconds(decoded, 3), seconds(lambda: fold(recorded), 3)
    print(f"{events:,} events of {members:,} members ({size:.1f} MB of JSON)")
    print(f"  decode       {decoding:8.3f} s")
    print(f"  fold         {folding:8.3f} s   ({folding / events * 1e6:.1f} µs an event)")
    print(f"  both         {decoding + folding:8.3f} s   (goal: 2 s)  {verdict(decoding + folding < 2)}")
    more = int(events * 0.99)
    view, taken = fold(recorded[:more]), []
    for one in recorded[more:]:
        start = time.process_time()
        view.fold(one)
        taken.append(time.process_time() - start)
    typical, slow = statistics.median(taken) * 1e6, statistics.quantiles(taken, n=100)[-1] * 1e6
    worst = f"{slow:.0f} µs for one in a hundred, {max(taken) * 1e6:.0f} µs where Python collects garbage"
    print(f"  one more     {typical:8.1f} µs, {worst}   (goal: 1 ms)  {verdict(slow < 1000)}")


def bench_questions(members: int) -> None:
    view = fold(Recorded(position, event) for position, event in enumerate(journal(members, 9 * members), 1))
    ranked = view.ranked(0)
    worst, best = ranked[0].id, ranked[-1].id
    asked: dict[str, Callable[[], object]] = {
        "claimable": view.claimable,
        "peers": lambda: view.peers(0),
        "ranked": lambda: view.ranked(0),
        "decide, goes on": lambda: decide(view, best, STRATEGY),
        "decide, copies": lambda: decide(view, worst, STRATEGY),
    }
    figures = ", ".join(f"{name} {seconds(question, 50) * 1e6:.0f} µs" for name, question in asked.items())
    print(f"{members:5} members: {figures}")


def bench_open(members: int, events: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        written = apart(write_journal, run, members, events)
        size = (run / "journal.db").stat().st_size / 1e6
        print(f"{events:,} events of {members:,} members in SQLite ({size:.0f} MB, written in {written[0]:.0f} s)")
        print("  open without a snapshot    {:6.2f} s, {:5.0f} MB".format(*apart(open_run, run)))
        taking, writing, memory = apart(write_snapshot, run)
        size = (run / snapshot.FILE).stat().st_size / 1e6
        print(f"  take a picture             {taking:6.3f} s   (the part that a worker waits for)")
        print(f"  write the snapshot         {writing:6.2f} s, {memory:5.0f} MB at most   ({size:.0f} MB)")
        took, memory = apart(open_run, run)
        print(f"  open with the snapshot     {took:6.2f} s, {memory:5.0f} MB   (goal: 3 s)  {verdict(took < 3)}")
        append(run, itertools.islice(endless(members), events, events + snapshot.EVERY))
        took, memory = apart(open_run, run)
        print(
            f"  the same, {snapshot.EVERY:,} events on {took:6.2f} s, {memory:5.0f} MB   (goal: 3 s)  {verdict(took < 3)}"
        )


def apart(fn: Callable[..., tuple[float, ...]], *args: object) -> tuple[float, ...]:
    """What a function says in a process of its own, and that process's memory at its highest, in MB."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, fn, *args).result()


def _measured(fn: Callable[..., tuple[float, ...]], *args: object) -> tuple[float, ...]:
    return *fn(*args), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def write_journal(run: Path, members: int, events: int) -> tuple[float]:
    start = time.perf_counter()
    append(run, itertools.islice(endless(members), events))
    return (time.perf_counter() - start,)


def append(run: Path, events: Iterator[Event]) -> None:
    journal = SqliteJournal(run / "journal.db")
    while batch := list(itertools.islice(events, 20_000)):
        journal.append(*batch)
    journal.close()


def open_run(run: Path) -> tuple[float]:
    start = time.perf_counter()
    assert phyla.open(run).view.size
    return (time.perf_counter() - start,)


def write_snapshot(run: Path) -> tuple[float, ...]:
    """Seconds to take a picture of the view, and to write it."""
    events = SqliteJournal(run / "journal.db", readonly=True).read(0)
    view = fold(events)
    times = [time.perf_counter()]
    picture = snapshot.take(view, events[-1].event.uid)
    times.append(time.perf_counter())
    assert picture is not None
    assert snapshot.write(picture, run / snapshot.FILE)
    times.append(time.perf_counter())
    return tuple(after - before for before, after in itertools.pairwise(times))


def verdict(good: bool) -> str:
    return "ok" if good else "MISSED"


def main(members: int = 1000, events: int = 100_000, long: int = 1_000_000) -> None:
    bench_fold(members, events)
    for size in (8, 100, members):
        bench_questions(size)
    if long:
        bench_open(members, long)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
