"""Score label maps: python tools/evaluate.py --predictions FOLDER --references FOLDER --labels ... --output FOLDER"""

from segmed.commands.command_line import run_tool
from segmed.commands.evaluate import main

if __name__ == "__main__":
    run_tool(main)
