"""`segmed predict --input -` and `--watch`: cases that come one after the other, by a model that is loaded once."""

import io
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from test_predict import make_run, names, predict, record_of, write  # noqa: F401

from segmed.builders import observed
from segmed.config import DataConfig, MsdLayout, NnunetLayout
from segmed.data.arriving import from_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "lge")


@pytest.fixture
def loads(monkeypatch):
    """One entry for each time that the model is loaded."""
    calls = []
    load = observed.load_judged
    monkeypatch.setattr(observed, "load_judged", lambda *given, **named: calls.append(1) or load(*given, **named))
    return calls


@pytest.fixture
def serve(predict, monkeypatch):  # noqa: F811
    """Call the tool with lines on standard input; gives the exit code, stdout and stderr."""

    def call(lines: bytes, *options):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
        return predict("--input", "-", *options)

    return call


def test_paths_of_standard_input_are_predicted_by_a_model_that_is_loaded_once(run, serve, loads, tmp_path):
    paths = [write(tmp_path / "in" / f"{name}.nii.gz", seed=n) for n, name in enumerate("abc")]
    lines = f"{paths[0]}\n\n{tmp_path}/gone.nii.gz\n{paths[1]}\r\n{paths[2]}"
    code, out, err = serve(lines.encode(), "--run", run, "--output", tmp_path / "out")
    assert code == 1
    assert loads == [1]
    answers = [line.split(": ")[0] for line in out.splitlines()[:4]]
    assert answers == ["[1] a", f"[2] {tmp_path}/gone.nii.gz", "[3] b", "[4] c"]
    assert "3 of 4 label maps" in out
    assert "gone.nii.gz does not exist: check the path" in err
    statuses = {case["case"]: case["status"] for case in record_of(tmp_path / "out")["cases"]}
    assert statuses == {"a": "done", f"{tmp_path}/gone.nii.gz": "failed", "b": "done", "c": "done"}


def test_an_answer_comes_before_the_next_line(run, predict, tmp_path, monkeypatch):  # noqa: F811
    paths = [write(tmp_path / f"{name}.nii.gz") for name in "ab"]

    class Asking:
        buffer = property(lambda self: self.lines())

        def lines(self):
            for number, path in enumerate(paths):
                assert len(names(tmp_path / "out")) == (3 if number else 1)  # the lock, the label map and the record
                yield os.fsencode(f"{path}\n")

    monkeypatch.setattr("sys.stdin", Asking())
    assert predict("--run", run, "--input", "-", "--output", tmp_path / "out")[0] == 0


def test_two_images_of_one_name_do_not_replace_each_other(run, serve, tmp_path):
    first, second = (write(tmp_path / folder / "a.nii.gz", seed=n) for n, folder in enumerate(("one", "two")))
    lines = f"{first}\n{second}\n{first}\n".encode()
    code, out, _ = serve(lines, "--run", run, "--output", tmp_path / "out", "--overwrite")
    assert code == 1
    assert f"{second} and {first}, done before, have one name" in out
    assert "[3] a: done before" in out
    assert [case["inputs"] for case in record_of(tmp_path / "out")["cases"] if case["status"] != "failed"] == [
        [str(first)]
    ]


def test_a_watched_folder_is_predicted_as_it_fills_until_sigterm(run, predict, loads, tmp_path):  # noqa: F811
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / "a.nii.gz")

    def wait_for(case: str) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            time.sleep(0.02)
            if (out / "prediction.json").exists() and case in {known["case"] for known in record_of(out)["cases"]}:
                return

    def fill() -> None:
        wait_for("a")
        write(folder / "s" / "a.nii.gz", seed=1)
        (folder / "bad.nii.gz").write_bytes(b"no volume")
        wait_for("s/a")
        wait_for("bad")
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # the tool runs
            os.kill(os.getpid(), signal.SIGTERM)

    filling = threading.Thread(target=fill)
    filling.start()
    code, printed, err = predict("--run", run, "--input", folder, "--watch", "--output", out)
    filling.join()
    assert code == 1
    assert loads == [1]
    assert "stopped: what is done is kept" in err
    assert "2 of 3 label maps" in printed
    assert {case["case"]: case["status"] for case in record_of(out)["cases"]} == {
        "a": "done",
        "bad": "failed",
        "s/a": "done",
    }


def test_a_file_is_taken_when_it_stopped_growing_and_again_when_it_changed(tmp_path):
    data = DataConfig(layout=MsdLayout(), images=("LGE",), labels={"scar": [1]})
    arrivals = from_folder(tmp_path, data, output=tmp_path / "out", poll_seconds=0)
    path = tmp_path / "a.nii.gz"
    sizes = iter([10, 20, 30, 30, 30, 30, 40, 40, 40, 40])
    polls = []

    def poll(_seconds):
        polls.append(next(sizes))
        path.write_bytes(b"0" * polls[-1])
        os.utime(path, ns=(polls[-1], polls[-1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segmed.data.arriving.time.sleep", poll)
        assert next(arrivals).inputs[0].output == Path("a.nii.gz")
        assert polls == [10, 20, 30, 30]
        next(arrivals)
        assert polls == [10, 20, 30, 30, 30, 30, 40, 40]
        with pytest.raises(RuntimeError, match="StopIteration"):  # no size is left, and nothing else was taken
            next(arrivals)


def test_an_incomplete_case_waits_for_its_other_image(tmp_path, monkeypatch):
    data = DataConfig(layout=NnunetLayout(), images=("T1", "T2"), labels={"scar": [1]})
    write(tmp_path / "in" / "a_0000.nii.gz")
    polls = []

    def poll(seconds):
        polls.append(seconds)
        if len(polls) == 5:
            write(tmp_path / "in" / "a_0001.nii.gz")

    monkeypatch.setattr("segmed.data.arriving.time.sleep", poll)
    (item,) = next(from_folder(tmp_path / "in", data, output=tmp_path / "out")).inputs
    assert set(item.case.images) == {"T1", "T2"}
    assert len(polls) == 6
    (tmp_path / "in" / "a_0001.nii.gz").unlink()
    (item,) = next(from_folder(tmp_path / "in", data, output=tmp_path / "out", incomplete_seconds=0)).inputs
    assert set(item.case.images) == {"T1"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--input", "-", "--format", "bids"], "choose another format"),
        (["--input", "-", "--on", "local"], "leave out --on"),
        (["--input", "-", "--watch"], "--watch takes a folder, and - is none"),
        (["--input", ".", "--watch", "--output", "."], "would be inputs"),
    ],
)
def test_what_needs_all_cases_at_once_is_refused(run, predict, tmp_path, monkeypatch, options, words):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    code, _, err = predict("--run", run, *([] if "--output" in options else ["--output", "out"]), *options)
    assert code == 2
    assert words in err
