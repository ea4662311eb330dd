"""What a worker of `phyla.run` executes: it reads a function and a population from its launcher's pipe, and calls it.

The one place where phyla unpickles: what comes through a private pipe from the process that started this one.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    sys.path[:] = json.loads(sys.stdin.buffer.readline())
    payload = sys.stdin.buffer.read()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the pipe is nobody's standard input

    import cloudpickle

    from phyla.population import Population

    train, name, arguments = cloudpickle.loads(payload)
    train(Population(name, **arguments))


if __name__ == "__main__":
    main()
