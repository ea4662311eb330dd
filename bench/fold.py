"""What reading a long journal costs: `python bench/fold.py [MEMBERS] [EVENTS]`.

Folds a journal of 100,000 events of 1,000 members, from JSON and from decoded events, then one more event; and asks the
view what a worker asks at every claim. Goals: the whole journal in under 2 s, one more event in under 1 ms.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from phyla.decide import decide
from phyla.events import RUN, Born, Checkpoint, Claimed, Created, Event, Recorded, Ref, Reported, decode, encode
from phyla.settings import Settings
from phyla.space import Float, Int, Space, describe, draw
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.view import fold

SPACE: Space = {"lr": Float(1e-5, 1.0, log=True), "dropout": Float(0.0, 0.8), "units": Int(1, 64)}
STRATEGY = Evolve(Truncation(0.2), Perturb())


def journal(members: int, events: int) -> list[Event]:
    """The events of a run in which one report in five is followed by a copy; its last claims are still open."""
    rng = np.random.default_rng(0)
    settings = Settings(seed=0, space=describe(SPACE), size=members, intervals=2**31)
    found: list[Event] = [Created(member=RUN, seq=1, run="bench", version="0", settings=settings)]
    found += [Born(member=m, seq=1, hypers=draw(SPACE, rng)) for m in range(members)]
    hypers = [event.hypers for event in found if isinstance(event, Born)]
    head, done, newest = [1] * members, [0] * members, dict[int, Ref]()
    turn, workers = 0, min(64, members // 2)
    while len(found) < events:
        interval, m = divmod(turn, members)
        exploits = m in newest and rng.random() < 0.2
        peer = int(rng.integers(members)) if exploits else m
        donor = newest.get(peer) if exploits and peer != m else None
        head[m] += 1
        found.append(
            Claimed(
                member=m,
                seq=head[m],
                interval=interval + 1,
                worker=f"w{turn % workers}",
                saw=max(0, len(found) - workers),
                hypers=hypers[m],
                source=donor or newest.get(m),
                donor=donor,
                ready=interval > 0,
                time=float(turn),
            )
        )
        late = turn - workers
        if late >= 0 and len(found) < events:
            m = late % members
            head[m] += 1
            done[m] += 1
            checkpoint = Checkpoint(f"m{m}-{head[m] - 1}.safetensors", "0" * 32, 4096)
            score = float(rng.normal(done[m]))
            found.append(
                Reported(
                    member=m,
                    seq=head[m],
                    interval=done[m],
                    score=score,
                    seconds=1.0,
                    checkpoint=checkpoint,
                    time=float(turn),
                )
            )
            newest[m] = Ref(m, head[m])
        turn += 1
    return found


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


def verdict(good: bool) -> str:
    return "ok" if good else "MISSED"


def main(members: int = 1000, events: int = 100_000) -> None:
    bench_fold(members, events)
    for size in (8, 100, members):
        bench_questions(size)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
