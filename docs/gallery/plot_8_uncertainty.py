"""
How sure is the network?
========================

Probabilities of a test heart on the grid of its file, and their entropy: 0 where one class has it all, ln 5 = 1.6 where
all five are equal.
"""

from small_run import small_run

import segmed
from segmed.config import InferenceConfig
from segmed.reports import error_figure, volume_figure

RUN = small_run()
config, split = segmed.read_run_config(RUN), segmed.read_split(RUN)
dataset = segmed.read_dataset(config)
case = next(case for case in dataset.cases if case.id in split.test)
image, label = segmed.read_case(case, dataset)
segmenter = segmed.load_run(RUN, inference=InferenceConfig(largest_component=()))
probabilities = segmenter.probabilities(image)
prediction, doubt = probabilities.argmax(0, keepdim=True), segmed.entropy(probabilities)

# %%
# The result beside the reference.
figure = volume_figure(image, reference=label, prediction=prediction, title=f"{case.id}, prediction")

# %%
# Where it doubts, in nats: along borders, and where it is wrong.
figure = volume_figure(image, reference=label, overlay=doubt, title=f"{case.id}, uncertainty")

# %%
# Are the doubtful voxels the wrong ones? Left: the share of wrong voxels at each level of doubt. Right: which share of
# all errors is found by looking at the most doubtful voxels alone.
figure = error_figure(doubt.numpy()[0], prediction.numpy()[0], label.numpy()[0])
