"""Texts of strangers: names that are plain, lines that a terminal only shows."""

from __future__ import annotations

import os
import re

NAME_BYTES = 255 - len(".nii.gz")  # of a case, whose label map must have a name that every file system takes
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # escapes, and changes of direction


def what_is_odd(name: str) -> str | None:
    """Why a name can't be that of a file in a folder of ours; None where it can."""
    if not name or name in (".", ".."):
        return "is no name of a file"
    if "/" in name or "\\" in name:
        return "leads to another folder"
    if CONTROL.search(name):
        return "holds characters that can't be seen"
    if len(os.fsencode(name)) > NAME_BYTES:
        return f"is longer than {NAME_BYTES} bytes: its label map would have no name"
    return None


def printable(text: object) -> str:
    """One line in which nothing moves a cursor, colours or hides; bytes that are not UTF-8 stand as escapes."""
    line = CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))
    return line.encode("utf-8", "backslashreplace").decode()
