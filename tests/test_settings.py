"""What a run is created with, and how a script's settings are held against it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import phyla
import phyla.settings
from phyla.arguments import Arguments
from phyla.settings import Settings, differences
from phyla.space import Choice, Float, Int, describe
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation

quick = hypothesis_settings(derandomize=True, deadline=None, max_examples=60, database=None)
SPACE = {"lr": Float(1e-4, 1.0, log=True), "units": Int(1, 64), "act": Choice("relu", "gelu")}

# For every field, another value than BASE has.
BASE = Settings(seed=1, space=describe(SPACE), size=8, intervals=30, strategy={"type": "phyla.Evolve"})
OTHER: dict[str, Any] = {
    "seed": 2, "space": describe({"lr": Float(1e-4, 1.0)}), "size": 9, "intervals": 31, "mode": "min", "metric": "loss",
    "target": 0.5, "window": 9, "ready": 2, "burn_in": 1, "strategy": {"type": "phyla.Other"}, "compare": "latest",
    "max_lead": 0, "keep": 3, "retries": 1, "max_lost": 4, "threads": 2, "start": [{"hypers": {"lr": 0.1}}],
}  # fmt: skip


def everything_given(**changes: Any) -> dict[str, Any]:
    """All arguments of Population, at their defaults but for these."""
    parameters = inspect.signature(phyla.Population).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {**defaults, "name": "run", "space": SPACE, "size": 8, "intervals": 30, "seed": 1, **changes}


def test_equal_settings_do_not_differ() -> None:
    assert differences(BASE, msgspec.structs.replace(BASE), {}) == []


def test_every_setting_is_tried_here() -> None:
    assert set(OTHER) == {field.name for field in msgspec.structs.fields(Settings)}


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_that_differs_is_named_with_both_values(name: str) -> None:
    named = msgspec.structs.replace(BASE, **{name: OTHER[name]})
    assert differences(BASE, named, {}) == [(name, getattr(BASE, name), OTHER[name])]


def test_all_differences_are_found_in_the_order_of_the_settings() -> None:
    found = differences(BASE, msgspec.structs.replace(BASE, **OTHER), {})
    assert [name for name, _, _ in found] == [field.name for field in msgspec.structs.fields(Settings)]


def test_what_an_event_has_changed_may_be_named_as_created_or_as_it_is_now() -> None:
    current = {"intervals": 50}
    assert differences(BASE, BASE, current) == []
    assert differences(BASE, msgspec.structs.replace(BASE, intervals=50), current) == []
    assert differences(BASE, msgspec.structs.replace(BASE, intervals=40), current) == [("intervals", 30, 40)]


def test_an_identity_is_not_excused_by_what_events_have_changed() -> None:
    assert differences(BASE, msgspec.structs.replace(BASE, size=50), {"intervals": 50}) == [("size", 8, 50)]


@quick
@given(st.dictionaries(st.sampled_from(sorted(OTHER)), st.none(), max_size=6))
def test_differences_name_exactly_what_was_changed(changed: dict[str, None]) -> None:
    named = msgspec.structs.replace(BASE, **{name: OTHER[name] for name in changed})
    assert {name for name, _, _ in differences(BASE, named, {})} == set(changed)
    assert {name for name, _, _ in differences(named, BASE, {})} == set(changed)


def test_settings_are_the_same_after_the_journal() -> None:
    """A script that names what it named before must not differ: lists for tuples, 1 for 1.0, would."""
    arguments = Arguments.check(**everything_given(start=[{"lr": 0.1}, {"lr": 0.2, "units": 3}]))
    recorded = msgspec.json.decode(msgspec.json.encode(arguments.settings), type=Settings)
    assert differences(recorded, arguments.settings, {}) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"exploit": Truncation(0.25)}, "strategy"),
        ({"exploit": None}, "strategy"),
        ({"explore": Perturb(0.5, 2.0)}, "strategy"),
        ({"inherit": "weights"}, "strategy"),
        ({"strategy": Evolve(None, None)}, "strategy"),
        ({"space": {**SPACE, "more": Float(0, 1)}}, "space"),
        ({"space": {**SPACE, "units": Int(1, 65)}}, "space"),
        ({"space": {**SPACE, "act": Choice("gelu", "relu")}}, "space"),
        ({"max_lead": 1}, "max_lead"),
        ({"keep": 5}, "keep"),
        ({"mode": "min"}, "mode"),
    ],
)
def test_a_script_that_changes_what_a_run_is_differs(given: dict[str, Any], name: str) -> None:
    recorded = Arguments.check(**everything_given()).settings
    found = differences(recorded, Arguments.check(**everything_given(**given)).settings, {})
    assert name in [field for field, _, _ in found]


def test_the_order_in_which_a_script_lists_its_space_is_no_difference() -> None:
    recorded = Arguments.check(**everything_given()).settings
    turned = Arguments.check(**everything_given(space=dict(reversed(SPACE.items())))).settings
    assert differences(recorded, turned, {}) == []


def test_the_table_lists_every_argument_of_population_once_and_where_it_is_recorded() -> None:
    table = re.findall(r"\| (\w+) +\| (identity|by event|local)", phyla.settings.__doc__ or "")
    kinds = dict(table)
    assert len(kinds) == len(table)
    arguments = set(everything_given())
    missing = arguments - set(kinds)
    assert not missing, f"not in the table of phyla.settings: {missing}"
    recorded = {field.name for field in msgspec.structs.fields(Settings)}
    within = {
        "name": "run",
        "exploit": "strategy",
        "explore": "strategy",
        "inherit": "strategy",
    }  # recorded under these names
    for name, kind in kinds.items():
        if name in arguments and name not in within:
            assert (name in recorded) == (kind != "local"), name
    assert recorded <= set(kinds)
