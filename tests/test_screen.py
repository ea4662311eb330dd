"""The live display of a run: what it says, that it fits, and that it only reads. Terminals are real; pyte reads them."""

from __future__ import annotations

import fcntl
import json
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyte
import pytest
from rich.cells import cell_len

import phyla
from journals_by_hand import Story, random_story
from phyla import host
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.events import RUN, Born, Event, Extended, Failed, Recorded, Resized
from phyla.feed import Exploit, Failure, Feed, Report
from phyla.glance import Glance, glance, pace
from phyla.inert import inert
from phyla.journal.memory import MemoryJournal
from phyla.journal.sqlite import SqliteJournal
from phyla.progress import summary
from phyla.record import schedule_lines
from phyla.runs import Run
from phyla.screen import Screen
from phyla.table import clock, lines
from phyla.view import View

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp[red]x[/red]\r\nz\x00\x7f"
LONG = {f"a_hyperparameter_with_a_long_name_{i}": phyla.Float(0.0, 1.0) for i in range(12)}


def silent(worker: str) -> float:
    return 2.0


class Live(Story):
    """A journal by hand that stands somewhere, and whose events have a time: now, or `tick` seconds after the last."""

    def __init__(self, path: Path | None = None, *args: Any, tick: float | None = None, **settings: Any):
        self.journal = MemoryJournal() if path is None else SqliteJournal(path / "journal.db")
        self.now, self.tick = 1e9, tick
        super().__init__(*args, **settings)

    def add(self, event: Event) -> list[str]:
        self.now = time.time() if self.tick is None else self.now + self.tick
        event = msgspec.structs.replace(event, time=self.now)
        self.journal.append(event)
        return super().add(event)

    @property
    def run(self) -> Run:
        return Run(self.journal, MemoryCheckpoints(), None)

    def exploit(self, member: int, donor: int, **hypers: Any) -> None:
        copied = self.newest(donor)
        self.claim(member, copied, hypers={**copied.hypers, **hypers})


def at(view: View, now: float) -> Glance:
    return glance(view, now, lambda worker: worker.startswith("gone"))


def drawn(view: View, width: int, height: int, now: float = 1e9) -> list[str]:
    """The table as text."""
    return ["".join(text for text, _ in line) for line in lines(at(view, now), silent, width, height)]


# What the table says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "min"])
def test_members_stand_by_score_and_what_is_none_comes_last(mode: str) -> None:
    story = Live(None, 5, mode=mode, tick=0.1)
    for member, score in enumerate((0.5, float("nan"), 0.75, None)):
        story.train(member, score)
    rows = [line.split()[:2] for line in drawn(story.view, 100, 20, story.now)[3:]]
    best = [["m2", "0.75"], ["m0", "0.5"]] if mode == "max" else [["m0", "0.5"], ["m2", "0.75"]]
    assert rows == [*best, ["m1", "nan"], ["m3", "none"], ["m4", "none"]]


def test_a_run_before_its_first_report_and_at_its_end() -> None:
    story = Live(None, 2, intervals=2, tick=1.0)
    new = drawn(story.view, 100, 20, story.now)
    assert "  0% " in new[0]
    assert "0 of 4 intervals" in new[0]
    assert new[1] == "nobody has claimed a member yet  no score yet"
    story.claim(0)
    assert drawn(story.view, 100, 20, story.now)[1] == "training  no score yet  1 worker"
    story.report(0, 0.25)
    story.train(0, 0.5)
    story.train(1, 0.1)
    story.train(1, 0.2)
    end = drawn(story.view, 100, 20, story.now)
    assert "100%  4 of 4 intervals" in end[0]
    assert end[1] == "finished  best 0.5 (m0 at 2)"
    assert [line.split()[-1] for line in end[3:]] == ["done", "done"]


def test_a_stopped_run_says_why_and_one_without_a_budget_has_no_bar() -> None:
    story = Live(None, 2, intervals=None, target=1.0, tick=1.0)
    story.train(0, 0.5)
    story.claim(1)
    assert drawn(story.view, 100, 20, story.now)[0] == "story  1 interval"
    story.stop("the target of 1 was reached")
    assert drawn(story.view, 100, 20, story.now)[1].startswith("finished: the target of 1 was reached  best 0.5")


def test_rates_count_from_the_second_report_on() -> None:
    story = Live(None, 2, intervals=10, tick=1.0)
    story.train(0, 0.5)
    story.claim(1)
    assert "second" not in drawn(story.view, 100, 20, story.now)[1]
    story.report(1, 0.5)
    story.train(0, 0.6)
    story.train(1, 0.7)
    story.claim(0)
    head = drawn(story.view, 100, 20, story.now)
    assert head[1] == "30 intervals a minute  best 0.7 (m1 at 2)  32 s left  1 worker"  # a claim and a report take 2 s
    assert head[3].split()[:5] == ["m1", "0.7", "2/10", "15/min", "0:32"]
    assert "left" not in drawn(story.view, 100, 20, story.now + 3600)[1]
    assert "nothing was heard for 1 h 00 min" in drawn(story.view, 100, 20, story.now + 3600)[1]


def test_a_gap_in_which_nobody_trained_is_in_no_rate() -> None:
    story = Live(None, 2, intervals=20, tick=1.0)
    for _ in range(3):
        story.train(0, 0.5)
        story.train(1, 0.4)
    story.now += 40.0  # all workers had gone, and the run was started again
    for _ in range(3):
        story.train(0, 0.5)
        story.train(1, 0.4)
    story.claim(0)
    head = drawn(story.view, 100, 20, story.now)
    assert head[1].startswith("30 intervals a minute"), "a claim and a report take 2 s"
    assert [row.split()[3] for row in head[3:]] == ["15/min", "15/min"]


def test_counts_agree_when_members_have_left_and_entered_and_the_budget_was_cut() -> None:
    story = Live(None, 3, intervals=4, tick=0.1)
    for member in (0, 1, 2, 0, 1, 2, 0):
        story.train(member, member)
    story.add(Resized(member=RUN, seq=2, size=2, first=3, retired=[1]))
    story.add(Resized(member=RUN, seq=3, size=3, first=3))
    story.add(Born(member=3, seq=1, hypers={"lr": 0.5, "units": 4, "depth": 2}))
    story.add(Extended(member=RUN, seq=4, intervals=3))
    story.train(2, 0.5)
    story.train(3, 0.5)
    seen = at(story.view, story.now)
    assert seen.state == "finished"
    assert (seen.done, seen.total, seen.percent) == (9, 9, 100)
    assert summary(story.run).startswith("story is finished: 3 members, 9 intervals, 0 exploits\n")


def test_a_run_whose_every_score_is_nan_says_so() -> None:
    story = Live(None, 1, intervals=1, tick=0.1)
    story.train(0, math.nan)
    said = "story is finished: 1 member, 1 interval; every score was NaN or infinite: all members have diverged"
    assert summary(story.run) == said


def test_a_schedule_has_a_line_for_each_hyperparameter_that_changed() -> None:
    story = Live(None, 2, intervals=2, tick=0.1)
    story.train(0, 0.5)
    story.train(1, 0.75)
    story.exploit(0, 1, lr=0.25, units=3)
    story.report(0, 0.9)
    first = story.view.history[1][0].hypers
    assert schedule_lines(story.newest(0)) == [
        f"lr {first['lr']:.4g} → 0.25 from interval 2",
        f"units {first['units']} → 3 from interval 2",
        f"depth {first['depth']} throughout",
    ]


def test_a_cohort_that_is_published_at_once_makes_no_rate() -> None:
    story = Live(None, 4, tick=1e-6)
    for generation in range(2):
        story.now += 10.0
        for member in range(4):
            story.claim(member)
        for member in range(4):
            story.report(member, 0.5, checkpoint=phyla.events.Checkpoint(f"g{generation}", "0" * 32, 1, member))
        records = sorted(story.view.records.values(), key=lambda record: record.position)
        assert (pace(records) is None) if generation == 0 else pace(records) == pytest.approx(0.4, rel=0.01)


def test_who_holds_a_member_and_since_when_nothing_was_heard() -> None:
    story = Live(None, 4, tick=0.1)
    for member in range(4):
        story.train(member, -member)
    story.claim(0, worker="node-a.12.34.ab.1")
    story.claim(1, worker="node-a.12.34.ab.2")
    story.claim(2, worker="gone.12.34.ab.1")
    rows = [line.split() for line in drawn(story.view, 120, 20, story.now)[3:]]
    assert [row[6:] for row in rows] == [["12", "ok"], ["12#2", "ok"], ["12", "gone"], ["free"]]
    quiet = lines(at(story.view, story.now), lambda worker: 12.0, 120, 20)
    assert "".join(text for text, _ in quiet[3]).endswith(" 12 s")
    assert "2 workers" in drawn(story.view, 120, 20, story.now)[1]
    story.claim(3, worker="node-b.12.34.cd.1")
    assert "node-b.12 " in drawn(story.view, 120, 20, story.now)[6]


def test_a_member_that_has_left_is_not_shown_and_its_work_still_counts() -> None:
    story = Live(None, 3, intervals=4, tick=0.1)
    for member in range(3):
        story.train(member, member)
    story.add(Resized(member=RUN, seq=2, size=2, first=2, retired=[0]))
    seen = at(story.view, story.now)
    assert [row.member for row in seen.rows] == [2, 1]
    assert (seen.done, seen.total) == (3, 3 + 2 * 3)


# That it fits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [10, 20, 34, 60, 80, 200])
@pytest.mark.parametrize("height", [4, 18, 44])
def test_it_fits_whatever_happens(width: int, height: int) -> None:
    """Runs in which everything happens, with names and values that are long, wide and hostile."""
    rng = np.random.default_rng(width * height)
    space = {
        "学習率" * 9: phyla.Float(-1e300, 1e300),
        EVIL: phyla.Choice(EVIL, "幅" * 30),
        "n": phyla.Int(0, 10**12),
        **LONG,
    }
    for turns in (0, 1, 5, 60):
        story = Live(None, int(rng.integers(1, 60)), space=space, tick=0.5, intervals=int(rng.integers(1, 10**6)))
        for _ in range(turns):
            m = int(rng.integers(story.view.size))
            if story.view.open[m] is None:
                story.claim(m, worker=str(rng.choice(["w", "gone", EVIL, "host.1.2.3.1", "host" * 9 + ".1.2.3.4"])))
            elif rng.random() < 0.2:
                story.fail(m, "raised")
            else:
                story.report(m, [math.nan, math.inf, -1e300, 123456789.123, None, 0.0][int(rng.integers(6))])
        found = drawn(story.view, width, height, story.now)
        assert len(found) <= height
        assert max(map(cell_len, found)) <= width
        assert all(line.isprintable() for line in found)


def test_random_journals_can_be_shown() -> None:
    for seed in range(20):
        view = random_story(np.random.default_rng(seed), 40).view
        assert max(map(cell_len, drawn(view, 80, 24))) <= 80


def test_only_as_many_members_as_there_are_lines() -> None:
    story = Live(None, 200, tick=0.1)
    found = drawn(story.view, 80, 18, story.now)
    assert len(found) == 18
    assert found[-1] == "… 186 more members"
    assert len([line for line in found if re.match(r" *m\d+ ", line)]) == 14
    few = Live(None, 15, tick=0.1)
    assert not drawn(few.view, 80, 18, few.now)[-1].startswith("…")
    assert len(drawn(few.view, 80, 18, few.now)) == 18


def test_no_member_is_dropped_in_silence() -> None:
    for height in range(6, 20):
        for members in (3, 9, 10, 15):
            story = Live(None, members, space=LONG, tick=0.1)
            found = drawn(story.view, 80, height, story.now)
            rows = sum(re.match(r" *m\d+ ", line) is not None for line in found)
            more = re.match(r"… (\d+) more members?; no room for \d+ columns", found[-1])
            assert rows + (int(more[1]) if more else 0) == members
            assert "no room for" in found[-1]


def test_hyperparameters_are_narrowed_and_left_out_from_the_right() -> None:
    story = Live(None, 3, space=LONG, tick=0.1)
    story.train(0, 0.5)
    everything = drawn(story.view, 400, 20, story.now)
    assert all(name[:12] in everything[2] for name in LONG)
    some = drawn(story.view, 100, 20, story.now)
    shown = re.findall(r"\S+…\S+", some[2])
    assert 3 <= len(shown) < 12
    assert [name.split("_")[-1] for name in shown] == [str(i) for i in range(len(shown))]  # the end tells them apart
    assert some[-1] == f"… no room for {12 - len(shown)} columns"
    best = story.newest(0)
    numbers = [f"{value:.4g}" for value in best.hypers.values()]
    assert some[3].split()[-2 - len(shown) + 1 : -1] == numbers[: len(shown)]  # and none is cut


def test_columns_go_by_rank_where_there_is_no_room_at_all() -> None:
    story = Live(None, 2, tick=0.1)
    story.train(0, 0.123456)
    titles = {width: drawn(story.view, width, 20, story.now)[2].split() for width in (80, 56, 38, 28, 18, 8)}
    assert titles[80][5:8] == ["lr", "units", "depth"]
    assert titles[56] == ["member", "score", "interval", "lr", "units", "depth", "worker"]
    assert titles[38] == ["member", "score", "interval", "lr"]
    assert titles[28] == ["member", "score", "interval"]
    assert titles[18] == ["member", "score"]
    assert titles[8] == ["member"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3600, "1:00:00"), (4e5, "4 d"), (1e9, "11,574 d")],
)
def test_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


# What has happened ------------------------------------------------------------------------------------------------------


def test_an_exploit_is_said_once_with_what_it_changes() -> None:
    story = Live(None, 3, tick=0.1)
    for member, score in enumerate((0.41, 0.2, 0.68)):
        story.train(member, score)
    feed = Feed(story.run)
    assert feed.read() == []  # what was before is not said
    story.exploit(0, 2, lr=0.5)
    story.fail(0, "lost")
    assert [type(effect) for effect in feed.read()] == [Exploit, Failure]
    story.exploit(0, 2, lr=0.5)  # a loss repeats the decision
    assert feed.read() == []
    story.report(0, 0.7)
    story.exploit(0, 2, lr=0.25)
    report, exploit = feed.read()
    assert str(report) == "m0 at 2: score 0.7"
    units, depth = story.newest(2).hypers["units"], story.newest(2).hypers["depth"]
    assert story.newest(0).hypers == {"lr": 0.5, "units": units, "depth": depth}
    assert str(exploit) == "m0 ← m2 at 3: lr 0.5 → 0.25, score 0.7 → 0.68"


def test_an_exploit_names_where_the_member_stood_when_it_was_decided() -> None:
    story = Live(None, 2, tick=0.1)
    story.train(0, 0.4)
    story.train(1, 0.6)
    feed = Feed(story.run)
    feed.read()
    story.exploit(0, 1)
    story.report(0, 0.9)  # before anybody has looked
    exploit, report = feed.read()
    assert isinstance(exploit, Exploit)
    assert isinstance(report, Report)
    assert exploit.before is not None
    assert (exploit.before.ref, exploit.donor.ref) == (story.view.history[0][0].ref, story.newest(1).ref)
    assert str(exploit).endswith("score 0.4 → 0.6")


@pytest.mark.parametrize(
    ("why", "error", "said"),
    [
        ("raised", "ZeroDivisionError: division by zero", "m1 failed at 1: raised ZeroDivisionError: division by zero"),
        ("raised", None, "m1 failed at 1: raised"),
        ("unreported", None, "m1 failed at 1: it made no report"),
        ("crashed", "it died of SIGSEGV", "m1 crashed at 1: it died of SIGSEGV"),
        ("hung", None, "m1 hung at 1"),
        ("lost", "host.12.34.ab.1: its process is gone", "m1 lost at 1: its process is gone"),
        ("checkpoint", "m0-2.safetensors: torn", "m1 could not be restored at 1: m0-2.safetensors: torn"),
        ("raised", "E: " + "x" * 1000, "m1 failed at 1: raised E: " + "x" * 296 + "…"),
    ],
)
def test_failures_in_words(why: Any, error: str | None, said: str) -> None:
    story = Live(None, 2, tick=0.1)
    feed = Feed(story.run)
    feed.read()
    story.claim(1)
    story.add(Failed(member=1, seq=story.next_seq(1), interval=1, why=why, error=error))
    assert [str(effect) for effect in feed.read()] == [said]


def test_silence_is_by_ones_own_clock_since_the_count_moved() -> None:
    story, now = Live(None, 2, tick=0.1), [100.0]
    story.journal.beat("w")
    feed = Feed(story.run, clock=lambda: now[0])
    feed.read()
    assert feed.silence("w") == 0.0
    for later, beats, silence in ((107.0, False, 7.0), (110.0, True, 0.0), (112.5, False, 2.5)):
        now[0] = later
        if beats:
            story.journal.beat("w")
        feed.read()
        assert feed.silence("w") == silence
    assert feed.silence("never heard of") == 0.0


class Counting(MemoryJournal):
    """Counts what is read of it."""

    events = beats_read = 0

    def read(self, after: int) -> list[Recorded]:
        found = list(super().read(after))
        self.events += len(found)
        return found

    def beats(self) -> dict[str, int]:
        self.beats_read += 1
        return super().beats()


def test_a_refresh_reads_only_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    story, counting = Live(None, 20, tick=0.1), Counting()
    counting.append(*(recorded.event for recorded in story.events))
    screen = Screen(Run(counting, MemoryCheckpoints(), None), plain=True)
    screen.refresh()
    assert counting.events == len(story.events)
    for _ in range(5):
        screen.refresh()
    assert (counting.events, counting.beats_read) == (len(story.events), 1)
    for _ in range(3):
        story.train(3, 0.5)
    counting.append(*(recorded.event for recorded in story.events[-6:]))
    screen.refresh()
    screen.refresh()
    assert counting.events == len(story.events) + 6  # once for the view, once for what happened
    screen.close()
    assert "story  3 of 2,000 intervals (0%)" in capsys.readouterr().err


# Without a terminal -----------------------------------------------------------------------------------------------------


def test_plain_lines_for_what_happens_and_a_few_for_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    story = Live(None, 3)
    for member, score in enumerate((0.1, 0.2, 0.6)):
        story.train(member, score)
    screen = Screen(story.run)  # standard error is no terminal here
    for _ in range(3):
        screen.refresh()
    story.exploit(0, 2, lr=0.5)
    story.claim(1)
    story.fail(1, "raised")
    story.claim(1)
    story.fail(1, "given_back")  # was asked for, and is no failure
    screen.refresh()
    screen.say(f"a word from {EVIL}")
    screen.close()
    screen.close()
    out, err = capsys.readouterr()
    said = err.splitlines()
    assert out == ""
    assert "\x1b" not in err
    assert said[0].startswith("story  3 of 300 intervals (1%)  ")
    assert said[1].startswith("m0 ← m2 at 2: lr ")
    assert said[2:4] == ["m1 failed at 2: raised", f"a word from {inert(EVIL)}"]
    assert said[4].startswith("story  3 of 300 intervals (1%)  ")  # as it stood at the end
    assert said[4].endswith("  1 worker")
    assert len(said) == 5


def test_a_notebook_gets_one_line_that_stays_in_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shell:
        kernel = object()

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)  # type: ignore[arg-type]
    story = Live(None, 3)
    screen = Screen(story.run)
    for place in range(6):
        story.train(place % 3, place)
        story.exploit(place % 3, 0)
        if place == 3:
            story.fail(0, "crashed")
        else:
            story.report(place % 3, 0.0)
        screen.refresh()
    screen.close()
    out, err = capsys.readouterr()
    assert err == ""
    assert "←" not in out
    assert out.count("\n") == 2  # a failure, and the end
    assert re.search(r"\rm0 crashed at 4\n", out)
    assert len(re.findall(r"\rstory  \d+ of 300", out)) >= 6


# On a terminal ----------------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a terminal of a fixed size, and what one sees there."""

    def __init__(self, columns: int, rows: int, *command: object, **environment: str):
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._ours, self._columns, self._raw = ours, columns, bytearray()
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        line = list(map(str, command))
        self.child = subprocess.Popen(line, env=surroundings(environment), stdin=its, stdout=its, stderr=its)
        os.close(its)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def scrolled(self) -> list[str]:
        """What has left it at its top."""
        past = self._screen.history.top
        return ["".join(line[x].data for x in range(self._columns)).rstrip() for line in past]

    @property
    def raw(self) -> bytes:
        return bytes(self._raw)

    @property
    def cursor_is_hidden(self) -> bool:
        return self._screen.cursor.hidden

    def until(self, seen: Callable[[list[str]], object], seconds: float = 30.0) -> list[str]:
        """Looks until it sees this, and returns the screen."""
        deadline = time.monotonic() + seconds
        while not seen(self.lines):
            assert time.monotonic() < deadline, "\n".join(self.lines)
            if select.select([self._ours], [], [], 0.05)[0] and not self._look():
                assert seen(self.lines), "\n".join(self.lines)
        return self.lines

    def end(self) -> int:
        """Looks until the command has ended, and returns its exit code."""
        while self._look():
            pass
        os.close(self._ours)
        return self.child.wait(timeout=30)

    def resize(self, columns: int, rows: int) -> None:
        self._columns = columns
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _look(self) -> bool:
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self._raw += piece
        self._stream.feed(piece)
        return bool(piece)


def surroundings(more: dict[str, str] | None = None) -> dict[str, str]:
    forgotten = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    kept = {key: value for key, value in os.environ.items() if key not in forgotten}
    source = str(Path(phyla.__file__).parents[1])
    return kept | {"PYTHONPATH": source, "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"} | (more or {})


def watch(run: Path, *options: str) -> list[object]:
    return [sys.executable, "-m", "phyla.cli", "watch", run, *options]


def is_table(lines: list[str]) -> bool:
    return any(re.match("member +score", line) for line in lines)


def test_watching_a_run_until_it_is_finished(tmp_path: Path) -> None:
    story = Live(tmp_path / "digits", 4, intervals=3)
    terminal = Terminal(80, 24, *watch(tmp_path / "digits"))
    new = terminal.until(is_table)
    assert new[0].split()[0] == "story"
    assert "0 of 12 intervals" in new[0]
    assert terminal.cursor_is_hidden
    for member, score in enumerate((0.1, 0.2, 0.3, 0.4)):
        story.train(member, score)
    story.exploit(0, 3, lr=0.25)
    said = terminal.until(lambda lines: any("m0 ← m3 at 2: lr" in line for line in lines))
    assert "→ 0.25" in said[0]
    assert "score 0.1 → 0.4" in " ".join(said[:2])
    terminal.until(lambda lines: sum("4 of 12" in line for line in lines) == 1)  # there is one table
    story.fail(0, "raised")
    terminal.until(lambda lines: any("m0 failed at 2: raised" in line for line in lines))
    for _ in range(2):
        for member in range(4):
            story.train(member, member)
    assert terminal.end() == 0
    last = terminal.lines
    place = next(i for i, line in enumerate(last) if "12 of 12 intervals" in line)
    assert last[place - 1] == "m0 failed at 2: raised"
    assert last[place + 1] == "finished  best 3 (m3 at 2)"
    assert [line.split()[0] for line in last[place + 3 : place + 7]] == ["m3", "m2", "m1", "m0"]
    assert not any(last[place + 7 :])
    assert not terminal.cursor_is_hidden


def test_two_hundred_members_on_a_large_terminal(tmp_path: Path) -> None:
    story = Live(tmp_path / "large", 200, intervals=4, space=LONG)
    for member in range(200):
        story.train(member, member)
    terminal = Terminal(200, 50, *watch(tmp_path / "large"))
    seen = terminal.until(lambda lines: any(line.startswith("… 160 more members") for line in lines))
    rows = [line for line in seen if re.match(r" *m\d+ ", line)]
    assert len(rows) == 50 - 6 - 4  # room for what happens, the run, the titles, the note
    assert rows[0].split()[:3] == ["m199", "199", "1/4"]
    for member in range(30):
        story.exploit(member, 199 - member)
    terminal.until(lambda lines: "m29 ← m170 at 2" in "".join(terminal.scrolled + lines))
    terminal.until(lambda lines: sum(line.startswith("… 160 more members") for line in lines) == 1)
    whole = terminal.scrolled + terminal.lines
    assert [int(m[1]) for line in whole if (m := re.match(r"m(\d+) ←", line))] == list(range(30))
    assert sum(line.startswith("member ") for line in whole) == 1  # what scrolled by is no table
    story.stop("enough")
    assert terminal.end() == 0


def test_a_terminal_that_gets_smaller(tmp_path: Path) -> None:
    story = Live(tmp_path / "narrow", 30, space=LONG)
    story.train(0, 0.5)
    terminal = Terminal(160, 40, *watch(tmp_path / "narrow"))
    terminal.until(lambda lines: any(re.match(" +m29 ", line) for line in lines))
    terminal.resize(70, 20)
    seen = terminal.until(lambda lines: sum(line.startswith("… 19 more members; no room for") for line in lines) == 1)
    assert seen[0].startswith("story ")
    assert sum("of 3,000 intervals" in line for line in seen) == 1
    assert sum(line.startswith("member ") for line in seen) == 1
    story.stop()
    assert terminal.end() == 0


def test_ctrl_c_ends_the_watching_and_nothing_else(tmp_path: Path) -> None:
    story = Live(tmp_path / "busy", 3)
    story.train(0, 0.5)
    story.claim(1, worker=host.new_worker_id())
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in (tmp_path / "busy").iterdir()}
    terminal = Terminal(80, 24, *watch(tmp_path / "busy"))
    terminal.until(is_table)
    terminal.child.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert is_table(terminal.lines)
    assert "interrupted" not in "\n".join(terminal.lines), "it is the way to leave"
    assert not terminal.cursor_is_hidden
    after = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in (tmp_path / "busy").iterdir()}
    assert before == after


def test_nothing_in_a_journal_is_obeyed(tmp_path: Path) -> None:
    story = Live(tmp_path / "hostile", 3, space={EVIL: phyla.Choice(EVIL, EVIL[::-1])})
    for member in range(3):
        story.train(member, member)
    terminal = Terminal(100, 30, *watch(tmp_path / "hostile"))
    terminal.until(is_table)
    story.claim(1, worker=f"{EVIL}.1.2.3.4")
    story.add(Failed(member=1, seq=story.next_seq(1), interval=2, why="raised", error=EVIL))
    story.exploit(0, 2, **{EVIL: "[bold]\x1b[5m"})
    story.claim(1, worker=EVIL)
    story.stop(EVIL)
    assert terminal.end() == 0
    assert all(attack not in terminal.raw for attack in (b"\x1b]0;", b"\x1b[2J", b"\x9b31m", b"\x07", b"\x1b[5m"))
    assert "\u202e" not in terminal.raw.decode()
    assert "m1 failed at 2: raised \\x1b]0;owned\\x07" in "\n".join(terminal.lines)
    assert any("[bold]\\x1b[5m" in line for line in terminal.lines)


def test_what_others_say_stands_above_the_table(tmp_path: Path) -> None:
    """A launcher's own lines, its warnings, and what a print in its process writes."""
    Live(tmp_path / "quiet", 3)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys, phyla
            from phyla.screen import Screen
            screen = Screen(phyla.open(sys.argv[1]))
            screen.refresh()
            screen.say("worker 1 was started again")
            print("printed")
            print("warned", file=sys.stderr)
            screen.refresh()
            screen.close()
            print("after")
        """)
    )
    terminal = Terminal(80, 24, sys.executable, script, tmp_path / "quiet")
    assert terminal.end() == 0
    assert terminal.lines[:3] == ["worker 1 was started again", "printed", "warned"]
    assert terminal.lines[3].startswith("story ")
    assert terminal.lines[9] == "after"
    assert sum(line.startswith("member ") for line in terminal.lines) == 1


def test_a_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    story = Live(tmp_path / "dumb", 2)
    story.stop()
    terminal = Terminal(80, 24, *watch(tmp_path / "dumb"), TERM="dumb")
    assert terminal.end() == 0
    assert b"\x1b" not in terminal.raw
    assert terminal.lines[0].startswith("story  0 of 200 intervals (0%)  finished: enough")


# In a pipe --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def piped() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    children: list[subprocess.Popen[str]] = []

    def start(*command: object) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        line = list(map(str, command))
        children.append(subprocess.Popen(line, env=surroundings(), stdout=pipe, stderr=pipe, text=True))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_watching_through_a_pipe(tmp_path: Path, piped: Callable[..., subprocess.Popen[str]]) -> None:
    story = Live(tmp_path / "piped", 2)
    story.train(0, 0.25)
    story.train(1, 0.5)
    child = piped(*watch(tmp_path / "piped"))
    assert child.stderr is not None
    assert child.stderr.readline().startswith("story  2 of 200 intervals (1%)  nobody trains it  best 0.5 (m1 at 1)")
    story.exploit(0, 1)
    assert child.stderr.readline().startswith("m0 ← m1 at 2: ")
    story.stop("enough")
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "")
    assert re.fullmatch(r"story  2 of 200 intervals \(1%\)  finished: enough  best 0.5 \(m1 at 1\)  1 worker\n", err)


def test_watching_as_json(tmp_path: Path, piped: Callable[..., subprocess.Popen[str]]) -> None:
    story = Live(tmp_path / "json", 2)
    story.train(0, 0.25)
    story.train(1, 0.5)
    child = piped(*watch(tmp_path / "json", "--json"))
    assert child.stdout is not None
    said: list[dict[str, Any]] = []
    deadline = time.monotonic() + 30
    while not said:  # what is before it begins to watch is not said
        assert time.monotonic() < deadline
        story.train(1, float("nan"))
        if select.select([child.stdout], [], [], 0.5)[0]:
            said.append(json.loads(child.stdout.readline()))
    assert (said[0]["kind"], said[0]["member"], said[0]["score"]) == ("report", 1, "nan")
    assert said[0]["hypers"] == story.newest(1).hypers
    story.exploit(0, 1, lr=0.125)
    story.add(Failed(member=0, seq=story.next_seq(0), interval=2, why="raised", error=EVIL))
    story.stop(EVIL)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "")
    assert out.isascii()
    *_, exploit, failure = map(json.loads, out.splitlines())
    donor = story.newest(1)
    assert exploit == {
        "kind": "exploit",
        "member": 0,
        "interval": 2,
        "donor": {"member": 1, "interval": donor.interval, "score": "nan"},
        "score": 0.25,
        "before": story.newest(0).hypers,
        "after": {**donor.hypers, "lr": 0.125},
        "time": exploit["time"],
    }
    assert (failure["kind"], failure["why"], failure["error"]) == ("failure", "raised", EVIL)


def test_a_finished_run_is_shown_and_left(tmp_path: Path, piped: Callable[..., subprocess.Popen[str]]) -> None:
    story = Live(tmp_path / "done", 1, intervals=1)
    story.train(0, 0.5)
    out, err = piped(*watch(tmp_path / "done")).communicate(timeout=30)
    assert (out, err) == ("", "story  1 of 1 intervals (100%)  finished  best 0.5 (m0 at 1)\n")
    assert piped(*watch(tmp_path / "done", "--json")).communicate(timeout=30) == ("", "")
    missing = piped(*watch(tmp_path / "missing"))
    assert "there is no run in" in missing.communicate(timeout=30)[1]
    assert missing.returncode == 1
