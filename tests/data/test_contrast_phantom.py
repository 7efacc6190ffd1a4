"""The contrast phantom: enhancement is there to be seen, and nothing simpler tells the class."""

import csv

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from segmed.config.images import ClassDataConfig, ContrastPhantomLayout
from segmed.data.images import contrast_phantom as phantom
from segmed.data.images.contrast_phantom import make_contrast_phantom
from segmed.data.images.image_dataset import read_classes
from segmed.data.images.picture import grey, read_picture
from segmed.errors import DatasetError

SUBJECTS = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    layout = ContrastPhantomLayout(subjects=SUBJECTS, slices=2, size=96)
    return read_classes(ClassDataConfig(root=tmp_path_factory.mktemp("contrast"), layout=layout))


@pytest.fixture(scope="module")
def images(dataset):
    return np.stack([grey(read_picture(item.path)) for item in dataset.items])


def auc(dataset, features) -> float:
    labels, subjects = [item.label for item in dataset.items], [item.subject for item in dataset.items]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=10))
    probabilities = cross_val_predict(
        model, features, labels, groups=subjects, cv=GroupKFold(5), method="predict_proba"
    )
    return float(roc_auc_score(labels, probabilities[:, 1]))


def test_each_subject_is_scanned_before_and_after(dataset):
    assert dataset.classes == ("non_contrast", "post_contrast")
    assert dataset.counts() == {"non_contrast": 2 * SUBJECTS, "post_contrast": 2 * SUBJECTS}
    scans = {(item.subject, item.label, item.slice) for item in dataset.items}
    assert scans == {(f"sub_{s:03d}", label, z) for s in range(SUBJECTS) for label in (0, 1) for z in (0, 1)}


def test_the_mean_intensity_stays_near_chance(dataset, images):
    assert abs(auc(dataset, images.mean((1, 2))[:, None]) - 0.5) < 0.1


def test_quantiles_and_the_size_of_the_file_stay_near_chance(dataset, images):
    assert auc(dataset, np.quantile(images, [0.25, 0.5, 0.9, 0.99], axis=(1, 2)).T) < 0.7
    assert auc(dataset, np.array([[item.path.stat().st_size] for item in dataset.items])) < 0.65


def test_bright_spots_alone_do_not_tell_the_class(dataset, images):
    brain = images[:, 24:72, 28:68]
    relative = brain / np.median(brain, axis=(1, 2), keepdims=True)
    assert auc(dataset, np.quantile(relative, [0.9, 0.99, 0.999, 1.0], axis=(1, 2)).T) < 0.8


@pytest.fixture
def brain():
    """A subject with a lesion in its first slice."""
    drawn = (phantom._draw_brain(np.random.default_rng([0, subject]), 3, 96) for subject in range(20))
    return next(brain for brain in drawn if brain.lesion is not None and brain.lesion[3] < 0.5)


def agents(brain, *, enhanced):
    return [phantom._draw_agent(brain, np.random.default_rng(seed), enhanced=enhanced) for seed in range(300)]


def test_agent_brightens_vessels_dura_and_rim_and_nothing_else(brain):
    y, x = np.meshgrid(*[np.linspace(-1, 1, 96)] * 2, indexing="ij")
    blood = np.ones((3, len(brain.vessels)))
    before = phantom._signal(brain, 0, x, y, phantom.Agent(0, phantom.FLOW_VOID * blood))
    half = phantom._signal(brain, 0, x, y, phantom.Agent(0.5, 0.6 * blood))
    after = phantom._signal(brain, 0, x, y, phantom.Agent(1, phantom.ENHANCED * blood))
    changed = after - before > 1e-6
    assert 0.005 < changed.mean() < 0.15
    np.testing.assert_allclose(after[~changed], before[~changed], atol=1e-6)
    assert (half[changed] > before[changed]).all()
    assert (half[changed] < after[changed]).all()
    u, v, radius, level = brain.lesion
    away = np.hypot(x - u, y - v) - np.sqrt(radius**2 - (0.06 * level) ** 2)
    assert changed[(away < -0.01) & (away > -0.02)].all()
    assert not changed[away < -0.06].any()


def test_scans_with_little_agent_are_like_scans_without(brain):
    plain, given = agents(brain, enhanced=False), agents(brain, enhanced=True)
    assert {agent.uptake for agent in plain} == {0.0}
    uptakes = [agent.uptake for agent in given]
    assert phantom.LEAST_UPTAKE <= min(uptakes) < 0.1
    assert max(uptakes) > 0.95
    brightest = max(agent.blood.mean() for agent in plain)
    assert 0.05 < np.mean([agent.blood.mean() < brightest for agent in given]) < 0.3


def test_blood_is_bright_where_it_flows_in_and_dark_where_it_is_fast(brain):
    by_slice = np.mean([agent.blood.mean(axis=1) for agent in agents(brain, enhanced=False)], axis=0)
    assert by_slice[0] > by_slice[1] > by_slice[2] > phantom.FLOW_VOID
    dark = np.mean([(agent.blood == phantom.FLOW_VOID).all(axis=0).mean() for agent in agents(brain, enhanced=True)])
    assert abs(dark - phantom.FAST) < 0.03


def test_uptake_is_in_the_table(dataset):
    rows = list(csv.DictReader((dataset.root / "manifest.csv").read_text().splitlines()))
    assert all((float(row["uptake"]) == 0) == (row["label"] == "non_contrast") for row in rows)
    assert len({row["uptake"] for row in rows}) > SUBJECTS / 2


def test_lesions_are_in_the_table(dataset):
    rows = list(csv.DictReader((dataset.root / "manifest.csv").read_text().splitlines()))
    lesions = {row["subject"]: row["lesion"] for row in rows}
    assert 0.4 < np.mean([value == "yes" for value in lesions.values()]) < 0.9


def test_a_subject_depends_on_its_number_and_the_seed_alone(tmp_path):
    for folder, subjects, seed in (("few", 3, 1), ("more", 4, 1), ("other", 3, 2)):
        make_contrast_phantom(tmp_path / folder, subjects=subjects, slices=1, size=32, seed=seed)
    name = "post_contrast/sub_002_0.png"
    few, more, other = ((tmp_path / folder / name).read_bytes() for folder in ("few", "more", "other"))
    assert few == more
    assert few != other


def test_a_complete_phantom_is_left_and_a_broken_one_is_finished(tmp_path):
    make_contrast_phantom(tmp_path, subjects=3, slices=1, size=32, seed=0)
    image = tmp_path / "non_contrast" / "sub_001_0.png"
    before = image.read_bytes()
    image.write_bytes(b"touched")
    make_contrast_phantom(tmp_path, subjects=3, slices=1, size=32, seed=0)
    assert image.read_bytes() == b"touched"
    (tmp_path / "phantom.json").unlink()
    make_contrast_phantom(tmp_path, subjects=3, slices=1, size=32, seed=0)
    assert image.read_bytes() == before


def test_other_folders_are_not_touched(tmp_path):
    make_contrast_phantom(tmp_path / "a", subjects=3, slices=1, size=32, seed=0)
    with pytest.raises(DatasetError, match="phantom of other settings"):
        make_contrast_phantom(tmp_path / "a", subjects=3, slices=1, size=32, seed=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("")
    with pytest.raises(DatasetError, match=r"holds other files \(thesis.tex\)"):
        make_contrast_phantom(tmp_path / "b", subjects=3, slices=1, size=32, seed=0)
    (tmp_path / "c").write_text("")
    with pytest.raises(DatasetError, match="is a file"):
        make_contrast_phantom(tmp_path / "c", subjects=3, slices=1, size=32, seed=0)
