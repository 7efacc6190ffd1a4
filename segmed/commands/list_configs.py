"""The experiments that are shipped, each with its first line: segmed configs"""

from __future__ import annotations

from segmed.commands.command_line import parse
from segmed.config import Section
from segmed.config.shipped import first_comment, shipped_configs


class Arguments(Section):
    """List the experiments that come with segmed; `--config NAME` takes one of them.

    `seg` are for `segmed train`, `cls` for `segmed train-cls`, `compare` for `segmed compare`.
    """


def main() -> int:
    """Exit code 0."""
    parse(Arguments, description=Arguments.__doc__)
    shipped = shipped_configs()
    width = max(map(len, shipped), default=0) + 2
    folder = ""
    for name, path in shipped.items():
        if path.parent.name != folder:
            folder = path.parent.name
            print(f"{folder}:")
        print(f"  {name:{width}}{first_comment(path)}")
    return 0
