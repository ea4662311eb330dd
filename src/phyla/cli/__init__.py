"""The command line: `phyla status digits`. Reading a run, checking it, and starting scripts.

Exit codes: 0 done, 1 failed, 2 bad usage, 75 the deadline came with work left, 130 interrupted, 143 ended by SIGTERM; 141
where whoever read the output has had enough, as with other programs in a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from phyla.errors import PhylaError

DONE, FAILED, MISUSED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, by default that of this process, and returns its exit code."""
    from phyla.cli.app import Misuse, execute

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know no arrows
    try:
        code = execute(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except Misuse as error:
        return _complain(str(error), MISUSED)
    except PhylaError as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return UNREAD
    return code


def _complain(message: str, code: int) -> int:
    from phyla.cli.text import inert_lines

    print(f"phyla: {inert_lines(message)}", file=sys.stderr)
    return code
