"""What names say of files: numbers and folders tell cases apart, words such as `_gt` and `_pred` don't."""

import unicodedata

import pytest

from segmed.config import DataConfig, NnunetLayout, PatternLayout
from segmed.data.pairs import pair, pair_images
from segmed.data.references import find_references
from segmed.errors import DatasetError


def files(folder, *names):
    """Empty files: names are all that is looked at."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return sorted(path for path in folder.rglob("*") if path.is_file())


def paired(tmp_path, predictions, references, *, data=None):
    """Reference file -> prediction file, both below their folders; then names of what is left on both sides."""
    files(tmp_path / "ref", *references)
    references, _ = find_references(tmp_path / "ref", data=data)
    pairing = pair(files(tmp_path / "pred", *predictions), references, folder=tmp_path / "pred")
    labels = {reference.id: reference.label.path.relative_to(tmp_path / "ref").as_posix() for reference in references}
    together = {labels[case]: p.relative_to(tmp_path / "pred").as_posix() for case, p in pairing.predictions.items()}
    return together, sorted(labels[case] for case in pairing.missing), sorted(path.name for path in pairing.unused)


def nii(*stems):
    return [f"{stem}.nii.gz" for stem in stems]


def test_numbers_of_four_digits_are_identity_and_more_predictions_than_references_work(tmp_path):
    together, missing, unused = paired(
        tmp_path, nii("case_0001", "case_0002", "case_0003"), nii("case_0001", "case_0002", "case_0009")
    )
    assert together == {"case_0001.nii.gz": "case_0001.nii.gz", "case_0002.nii.gz": "case_0002.nii.gz"}
    assert (missing, unused) == (["case_0009.nii.gz"], ["case_0003.nii.gz"])


def test_words_at_the_end_don_t_matter_beside_numbers(tmp_path):
    together, missing, unused = paired(
        tmp_path, nii("case_0001_pred", "case_0002_pred", "case_0003_pred"), nii("case_0001_gt", "case_0002_gt")
    )
    assert together == {f"case_000{n}_gt.nii.gz": f"case_000{n}_pred.nii.gz" for n in (1, 2)}
    assert (missing, unused) == ([], ["case_0003_pred.nii.gz"])


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("patient_0004", "patient_0001"),  # one file on each side: nothing else would fit better
        ("p1/visit2/seg", "p1/visit1/seg"),
        ("p2/seg", "p1/seg"),
        ("p2/mask", "p1/label"),
        ("visit2/p1", "visit1/p1"),
        ("p1/followup", "p1/baseline"),
        ("p1_ses-2_pred", "p1_ses-1_gt"),
        ("case_1", "case_10"),
        ("p1_v2", "p1"),
    ],
)
def test_what_contradicts_itself_is_never_one_case(tmp_path, prediction, reference):
    together, missing, unused = paired(tmp_path, nii(prediction), nii(reference))
    assert together == {}
    assert len(missing) == len(unused) == 1


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("p1/visit1/seg", "p1/visit1/gt"),
        ("p1/visit1/seg", "p1/visit1"),
        ("label0007", "img0007"),
        ("predictions/p1", "labelsTr/p1"),
        ("run_a/p1", "centre/p1"),  # folders that all files of a side lie in
        ("case_3_0000", "case_3"),  # nnU-Net calls images so
    ],
)
def test_names_that_agree_are_one_case(tmp_path, prediction, reference):
    together, *_ = paired(tmp_path, nii(prediction), nii(reference))
    assert len(together) == 1


def test_the_layout_of_a_run_says_how_its_predictions_are_called(tmp_path):
    layout = PatternLayout(images={"T1": "{case}_T1.nii.gz"}, label="{case}_seg.nii.gz")
    together, *_ = paired(tmp_path, nii("a_T1", "b_T1"), nii("a_seg", "b_seg"), data=DataConfig(layout=layout))
    assert together == {"a_seg.nii.gz": "a_T1.nii.gz", "b_seg.nii.gz": "b_T1.nii.gz"}


def test_in_a_run_of_nnunet_layout_the_first_channel_names_the_case(tmp_path):
    together, _, unused = paired(
        tmp_path, nii("h_001_0000", "h_002"), nii("h_001", "h_002"), data=DataConfig(layout=NnunetLayout())
    )
    assert together == {"h_001.nii.gz": "h_001_0000.nii.gz", "h_002.nii.gz": "h_002.nii.gz"}
    assert not unused


def test_of_the_channels_of_an_image_the_first_is_taken_and_numbered_cases_stay_apart(tmp_path):
    files(tmp_path / "ref", *nii("h_1", "h_2", "p_0000", "p_0001"))
    references, _ = find_references(tmp_path / "ref")
    images = files(tmp_path / "im", *nii("h_1_0000", "h_1_0001", "h_2_0000", "h_2_0001", "p_0000", "p_0001", "q_0000"))
    pairing = pair_images(images, references, folder=tmp_path / "im")
    assert {case: path.name for case, path in pairing.predictions.items()} == {
        "h_1": "h_1_0000.nii.gz",
        "h_2": "h_2_0000.nii.gz",
        "p_0000": "p_0000.nii.gz",
        "p_0001": "p_0001.nii.gz",
    }
    assert [path.name for path in pairing.unused] == ["q_0000.nii.gz"]


def test_accents_in_one_character_or_two_are_the_same(tmp_path):
    names = [unicodedata.normalize(form, "Müller_1") for form in ("NFD", "NFC")]
    assert names[0] != names[1]
    together, *_ = paired(tmp_path, nii(names[0]), nii(names[1]))
    assert len(together) == 1


def test_two_predictions_of_one_name_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="both fit the reference 'p1'"):
        paired(tmp_path, nii("a/p1", "b/p1"), nii("p1"))
