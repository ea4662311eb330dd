"""The live display of a run: on a terminal a table that stays in place, elsewhere a few plain lines.

A screen only reads. It belongs to whoever watches: the launcher, or `phyla watch`.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from phyla.feed import Effect, Exploit, Failure, Feed
from phyla.glance import Glance, glance
from phyla.inert import inert
from phyla.runs import Run
from phyla.table import Line, facts, lines

EVERY_SECONDS = 10.0
"""Between two lines about the progress, where there is no terminal."""
PLAIN = str.maketrans("━─…", "=-~")
"""What a terminal shows that knows nothing but ASCII, in as many columns."""


class Screen:
    """Shows a run as it stands, and says what happens in it: exploits and failures, a line each.

    plain: lines and no table; None: unless standard error, where all this is shown, is a terminal. In a notebook one line
    stays in place, and exploits are not said.
    """

    def __init__(self, run: Run, *, plain: bool | None = None):
        self._feed = Feed(run)
        self._surface: _Surface
        if plain is None and not sys.stderr.isatty() and _in_notebook():
            self._surface = _Notebook()
        elif _dumb() if plain is None else plain:
            self._surface = _Lines()
        else:
            self._surface = _Table()

    def refresh(self) -> None:
        """Reads what is new, says it, and shows how the run stands. Call it a few times a second."""
        news = [inert(effect) for effect in self._feed.read() if self._surface.tells(effect)]
        if news:
            self._surface.say(*news)
        self._surface.show(glance(self._feed.view, time.time(), self._feed.gone), self._feed)

    def say(self, line: str) -> None:
        """Shows a line that stays; on a terminal above the table."""
        self._surface.say(inert(line))

    def close(self) -> None:
        """Leaves what was shown last. Closing it again does nothing."""
        self._surface.close()


def _dumb() -> bool:
    return not sys.stderr.isatty() or os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook. Nothing is imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class _Surface(Protocol):
    """What a run is shown on."""

    def tells(self, effect: Effect) -> bool: ...
    def say(self, *lines: str) -> None: ...
    def show(self, glance: Glance, feed: Feed) -> None: ...
    def close(self) -> None: ...


def _is_news(effect: Effect) -> bool:
    """A claim that was given back is no failure: its worker was asked to end."""
    return isinstance(effect, Exploit) or (isinstance(effect, Failure) and effect.why != "given_back")


class _Table:
    """A terminal: the table stays at its end, and what is said scrolls by above."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, force_terminal=True, force_jupyter=False)
        self._lines: list[Line] = []
        self._width = 0
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())

    def tells(self, effect: Effect) -> bool:
        return _is_news(effect)

    def say(self, *lines: str) -> None:
        # At once: with every print the table is drawn again.
        self._console.print(Text("\n".join(lines), overflow="fold"), highlight=False)

    def show(self, glance: Glance, feed: Feed) -> None:
        width, height = self._console.size
        if width < self._width:
            self._console.clear()  # the terminal has broken the old lines, and nobody knows how many they are now
        self._width = width
        room = height - min(6, height // 4)  # what was said stays in sight for a while
        new = lines(glance, feed.silence, width, room)
        if new == self._lines:
            return
        self._lines = new
        self._live.start()
        self._live.update(_Painted(new), refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Painted:
    """Lines that are laid out already: rich's own tables measure every cell again, which takes longer than all the rest."""

    def __init__(self, lines: list[Line]):
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            for style, parts in itertools.groupby(line, lambda part: part[1]):
                text = "".join(text for text, _ in parts)
                yield Segment(text.translate(PLAIN) if options.ascii_only else text, console.get_style(style))
            yield Segment.line()


class _Lines:
    """A file or a pipe: whole lines, and one about the progress now and then."""

    def __init__(self) -> None:
        self._next = 0.0
        self._shown = self._newest = ""

    def tells(self, effect: Effect) -> bool:
        return _is_news(effect)

    def say(self, *lines: str) -> None:
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def show(self, glance: Glance, feed: Feed) -> None:
        self._newest = "  ".join(facts(glance))
        now = time.monotonic()
        if now >= self._next and self._newest != self._shown:
            self._next = now + EVERY_SECONDS
            self.close()

    def close(self) -> None:
        if self._newest != self._shown:
            self._shown = self._newest
            self.say(self._newest)


class _Notebook:
    """The output of a cell, in which a line can be written over, and everything else stays for ever."""

    def __init__(self) -> None:
        self._line = ""

    def tells(self, effect: Effect) -> bool:
        return isinstance(effect, Failure) and _is_news(effect)

    def say(self, *lines: str) -> None:
        shown = self._line
        self._write("")
        print("\r" + "\n".join(lines), flush=True)
        self._write(shown)

    def show(self, glance: Glance, feed: Feed) -> None:
        self._write("  ".join(facts(glance)))

    def _write(self, line: str) -> None:
        if line != self._line:
            print(f"\r{line.ljust(len(self._line))}", end="", flush=True)
            self._line = line

    def close(self) -> None:
        if self._line:
            print(flush=True)
            self._line = ""
