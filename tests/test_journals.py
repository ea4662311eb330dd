"""The journals: the conformance suite over every backend, and what is special about each."""

from __future__ import annotations

import errno
import functools
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from phyla.errors import Conflict, JournalError
from phyla.events import FORMAT, Born, encode
from phyla.journal import Journal, directory, disk, sqlite
from phyla.journal.directory import DirectoryJournal
from phyla.journal.memory import MemoryJournal
from phyla.journal.sqlite import SqliteJournal
from phyla.journal.turn import Turn
from phyla.testing import JournalConformance
from phyla.testing.journals import Opener, born, processes


def memory_opener(path: Path) -> Opener:
    journal = MemoryJournal()
    return lambda: journal


def sqlite_opener(path: Path) -> Opener:
    return functools.partial(SqliteJournal, path / "journal.db")


def directory_opener(path: Path) -> Opener:
    return functools.partial(DirectoryJournal, path / "journal")


SHARED = [pytest.param(sqlite_opener, id="sqlite"), pytest.param(directory_opener, id="directory")]


class TestMemory(JournalConformance):
    processes = False

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return memory_opener(tmp_path)


class TestSqlite(JournalConformance):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return sqlite_opener(tmp_path)


class TestSqliteDurable(JournalConformance):
    processes = False  # the same file as above

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return functools.partial(SqliteJournal, tmp_path / "journal.db", durable=True)


class TestDirectory(JournalConformance):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return directory_opener(tmp_path)


# --- all backends against the memory journal --------------------------------------------------------------------------

PLACES = st.tuples(st.integers(-1, 3), st.integers(1, 4))


class Comparison(RuleBasedStateMachine):
    """Whatever is done, a journal answers as the memory journal does."""

    make: Callable[[Path], Opener]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.open = type(self).make(self.folder)
        self.model = MemoryJournal()
        self.handles = [self.open(), self.open()]
        self.beats: dict[str, int] = {}
        self.appended: list[tuple[Born, ...]] = []

    def teardown(self) -> None:
        for handle in self.handles:
            handle.close()
        shutil.rmtree(self.folder)

    def outcome(self, journal: Journal, events: tuple[Born, ...]) -> object:
        try:
            return journal.append(*events)
        except Conflict as conflict:
            return sorted(conflict.taken)

    @rule(
        which=st.integers(0, 1), places=st.lists(PLACES, min_size=1, max_size=4, unique=True), text=st.text(max_size=20)
    )
    def append(self, which: int, places: list[tuple[int, int]], text: str) -> None:
        events = tuple(Born(member=member, seq=seq, hypers={"text": text}) for member, seq in places)
        self.appended.append(events)
        assert self.outcome(self.handles[which], events) == self.outcome(self.model, events)

    @rule(which=st.integers(0, 1), n=st.integers(0, 100), cut=st.integers(1, 4))
    def append_again(self, which: int, n: int, cut: int) -> None:
        if self.appended:
            events = self.appended[n % len(self.appended)][:cut]
            assert self.outcome(self.handles[which], events) == self.outcome(self.model, events)

    @rule(which=st.integers(0, 1), after=st.integers(0, 40))
    def read(self, which: int, after: int) -> None:
        assert list(self.handles[which].read(after)) == self.model.read(after)
        assert self.handles[which].wait(after, 0) == self.model.wait(after, 0)

    @rule(which=st.integers(0, 1), worker=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10))
    def beat(self, which: int, worker: str) -> None:
        self.handles[which].beat(worker)
        beats = dict(self.handles[1 - which].beats())
        changed = {name for name in beats if beats[name] != self.beats.get(name)}
        assert changed == {worker}
        self.beats = beats

    @rule(which=st.integers(0, 1))
    def sync(self, which: int) -> None:
        self.handles[which].sync()

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.handles[which].close()
        self.handles[which] = self.open()

    @invariant()
    def reads_the_same(self) -> None:
        for handle in self.handles:
            assert list(handle.read(0)) == self.model.read(0)


@pytest.mark.parametrize("make", SHARED)
@pytest.mark.parametrize("examples", [15, pytest.param(400, marks=pytest.mark.slow)])
def test_equals_the_memory_journal(make: Callable[[Path], Opener], examples: int) -> None:
    machine = type("Machine", (Comparison,), {"make": staticmethod(make)})
    health = [HealthCheck.too_slow]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=health),
    )


# --- many processes ---------------------------------------------------------------------------------------------------


def create(opener: Opener, number: int, barrier: Any, results: Any) -> None:
    barrier.wait(60)
    try:
        with closing(opener()) as journal:
            results.put(journal.append(born(number)))
    except Exception as error:
        results.put(error)


@pytest.mark.parametrize("make", SHARED)
def test_sixteen_processes_create_one_journal_at_once(make: Callable[[Path], Opener], tmp_path: Path) -> None:
    context = processes()
    barrier, results = context.Barrier(16), context.Queue()
    creators = [context.Process(target=create, args=(make(tmp_path), n, barrier, results)) for n in range(16)]
    for creator in creators:
        creator.start()
    assert sorted(results.get(timeout=60) for _ in creators) == list(range(1, 17))
    for creator in creators:
        creator.join()


def append_for_ever(opener: Opener, member: int) -> None:
    journal, seq = opener(), 0
    for recorded in journal.read(0):
        seq = max(seq, recorded.event.seq) if recorded.event.member == member else seq
    while True:
        seq += 1
        journal.append(*(born(member + n, seq) for n in (0, 100, 200)))
        if seq % 20 == 0:
            journal.beat("worker")
            journal.sync()


@pytest.mark.parametrize("make", SHARED)
@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_appends(
    make: Callable[[Path], Opener], kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_AT", 1 << 16)
    opener, context = make(tmp_path), processes()
    journal = opener()
    workers = [context.Process(target=append_for_ever, args=(opener, member), daemon=True) for member in range(2)]
    for worker in workers:
        worker.start()
    position = 0
    for kill in range(kills):
        assert journal.wait(position, 30)
        time.sleep(random.uniform(0, 0.1))
        victim = kill % 2
        os.kill(workers[victim].pid or 0, signal.SIGKILL)
        workers[victim].join()
        mine = journal.append(born(1000, kill + 1))  # at once, whatever it died in
        position = journal.read(0)[-1].position
        assert position >= mine
        assert journal.wait(position, 30)  # the other goes on
        workers[victim] = context.Process(target=append_for_ever, args=(opener, victim), daemon=True)
        workers[victim].start()
    for worker in workers:
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
    kept = opener().read(0)
    assert [recorded.position for recorded in kept] == list(range(1, len(kept) + 1))
    places = [(recorded.event.member, recorded.event.seq) for recorded in kept]
    assert len(set(places)) == len(places)
    for member in (0, 1):  # appends of three are whole
        counts = {sum(place[0] == member + n for place in places) for n in (0, 100, 200)}
        assert len(counts) == 1
    if make is sqlite_opener:
        assert integrity(tmp_path / "journal.db") == "ok"


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def append_many(opener: Opener, member: int, count: int, results: Any) -> None:
    with closing(opener()) as journal:
        for seq in range(1, count + 1):
            journal.append(born(member, seq))
            if seq % 3 == member % 3:
                journal.sync()
    results.put(member)


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_checkpoints_beside_appends_on_this_sqlite(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pattern of the WAL-reset bug: checkpoints as often as can be, while others commit and new logs begin."""
    opener, context = functools.partial(checkpointing_journal, tmp_path / "journal.db"), processes()
    results = context.Queue()
    workers = [context.Process(target=append_many, args=(opener, member, count, results)) for member in range(4)]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=300) for _ in workers) == [0, 1, 2, 3]
    for worker in workers:
        worker.join()
    assert integrity(tmp_path / "journal.db") == "ok"
    with closing(opener()) as journal:
        assert len(journal.read(0)) == 4 * count


def checkpointing_journal(path: Path) -> SqliteJournal:
    sqlite.CHECKPOINT_AT = 0
    return SqliteJournal(path)


# --- forks ------------------------------------------------------------------------------------------------------------


def in_child(body: Callable[[], object]) -> None:
    """Runs the body in a forked child, and fails where it fails."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the forked child hangs")


@pytest.mark.parametrize("make", SHARED)
def test_a_forked_child_may_go_on(make: Callable[[Path], Opener], tmp_path: Path) -> None:
    opener = make(tmp_path)
    journal, other = opener(), opener()
    journal.append(born(0))

    def child() -> None:
        assert len(journal.read(0)) == 1
        assert journal.append(born(1)) == 2
        journal.beat("child")
        journal.sync()
        with closing(opener()) as fresh:
            assert fresh.append(born(2)) == 3
        assert len(other.read(0)) == 3

    in_child(child)
    assert len(journal.read(0)) == 3
    assert journal.append(born(3)) == 4
    assert "child" in other.beats()


def test_a_fork_leaves_nothing_of_sqlites_to_the_child(tmp_path: Path) -> None:
    """The child appends after its parent has closed, reopened and appended: with an inherited connection that loses one."""
    opener = sqlite_opener(tmp_path)
    journal = opener()
    journal.append(born(0))
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        open_files = [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]
        assert not [name for name in open_files if name.startswith(str(tmp_path))]
        assert journal.append(born(2)) == 3

    with ThreadPoolExecutor(1) as pool:
        forked = pool.submit(in_child, child)
        os.read(ready[0], 1)
        journal.close()
        again = opener()
        assert again.append(born(1)) == 2
        os.write(go[1], b"x")
        forked.result(timeout=30)
    assert [recorded.event.member for recorded in again.read(0)] == [0, 1, 2]
    assert integrity(tmp_path / "journal.db") == "ok"


@pytest.mark.parametrize("make", SHARED)
def test_forks_while_other_threads_use_the_journal(make: Callable[[Path], Opener], tmp_path: Path) -> None:
    journal, ended = make(tmp_path)(), threading.Event()

    def work(member: int) -> int:
        seq = 0
        while not ended.is_set():
            seq += 1
            journal.append(born(member, seq))
            journal.beat("worker")
            journal.sync()
        return seq

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, member) for member in range(2)]
        try:
            for n in range(12):
                in_child(functools.partial(journal.append, born(100 + n)))
        finally:
            ended.set()
        appended = sum(future.result(timeout=30) for future in working)
    assert len(journal.read(0)) == appended + 12


def hold_turn_and_fork(path: Path, results: Any) -> None:
    """Dies in its turn, and leaves a child."""
    journal = SqliteJournal(path)
    assert journal._writer is not None
    with journal._writer._turn.within(1):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        results.put(child)
        time.sleep(60)


def test_a_child_does_not_keep_its_dead_parents_turn(tmp_path: Path) -> None:
    context = processes()
    results = context.Queue()
    parent = context.Process(target=hold_turn_and_fork, args=(tmp_path / "journal.db", results))
    parent.start()
    child = results.get(timeout=30)
    try:
        os.kill(parent.pid or 0, signal.SIGKILL)
        parent.join()
        start = time.monotonic()
        with closing(SqliteJournal(tmp_path / "journal.db")) as journal:
            journal.append(born(0))
        assert time.monotonic() - start < 5
    finally:
        os.kill(child, signal.SIGKILL)


# --- sqlite: the turn -------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(path)) as journal:
        yield journal


def in_background(body: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(body()), daemon=True)
    thread.start()
    return thread, results


@pytest.mark.parametrize("verb", ["append", "beat", "checkpoint", "open"])
def test_nothing_writes_out_of_its_turn(
    verb: str, journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_AT", 0)
    journal.append(born(0))
    verbs: dict[str, Callable[[], object]] = {
        "append": lambda: journal.append(born(1)),
        "beat": lambda: journal.beat("worker"),
        "checkpoint": journal.sync,
        "open": lambda: SqliteJournal(path).close(),
    }
    with Turn(path.with_suffix(".lock")).within(1):
        thread, _ = in_background(verbs[verb])
        thread.join(0.2)
        assert thread.is_alive()
        assert len(journal.read(0)) == 1  # readers do not wait
    thread.join(5)
    assert not thread.is_alive()


def test_no_checkpoint_but_our_own(journal: SqliteJournal, path: Path) -> None:
    assert journal._writer is not None
    with sqlite._process:
        connection = journal._writer._connected()
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA mmap_size").fetchone() in (None, (0,))
    size = path.stat().st_size
    for seq in range(1, 301):
        journal.append(born(0, seq))
    assert path.stat().st_size == size


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("seconds", [0.7, pytest.param(20, marks=pytest.mark.slow)])
def test_a_held_lock_is_waited_for(journal: SqliteJournal, path: Path, seconds: float) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path.with_suffix(".lock")), str(seconds)], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        start = time.monotonic()
        assert journal.append(born(0)) == 1
        assert time.monotonic() - start > seconds * 0.8


def test_waiting_for_a_held_lock_ends_with_the_name_of_its_holder(
    journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path.with_suffix(".lock")), "60"], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(JournalError, match=f"by process {holder.pid}"):
            journal.append(born(0))
        holder.kill()
    assert journal.append(born(0)) == 1


@pytest.mark.parametrize("seconds", [0.7, pytest.param(20, marks=pytest.mark.slow)])
def test_a_foreign_writer_is_waited_for(journal: SqliteJournal, path: Path, seconds: float) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, other.execute, ["ROLLBACK"])
        timer.start()
        assert journal.append(born(0)) == 1
        timer.join()


def test_one_turn_at_a_time_between_threads_and_processes(tmp_path: Path) -> None:
    mine, others = Turn(tmp_path / "lock"), Turn(tmp_path / "lock")
    inside = []

    def take(turn: Turn) -> None:
        for _ in range(50):
            with turn.within(30):
                inside.append(1)
                assert len(inside) == 1
                time.sleep(0.0002)
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for taken in [pool.submit(take, turn) for turn in (mine, mine, others, others)]:
            taken.result(timeout=60)


def test_a_lock_file_that_was_removed_is_made_again(journal: SqliteJournal, path: Path) -> None:
    lock = path.with_suffix(".lock")
    journal.append(born(0))
    lock.unlink()
    with closing(SqliteJournal(path)) as other, other._writer._turn.within(1):  # type: ignore[union-attr]
        thread, _ = in_background(lambda: journal.append(born(1)))
        thread.join(0.2)
        assert thread.is_alive()  # it waits for the new file, not for the one that it had open
    thread.join(5)
    assert len(journal.read(0)) == 2


def test_waiting_leaves_the_users_random_numbers_alone(journal: SqliteJournal, path: Path) -> None:
    before = random.getstate()
    with Turn(path.with_suffix(".lock")).within(1):
        thread, _ = in_background(lambda: journal.append(born(1)))
        thread.join(0.05)
    thread.join()
    assert random.getstate() == before


def test_an_interrupt_in_the_middle_of_an_append_leaves_nothing(journal: SqliteJournal, path: Path) -> None:
    def interrupted(writer: Any) -> None:
        with writer.transaction() as connection:
            connection.execute("INSERT INTO events(member, seq, uid, body) VALUES(0, 1, '', '')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(journal._writer)
    with closing(SqliteJournal(path)) as other:
        assert other.append(born(0)) == 1
    assert journal.append(born(1)) == 2


def test_a_closed_journal_says_so(journal: SqliteJournal) -> None:
    journal.close()
    for use in (lambda: journal.append(born(0)), lambda: journal.read(0), lambda: journal.beat("w"), journal.sync):
        with pytest.raises(JournalError, match="closed"):
            use()


# --- sqlite: the log --------------------------------------------------------------------------------------------------


def test_sync_keeps_the_log_short(journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, log = 100_000, Path(f"{path}-wal")
    monkeypatch.setattr(sqlite, "CHECKPOINT_AT", limit)
    journal._writer.disconnect()  # type: ignore[union-attr]  # and connect anew, with that limit
    for seq in range(1, 401):
        journal.append(born(0, seq))
        if seq % 20 == 0:
            journal.sync()
            assert log.stat().st_size <= limit
    assert len(journal.read(0)) == 400


def test_the_log_is_bounded_where_nobody_syncs(
    journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_AT", 50_000)
    monkeypatch.setattr(sqlite, "LOG_LIMIT", 200_000)
    with closing(SqliteJournal(path)) as writer:
        for seq in range(1, 401):
            writer.append(born(0, seq))
            assert Path(f"{path}-wal").stat().st_size < 300_000
    assert len(journal.read(0)) == 400


def test_a_reader_in_the_way_stops_nobody(journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_AT", 0)
    journal.append(born(0))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
        for seq in range(2, 50):
            journal.append(born(0, seq))
            journal.sync()
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert len(journal.read(0)) == 49


def test_no_append_waits_for_an_fsync_unless_durable(path: Path, tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    script = f"""
        import os, sys
        from phyla.journal import sqlite
        from phyla.testing.journals import born
        sqlite.CHECKPOINT_AT = 100_000
        journal = sqlite.SqliteJournal({str(path)!r} + sys.argv[1], durable=sys.argv[1] == "durable")
        journal.append(born(0))
        for seq in range(2, 200):
            if seq % 30 == 0:
                os.write(1, b"sync begins")
                journal.sync()
                os.write(1, b"sync ends")
            journal.append(born(0, seq))
        os.write(1, b"closing")
    """
    for kind in ("plain", "durable"):
        log = tmp_path / "strace"
        trace = ["strace", "-f", "-o", str(log), "-e", "trace=fsync,fdatasync,write"]
        command = [*trace, sys.executable, "-c", textwrap.dedent(script), kind]
        subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
        appending, syncs = False, 0
        for line in log.read_text().splitlines():
            if '"sync' in line or '"closing' in line:
                appending = "ends" in line
            syncs += appending and "sync(" in line
        assert (syncs == 0) == (kind == "plain")


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_a_failed_fsync_is_never_trusted_again(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(born(0))

    def fail(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "fsync", fail)
        with pytest.raises(JournalError, match="Input/output error"):
            journal.sync()
    with pytest.raises(JournalError, match="Copy the run"):
        journal.sync()


def test_a_full_disk_is_said_and_nothing_partial_stays(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.append(born(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    appended, said = 1, ""
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size + 50_000, hard))
        while appended < 1000:
            journal.append(born(0, appended + 1), born(1, appended + 1))
            appended += 1
    except JournalError as error:
        said = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Is the disk full" in said
    assert len(journal.read(0)) == 2 * appended - 1
    assert journal.append(born(0, appended + 1), born(1, appended + 1)) == 2 * appended + 1
    journal.close()
    assert integrity(path) == "ok"


# --- sqlite: what it opens --------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE bookmarks(url); INSERT INTO bookmarks VALUES('x')")


def make_newer(path: Path) -> None:
    SqliteJournal(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    path.with_suffix(".lock").unlink()


def make_foreign_with_a_log(path: Path) -> None:
    script = f"""
        import os, sqlite3
        connection = sqlite3.connect({str(path)!r}, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE bookmarks(url)")
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (make_foreign, "another program"),
        (make_foreign_with_a_log, "another program"),
        (make_newer, "update phyla"),
        (lambda path: path.write_bytes(b"not a database, " * 1000), "no SQLite database"),
    ],
    ids=["foreign", "foreign with a log", "newer", "no database"],
)
def test_what_is_not_ours_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[Path], None], says: str, readonly: bool
) -> None:
    make(path)
    before = content(path.parent)
    with pytest.raises(JournalError, match=says):
        SqliteJournal(path, readonly=readonly)
    assert content(path.parent) == before


def test_an_older_format_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteJournal(path)) as journal:
        journal.append(born(0))
    with monkeypatch.context() as later:
        later.setattr(sqlite, "FORMAT", FORMAT + 1)
        with closing(SqliteJournal(path, readonly=True)) as journal:
            assert len(journal.read(0)) == 1
        with closing(SqliteJournal(path)) as journal:
            assert journal.append(born(1)) == 2
    with pytest.raises(JournalError, match="update phyla"):
        SqliteJournal(path)


@pytest.mark.parametrize("died_after", ["", "PRAGMA journal_mode = WAL"])
def test_an_unfinished_creation_is_finished(path: Path, died_after: str) -> None:
    path.touch()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(died_after)
    with pytest.raises(JournalError, match="Try again"):
        SqliteJournal(path, readonly=True)
    with closing(SqliteJournal(path)) as journal:
        assert journal.append(born(0)) == 1


def test_a_gap_is_an_error(journal: SqliteJournal, path: Path) -> None:
    journal.append(*(born(member) for member in range(5)))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE position = 3")
    for after in (0, 1, 2):
        with pytest.raises(JournalError, match="position 3"):
            journal.read(after)
    assert len(journal.read(3)) == 2


@pytest.mark.parametrize("body", ['{"kind": "unheard of"}', "{", b"\xff", ""])
def test_a_damaged_event_is_an_error(journal: SqliteJournal, path: Path, body: str | bytes) -> None:
    journal.append(born(0))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE events SET body = CAST(? AS TEXT)", (body,))
    with pytest.raises(JournalError):
        journal.read(0)


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /home rw,relatime shared:7 - nfs4 server:/home rw,vers=4.2
41 40 0:51 / /home/local rw - xfs /dev/sdb rw
42 27 0:52 / /mnt/with\\040space rw - fuse.sshfs me@host: rw
43 27 0:53 / /scratch rw - xfs /dev/sdc rw
44 27 0:54 / /scratch rw - lustre mds@tcp:/fs rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/", None),
        ("/homework", None),
        ("/home", "nfs4"),
        ("/home/me/runs", "nfs4"),
        ("/home/local/runs", None),
        ("/mnt/with space/runs", "fuse.sshfs"),
        ("/scratch/runs", "lustre"),
    ],
)
def test_network_file_systems_are_known_by_their_mounts(
    place: str, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    disk.network_file_system.cache_clear()
    assert disk.network_file_system(Path(place)) == kind
    disk.network_file_system.cache_clear()


def test_a_network_file_system_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteJournal(path).close()
    live = SqliteJournal(path.with_name("live.db"))
    live.append(born(0))
    before = content(path.parent)
    monkeypatch.setattr(sqlite, "network_file_system", lambda folder: "nfs4")
    with pytest.raises(JournalError, match=r"nfs4.*directory journal"):
        SqliteJournal(path)
    with pytest.raises(JournalError, match=r"nfs4.*directory journal"):
        SqliteJournal(path.parent / "new" / "journal.db")
    assert SqliteJournal(path, readonly=True).read(0) == []  # a run at rest may be looked at anywhere
    with pytest.raises(JournalError, match="nfs4"):
        SqliteJournal(path.with_name("live.db"), readonly=True)
    assert content(path.parent) == before
    live.close()


# --- sqlite: reading without a trace ----------------------------------------------------------------------------------


def killed_writer(path: Path, count: int = 3) -> None:
    script = f"""
        import os
        from phyla.journal.sqlite import SqliteJournal
        from phyla.testing.journals import born
        journal = SqliteJournal({str(path)!r})
        journal.beat("worker")
        for member in range({count}):
            journal.append(born(member))
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=ENVIRONMENT)


def closed(path: Path) -> None:
    with closing(SqliteJournal(path)) as journal:
        journal.append(*(born(member) for member in range(3)))
        journal.beat("worker")


def copied_without_index(path: Path) -> None:
    killed_writer(path)
    Path(f"{path}-shm").unlink()


@pytest.mark.parametrize("leave", [closed, killed_writer, copied_without_index])
def test_reading_leaves_no_trace(path: Path, leave: Callable[[Path], None]) -> None:
    leave(path)
    before = content(path.parent)
    with closing(SqliteJournal(path, readonly=True)) as reader:
        assert [recorded.event.member for recorded in reader.read(0)] == [0, 1, 2]
        assert len(reader.read(2)) == 1
        assert reader.beats() == {"worker": 1}
        assert reader.wait(2, 0)
        assert not reader.wait(3, 0.05)
        for write in (lambda: reader.append(born(9)), lambda: reader.beat("w"), reader.sync):
            with pytest.raises(JournalError, match="readonly"):
                write()
    assert content(path.parent) == before
    with closing(SqliteJournal(path)) as journal:
        assert journal.append(born(7)) == 4


def test_a_reader_follows_a_writer_that_comes_and_goes(path: Path) -> None:
    SqliteJournal(path).close()
    with closing(SqliteJournal(path, readonly=True)) as reader:
        for n in range(1, 8):
            with closing(SqliteJournal(path)) as journal:
                assert journal.append(born(n)) == n
                assert len(reader.read(0)) == n
                journal._writer._checkpoint(journal._writer._connected())  # type: ignore[union-attr]
                assert len(reader.read(0)) == n
            assert len(reader.read(0)) == n
            assert set(content(path.parent)) == {"journal.db", "journal.lock"}


def test_an_index_that_must_be_mended_is_not_touched(path: Path) -> None:
    killed_writer(path)
    with Path(f"{path}-shm").open("r+b") as index:
        index.write(b"\x77" * 136)  # both copies of its header
    before = content(path.parent)
    assert len(SqliteJournal(path, readonly=True).read(0)) == 3
    assert content(path.parent) == before


@pytest.mark.parametrize("name", ["a?mode=rw&b#c%d e.db", "日本.db", "no suffix", ".db"])
def test_any_name_will_do(name: str, tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path / name)) as journal:
        journal.append(born(0))
        assert len(SqliteJournal(tmp_path / name, readonly=True).read(0)) == 1
        assert (tmp_path / name).exists()


def test_a_missing_journal_is_an_error_and_is_not_made(path: Path) -> None:
    for missing in (path, path.parent / "run" / "journal.db"):
        with pytest.raises(JournalError, match="no journal at"):
            SqliteJournal(missing, readonly=True)
    assert content(path.parent) == {}


READ = """
import sys
from phyla.errors import JournalError
from phyla.journal.sqlite import SqliteJournal
from phyla.testing.journals import born
assert len(SqliteJournal(sys.argv[1], readonly=True).read(0)) == 3
try:
    SqliteJournal(sys.argv[1]).append(born(9))
except JournalError as error:
    print(error)
"""


@pytest.mark.parametrize("leave", [closed, killed_writer, copied_without_index])
def test_a_directory_that_cannot_be_written_can_be_read(
    path: Path, leave: Callable[[Path], None], tmp_path: Path
) -> None:
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    leave(path)
    before = content(tmp_path)
    said = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec {sys.executable} -c "$0" {path}', READ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "Read-only file system" in said.stdout
    assert content(tmp_path) == before


def test_a_writer_is_not_opened_beside_a_reader_of_its_own_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite lets connections of a process share what one of them has mapped: the writer's would be read-only for ever."""
    killed_writer(path)
    connected = threading.Event()
    connect = sqlite._connect

    def connect_and_linger(path: Path, mode: str) -> sqlite3.Connection:
        connection = connect(path, mode)
        if "readonly_shm" in mode and not connected.is_set():
            connection.execute("SELECT count(*) FROM events").fetchall()
            connected.set()
            time.sleep(0.3)
        return connection

    monkeypatch.setattr(sqlite, "_connect", connect_and_linger)
    thread, _ = in_background(lambda: SqliteJournal(path, readonly=True))
    connected.wait(5)
    with closing(SqliteJournal(path)) as journal:
        assert journal.append(born(7)) == 4
    thread.join()


def test_readers_and_writers_that_come_and_go_in_one_process(path: Path) -> None:
    SqliteJournal(path).close()
    ended = threading.Event()

    def read() -> int:
        seen = 0
        while not ended.is_set():
            count = len(SqliteJournal(path, readonly=True).read(0))
            assert count >= seen
            seen = count
        return seen

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        try:
            for n in range(1, 60):
                with closing(SqliteJournal(path)) as journal:
                    assert journal.append(born(n)) == n
        finally:
            ended.set()
        for future in reading:
            future.result(timeout=30)


# --- directory --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_one_file_an_append(folder: Path) -> None:
    journal = DirectoryJournal(folder)
    one, three = born(0), [born(1), born(2), born(3)]
    journal.append(one)
    journal.append(*three)
    journal.append(born(4))
    assert sorted(content(folder)) == ["000000000001.json", "000000000002.json", "000000000005.json", "format"]
    assert (folder / "000000000002.json").read_bytes() == b"".join(encode(event) + b"\n" for event in three)


def test_what_others_left_while_writing_is_ignored(folder: Path) -> None:
    journal = DirectoryJournal(folder)
    journal.append(born(0))
    (folder / ".0123456789abcdef.tmp").write_bytes(b'{"kind": "bo')
    assert journal.append(born(1)) == 2
    assert len(DirectoryJournal(folder).read(0)) == 2


@pytest.mark.parametrize(
    "damage", [b"", b'{"kind": "bo', b"\n", b"garbage\n", encode(born(0)), b'{"kind": "unheard of"}\n', b"\xff\n"]
)
def test_a_damaged_file_is_an_error_that_names_it(folder: Path, damage: bytes) -> None:
    journal = DirectoryJournal(folder)
    journal.append(born(0))
    (folder / "000000000002.json").write_bytes(damage)
    for use in (lambda: journal.read(0), lambda: journal.append(born(5)), lambda: DirectoryJournal(folder)):
        with pytest.raises(JournalError, match=r"000000000002\.json"):
            use()


def test_a_place_that_was_taken_twice_by_hand_is_an_error(folder: Path) -> None:
    DirectoryJournal(folder).append(born(0))
    (folder / "000000000002.json").write_bytes(encode(born(0)) + b"\n")
    with pytest.raises(JournalError, match="second event"):
        DirectoryJournal(folder)


def test_a_missing_file_is_a_gap(folder: Path) -> None:
    journal = DirectoryJournal(folder)
    for member in range(4):
        journal.append(born(member))
    (folder / "000000000002.json").unlink()
    with pytest.raises(JournalError, match=r"gap.*000000000002\.json is missing"):
        DirectoryJournal(folder, readonly=True)


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("thesis.tex", b"x", "no journal"),
        ("format", b"phyla journal, format 99\n", "update phyla"),
        ("format", b"something else\n", "no journal of phyla's"),
    ],
)
def test_a_foreign_directory_is_refused_and_left_as_it_is(
    folder: Path, name: str, data: bytes, says: str, readonly: bool
) -> None:
    folder.mkdir()
    (folder / name).write_bytes(data)
    with pytest.raises(JournalError, match=says):
        DirectoryJournal(folder, readonly=readonly)
    assert [file.name for file in folder.iterdir()] == [name]


def test_an_older_directory_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DirectoryJournal(folder).append(born(0))
    with monkeypatch.context() as later:
        later.setattr(directory, "FORMAT", FORMAT + 1)
        assert len(DirectoryJournal(folder, readonly=True).read(0)) == 1
        assert DirectoryJournal(folder).append(born(1)) == 2
    with pytest.raises(JournalError, match="update phyla"):
        DirectoryJournal(folder)


def test_reading_a_directory_leaves_no_trace(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal at"):
        DirectoryJournal(folder, readonly=True)
    assert list(tmp_path.iterdir()) == []
    DirectoryJournal(folder).append(born(0))
    before = content(folder)
    reader = DirectoryJournal(folder, readonly=True)
    assert len(reader.read(0)) == 1
    assert reader.beats() == {}
    for write in (lambda: reader.append(born(1)), lambda: reader.beat("w"), reader.sync):
        with pytest.raises(JournalError, match="readonly"):
            write()
    assert content(folder) == before


def test_a_lost_answer_to_a_link_is_found_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, link = DirectoryJournal(folder), os.link

    def link_and_lose_the_answer(*args: Any) -> None:
        link(*args)
        raise FileExistsError(errno.EEXIST, "File exists")  # what NFS says when it has sent the request twice

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    assert journal.append(born(0)) == 1
    assert journal.append(born(1), born(2)) == 3
    assert len(DirectoryJournal(folder).read(0)) == 3


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["link", "fsync"])
def test_an_append_that_the_disk_refuses_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    journal = DirectoryJournal(folder)
    journal.append(born(0))
    before = content(folder)

    def fail(*args: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(JournalError, match=os.strerror(code)):
            journal.append(born(1))
    assert content(folder) == before
    assert journal.append(born(1)) == 2


def test_a_file_that_stays_invisible_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = DirectoryJournal(folder)

    def exists(*args: Any) -> None:
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(directory, "PATIENCE", 0.05)
    monkeypatch.setattr(os, "link", exists)
    with pytest.raises(JournalError, match="mounted with long caching"):
        journal.append(born(0))


def test_an_interrupt_while_reading_a_file_is_made_good(folder: Path) -> None:
    journal, reader = DirectoryJournal(folder), DirectoryJournal(folder)
    journal.append(born(0))
    assert len(reader.read(0)) == 1
    journal.append(born(1), born(2))

    class Interrupting(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            if key == (1, 1):
                raise KeyboardInterrupt
            super().__setitem__(key, value)

    reader._facts.held = Interrupting(reader._facts.held)
    with pytest.raises(KeyboardInterrupt):
        reader.read(0)
    assert reader.read(0) == journal.read(0)
