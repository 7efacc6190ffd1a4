"""Model files on the hub, which here is a server on the loopback that answers as the hub does."""

import base64
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from untrained_runs import untrained_run

import segmed
from segmed.builders.hub_files import local_model, put_on_hub, shown
from segmed.builders.model_file import opened, read_card
from segmed.commands.program import main_of
from segmed.errors import RunError

MODEL = Path("hf://heart-lab/balls/balls.segmed")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Files of one repository.

    Attributes:
        files: path in the repository -> content.
        private: whether it was made for its owner alone.
        fetched: how often a file's content was sent.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.private, self.fetched = False, 0


class Answers(BaseHTTPRequestHandler):
    """The few of the hub's answers that fetching and putting a file need."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.file(send=False)

    def do_GET(self) -> None:
        self.file(send=True)

    def file(self, *, send: bool) -> None:
        match = re.fullmatch(r"/heart-lab/balls/resolve/(\w+)/(.+)", self.path)
        content = self.server.files.get(match[2]) if match and match[1] in ("main", COMMIT) else None
        if content is None:
            return self.answer({}, status=404, **{"X-Error-Code": "EntryNotFound" if match else "RepoNotFound"})
        self.server.fetched += send
        self.send_response(200)
        checksum = hashlib.sha256(content).hexdigest()
        for name, value in {"X-Repo-Commit": COMMIT, "ETag": f'"{checksum}"', "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if send:
            self.wfile.write(content)
        return None

    def do_POST(self) -> None:
        sent = self.sent()
        if self.path == "/api/repos/create":
            asked = json.loads(sent)
            self.server.private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.answer({"url": f"http://{self.headers['Host']}/heart-lab/balls"})
        elif self.path == "/api/models/heart-lab/balls/preupload/main":
            named = [file["path"] for file in json.loads(sent)["files"]]
            self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in named]})
        elif self.path == "/api/models/heart-lab/balls/commit/main":
            for line in map(json.loads, sent.decode().splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/heart-lab/balls/commit/{COMMIT}"
            self.answer({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
        else:
            self.answer({"error": self.path}, status=404)

    def sent(self) -> bytes:
        """What was posted, of a length that is known or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, data: dict, *, status: int = 200, **headers: str) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that huggingface-hub takes for its own; it reads where it is when it is imported."""
    pytest.importorskip("huggingface_hub")
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub_cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "huggingface_hub"}
    yield server
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        del sys.modules[name]
    sys.modules.update(before)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("clinic") / "run")


def call(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", ["segmed", command, *map(str, arguments)])
    return main_of(command)()


def test_an_exported_model_is_put_there_for_its_owner_and_stands_where_a_file_does(
    hub, run, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "balls.segmed"
    assert call(monkeypatch, "export", "--run", run.path, "--output", file, "--hub", "heart-lab/balls") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"on the hub: {shown(MODEL)}"
    assert hub.files == {"balls.segmed": file.read_bytes()}
    assert hub.private is True
    assert call(monkeypatch, "model-card", "hf://heart-lab/balls/balls.segmed") == 0
    assert capsys.readouterr().out == read_card(file)
    assert type(segmed.load_run("hf://heart-lab/balls/balls.segmed")) is type(segmed.load_run(file))
    assert hub.fetched == 1  # once for one version
    with opened((), (MODEL,)) as runs:
        assert runs.origin_name(runs.folders[0]) == "hf://heart-lab/balls/balls.segmed"


def test_a_commit_can_be_named_and_a_file_that_was_changed_there_is_noticed(hub, run, tmp_path, monkeypatch):
    file = tmp_path / "balls.segmed"
    assert call(monkeypatch, "export", "--run", run.path, "--output", file) == 0
    content = bytearray(file.read_bytes())
    hub.files["balls.segmed"] = bytes(content)
    assert local_model(Path(f"hf://heart-lab/balls@{COMMIT}/balls.segmed")).read_bytes() == content
    content[len(content) // 2] ^= 1
    hub.files["other.segmed"] = bytes(content)
    with pytest.raises(RunError, match=r"was changed|no whole model"), opened((), [MODEL.with_name("other.segmed")]):
        pass


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hf://heart-lab/balls/none.segmed", r"hf://heart-lab/balls/none\.segmed can't be fetched \(.*404"),
        ("hf://heart-lab/other/balls.segmed", r"can't be fetched \(.*check the name and the network"),
        ("hf://heart-lab/balls", "names no file on the hub: write hf://OWNER/NAME/FILE"),
        ("hf://heart-lab/balls@../balls.segmed", "names no file on the hub"),
        ("hf://heart-lab/balls/../../balls.segmed", "names no file on the hub"),
        ("hf://../balls/balls.segmed", "names no file on the hub"),
    ],
)
def test_what_is_not_there_is_one_line(hub, name, why):
    with pytest.raises(RunError, match=why) as caught:
        local_model(Path(name))
    assert "\n" not in str(caught.value)


def test_no_network_is_one_line_and_what_was_fetched_before_is_used(hub, tmp_path):
    hub.files["balls.segmed"] = b"voxels"
    assert local_model(MODEL).read_bytes() == b"voxels"
    hub.shutdown()
    hub.server_close()
    sys.modules["huggingface_hub"].close_session()  # with the connections that are open
    assert local_model(MODEL).read_bytes() == b"voxels"
    with pytest.raises(RunError, match="can't be fetched") as caught:
        local_model(MODEL.with_name("new.segmed"))
    assert "\n" not in str(caught.value)
    (tmp_path / "x.segmed").write_bytes(b"x")
    with pytest.raises(RunError, match=r"x\.segmed can't be put into heart-lab/balls"):
        put_on_hub(tmp_path / "x.segmed", "heart-lab/balls")


def test_without_its_package_the_extra_is_named(monkeypatch, run, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RunError, match=r'pip install "segmed-mri\[hub\]"'):
        local_model(MODEL)
    for repository in ("balls", "../balls", "heart-lab/..", "heart-lab/-balls"):
        with pytest.raises(RunError, match="is no repository: write OWNER/NAME"):
            call(monkeypatch, "export", "--run", run.path, "--output", tmp_path / "b.segmed", "--hub", repository)
    assert not list(tmp_path.iterdir())
