"""Classify new images or volumes: python tools/classify.py --run RUN --input FILE_OR_FOLDER --output FILE.csv"""

from segmed.commands.classify import main
from segmed.commands.command_line import run_tool

if __name__ == "__main__":
    run_tool(main)
