"""The contrast phantom: enhancement is there to be seen, and nothing simpler tells the class."""

import csv

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from segmed.classes.contrast_phantom import make_contrast_phantom
from segmed.classes.dataset import read_classes
from segmed.classes.picture import grey, read_picture
from segmed.config.images import ClassDataConfig, ContrastPhantomLayout
from segmed.data.phantoms import PhantomError

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


def test_bright_spots_inside_the_brain_tell_the_class(dataset, images):
    brain = images[:, 24:72, 28:68]
    relative = brain / np.median(brain, axis=(1, 2), keepdims=True)
    assert auc(dataset, np.quantile(relative, [0.9, 0.99, 0.999, 1.0], axis=(1, 2)).T) > 0.8


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
    with pytest.raises(PhantomError, match="phantom of other settings"):
        make_contrast_phantom(tmp_path / "a", subjects=3, slices=1, size=32, seed=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("")
    with pytest.raises(PhantomError, match=r"holds other files \(thesis.tex\)"):
        make_contrast_phantom(tmp_path / "b", subjects=3, slices=1, size=32, seed=0)
    (tmp_path / "c").write_text("")
    with pytest.raises(PhantomError, match="is a file"):
        make_contrast_phantom(tmp_path / "c", subjects=3, slices=1, size=32, seed=0)
