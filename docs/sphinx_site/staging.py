"""docs/ and what is generated -> a folder of sources for Sphinx; links out of docs/ get a page to lead to."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from sphinx_site.command_pages import write_command_pages
from sphinx_site.config_fields import write_config_pages
from sphinx_site.notebook_pages import write_notebook_pages
from sphinx_site.public_page import write_public_page

PARTS = ("start", "how_to", "concepts", "reference", "results")
PAGES_OF_THE_ROOT = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
GENERATED = {  # what a page of the repository links to -> the page of the site that is made from it
    "docs/README.md": "index.md",
    "docs/gallery/GALLERY_HEADER.rst": "gallery/index.rst",
    "configs/schema/segmentation.json": "reference/config_segmentation.md",
    "configs/schema/classification.json": "reference/config_classification.md",
    "configs/schema/comparison.json": "reference/config_comparison.md",
    "segmed/commands/program.py": "reference/commands/index.md",
    "segmed/__init__.py": "reference/python.rst",
    "notebooks": "notebooks/index.md",
}
OTHERS = "OTHER_PAGES"  # stands in the how-to part's list for pages that no list names
LANGUAGES = {".yaml": "yaml", ".cff": "yaml", ".py": "python", ".toml": "toml", ".csv": "text"}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", flags=re.M | re.S)


def stage(docs: Path, output: Path, *, fast: bool) -> None:
    """Write all sources of the site.

    Args:
        docs: the folder of the pages.
        output: made anew.
        fast: notebooks are shown without running them.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    shutil.copytree(docs / "images", output / "images")
    for page in sorted([*docs.glob("*.md"), *(page for part in PARTS for page in (docs / part).rglob("*.md"))]):
        if page != docs / "README.md":
            _write(output / page.relative_to(docs), page, docs, output)
    for name, staged in PAGES_OF_THE_ROOT.items():
        _write(output / staged, docs.parent / name, docs, output)
    _name_other_pages(output)
    write_config_pages(docs.parent, output / "reference")
    write_command_pages(docs.parent, output / "reference" / "commands")
    write_public_page(output / "reference")
    write_notebook_pages(docs.parent / "notebooks", output / "notebooks", run=not fast)


def _write(target: Path, page: Path, docs: Path, output: Path) -> None:
    text = page.read_text(encoding="utf-8")
    pieces = CODE.split(text)

    def led(match: re.Match[str]) -> str:
        return match[1] + _link(match[2], page, target, docs, output) + match[3]

    pieces[::2] = [LINK.sub(led, piece) for piece in pieces[::2]]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(pieces), encoding="utf-8")


def _link(link: str, page: Path, target: Path, docs: Path, output: Path) -> str:
    """A link of a page in the repository, as a link of the staged page."""
    if re.match(r"[a-z]+:|#", link):
        return link
    file, mark, anchor = link.partition("#")
    wanted = (page.parent / file).resolve()
    inside = wanted.relative_to(docs.parent)
    if str(inside) in PAGES_OF_THE_ROOT | GENERATED:
        staged = output / (PAGES_OF_THE_ROOT | GENERATED)[str(inside)]
    elif wanted.parent == docs / "gallery":
        staged = output / "gallery" / f"{wanted.stem}.rst"
    elif wanted.suffix == ".ipynb":
        staged = output / "notebooks" / f"{wanted.stem}.md"
    elif wanted.is_relative_to(docs) and wanted.suffix in (".md", ".png"):
        staged = output / wanted.relative_to(docs)
    elif wanted.is_file():
        staged = _page_of_file(wanted, inside, output)
    else:
        staged = output / "contributing.md"  # a folder of the code: its rooms are described there
    return os.path.relpath(staged, target.parent) + mark + anchor


def _page_of_file(file: Path, inside: Path, output: Path) -> Path:
    """A page that shows a text file of the repository."""
    page = output / "files" / ("_".join(inside.with_suffix("").parts) + ".md")
    page.parent.mkdir(exist_ok=True)
    language = LANGUAGES.get(file.suffix, "docker" if file.name == "Dockerfile" else "text")
    text = file.read_text(encoding="utf-8").rstrip()
    page.write_text(f"---\norphan: true\n---\n# {inside}\n\n````{language}\n{text}\n````\n", encoding="utf-8")
    return page


def _name_other_pages(output: Path) -> None:
    """Put pages of the top folder that no list names into the how-to part's."""
    lists = "\n".join(path.read_text(encoding="utf-8") for path in output.rglob("index.md"))
    named = set(re.findall(r"^(?:.*<)?/([\w-]+)>?$", lists, flags=re.M)) | {"index"}
    others = sorted(page.stem for page in output.glob("*.md") if page.stem not in named)
    place = output / "how_to" / "index.md"
    text = place.read_text(encoding="utf-8")
    place.write_text(text.replace(OTHERS, "\n".join(f"/{name}" for name in others)), encoding="utf-8")
