"""List, check and prune a cache: python tools/cache.py runs/cache --prune --keep-gb 20"""

from segmed.commands.cache import main
from segmed.commands.command_line import run_tool

if __name__ == "__main__":
    run_tool(main)
