"""Tests that others can inherit: what every implementation of a contract of phyla's must pass.

    from phyla.testing import JournalConformance

    class TestMyJournal(JournalConformance):
        @pytest.fixture
        def opener(self, tmp_path):
            return functools.partial(MyJournal, tmp_path / "journal")

They need pytest, which is imported with them and not by `import phyla.testing`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phyla.testing.journals import JournalConformance as JournalConformance

_HOMES = {"JournalConformance": "phyla.testing.journals"}

__all__ = ["JournalConformance"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(_HOMES[name])  # so that a failed assertion shows its values
    return getattr(importlib.import_module(_HOMES[name]), name)
