"""The model card of a model file: python tools/model_card.py FILE"""

from segmed.commands.command_line import run_tool
from segmed.commands.model_card import main

if __name__ == "__main__":
    run_tool(main)
