"""Case after case measured and written: what is wrong with one costs the others nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from segmed.errors import DiskError
from segmed.files import printable


class Named(Protocol):
    """A case to measure."""

    @property
    def name(self) -> str: ...


Work = TypeVar("Work", bound=Named)


class CaseReports(Protocol):
    """What writes the reports of one kind, as the modules `reports.scar.files` and `reports.cine.files` do."""

    def case_line(self, case: Any, /) -> str: ...
    def summary_row(self, case: Any, /) -> dict[str, Any]: ...
    def write_case(self, case: Any, folder: Path, /) -> None: ...
    def write_error(self, name: str, error: str, folder: Path, about: Mapping[str, Any], /) -> None: ...
    def write_summary(self, rows: Sequence[Mapping[str, Any]], folder: Path, /) -> None: ...


def measure_cases(
    cases: Sequence[Work],
    measure: Callable[[Work], Any],
    *,
    reports: CaseReports,
    output: Path,
    about: Mapping[str, Any],
    many: bool,
) -> int:
    """Measure and write all; the only case raises what is wrong with it.

    Args:
        cases: to measure.
        measure: a case -> what `reports` writes.
        reports: of their kind.
        output: folder; of many cases each has one of its own in it.
        about: what a report of an error says too.
        many: whether they come from a folder.

    Returns:
        Exit code: 0 all are measured, 1 some, 2 none.

    Raises:
        DiskError: the disk is full or a folder can't be written.
    """
    rows, failed = list[dict[str, Any]](), dict[str, str]()
    for case in cases:
        folder = output / case.name if many else output
        try:
            result = measure(case)
            reports.write_case(result, folder)
            rows.append(reports.summary_row(result))
            print(printable(f"{case.name}: {reports.case_line(result)}"), flush=True)
        except DiskError:
            raise
        except Exception as error:
            if not many:
                raise
            text = " ".join(str(error).split()) or type(error).__name__
            failed[case.name] = text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"
            rows.append({"case": case.name, "error": failed[case.name]})
            reports.write_error(case.name, failed[case.name], folder, about)
    nothing = f"none of {len(cases)} cases can be measured"
    if len(failed) == len(cases):
        reports.write_error(output.name, nothing, output, about)
    if many:
        reports.write_summary(rows, output)
    if failed:
        lines = [f"{len(failed)} of {len(cases)} cases can't be measured:"]
        print("\n".join([*lines, *(printable(f"  {name}: {text}") for name, text in failed.items())]), file=sys.stderr)
    if len(failed) == len(cases):
        print(f"error: {nothing}", file=sys.stderr)
        return 2
    print(f"written: {output}")
    return 1 if failed else 0
