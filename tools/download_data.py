"""Download a public data set: python tools/download_data.py hippocampus"""

from segmed.commands.command_line import run_tool
from segmed.commands.download_data import main

if __name__ == "__main__":
    run_tool(main)
