"""Methods on the same test cases: segmed compare --config FILE, or --methods supervised=RUN,RUN patch=RUN"""

from __future__ import annotations

from segmed.commands.command_line import parse
from segmed.commands.compare_options import Arguments
from segmed.commands.compare_results import compare_results
from segmed.commands.compare_rows import compare_rows, train_and_compare
from segmed.errors import ConfigError


def main() -> int:
    """Print the tables."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.config is not None and (arguments.on != "here" or arguments.plan_only):
        return train_and_compare(arguments, arguments.config)
    if arguments.on != "here" or arguments.plan_only or arguments.submit:
        raise ConfigError("--on, --submit and --plan-only are of rows that have commands: give --config, and --on")
    if arguments.config is not None:
        compare_rows(arguments, arguments.config)
    else:
        compare_results(arguments)
    return 0
