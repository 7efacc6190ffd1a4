"""Constant predictions beside the rows of a comparison."""

import csv
import json
import math

import numpy as np
import pytest
from compared_rows import SCAR, TWO, config_of, make_walls, rows_of, run
from scipy.stats import pearsonr

from segmed.commands.compare_rows import write_rows
from segmed.compare.baselines import MEAN_SHARE, MEAN_VOLUME, Measured, constant_rows, training_means
from segmed.compare.prepare import prepare_comparison
from segmed.compare.tested_families import families_of
from segmed.config.reading import validate
from segmed.config.row_families import FamilyConfig
from segmed.data.splits import Split
from segmed.errors import ConfigError
from segmed.volumes import read_label_volume, spacing_mm

WHOLE = "constant: whole lv_wall"


@pytest.fixture(scope="module")
def walls(tmp_path_factory):
    return make_walls(tmp_path_factory.mktemp("walls"))


@pytest.fixture(scope="module")
def comparison(walls):
    return prepare_comparison(config_of(walls, TWO))


@pytest.fixture(scope="module")
def methods(comparison):
    return {method.name: method for method in constant_rows(comparison).methods}


def volumes(comparison, id):
    """Scar and wall of a case's reference in ml."""
    label = read_label_volume(comparison.cases[id].label)
    values = label.as_tensor().numpy()
    voxel_ml = math.prod(spacing_mm(label.affine)) / 1000
    return np.count_nonzero(values == SCAR) * voxel_ml, np.count_nonzero(np.isin(values, (1, SCAR))) * voxel_ml


def test_the_whole_wall_as_scar_has_the_dice_of_its_share(comparison, methods):
    for id, row in rows_of(methods[WHOLE]).items():
        scar, wall = volumes(comparison, id)
        assert row["dice"] == pytest.approx(2 * scar / (scar + wall))
        assert row["share_difference_pp"] == pytest.approx(100 - 100 * scar / wall)
        assert row["sensitivity"] == 1


def test_means_are_those_of_the_training_cases_of_each_fold_alone(comparison, methods):
    for split in comparison.splits:
        known = [volumes(comparison, id) for id in split.train]
        share, volume = np.mean([100 * a / b for a, b in known]), np.mean([a for a, _ in known])
        for id in split.test:
            scar, wall = volumes(comparison, id)
            by_share, by_volume = rows_of(methods[MEAN_SHARE])[id], rows_of(methods[MEAN_VOLUME])[id]
            assert by_share["share_error_pp"] == pytest.approx(abs(share - 100 * scar / wall))
            assert by_share["prediction_ml"] == pytest.approx(share / 100 * wall)
            assert by_volume["volume_difference_ml"] == pytest.approx(volume - scar)
            assert by_volume["avd_ml"] == pytest.approx(abs(volume - scar))
            assert by_volume["share_difference_pp"] == pytest.approx(100 * (volume - scar) / wall)
            assert math.isnan(by_share["dice"])
            assert not by_volume["missed"]


def test_what_the_test_cases_hold_changes_no_training_mean():
    measured = {"a": Measured(2.0, 10.0), "b": Measured(4.0, 10.0), "test": Measured(9.0, 10.0)}
    split = Split(train=("a", "b"), validation=(), test=("test",))
    assert training_means(split, measured) == (pytest.approx(30), pytest.approx(3))
    assert training_means(split, {**measured, "a": Measured(0.0, 0.0)}) == (pytest.approx(40), pytest.approx(2))


def test_every_table_has_the_constants_and_the_agreement_of_volumes_and_shares(walls, comparison, tmp_path, capsys):
    config = config_of(walls, TWO, output=tmp_path)
    rows = run(walls, TWO)
    write_rows(rows, constant_rows(comparison), config, "standard", [])
    overview = (tmp_path / "overview.md").read_text()
    assert all(f"| {name} " in overview.replace("\\", "") for name in (WHOLE, MEAN_SHARE, MEAN_VOLUME))
    assert overview.count("| otsu ") == 1
    lines = list(csv.DictReader((tmp_path / "agreement.csv").open()))
    assert {line["quantity"] for line in lines if line["label"] == "scar"} == {"volume_ml", "share_pp"}
    one = next(line for line in lines if (line["method"], line["quantity"]) == ("otsu", "volume_ml"))
    cases = rows_of(rows[0]).values()
    own, true = ([row[key] for row in cases] for key in ("prediction_ml", "reference_ml"))
    assert float(one["pearson"]) == pytest.approx(pearsonr(own, true).statistic)
    assert float(one["bias"]) == pytest.approx(np.mean(own) - np.mean(true))
    data = json.loads((tmp_path / "comparison.json").read_text())
    kinds = {(line["method"], line["quantity"]) for line in data["agreements"]}
    assert {(MEAN_VOLUME, "volume_ml"), (MEAN_SHARE, "share_pp"), (WHOLE, "share_pp")} <= kinds
    tested = {figure["method"] for figure in data["figures"] if figure["p"] is not None}
    assert tested == {"strm"}
    assert "ICC(2,1)" in (tmp_path / "report.html").read_text()
    assert "± nan" not in overview + capsys.readouterr().out


def test_families_are_a_kind_of_row_each_where_the_config_names_none(walls):
    rows = {
        **TWO, "net": {"run": "runs/net"}, "net, wall given": {"run": "runs/net", "region": "reference"},
        "otsu in net": {"method": {"name": "otsu"}, "region": "runs/net"},
    }  # fmt: skip
    config = config_of(walls, rows)
    assert [(family.name, family.rows) for family in config.tested_families] == [
        ("classical, region given", ("strm",)), ("networks", ("net",)),
        ("networks, region given", ("net, wall given",)), ("classical in runs/net", ("otsu in net",)),
    ]  # fmt: skip
    families, notes = families_of(config, {"otsu", "strm"})
    assert [(family.name, family.methods, family.against) for family in families] == [
        ("classical, region given", ("strm",), "otsu")
    ]
    assert notes == []


def test_a_family_whose_row_is_left_out_is_said(walls):
    given = [{"name": "mine", "rows": ["strm"], "against": "net"}]
    config = config_of(walls, {**TWO, "net": {"run": "runs/net"}}, families=given)
    assert families_of(config, {"otsu", "strm"}) == ((), ["family mine is not tested: its row net is left out"])


@pytest.mark.parametrize(
    ("families", "said"),
    [
        ([{"name": "f", "rows": ["strn"]}], "'strn' is no row"),
        ([{"name": "f", "rows": ["strm"], "against": "strm"}], "'strm' is tested against itself"),
        ([{"name": "f", "rows": ["strm"]}, {"name": "g", "rows": ["strm"]}], "in the families 'f' and 'g'"),
    ],
)
def test_families_of_other_rows_or_of_one_twice_are_refused(walls, families, said):
    with pytest.raises(ConfigError, match=said):
        config_of(walls, TWO, families=families)


def test_a_family_is_against_the_reference_where_it_names_no_row():
    family = validate(FamilyConfig, {"name": "f", "rows": ["a"]}, where="test")
    assert family.against is None
