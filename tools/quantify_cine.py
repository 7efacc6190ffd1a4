"""Function of the heart in numbers: python tools/quantify_cine.py --image FILE --run RUN --output FOLDER"""

from segmed.commands.command_line import run_tool
from segmed.commands.quantify_cine import main

if __name__ == "__main__":
    run_tool(main)
