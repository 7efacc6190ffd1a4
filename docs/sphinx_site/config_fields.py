"""JSON schema of an experiment -> a page with every field: its type, bounds, default and meaning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segmed.config.schema import KINDS, json_schema

INTRODUCTIONS = {
    "segmentation": "Of the YAMLs that `segmed train` takes.",
    "classification": "Of the YAMLs that `segmed train-cls` takes.",
    "comparison": "Of the YAMLs that `segmed compare` takes.",
}
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
PLAIN = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "none"}
LONGEST_DEFAULT = 60  # characters; of a section the defaults stand in its own table

Schema = Mapping[str, Any]


def write_config_pages(root: Path, folder: Path) -> None:
    """A page a kind of experiment, and one with all shipped configs.

    Args:
        root: of the repository.
        folder: of the pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (folder / f"config_{kind}.md").write_text(config_page(kind, json_schema(kind)), encoding="utf-8")
    lines = ["# Shipped configs", "", "`segmed configs` lists them; `--config NAME` takes one."]
    for path in sorted((root / "configs").glob("*/*.yaml")):
        text = path.read_text(encoding="utf-8").rstrip()
        lines += ["", f"## {path.stem}", "", f"`configs/{path.parent.name}/{path.name}`", "", "```yaml", text, "```"]
    (folder / "shipped.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def config_page(kind: str, schema: Schema) -> str:
    """The page of one kind of experiment, as Markdown.

    Args:
        kind: `segmentation`, `classification` or `comparison`.
        schema: its JSON schema.
    """
    definitions = schema.get("$defs", {})
    lines = [f"# Fields of a config of {kind}", ""]
    lines += [f"{INTRODUCTIONS[kind]} Made from the schema that checks them, when this site was built.", ""]
    lines += ["A field is named as in the YAML, one section inside another. On the command line the same field is "]
    lines += ["`--section.field VALUE`, with `-` for `_`. What is `auto` is resolved by the plan.", ""]
    lines += _table(kind, schema, definitions)
    for name, paths in _sections(schema).items():
        section = definitions[name]
        where = ", ".join(f"`{path}`" for path in paths)
        lines += ["", f"({_anchor(kind, name)})=", "", f"## {_title(section, paths)}", ""]
        lines += [_sentence(section.get("description", "")), "", f"Stands in: {where}.", ""]
        lines += _table(kind, section, definitions)
    return "\n".join([*lines, ""])


def _sections(schema: Schema) -> dict[str, list[str]]:
    """Sections in the order of their first use -> the paths at which they stand."""
    definitions = schema.get("$defs", {})
    places: dict[str, list[str]] = {}
    queue = [("", schema)]
    while queue:
        above, section = queue.pop(0)
        for field, what in section.get("properties", {}).items():
            path = f"{above}{field}"
            for name in _references(what):
                known = name in places
                places.setdefault(name, []).append(path)
                if not known:
                    queue.append((f"{path}.", definitions[name]))
    return places


def _references(what: Any) -> Iterator[str]:
    if isinstance(what, dict):
        if "$ref" in what:
            yield what["$ref"].rsplit("/", 1)[1]
        for key, inner in what.items():
            if key not in ("default", "discriminator"):
                yield from _references(inner)
    elif isinstance(what, list):
        for inner in what:
            yield from _references(inner)


def _title(section: Schema, paths: list[str]) -> str:
    """Where it stands first, with the name that chooses it where there are several."""
    name = section.get("properties", {}).get("name", {})
    return f"{paths[0]}: {name['const']}" if "const" in name else paths[0]


def _table(kind: str, section: Schema, definitions: Schema) -> list[str]:
    fields = section.get("properties", {})
    if not fields:
        return ["No fields.", ""]
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, what in fields.items():
        required = name in section.get("required", ())
        default = "(required)" if required else _default(what)
        meant = what.get("description") or _of_section(what, definitions)
        cells = [f"`{name}`", _type(kind, what), default, _sentence(meant)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return lines


def _of_section(what: Schema, definitions: Schema) -> str:
    """What a section says of itself, where the field that holds it says nothing."""
    text: str = definitions[what["$ref"].rsplit("/", 1)[1]].get("description", "") if "$ref" in what else ""
    return text.split("\n\n")[0]


def _default(what: Schema) -> str:
    if "default" not in what:
        return ""
    if what["default"] is None:
        return "none"
    text = json.dumps(what["default"], ensure_ascii=False)
    if isinstance(what["default"], str):
        text = what["default"]
    return f"`{text}`" if text and len(text) <= LONGEST_DEFAULT and "{" not in text else "" if not text else "see there"


def _type(kind: str, what: Schema) -> str:
    if "$ref" in what:
        name = what["$ref"].rsplit("/", 1)[1]
        return f"[section](#{_anchor(kind, name)})"
    if "enum" in what or "const" in what:
        return ", ".join(f"`{word}`" for word in what.get("enum", [what.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in what:
            return " or ".join(dict.fromkeys(_member(kind, inner, what) for inner in what[union]))
    if what.get("type") == "array":
        return _list(kind, what)
    if what.get("type") == "object":
        inner = what.get("additionalProperties")
        return f"mapping of names to {_type(kind, inner)}" if isinstance(inner, dict) else "mapping"
    bounds = [text.format(f"{what[key]:g}") for key, text in BOUNDS.items() if key in what]
    word = "path" if what.get("format") == "path" else PLAIN.get(what.get("type", ""), "any")
    return " ".join([word, " and ".join(bounds)]).strip()


def _member(kind: str, inner: Schema, union: Schema) -> str:
    """A member of a union; a section that is chosen by name is called by it."""
    reference = inner.get("$ref")
    for name, target in union.get("discriminator", {}).get("mapping", {}).items():
        if target == reference:
            return f"[{name}](#{_anchor(kind, reference.rsplit('/', 1)[1])})"
    return _type(kind, inner)


def _list(kind: str, what: Schema) -> str:
    if "prefixItems" in what:
        members = [_type(kind, inner) for inner in what["prefixItems"]]
        return f"{len(members)} × {members[0]}" if len(set(members)) == 1 else "list of " + ", ".join(members)
    least, most = what.get("minItems"), what.get("maxItems")
    number = f"{least} to {most} of " if least and most else f"{least} or more of " if least else "list of "
    return number + _type(kind, what.get("items", {}))


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{name.lower()}"


def _sentence(text: str) -> str:
    """A description, safe inside a table of Markdown."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    pieces[::2] = [re.sub(r"([\\[\]*<>_^])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces)
