"""Tests that others can inherit: what every implementation of a contract of phyla's must pass.

    from phyla.testing import JournalConformance, StrategyConformance

    class TestMyJournal(JournalConformance):
        @pytest.fixture
        def opener(self, tmp_path):
            return functools.partial(MyJournal, tmp_path / "journal")

    class TestMyExploit(StrategyConformance):
        exploit = MyExploit(0.3)

They need pytest, which is imported with them and not by `import phyla.testing`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phyla.testing.checkpoints import CheckpointsConformance as CheckpointsConformance
    from phyla.testing.journals import JournalConformance as JournalConformance
    from phyla.testing.strategies import StrategyConformance as StrategyConformance

_HOMES = {
    "CheckpointsConformance": "phyla.testing.checkpoints",
    "JournalConformance": "phyla.testing.journals",
    "StrategyConformance": "phyla.testing.strategies",
}

__all__ = ["CheckpointsConformance", "JournalConformance", "StrategyConformance"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(_HOMES[name])  # so that a failed assertion shows its values
    return getattr(importlib.import_module(_HOMES[name]), name)
