"""Text that a terminal neither obeys nor hides: whatever is printed of a journal's names, values, errors goes through here."""

from __future__ import annotations

import json


def inert(text: object) -> str:
    """The text with everything escaped that a terminal might obey or hide: control characters, escapes, bidi, line ends."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def inert_lines(text: str) -> str:
    """The same for a message of several lines, which stay lines."""
    return "\n".join(inert(line) for line in text.split("\n"))


def inert_json(text: str) -> str:
    """JSON that says the same, with escapes for what a terminal might obey; the spaces between its tokens stay."""
    return "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text)


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) != 0x7F else "\\u007f"
