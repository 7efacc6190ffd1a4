"""Make a synthetic data set with known truth: python tools/make_phantom.py data/phantom"""

from segmed.commands.command_line import run_tool
from segmed.commands.make_phantom import main

if __name__ == "__main__":
    run_tool(main)
