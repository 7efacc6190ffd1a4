"""Search over fields of an experiment: python tools/search.py --config CONFIG --space SPACE --trials N"""

from segmed.commands.command_line import run_tool
from segmed.commands.search import main

if __name__ == "__main__":
    run_tool(main)
