"""The front of a run with several objectives, as `phyla best` and `phyla status` show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from phyla.cli.text import Column, facts, hyperparameter, plain, show, show_fit, styled, words
from phyla.record import show_value
from phyla.runs import Run
from phyla.strategies.mopbt import Front


def as_json(front: Front, checkpoints: Path) -> dict[str, Any]:
    """What it is, each report with where its checkpoint lies."""
    pairs = zip(front.records, front.values, strict=True)
    return {
        "objectives": front.objectives,
        "hypervolume": front.hypervolume,
        "reference": front.reference,
        "reports": [
            {
                **plain(record),
                "values": values,
                "checkpoint": {
                    "path": str(checkpoints / record.checkpoint.file),
                    **msgspec.to_builtins(record.checkpoint),
                },
            }
            for record, values in pairs
        ],
    }


def print_front(run: Run, front: Front) -> None:
    """Its reports in a table, and how to load one."""
    records, values = front.records, front.values
    columns = [
        Column("", [str(place) for place in range(len(records))], right=True),
        Column("member", [str(record.id) for record in records], right=True),
        Column("interval", [str(record.interval) for record in records], right=True),
        *(
            Column(name, [styled(show_value(one[name]), "bold green") for one in values], True)
            for name in front.objectives
        ),
        *(hyperparameter(name, [record.hypers.get(name) for record in records]) for name in run.view.space),
        Column("checkpoint", [record.checkpoint.file for record in records], optional=True),
    ]
    better = "; ".join(
        f"{name}, {'higher' if way == 'max' else 'lower'} is better" for name, way in front.objectives.items()
    )
    count, rest = str(front).split(",", 1)
    head = words((f"{run.name}  ", "bold"), (f"front of {count}", "bold green"), (f",{rest}", ""))
    show_fit([head, words((f"  {better}", "")), ""], columns)
    lines = [
        ("checkpoints", f"{run.path}/checkpoints"),
        ("load one", f"run = phyla.open({str(run.path)!r})"),
        ("", "record = run.front.records[0]        # row 0"),
        ("", "state = run.restore(record, init)    # live objects"),
        ("", "schedule = run.schedule(record)      # its hyperparameters"),
    ]
    show("", facts(lines))
