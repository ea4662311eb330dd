"""Golden lineages: each strategy of the table decides as it did when golden/make.py recorded it."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

SPEC: Any = spec_from_file_location("make_golden", Path(__file__).parent / "golden" / "make.py")
make = module_from_spec(SPEC)
SPEC.loader.exec_module(make)


@pytest.mark.parametrize("name", make.named())
def test_the_recorded_ancestry_is_reproduced_exactly(name: str) -> None:
    expected = json.loads(make.path(name).read_text(encoding="utf-8"))
    found = json.loads(json.dumps(make.lineage(*make.named()[name])))
    for mine, recorded in zip(found, expected, strict=False):
        assert mine == recorded
    assert len(found) == len(expected)


def test_every_file_is_of_a_strategy_and_tells_of_copies() -> None:
    assert {file.stem for file in make.HERE.glob("*.json")} == set(make.named())
    for name in make.named():
        lines = json.loads(make.path(name).read_text(encoding="utf-8"))
        assert sum(line["source"] is not None and line["source"][0] != line["member"] for line in lines) >= 5, name
        assert all(("hypers" in line) == (name not in make.GAUSSIAN) for line in lines)
