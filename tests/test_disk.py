"""Disks that fill up, fail, forget and cannot be written.

A fault's number is its place in the table of the faults that a run must survive. Some are tested beside what they strike:
an EIO from open, write, close and fsync, and a disk that is full, in test_checkpoints.py and test_journals.py (9, 12, 13); a
write lock that is held for long in test_journals.py (16: a_foreign_writer_is_waited_for, a_held_lock_is_waited_for); network
file systems and SQLite's versions there (17: a_network_file_system_is_refused_by_name, no_checkpoint_but_our_own); older, newer
and foreign journals there (23: what_is_not_ours_is_refused_and_left_as_it_is, an_older_format_is_opened).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla
import scripts
from phyla.checkpoints import codec
from phyla.cli import main
from phyla.cli.repair import mend
from phyla.doctor import examine
from phyla.errors import JournalError
from phyla.events import Claimed, Failed, Recorded, Ref
from phyla.journal import disk
from phyla.journal.directory import DirectoryJournal
from phyla.journal.sqlite import SqliteJournal
from phyla.strategies.evolve import Evolve
from phyla.testing.simulation import outcome
from test_doctor import Trained

SCRIPT = """
    import os, resource, sys, numpy as np, phyla
    path, *how = sys.argv[1:]
    if "small files" in how:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    population = phyla.Population(
        "run", {"lr": phyla.Float(1e-3, 1.0, log=True)}, size=4, intervals=5, seed=11, max_lead=0, max_lost=100, threads=1,
        path=path, exploit=phyla.Truncation(0.25), progress=False, sync_every=0.05,
        journal="directory" if "directory" in how else "sqlite", durability="strict" if "strict" in how else "background",
    )
    for member in population:
        state = member.state(lambda newborn: {"w": np.random.normal(size=10_000)})
        w = state["w"] * (1 - 0.1 * member["lr"])
        if "fill" in how and member.interval == 2:
            with open(f"{path}/filler", "ab", buffering=0) as filler:
                try:
                    while filler.write(b"x" * 4096):
                        pass
                except OSError:
                    pass
        note = {"long": "x" * 20_000} if "long notes" in how else None
        member.report(-float((w**2).sum()), {"w": w}, metrics=note)
"""
EACH = 80_000  # bytes of a checkpoint, and some


def outcome_of(path: Path) -> Any:
    """What a run came to; a run that is not finished, or not sound, fails."""
    run = phyla.open(path / "run")
    assert run.view.finished
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    assert list(examine(events, run.checkpoints)) == []
    return outcome(run.view)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the script comes to where nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    scripts.succeed(scripts.write(folder, SCRIPT), folder / "runs")
    return outcome_of(folder / "runs")


def failures(path: Path) -> list[str]:
    return [event.why for event in phyla.open(path / "run").events() if isinstance(event, Failed)]


def is_sound(path: Path) -> bool:
    """Whether the doctor finds nothing at all, though the run is not finished."""
    run = phyla.open(path / "run")
    assert not run.view.finished
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    return list(examine(events, run.checkpoints)) == []


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a traceback: the error."""
    assert done.returncode == 1, done.stderr
    return next(line for line in reversed(done.stderr.splitlines()) if line.startswith("phyla.errors."))


# Torn and changed files -----------------------------------------------------------------------------------------------


def go_on(run: Trained) -> Trained:
    """To the end, by a process that holds nothing in memory."""
    assert isinstance(run.worker.strategy, Evolve)
    resumed = Trained(run.path, type(run.worker.journal), strategy=run.worker.strategy)
    resumed.worker.read()
    while not resumed.worker.view.finished:
        resumed.train(1)
    return resumed


def voided(run: Trained) -> list[Ref]:
    return [Ref(*event.voids) for _, event in run.events if isinstance(event, Failed) and event.voids is not None]


@pytest.mark.parametrize("place", ["nothing", "one byte", "the header", "half", "all but a byte"])
def test_fault_09_a_truncated_checkpoint_is_refused_unparsed_and_the_one_before_is_used(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Trained(tmp_path, intervals=5).train(12)
    record = max((history[-1] for history in run.worker.view.history), key=lambda r: r.score or 0.0)  # it copies nobody
    file = run.newest_file(record.id)
    whole = file.read_bytes()
    cuts = {
        "nothing": 0,
        "one byte": 1,
        "the header": 8,
        "half": len(whole) // 2,
        "all but a byte": len(whole) - 1,
    }
    file.write_bytes(whole[: cuts[place]])
    parsed, decode = list[int](), codec.decode

    def parse(data: bytes) -> Any:
        parsed.append(len(data))
        return decode(data)

    monkeypatch.setattr(codec, "decode", parse)
    resumed = go_on(run)
    assert parsed
    assert cuts[place] not in parsed
    assert voided(resumed) == [record.ref]
    again = [r for r in resumed.worker.view.records.values() if (r.id, r.interval) == (record.id, record.interval)]
    assert [r.void for r in again] == [True, False]
    assert resumed.problems() == []


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_fault_10_a_flipped_bit_anywhere_is_never_loaded_and_never_a_donor(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    run = Trained(tmp_path_factory.mktemp("run"), intervals=5, size=3).train(9)
    best = run.worker.view.best
    assert best is not None
    record = data.draw(st.sampled_from([best, *(history[-1] for history in run.worker.view.history)]))
    file = run.path / "checkpoints" / record.checkpoint.file
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    before = len(run.events)
    assert [problem.invariant for problem in run.problems()] == ["I2"]
    resumed = go_on(run)
    assert set(voided(resumed)) <= {record.ref}
    for history in resumed.worker.view.history:
        assert all(record not in report.ancestry()[:-1] for report in history if report.position > before)


# Power loss -----------------------------------------------------------------------------------------------------------


class Forgetful:
    """A disk that keeps what an fsync has made durable, and forgets the rest when it loses power.

    A file's bytes are as its last fsync found them, the names in a directory as that directory's last fsync did: a new name
    may be gone, and a deleted one be back. SQLite makes its database durable by itself when it moves the log into it, and
    before it begins one; so the database counts with its log.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.contents: dict[int, bytes] = {}
        self.names: dict[Path, dict[str, int]] = {}
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_dir():
            self.names[path] = {entry.name: entry.inode() for entry in os.scandir(path) if entry.is_file()}
            return
        for file in (path, path.with_name(path.name.removesuffix("-wal"))):
            self.contents[file.stat().st_ino] = file.read_bytes()

    def lose_power(self, root: Path, to: Path) -> None:
        """What is found under `root` after the loss is put elsewhere."""
        for folder, names in self.names.items():
            if folder.is_relative_to(root):
                there = to / folder.relative_to(root)
                there.mkdir(parents=True, exist_ok=True)
                for name, inode in names.items():
                    (there / name).write_bytes(self.contents.get(inode, b""))


JOURNALS = [pytest.param(SqliteJournal, id="sqlite"), pytest.param(DirectoryJournal, id="directory")]


@pytest.mark.parametrize("journal", JOURNALS)
def test_fault_11_after_a_power_loss_each_member_goes_on_from_its_newest_synced_checkpoint(
    tmp_path: Path, journal: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    power, alone = Forgetful(monkeypatch), Evolve(None, None)
    run = Trained(tmp_path / "run", journal, size=3, intervals=9, strategy=alone).train(9)
    run.worker.sync()
    synced = {run.worker.view.newest(member).ref for member in range(3)}  # type: ignore[union-attr]
    run.train(6)  # keep=2: nothing but the synced ones and these two of each are kept
    run.worker.journal.sync()  # as another worker's background does: these reports survive, their checkpoints do not
    power.lose_power(tmp_path / "run", tmp_path / "after")
    lost = Trained(tmp_path / "after", journal, strategy=alone)
    before = lost.events
    assert len(before) == len(run.events)
    assert {problem.invariant for problem in lost.problems()} == {"I2"}
    assert {problem.where for problem in lost.problems()} >= {
        f"member {m}, interval {i}" for m in range(3) for i in (4, 5)
    }
    resumed = go_on(lost)
    assert {ref.seq for ref in voided(resumed)} == {9, 11}  # intervals 4 and 5
    ends = {event.ref for _, event in resumed.events if isinstance(event, Failed)}
    held = [
        e for _, e in resumed.events[len(before) :] if isinstance(e, Claimed) and Ref(e.member, e.seq + 1) not in ends
    ]
    for member in range(3):
        first = next(claim for claim in held if claim.member == member)
        assert (first.interval, first.source in synced) == (4, True)
    assert resumed.problems() == []


@pytest.mark.parametrize("journal", JOURNALS)
def test_fault_11_power_may_be_lost_at_any_time(
    tmp_path_factory: pytest.TempPathFactory, journal: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    @given(st.lists(st.sampled_from(["train", "train", "train", "sync", "sync the journal"]), max_size=25))
    @settings(max_examples=10, deadline=None)
    def loses_power_after(steps: list[str]) -> None:
        folder = tmp_path_factory.mktemp("run")
        power = Forgetful(monkeypatch)
        run = Trained(folder / "run", journal, size=3, intervals=9)
        run.worker.sync()
        for step in steps:
            match step:
                case "train":
                    run.train(1)
                case "sync":
                    run.worker.sync()
                case _:
                    run.worker.journal.sync()
        power.lose_power(folder / "run", folder / "after")
        lost = Trained(folder / "after", journal)
        said = list(
            mend(str(lost.path), dry=False)
        )  # else what no worker ever needs again, such as the best, stays unnoticed
        resumed = go_on(lost)
        if not any("is their disk mounted?" in line for line in said):
            assert resumed.problems() == []

    loses_power_after()


# Full disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=610k", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def enlarge(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)


def test_fault_12_a_disk_that_is_full_of_checkpoints_ends_the_script_and_it_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path, undisturbed: Any
) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    for _ in range(2):  # it does not help to try again
        said = last_line(scripts.run(script, small_disk))
        assert f"of {EACH:,}"[:6] in said
        assert "No space left on device" in said
        assert "bytes are free there. Nothing of it was kept. Make room" in said
        assert "run the script again: it goes on from here" in said
    assert failures(small_disk) == ["given_back"] * 2  # no fault of the member's
    assert is_sound(small_disk)
    assert all(file.stat().st_size > EACH for file in (small_disk / "run/checkpoints").iterdir())
    enlarge(small_disk)
    scripts.succeed(script, small_disk)
    assert outcome_of(small_disk) == undisturbed


@pytest.mark.parametrize("journal", ["sqlite", "directory"])
def test_fault_12_where_not_even_the_journal_has_room_the_next_start_takes_over(
    tmp_path: Path, small_disk: Path, undisturbed: Any, journal: str
) -> None:
    enlarge(small_disk)
    script = scripts.write(tmp_path, SCRIPT)
    assert "0 bytes are free there" in last_line(scripts.run(script, small_disk, journal, "fill"))
    assert failures(small_disk) == []
    assert sum(claim is not None for claim in phyla.open(small_disk / "run").view.open) == 1
    assert is_sound(small_disk)
    (small_disk / "filler").unlink()
    scripts.succeed(script, small_disk, journal)
    assert failures(small_disk) == ["lost"]
    assert outcome_of(small_disk) == undisturbed


def test_fault_12_a_journal_that_cannot_grow_ends_the_script_and_it_goes_on_when_it_can(
    tmp_path: Path, undisturbed: Any
) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    said = last_line(scripts.run(script, tmp_path, "small files", "long notes"))
    assert str(tmp_path / "run/journal.db") in said
    assert "Is the disk full, or failing? Nothing partial was appended; the run can be started again" in said
    assert is_sound(tmp_path)
    scripts.succeed(script, tmp_path, "long notes")
    assert outcome_of(tmp_path) == undisturbed


# Failing disks --------------------------------------------------------------------------------------------------------


def struck(script: Path, place: Path, call: str, nth: int, *how: str, path: Path | None = None) -> str:
    """The error of a script whose nth system call of this kind fails with EIO; `path`: of those at that file."""
    only = ["-P", str(path)] if path is not None else []
    strace = ["strace", "-f", "-qq", "-o", str(place / "strace.log"), *only, "-e", f"trace={call}"]
    command = [*strace, "-e", f"inject={call}:error=EIO:when={nth}", sys.executable, str(script), str(place), *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=script.parent)
    assert "(INJECTED)" in (place / "strace.log").read_text()
    return last_line(done)


@pytest.fixture(scope="module")
def _strace() -> None:
    probe = ["strace", "-qq", "-o", os.devnull, "-e", "inject=fsync:error=EIO", "true"]
    if shutil.which("strace") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs strace, and the right to use it")


CHECKPOINT = "run/checkpoints/m1-2.safetensors"


@pytest.mark.usefixtures("_strace")
@pytest.mark.parametrize(
    ("call", "nth", "how", "path"),
    [
        ("writev", 7, (), None),
        pytest.param("openat", 1, (), CHECKPOINT, marks=pytest.mark.slow),
        ("close", 1, (), CHECKPOINT),
        ("fsync", 1, ("strict",), CHECKPOINT),
        pytest.param("fsync", 1, ("strict", "directory"), CHECKPOINT, marks=pytest.mark.slow),
        ("link", 9, ("directory",), None),
        ("pwrite64", 1, (), "run/journal.db-wal"),
    ],
    ids=["write", "open", "close", "fsync", "fsync beside a directory", "link", "journal"],
)
def test_fault_13_what_the_disk_could_not_take_is_not_published(
    tmp_path: Path, undisturbed: Any, call: str, nth: int, how: tuple[str, ...], path: str | None
) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    said = struck(script, tmp_path, call, nth, *how, path=tmp_path / path if path else None)
    assert "Input/output error" in said or "disk I/O error" in said
    scripts.succeed(script, tmp_path, *how)
    assert set(failures(tmp_path)) <= {"given_back", "lost"}
    assert outcome_of(tmp_path) == undisturbed


@pytest.mark.usefixtures("_strace")
def test_fault_13_a_checkpoint_whose_fsync_failed_in_the_background_never_counts_as_synced(tmp_path: Path) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    log = tmp_path / "strace.log"
    injected = ["-P", str(tmp_path / CHECKPOINT), "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1"]
    command = ["strace", "-f", "-qq", "-o", str(log), *injected, sys.executable, str(script), str(tmp_path)]
    subprocess.run(command, capture_output=True, check=True, cwd=script.parent)
    synced = {
        Ref(*ref) for event in phyla.open(tmp_path / "run").events() for ref in getattr(event, "synced", None) or ()
    }
    assert ("(INJECTED)" in log.read_text()) <= (Ref(1, 3) not in synced)


# Disks that cannot be written -----------------------------------------------------------------------------------------


def test_fault_14_a_run_that_cannot_be_written_is_refused_in_one_line_and_can_be_read(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    mount = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
    place.mkdir()
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    script = scripts.write(tmp_path, SCRIPT)
    assert scripts.run(script, place, env={"PHYLA_FAILPOINT": "publish.appended:crash:9"}).returncode == -9
    before = sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*"))

    def there(*command: object) -> subprocess.CompletedProcess[str]:
        shell = ["unshare", "-m", "sh", "-c", f'{mount} && exec {sys.executable} "$@"', "sh", *map(str, command)]
        return subprocess.run(shell, capture_output=True, text=True, check=False)

    assert f"the run's directory {place}/run cannot be written; reading it still works" in last_line(
        there(script, place)
    )
    for command in ("status", "doctor"):
        read = there("-m", "phyla.cli", command, place / "run")
        assert (read.returncode, read.stderr) == (0, "")
    repaired = there("-m", "phyla.cli", "doctor", place / "run", "--repair")
    assert (repaired.returncode, repaired.stderr.count("\n")) == (1, 1)
    assert "cannot be written" in repaired.stderr
    assert sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*")) == before


def test_fault_16_whoever_holds_the_journal_for_long_is_waited_for(tmp_path: Path, undisturbed: Any) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    training = scripts.start(script, tmp_path)
    scripts.until(lambda: list(tmp_path.glob("run/checkpoints/*")))
    with closing(sqlite3.connect(tmp_path / "run/journal.db", isolation_level=None, timeout=20)) as browser:
        browser.execute("BEGIN IMMEDIATE")
        held = browser.execute("SELECT max(position) FROM events").fetchone()
        time.sleep(1.5)
        assert browser.execute("SELECT max(position) FROM events").fetchone() == held
        browser.execute("ROLLBACK")
    done = scripts.finish(training)
    assert (done.returncode, done.stderr) == (0, "")
    assert (failures(tmp_path), outcome_of(tmp_path)) == ([], undisturbed)


def test_fault_17_a_population_on_a_network_file_system_is_told_what_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"41 27 0:51 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    disk.network_file_system.cache_clear()
    known: dict[str, Any] = {"space": {"lr": phyla.Float(0.1, 1.0)}, "size": 2, "intervals": 1, "progress": False}
    with pytest.raises(JournalError, match=r"network file system \(nfs4\).*directory journal"):
        phyla.Population("refused", path=tmp_path, **known).claim()
    for member in phyla.Population("taken", path=tmp_path, journal="directory", **known):
        member.report(1.0, {"x": 1})
    assert phyla.open(tmp_path / "taken").view.finished
    disk.network_file_system.cache_clear()


def test_fault_23_the_journal_of_a_newer_phyla_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Trained(tmp_path / "run", intervals=3).train(5)
    run.worker.journal.close()
    with closing(sqlite3.connect(tmp_path / "run/journal.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in (["doctor"], ["doctor", "--repair"], ["gc"]):
        assert main([command[0], str(tmp_path / "run"), *command[1:]]) == 1
        assert "has format 99, and this phyla knows 1: update phyla. Nothing was changed" in capsys.readouterr().err
    with pytest.raises(JournalError, match="update phyla"):
        phyla.Population("run", {"lr": phyla.Float(0.1, 1.0)}, size=4, intervals=3, path=tmp_path).claim()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
