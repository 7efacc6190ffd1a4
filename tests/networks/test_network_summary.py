"""What a network costs: counted by hand, and against what a step really takes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from small_networks import CHANNELS, PEERS, every_encoder, make_net, make_peer

from segmed.errors import NetworkError
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.models import SegmentationNet
from segmed.networks.summary import summarise


@every_encoder
def test_checkpointing_keeps_less_for_backward(encoder_type):
    plain, saving = (make_net(encoder_type, checkpointing=flag) for flag in (False, True))
    full, less = (summarise(net, (32, 32, 32)) for net in (plain, saving))
    assert less.activation_bytes < 0.4 * full.activation_bytes
    assert less.peak_bytes < full.peak_bytes


def test_a_summary_counts_what_can_be_counted_by_hand():
    net = SegmentationNet(PlainEncoder(1, (4, 8), ((1, 1), (2, 2)), dims=2, blocks=1), 3, decoder_blocks=1)
    summary = summarise(net, (16, 16), batch=2)
    encoder = 9 * 4 + 8 + 9 * 4 * 8 + 16  # convolutions, and scale and shift of their normalisation
    decoder = (4 * 8 * 4 + 4) + (9 * 8 * 4 + 8)
    assert summary.parameters == encoder + decoder + (4 * 3 + 3)
    fine, coarse = 2 * 16 * 16, 2 * 8 * 8
    assert summary.multiply_adds == fine * (9 * 4 + 9 * 8 * 4 + 4 * 3) + coarse * (9 * 4 * 8 + 8 * 4 * 4)
    # image, then for each convolution its result and the activation; the joined map; the log-probabilities
    maps = fine * (1 + 4 + 4 + 8 + 4 + 4 + 3) + coarse * (8 + 8)
    assert summary.activation_bytes == pytest.approx(4 * maps, rel=0.02)
    assert summary.peak_bytes > summary.activation_bytes
    assert summary.outputs == ((2, 3, 16, 16),)


@pytest.mark.parametrize("name", ["plain", *PEERS])
def test_a_summary_needs_no_memory_and_leaves_the_network_alone(name):
    net = make_net() if name == "plain" else make_peer(name, 3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    one, two = summarise(net, (64, 64, 64)), summarise(net, (64, 64, 64), batch=2)
    assert two.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=0.02)
    assert two.multiply_adds == 2 * one.multiply_adds
    huge = summarise(net, (1024, 1024, 1024))
    assert huge.activation_bytes > 100 * 2**30
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training


def test_a_summary_of_a_forward_pass_keeps_nothing():
    net = make_net()
    forward, step = (summarise(net, (32, 32, 32), training=flag) for flag in (False, True))
    assert forward.activation_bytes == 0
    assert forward.peak_bytes < 0.5 * step.peak_bytes
    assert forward.multiply_adds == step.multiply_adds


def test_a_summary_is_the_same_for_a_network_on_the_meta_device():
    with torch.device("meta"):
        ghost = make_net()
    assert summarise(ghost, (32, 32, 32)) == summarise(make_net(), (32, 32, 32))


@every_encoder
def test_an_encoder_alone_has_a_summary_too(encoder_type):
    encoder = make_net(encoder_type).encoder
    summary = summarise(encoder, (16, 16, 16))
    assert summary.outputs == ((1, 4, 16, 16, 16), (1, 6, 8, 8, 8), (1, 8, 4, 4, 4))
    assert summary.channels == CHANNELS
    assert summary.parameters == sum(p.numel() for p in encoder.parameters())


def test_a_summary_reads_well():
    summary = summarise(make_net(), (32, 32, 32))
    lines = str(summary).splitlines()
    assert 5 <= len(lines) <= 10
    assert lines[0].endswith("SegmentationNet (PlainEncoder)")
    assert "4 6 8" in lines[2]
    assert "\n" not in summary.one_line


def test_a_summary_refuses_a_size_that_does_not_fit():
    with pytest.raises(NetworkError, match="multiples"):
        summarise(make_net(), (30, 32, 32))


STEP = """
import json, sys
import torch
from segmed.networks.encoders.dense import DenseEncoder
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.models import SegmentationNet
from segmed.networks.summary import summarise
torch.set_num_threads(1)
kind = {"plain": PlainEncoder, "dense": DenseEncoder}[sys.argv[1]]
net = SegmentationNet(kind(1, (16, 24, 32), ((1, 1, 1), (2, 2, 2), (2, 2, 2)), dims=3), 3)
def step(size):
    loss = sum(level.log_softmax(1).mean() for level in net.all_logits(torch.randn(2, 1, *size)))
    loss.backward()
def peak():  # not getrusage: a process inherits that maximum from the one that started it
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
step((16, 16, 16))
before = peak()
step((48, 48, 48))
print(json.dumps([peak() - before, summarise(net, (48, 48, 48), batch=2).peak_bytes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("encoder", ["plain", "dense"])
def test_the_peak_of_a_summary_is_near_what_a_step_really_takes(encoder):
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed leaves the process at once
    command = [sys.executable, "-c", STEP, encoder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    real, estimate = json.loads(done.stdout)
    assert 0.9 < real / estimate < 1.1
