"""Methods on the same test cases: python tools/compare.py --config FILE, or --methods supervised=RUN,RUN patch=RUN"""

from segmed.commands.command_line import run_tool
from segmed.commands.compare import main

if __name__ == "__main__":
    run_tool(main)
