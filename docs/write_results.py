"""Write the tables of the results pages from the CSV files in docs/results/data/: python docs/write_results.py"""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DATA = DOCS / "results" / "data"
PAGES = (DOCS / "speed.md", *sorted((DOCS / "results").glob("*.md")))
TABLE = re.compile(r"<!-- table ([\w.-]+\.csv) -->\n.*?<!-- end -->", flags=re.S)
MEMBERS = ("", " SD", " low", " high", " SD of runs", " mark")  # of a figure, each a column behind its name
ON_SPEED = ("speed.csv", "growth.csv")  # files that docs/speed.md shows, above their folder
ALONE = ("method", "case")  # columns of a table of cases that are no figures

Row = dict[str, str]


def main() -> None:
    """Write every table of every page anew; what stands between the marks is replaced."""
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


def written(text: str) -> str:
    """A page with its tables as the CSV files give them.

    Args:
        text: with marks `<!-- table NAME.csv -->` and `<!-- end -->`.
    """
    return TABLE.sub(lambda mark: f"<!-- table {mark[1]} -->\n{table(mark[1])}\n<!-- end -->", text)


def table(name: str) -> str:
    """The table of a CSV file as Markdown, with a line that says where its figures come from.

    Args:
        name: of the file in docs/results/data/.
    """
    rows = read(DATA / name)
    source = next(row for row in read(DATA / "sources.csv") if row["file"] == name)
    lines = case_means(rows) if source["kind"] == "per case" else printed_rows(rows)
    said = {
        "per case": f"mean ± SD of the rows of cases in [{name}](data/{name}), made on {source['date']}",
        "as printed": f"as printed on {source['date']} ([{name}](data/{name})); the rows of cases were not kept",
        "measured": f"as measured on {source['date']} ([{name}](data/{name}))",
    }[source["kind"]]
    folder = "results/" if name in ON_SPEED else ""
    return "\n".join([*lines, "", f"*{said.replace('](data/', f']({folder}data/')}.*"])


def read(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def printed_rows(rows: Sequence[Row]) -> list[str]:
    """A table of figures that are known as they were printed; the parts of a figure stand in columns of their own."""
    titles = [
        name
        for name in rows[0]
        if not any(name.endswith(end) and _is_member(name, end, rows[0]) for end in MEMBERS[1:])
    ]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return [*lines, *("| " + " | ".join(_cell(row, name) for name in titles) + " |" for row in rows)]


def _is_member(name: str, end: str, row: Row) -> bool:
    return name[: -len(end)] in row


def _cell(row: Row, name: str) -> str:
    """`value ± SD [low, high] (SD of runs)` and a mark, of which all but the value may be missing."""
    sd, low, high, of_runs, mark = (row.get(name + end, "") for end in MEMBERS[1:])
    spread = f" ± {sd}" if sd else ""
    interval = f" [{low}, {high}]" if low else ""
    return row[name] + spread + interval + (f" ({of_runs})" if of_runs else "") + mark


def case_means(rows: Sequence[Row]) -> list[str]:
    """A row a method: mean ± SD of every figure over its cases, and the number of cases."""
    figures = [name for name in rows[0] if name not in ALONE]
    lines = ["| method | cases | " + " | ".join(figures) + " |", "|" + "---|" * (len(figures) + 2)]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = [_mean([float(row[name]) for row in own], 3 if name == "Dice" else 1) for name in figures]
        lines.append("| " + " | ".join([method, str(len(own)), *cells]) + " |")
    return lines


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
