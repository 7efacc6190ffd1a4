"""Train a segmentation experiment from files to test figures."""

from segmed.commands.command_line import run_tool
from segmed.commands.train_seg import main

if __name__ == "__main__":
    run_tool(main)
