"""Names with {case}, {subject} and {split} in them -> the files below a folder that have such names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segmed.config import PatternLayout
from segmed.data.case import Case, LayoutCases, composed
from segmed.errors import DatasetError, did_you_mean
from segmed.volumes import Source, is_dicom_folder, is_volume_file

FIELDS = ("subject", "case", "split")
TOKEN = re.compile(r"\{([^{}]*)\}|\*")
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Pattern:
    """A path below a folder.

    {case}, {subject} and {split}, the case's part, stand for text without a slash, the same wherever the name recurs,
    and * for text that does not matter. All other characters stand for themselves.

    Attributes:
        text: as given.
        parts: one a level.
        fields: names that occur, of FIELDS.
    """

    text: str
    parts: tuple[str, ...]
    fields: tuple[str, ...]

    @property
    def literal(self) -> int:
        """Number of literal characters; of two patterns that fit a file the one with more counts."""
        return len(TOKEN.sub("", self.text))

    def files(self, root: Path) -> dict[tuple[str, ...], list[Path]]:
        """Volumes and DICOM folders below `root` that match, by the values of `fields`."""
        paths: dict[tuple[str, ...], list[Path]] = {}
        for path, values in self._walk(root, self.parts, {}):
            paths.setdefault(tuple(values[field] for field in self.fields), []).append(path)
        return paths

    def path(self, values: Mapping[str, str]) -> str:
        """The name that the pattern gives a case, for messages."""
        return TOKEN.sub(lambda token: values.get(token[1] or "", "*"), self.text)

    def _walk(
        self, folder: Path, parts: tuple[str, ...], known: Mapping[str, str]
    ) -> Iterator[tuple[Path, Mapping[str, str]]]:
        regex = _regex(parts[0], known)
        for entry in sorted(folder.iterdir()):
            match = None if entry.name.startswith(".") else regex.fullmatch(composed(entry.name))
            if match is None:
                continue
            values = {**known, **match.groupdict()}
            if len(parts) > 1:
                if entry.is_dir():
                    yield from self._walk(entry, parts[1:], values)
            elif is_dicom_folder(entry) if entry.is_dir() else is_volume_file(entry):
                yield entry, values


def parse_pattern(text: str) -> Pattern:
    """Check a pattern.

    Raises:
        DatasetError: no placeholder, an unknown one, or a path that leaves the folder.
    """
    text = composed(text)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DatasetError(f"pattern '{text}' leaves data.root: write it relative to that folder")
    names = {token[1] for token in TOKEN.finditer(text) if token[1] is not None}
    for name in sorted(names - set(FIELDS)):
        raise DatasetError(f"pattern '{text}' has an unknown {{{name}}}{did_you_mean(name, FIELDS)}")
    if not names - {"split"}:
        raise DatasetError(f"pattern '{text}' has no {{case}}: put it where the names of the cases differ")
    return Pattern(text, path.parts, tuple(field for field in FIELDS if field in names))


def label_files(root: Path, pattern: Pattern) -> list[tuple[Path, Mapping[str, str]]]:
    """Files below a folder that a pattern fits, each with the values of its fields."""
    files = pattern.files(root)
    return [(path, dict(zip(pattern.fields, key, strict=True))) for key, paths in files.items() for path in paths]


def _regex(part: str, known: Mapping[str, str]) -> re.Pattern[str]:
    """The expression of one level; values known from the levels above must recur."""
    regex, position, seen = "", 0, set()
    for token in TOKEN.finditer(part):
        regex += re.escape(part[position : token.start()])
        position = token.end()
        name = token[1]
        if name is None:
            regex += "[^/]*"
        elif name in known:
            regex += re.escape(known[name])
        else:
            regex += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
            seen.add(name)
    return re.compile(regex + re.escape(part[position:]), re.DOTALL)


# ---------------------------------------------------------------- cases


def read_patterns(root: Path, layout: PatternLayout, *, some_images: bool = False) -> LayoutCases:
    """Files named by patterns; a file that fits several belongs to the pattern with the most literal text.

    Args:
        root: folder below which the patterns are.
        layout: the patterns.
        some_images: patterns of images may fit nothing, as long as one of them does.

    Raises:
        DatasetError: a pattern fits nothing, or several files are one image of a case.
    """
    if not layout.images:
        raise DatasetError("data.layout.images is empty: name at least one image and its pattern")
    patterns = {name: parse_pattern(text) for name, text in layout.images.items()}
    files_of = {name: pattern.files(root) for name, pattern in patterns.items()}
    beside = {"label": layout.label, "field_of_view": layout.field_of_view}
    partners = {name: parse_pattern(text) for name, text in beside.items() if text}
    partner_files = {name: pattern.files(root) for name, pattern in partners.items()}
    claims = [(patterns[name], files) for name, files in files_of.items()]
    claims += [(partners[name], files) for name, files in partner_files.items()]
    _give_each_file_to_one(claims)
    keys_of_config = (*(f"images.{name}" for name in patterns), *partners)
    for name, (pattern, files) in zip(keys_of_config, claims, strict=True):
        may_lack = some_images and name.startswith("images.") and any(files_of.values())
        if not files and not may_lack:
            raise DatasetError(_nothing_matches(root, name, pattern))
    keys = _case_keys([(pattern, files) for pattern, files in claims if files])
    with_subject = len({key.get("case", "") for key in keys}) < len(keys)
    cases = []
    for key in keys:
        images = {name: _one(files_of[name], pattern, key) for name, pattern in patterns.items()}
        others = {name: _one(partner_files[name], pattern, key) for name, pattern in partners.items()}
        parts = [key[name] for name in ("subject", "case") if name in key and (with_subject or name == "case")]
        case_id = "_".join(parts) or key["subject"]
        there = {name: source for name, source in images.items() if source}
        meta = {"split": key["split"]} if "split" in key else {}
        cases.append(
            Case(case_id, key.get("subject", case_id), there, others.get("label"), meta, others.get("field_of_view"))
        )
    known = bool(keys) and all("subject" in key for key in keys)
    return LayoutCases(root.name, tuple(cases), tuple(patterns), subjects_known=known)


def _give_each_file_to_one(claims: Sequence[tuple[Pattern, dict[tuple[str, ...], list[Path]]]]) -> None:
    """Leave each file to the most literal pattern that matches it."""
    owner: dict[Path, Pattern] = {}
    for pattern, files in claims:
        for path in (path for paths in files.values() for path in paths):
            other = owner.get(path)
            if other is not None and other.literal > pattern.literal:
                continue
            if other is not None and other.literal == pattern.literal:
                raise DatasetError(f"{path} fits '{other.text}' and '{pattern.text}': make one pattern narrower")
            owner[path] = pattern
    for pattern, files in claims:
        for key in list(files):
            files[key] = [path for path in files[key] if owner[path] is pattern]
            if not files[key]:
                del files[key]


def _case_keys(claims: Sequence[tuple[Pattern, Mapping[tuple[str, ...], list[Path]]]]) -> list[dict[str, str]]:
    """The cases, as values of the placeholders of the patterns that have them all."""
    most = max((pattern.fields for pattern, _ in claims), key=len)
    for pattern, _ in claims:
        if not set(pattern.fields) <= set(most):
            raise DatasetError(f"pattern '{pattern.text}' shares no placeholder with the others: use {{case}} in all")
    keys = {key for pattern, files in claims if pattern.fields == most for key in files}
    return [dict(zip(most, key, strict=True)) for key in sorted(keys)]


def _one(files: Mapping[tuple[str, ...], list[Path]], pattern: Pattern, values: Mapping[str, str]) -> Source | None:
    paths = files.get(tuple(values[name] for name in pattern.fields), [])
    if len(paths) > 1:
        raise DatasetError(f"{paths[0]} and {paths[1].name} both fit '{pattern.text}': make the pattern narrower")
    return Source(paths[0]) if paths else None


def _nothing_matches(root: Path, key: str, pattern: Pattern) -> str:
    there: list[str] = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            there.append(str(path.relative_to(root)))
        if len(there) == SHOWN:
            break
    names = f"there are {', '.join(there)}" if there else "there are no files"
    return f"nothing below {root} fits '{pattern.text}' ({names}): adapt data.layout.{key}"
