"""Append latency and fairness of the SQLite journal, beside plain SQLite, on a quiet and on a busy machine.

    python bench/journal.py [--seconds 2] [--repeat 3]

N processes append events of about 500 bytes as fast as they can (saturation), or with 10 ms of other work in between
(think), each with a thread that syncs every second (five times as often as in a run). "busy": one spinning process a core
beside them, niced.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from phyla.events import Checkpoint, Event, Reported, encode
from phyla.journal.directory import DirectoryJournal
from phyla.journal.sqlite import SqliteJournal


class PlainSqlite:
    """What one would write first: WAL, the busy handler, automatic checkpoints."""

    def __init__(self, path: Path, synchronous: str = "NORMAL") -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS events"
            "(position INTEGER PRIMARY KEY, member, seq, uid TEXT, body TEXT, UNIQUE(member, seq))"
        )

    def append(self, event: Event) -> None:
        body = encode(event).decode()
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute(
            "INSERT INTO events VALUES(NULL, ?, ?, ?, ?)", (event.member, event.seq, event.uid, body)
        )
        self.connection.execute("COMMIT")

    def sync(self) -> None:
        pass


class Journal(Protocol):
    def append(self, event: Event, /) -> object: ...

    def sync(self) -> None: ...


MAKE: dict[str, Callable[[Path], Journal]] = {
    "phyla": lambda path: SqliteJournal(path / "journal.db"),
    "plain SQLite": lambda path: PlainSqlite(path / "plain.db"),
    "phyla, durable": lambda path: SqliteJournal(path / "journal.db", durable=True),
    "plain SQLite, FULL": lambda path: PlainSqlite(path / "plain.db", "FULL"),
    "directory": lambda path: DirectoryJournal(path / "journal"),
}


def event(member: int, seq: int) -> Reported:
    checkpoint = Checkpoint(file=f"m{member}-{seq}.safetensors", digest="a" * 32, size=12345678)
    metrics = {"loss": 0.25, "note": "x" * 200}
    return Reported(member=member, seq=seq, interval=seq, score=0.5, metrics=metrics, checkpoint=checkpoint, time=1.7e9)


def work(kind: str, path: Path, member: int, seconds: float, think: float, barrier: Any, results: Any) -> None:
    journal = MAKE[kind](path)
    ended = threading.Event()

    def sync() -> None:
        while not ended.wait(1.0):
            journal.sync()

    threading.Thread(target=sync, daemon=True).start()
    latencies: list[float] = []
    barrier.wait()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        now = event(member, len(latencies) + 1)
        begin = time.perf_counter()
        journal.append(now)
        latencies.append(time.perf_counter() - begin)
        if think:
            time.sleep(random.expovariate(1 / think))
    ended.set()
    results.put(latencies)


def spin() -> None:
    os.nice(10)
    while True:
        pass


def measure(kind: str, processes: int, seconds: float, think: float) -> tuple[float, ...]:
    """Appends a second, p50, p99 and maximum in seconds, appends by the least and by the most served process."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        barrier, results = context.Barrier(processes), context.Queue()
        arguments = [(kind, Path(folder), member, seconds, think, barrier, results) for member in range(processes)]
        workers = [context.Process(target=work, args=each) for each in arguments]
        for worker in workers:
            worker.start()
        each = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
    all_of_them = sorted(latency for latencies in each for latency in latencies)
    n = len(all_of_them)
    counts = sorted(len(latencies) for latencies in each)
    return n / seconds, all_of_them[n // 2], all_of_them[n * 99 // 100], all_of_them[-1], counts[0], counts[-1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=list(MAKE))
    parser.add_argument("--processes", nargs="*", type=int, default=[1, 2, 8, 32])
    options = parser.parse_args()
    print(f"SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    print("| | journal | processes | appends/s | p50 µs | p99 µs | max ms | least - most served |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for busy in (False, True):
        spinners = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1) if busy]
        for spinner in spinners:
            spinner.start()
        for think in (0.0, 0.01):
            for kind in options.kinds:
                for processes in options.processes:
                    runs = [measure(kind, processes, options.seconds, think) for _ in range(options.repeat)]
                    rate, p50, p99, worst, least, most = (
                        statistics.median(column) for column in zip(*runs, strict=True)
                    )
                    label = f"{'busy' if busy else 'quiet'}, {'think' if think else 'saturation'}"
                    print(
                        f"| {label} | {kind} | {processes} | {rate:,.0f} | {p50 * 1e6:,.0f} | {p99 * 1e6:,.0f} "
                        f"| {worst * 1e3:,.1f} | {least:,.0f} - {most:,.0f} |",
                        flush=True,
                    )
        for spinner in spinners:
            spinner.terminate()


if __name__ == "__main__":
    main()
