"""Records of a run -> the same without ids of cases and without paths of the machine that trained it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segmed.data.learned import of_first_weights
from segmed.data.split_file import PARTS
from segmed.runs import runs_of

ALIAS = "withheld"  # and a number: no case of anybody is called so
SHORTEST = (
    4  # letters of an id that is looked for inside of texts; a shorter one is only replaced where it stands alone
)
PATH = re.compile(r"""(?<![\w.…/])(?!//)(?:~|/|[A-Za-z]:\\)[\w.@+-]*[/\\][^\s'",;)\]}]*""")
SEPARATOR = re.compile(r"[/\\]+")


class Private:
    """Replaces ids of cases by numbers that say nothing, the same everywhere, and shortens paths to their last part.

    Args:
        cases: ids.
        subjects: ids of who was scanned, where they differ.
        keep: leave the ids as they are.
    """

    def __init__(self, cases: Iterable[str], subjects: Iterable[str] = (), *, keep: bool = False) -> None:
        ids = set() if keep else {*cases, *subjects}
        by_hash = sorted(ids, key=lambda each: hashlib.sha256(each.encode(errors="replace")).digest())
        digits = len(str(len(by_hash)))
        self.keep = keep
        self.alias = {name: f"{ALIAS}-{number:0{digits}}" for number, name in enumerate(by_hash, 1)}
        longest_first = sorted((name for name in ids if len(name) >= SHORTEST), key=len, reverse=True)
        names = "|".join(map(re.escape, longest_first))
        self.named = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])") if names else None

    def text(self, text: str) -> str:
        """One text."""
        if text in self.alias:
            return self.alias[text]
        if self.named is not None:
            text = self.named.sub(lambda match: self.alias[match[0]], text)
        return PATH.sub(lambda match: f"…/{SEPARATOR.split(match[0].rstrip('/').rstrip(chr(92)))[-1]}", text)

    def note(self, text: str) -> str:
        """A note on a run: what it says in general, without the examples behind its colon."""
        return self.text(text if self.keep else text.split(": ", 1)[0])

    def __call__(self, value: Any) -> Any:
        """Anything that JSON can hold."""
        if isinstance(value, dict):
            return {self.text(key): self(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self(each) for each in value]
        return self.text(value) if isinstance(value, str) else value


def private_of(folder: Path, *, subject: str | None = None, keep: bool = False) -> Private:
    """What hides the cases of a run or of a cross-validation.

    Args:
        folder: of it.
        subject: regular expression that finds the subject in an id.
        keep: hide no ids, only paths.

    Raises:
        DatasetError: a run that gave first weights is damaged.
    """
    cases: set[str] = set()
    for run in runs_of(folder):
        split, audit, content = (_json(path) for path in (run.split, run.path / "audit.json", run.content))
        cases |= {str(name) for part in (*PARTS, "unlabelled") for name in split.get(part) or ()}
        cases |= {str(facts["id"]) for facts in audit.get("cases", ()) if "id" in facts} | set(content)
        cases |= of_first_weights(run.path)
    matches = [re.search(subject, name) for name in cases] if subject else []
    subjects = {match[1] if match.re.groups else match[0] for match in matches if match}
    return Private(cases, {name for name in subjects if name}, keep=keep)


def _json(path: Path) -> dict[str, Any]:
    """A record; empty where it is missing or no record."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
