"""List the runs below a folder: state, budget, score, age, size."""

from segmed.commands.command_line import run_tool
from segmed.commands.list_runs import main

if __name__ == "__main__":
    run_tool(main)
