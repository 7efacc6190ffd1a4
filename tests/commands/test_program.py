"""The command `segmed`: its commands, their help, the tab key, and what it says of itself."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segmed import __version__
from segmed.commands.command_line import run_tool
from segmed.commands.completion import options
from segmed.commands.program import COMMANDS, main, main_of
from segmed.commands.short_help import Groups, short_help
from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_as
from segmed.config.shipped import shipped_configs
from segmed.data.phantoms import make_phantom

SCREEN = 60  # lines of 100 columns
EXPERIMENTS = {"train": SegmentationConfig, "train-cls": ClassificationConfig}


@pytest.fixture
def segmed(monkeypatch, capsys):
    """Run `segmed` in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/segmed", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return run


def test_without_a_command_it_lists_them(segmed):
    code, out, _ = segmed()
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)
    assert out == segmed("--help")[1]


def test_it_says_its_version(segmed):
    assert segmed("--version")[:2] == (0, f"segmed {__version__}\n")


def test_an_unknown_command_is_one_line_with_the_nearest(segmed):
    assert segmed("trian") == (2, "", "error: segmed has no command 'trian': did you mean 'train'?\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_one_screen_and_help_all_has_every_option(segmed, command):
    code, out, _ = segmed(command, "--help")
    assert code == 0
    assert out.startswith(f"usage: segmed {command} ")
    assert len(out.splitlines()) <= SCREEN
    code, out, _ = segmed(command, "--help-all")
    assert code == 0
    assert out.startswith(f"usage: segmed {command} ")
    own = options()[command].model_fields
    missing = [name for name in own if name != "experiment" and f"--{name.replace('_', '-')}" not in out]
    assert not [name for name in missing if name.upper() not in out]
    assert all(field.description for name, field in own.items() if name != "experiment")


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_waiting_threads_spin_a_little_unless_the_user_says_otherwise(monkeypatch, given, spins):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment.pop("OMP_WAIT_POLICY", None)
    monkeypatch.setattr(os, "environ", environment | given)
    with pytest.raises(SystemExit) as stop:
        run_tool(lambda: 0)
    assert stop.value.code == 0
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ.get("OMP_WAIT_POLICY") == given.get("OMP_WAIT_POLICY")


def test_no_help_imports_torch():
    script = (
        "import sys\nfrom segmed.commands.program import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    for option in ('--help', '--help-all'):\n"
        "        sys.argv = ['segmed', name, option]\n"
        "        try:\n            main()\n        except SystemExit as stop:\n            assert not stop.code, name\n"
        "print({'torch', 'monai', 'torchio', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == "set()"


@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_matter_exist_and_are_not_more_than_two_dozen(command):
    kind = options()[command]
    groups: Groups = getattr(kind, "often_used", {})
    names = [name for group in groups.values() for name in group]
    assert len(names) <= 24
    assert len(names) == len(set(names))
    first = kind.model_fields["config"].default if command in EXPERIMENTS else None
    experiment = load_as(EXPERIMENTS[command], first) if first else None
    if command == "search":  # its config must be named
        experiment = SegmentationConfig()
    shown = short_help(kind, program="x", description=None, experiment=experiment)
    assert all(f"  --{name.replace('_', '-')} " in shown for name in names)


def test_help_shows_the_defaults_of_the_config_that_is_named(segmed):
    out = segmed("train", "--config", "hippocampus", "--help")[1]
    assert "data/Task04_Hippocampus" in out
    out = segmed("train", "--network.name", "segresnet", "--help")[1]
    assert "(default: segresnet)" in out
    assert "--network.encoder" not in out  # it has none


def test_configs_lists_every_shipped_one_with_what_it_says_of_itself(segmed):
    code, out, _ = segmed("configs")
    assert code == 0
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("  ")}
    assert lines.keys() == shipped_configs().keys()
    assert lines["hippocampus"].startswith("Anterior and posterior hippocampus")
    assert not [line for line in lines.values() if "yaml-language-server" in line]


def test_every_command_has_a_function_of_its_own():
    assert len({main_of(command) for command in COMMANDS}) == len(COMMANDS)


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    given = " ".join(f"'{word}'" for word in words)
    code = f'source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _tyro_segmed; echo "${{COMPREPLY[@]}}"'
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.split()


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("python3")), reason="needs bash and python3")
def test_the_tab_key_completes_commands_options_and_words(segmed, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(segmed("--print-completion", "bash")[1])
    assert sorted(completed(script, "segmed", "qu")) == ["quantify-cine", "quantify-scar"]
    assert completed(script, "segmed", "train", "--train.bu") == ["--train.budget-minutes"]
    assert "residual" in completed(script, "segmed", "train", "--network.encoder.name", "")
    assert completed(script, "segmed", "predict", "--ov") == ["--overwrite", "--overlap"]


def test_a_shell_that_is_not_known_is_refused(segmed):
    assert segmed("--print-completion", "zsh")[1].startswith("#compdef segmed")
    for shell in (["tcsh"], []):
        code, out, err = segmed("--print-completion", *shell)
        assert (code, out) == (2, "")
        assert "bash or zsh" in err


def test_init_writes_a_first_config_that_audit_and_train_take_and_never_replaces_one(segmed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_phantom(tmp_path / "hearts", cases=3, seed=0)
    assert segmed("init", "hearts")[0] == 0
    config = load_as(SegmentationConfig, tmp_path / "hearts.yaml")
    assert config.data.root == tmp_path / "hearts"
    assert segmed("audit", "--config", "hearts.yaml", "--output", "audit", "--workers", 1)[0] == 0
    code, _, err = segmed("init", "hearts")
    assert (code, err.count("\n")) == (2, 1)
    assert "hearts.yaml is there already" in err
    assert segmed("init", "nowhere")[0] == 2
    assert not (tmp_path / "nowhere.yaml").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_stream_of_any_encoding_takes_what_a_command_says(command, encoding, monkeypatch):
    """Output redirected on Windows, or in a C locale, ends no run."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["segmed", command, "--help-all"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    with pytest.raises(SystemExit):
        run_tool(lambda: print("label − × ∅ ü 日本", Path("s\udcff")))
    streams["stdout"].flush()
    said = streams["stdout"].buffer.getvalue()
    assert b"label \\u2212" in said
    assert b"\\udcff" in said
