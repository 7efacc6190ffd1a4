"""Scar in numbers: python tools/quantify_scar.py --image FILE --labels FILE --wall 1,4 --scar 4 --output FOLDER"""

from segmed.commands.command_line import run_tool
from segmed.commands.quantify_scar import main

if __name__ == "__main__":
    run_tool(main)
