"""Label maps of new volumes, by trained runs: python tools/predict.py --run RUN --input FOLDER --output FOLDER"""

from segmed.commands.command_line import run_tool
from segmed.commands.predict import main

if __name__ == "__main__":
    run_tool(main)
