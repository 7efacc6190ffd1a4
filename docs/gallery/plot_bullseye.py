"""
A bullseye
==========

Mean over the 17 segments of the AHA.
"""

# %%
# What it is.
import matplotlib.figure

figure = matplotlib.figure.Figure()
