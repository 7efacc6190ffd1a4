"""Say how far a run can be trusted, case by case: python tools/calibrate.py --run RUN --data FOLDER"""

from segmed.commands.calibrate import main
from segmed.commands.command_line import run_tool

if __name__ == "__main__":
    run_tool(main)
