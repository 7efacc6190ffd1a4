"""The viewer within every page that has one, in a real browser: its pixels, its rows, no complaint; and large files."""

import struct

import nibabel as nib
import numpy as np
import pytest
from browser import Browser, browser  # noqa: F401  browser is a fixture
from viewed_pages import FLAGS, VIEWED, layers_in, prediction_page, write_cases

from segmed.reports.viewer.viewer import Viewer, ViewerCase, write_page_with_viewer

SHOWN = "document.querySelector('#viewer').dataset.shown"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LAYERS_OFF = """for (const name of ['reference', 'result', 'heat']) {
  const select = document.querySelector(`#viewer [data-part=${name}]`);
  select.selectedIndex = name === 'heat' ? 0 : 2;
  select.dispatchEvent(new Event('change')); } 0"""
AXIAL = """(() => {
  const canvas = document.querySelector('#viewer canvas'), brush = canvas.getContext('2d'), found = [];
  for (let c = 0; c < %d; c++) for (let r = 0; r < %d; r++)
    found.push(brush.getImageData(Math.floor((c + 0.5) * canvas.width / %d),
      Math.floor((r + 0.5) * canvas.height / %d), 1, 1).data[0]);
  return found; })()"""
CROSS_HAIR_OFF = "document.querySelector('#viewer').dispatchEvent(new KeyboardEvent('keydown', {key: 'x'})); 0"
HIDDEN = 0.12  # most of the pixels that letters may hide


def share_of_wrong_pixels(page: Browser, image: np.ndarray) -> float:
    """Of the axial plane that is shown, against the slice of the array at the cross-hair."""
    x, y = image.shape[:2]
    number = int(page.value("document.querySelector('#viewer').dataset.at").split(",")[2])
    drawn = np.array(page.value(AXIAL % (x, y, x, y))).reshape(x, y)
    return float(np.mean(np.abs(drawn - image[::-1, ::-1, number]) > 1))


@pytest.mark.parametrize("kind", VIEWED)
def test_a_pages_viewer_shows_its_arrays_and_its_rows_open_their_case(
    browser: Browser,  # noqa: F811
    tmp_path,
    monkeypatch,
    kind,
):
    for drawing in ("save_figure", "box_plots", "bland_altman", "montage"):  # which take most of the time
        monkeypatch.setattr(f"segmed.reports.segmentation.files.{drawing}", lambda *_, **__: None)
    page = VIEWED[kind](tmp_path / "page")
    browser.listen()
    browser.open(page.path.as_uri(), width=1200)
    browser.wait_for(f"{SHOWN} == '{page.first}'")
    browser.value(CROSS_HAIR_OFF)
    for case in sorted(page.images, key=lambda case: case != page.first):
        image = page.images[case]
        if case != page.first:
            browser.value(f"document.querySelector('a[data-case={case}]').click()")
            browser.wait_for(f"{SHOWN} == '{case}'")
            assert browser.value("document.querySelector('tr.looked-at').dataset.row") == case
        filled = share_of_wrong_pixels(browser, image)
        browser.value(LAYERS_OFF)
        assert share_of_wrong_pixels(browser, image) < min(HIDDEN, filled - 0.01)
        browser.value(LAYERS_OFF.replace(": 2", ": 0"))
    for width in (400, 1400):
        browser.open(page.path.as_uri(), width=width)
        assert browser.value(OVERFLOW) <= 0, f"{width} pixels"
    assert browser.complaints == []


def test_the_cases_that_are_not_to_be_used_come_first_with_their_reason(browser: Browser, tmp_path):  # noqa: F811
    page = prediction_page(tmp_path / "page")
    browser.open(page.path.as_uri(), width=1200)
    browser.wait_for(f"{SHOWN} == 'bad_one'")
    names = "[...document.querySelector('#viewer [data-part=cases]').options].map(o => o.text)"
    assert browser.value(names) == ["do not use · bad_one", "good · good_one"]
    rows = "[...document.querySelectorAll('tr[data-row]')].map(row => row.innerText.split(/\\s/)[0])"
    assert browser.value(rows) == ["bad_one", "good_one"]
    flags = "[...document.querySelectorAll('tr[data-row] .flag')].map(each => each.textContent)"
    assert browser.value(flags) == ["do not use", "good"]
    text = browser.value("document.body.innerText")
    assert f"Do not use: {FLAGS['bad_one'][1]}." in text
    assert "4 [3 to 5.5]" in text
    assert "In brackets: intervals of 90 %" in text
    assert "balls (5 networks)" in text


@pytest.mark.parametrize("name", ["claims.nii", "claims.nii.gz", "claims.mha"])
def test_a_volume_that_claims_two_gigabytes_costs_one_line_and_the_page_is_whole(tmp_path, name):
    write_cases(tmp_path)
    path = tmp_path / "images" / name
    if name.endswith(".mha"):
        path.write_text(
            "ObjectType = Image\nNDims = 3\nDimSize = 1300 1300 1300\nElementSpacing = 1 1 1\n"
            "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        )
    else:
        small = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
        nib.save(small, tmp_path / "images" / f"small{name.removeprefix('claims')}")
        whole = (tmp_path / "images" / "small.nii").read_bytes() if name.endswith(".nii") else small.to_bytes()
        claimed = bytearray(whole)
        claimed[40:56] = struct.pack("<8h", 3, 1300, 1300, 1300, 1, 1, 1, 1)
        if name.endswith(".gz"):
            import gzip

            path.write_bytes(gzip.compress(bytes(claimed)))
        else:
            path.write_bytes(claimed)

    def load(case: str):
        if case != "claims":
            return layers_in(tmp_path, case)
        from segmed.reports.viewer.layers import layers_of_files
        from segmed.volumes import Source

        return layers_of_files(Source(path), encode=lambda values: values)

    viewer = Viewer(("wall", "scar"), load, (ViewerCase("claims"), ViewerCase("good_one")))
    given = {
        "title": "x",
        "key": [],
        "facts": [],
        "head": ["case"],
        "failed": [],
        "cases": [],
        "flagged": False,
        "told": "",
    }
    page = write_page_with_viewer(tmp_path / "report.html", "prediction.html", viewer, **given).read_text()
    (line,) = [line for line in page.splitlines() if "claims can&#39;t be shown:" in line]
    assert name in line
    assert '"name": "good_one"' in page
    assert page.rstrip().endswith("</html>")
    assert not list(tmp_path.glob(".*"))
