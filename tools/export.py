"""A model file to hand over: python tools/export.py --run RUN --output NAME.segmed"""

from segmed.commands.command_line import run_tool
from segmed.commands.export import main

if __name__ == "__main__":
    run_tool(main)
