"""The benchmark of the cascade measures what it says: six networks of the config's sizes, and all that follows them."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from benchmarks.cascade import NARROW, OURS, SLIM, SPACING_MM, _cascade, cascade_row
from benchmarks.synthetic import NAMED, heart, scan
from benchmarks.thresholds import thresholds_row
from benchmarks.timing import Setting

PLANES = ("axial", "coronal", "sagittal")
WIDE = (32, 64, 128, 256, 512)
TINY = {"network.encoder.channels": (2, 4), "cascade.fine.networks": {}, "patches.size": (16, 16)}


def volume(*shape: int) -> MetaTensor:
    affine = torch.diag(torch.tensor([*SPACING_MM, 1.0], dtype=torch.float64))
    return MetaTensor(torch.from_numpy(scan(heart(shape, 0), 0)[None].astype(np.float32)), affine=affine)


@pytest.mark.parametrize(
    ("changed", "narrow"),
    [({}, {"fine coronal", "fine sagittal"}), ({"network.encoder.channels": SLIM, "cascade.fine.networks": {}}, None)],
)
def test_six_networks_have_the_filters_of_the_config(changed, narrow):
    _, leds = _cascade(volume(96, 96, 80), changed)
    assert set(leds) == {f"{stage} {plane}" for stage in ("coarse", "fine") for plane in PLANES}
    for name, led in leds.items():
        assert led.network.network.encoder.channels == (SLIM if narrow is None or name in narrow else WIDE)
        assert led.network.plane_axis == {"sagittal": 0, "coronal": 1, "axial": 2}[name.split()[1]]
        assert led.network.inference.window == "slice"


def test_every_network_works_once_and_what_follows_finds_the_made_heart():
    shown = volume(64, 64, 32)
    cascade, leds = _cascade(shown, TINY)
    found = cascade(shown).numpy()[0]
    assert [len(led.seconds) for led in leds.values()] == [1] * 6
    names = dict(enumerate(cascade.labels.names, start=1))
    made = heart((64, 64, 32), 0)
    wall = np.isin(found, [index for index, name in names.items() if name in ("myocardium", "scar")])
    true = made == NAMED["myocardium"]
    assert 2 * (wall & true).sum() / (wall.sum() + true.sum()) > 0.8
    scar = np.argwhere(found == cascade.labels.index("scar"))
    assert len(scar) > 100
    assert scar[:, 0].min() > 0.6 * 64


def test_the_targets_are_those_of_the_issue(tmp_path):
    setting = Setting(quick=True, threads=1, rounds=1, scratch=tmp_path)
    row = cascade_row(setting)
    assert [(target.what, target.bound, target.limit) for target in row.targets] == [
        (OURS, "below", 60),
        (NARROW, "below", 60),
    ]
    assert all("coarse axial" in note and "fine sagittal" in note for note in row.notes)
    thresholds = thresholds_row(setting)
    assert {(target.what, target.limit) for target in thresholds.targets} == {
        ("Otsu", 1),
        ("FWHM", 1),
        ("STRM, 5 SD", 1),
    }
    assert "Otsu 100.0%" in thresholds.notes[0]
