"""Open every file of a data set and say what must be mended: python tools/audit_data.py FOLDER --output FOLDER"""

from segmed.commands.audit_data import main
from segmed.commands.command_line import run_tool

if __name__ == "__main__":
    run_tool(main)
