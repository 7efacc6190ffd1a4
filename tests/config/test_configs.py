"""Every config of one network can be planned, builds, and learns from two steps; the adversary's fields."""

from pathlib import Path

import pytest
import yaml
from planned_configs import COMPOSED, CONFIGS, check_learning, facts_of, planned, two_steps, with_images
from pydantic import Field

from segmed.commands.command_line import parse_as
from segmed.config import AdversaryConfig, Section, SegmentationConfig, known
from segmed.config.reading import load_config
from segmed.errors import ConfigError

SINGLE = [path for path in CONFIGS if path not in COMPOSED]  # the others: test_composed_configs.py
ADVERSARIAL = [path for path in CONFIGS if path.stem.endswith("_gan")]


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
def test_a_config_plans_builds_and_learns(path):
    config = with_images(load_config(path))
    config = planned(config, facts_of(path.stem, known(config.data.images)))
    figures = two_steps(config)
    check_learning(figures, "loss" if config.adversary is None else "loss/segmentation")
    assert ("loss/discriminator" in figures[0]) == (config.adversary is not None)


def test_the_tasks_that_are_compared_have_an_adversarial_config():
    assert {path.stem for path in ADVERSARIAL} == {
        *("phantom_gan", "hippocampus_gan", "myops_lge_gan", "acdc_gan", "drive_gan")
    }


@pytest.mark.parametrize("path", ADVERSARIAL, ids=lambda path: path.stem)
def test_an_adversarial_config_differs_from_its_supervised_twin_by_one_section(path):
    given = yaml.safe_load(path.read_text())
    twin = path.with_name(path.name.replace("_gan", ""))
    assert given.pop("adversary")
    assert given == yaml.safe_load(twin.read_text())
    assert load_config(path).model_copy(update={"adversary": None}) == load_config(twin)


def test_adversarial_configs_agree_on_their_section():
    published = "drive_gan"  # after Son et al. 2017: its discriminator sees the whole patch
    first, *others = [load_config(path).adversary for path in ADVERSARIAL if path.stem != published]
    assert all(other == first for other in others)


@pytest.mark.parametrize("path", ADVERSARIAL, ids=lambda path: path.stem)
def test_an_adversarial_config_gives_a_reason_a_line(path):
    lines = path.read_text().splitlines()
    section = lines[lines.index("adversary:") + 1 :]
    assert section
    assert all("  # " in line for line in section)


def test_every_config_says_why_beside_its_values():
    for path in CONFIGS:
        text = path.read_text()
        assert text.startswith("# "), f"{path.name} opens without saying what it is"
        assert "python tools/train_seg.py" in text, f"{path.name} does not show its command"


# ---------------------------------------------------------------- the adversary on the command line


class Arguments(Section):
    config: Path | None = Field(None, description="YAML")


def adversary_of(*argv: object) -> AdversaryConfig | None:
    return parse_as(SegmentationConfig, Arguments, list(map(str, argv)))[1].adversary


def test_one_option_turns_the_adversary_on():
    assert adversary_of() is None
    assert adversary_of("--train.epochs", 3) is None
    image = adversary_of("--adversary.discriminator.name", "image")
    assert image == AdversaryConfig.model_validate({"discriminator": {"name": "image"}})
    assert adversary_of("--adversary.weight", 0.3) == AdversaryConfig(weight=0.3)
    assert adversary_of("--adversary.warmup=0.5") == AdversaryConfig(warmup=0.5)


def test_an_option_of_the_adversary_keeps_what_the_file_says_of_it():
    phantom = load_config(ADVERSARIAL[-1]).adversary
    made = adversary_of("--config", ADVERSARIAL[-1], "--adversary.disguise.name", "noise", "--adversary.disguise.sd", 2)
    assert made is not None
    assert made.disguise.model_dump() == {"name": "noise", "sd": 2.0, "until": 1.0}
    assert made.model_copy(update={"disguise": phantom.disguise}) == phantom


FAULTS = [
    (["ratio=0"], "'adversary.ratio' is 0", "the discriminator would never learn: give 1 to begin with"),
    (["ratio=-1"], "'adversary.ratio' is -1", "the discriminator would never learn"),
    (["ratio=0.7"], "'adversary.ratio' is 0.7", "give a whole number from 1 on, or 1 divided by one, such as 0.5"),
    (["smoothing=0.1", "loss=hinge"], "adversary.smoothing has no target to soften in hinge: set it to 0", ""),
    (["discriminator.name=segan", "loss=hinge"], "adversary.loss hinge does not fit", "segan has no other"),
    (["loss=segan_l1"], "adversary.loss segan_l1 does not fit adversary.discriminator patch", "leave loss 'auto'"),
    (["discriminator.name=segan", "r1=1"], "adversary.r1, gradient_penalty and feature_matching need", "with segan"),
    (["warmup=1"], "'adversary.warmup' is 1", "less than 1"),
    (["gradient_penalty=-5"], "'adversary.gradient_penalty' is -5", "0 or more"),
    (["disguise.name=noisy"], "'noisy'", "'none', 'soften', 'straight_through', 'noise'"),
]


@pytest.mark.parametrize(("options", "said", "more"), FAULTS, ids=[" ".join(fault[0]) for fault in FAULTS])
def test_what_an_adversary_can_not_be_is_one_line_from_both_sides(tmp_path, options, said, more):
    section: dict = {}
    for option in options:
        name, value = option.split("=")
        *parents, field = name.split(".")
        inner = section
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[field] = yaml.safe_load(value)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"adversary": section}))
    with pytest.raises(ConfigError) as from_file:
        load_config(path)
    with pytest.raises(ConfigError) as from_line:
        adversary_of(*(f"--adversary.{option}" for option in options))
    for error in (from_file, from_line):
        assert said in str(error.value)
        assert more in str(error.value)
        assert "\n" not in str(error.value)


def test_a_discriminator_without_its_name_is_one_line(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("adversary: {discriminator: {channels: [8]}}")
    with pytest.raises(ConfigError, match=r"'adversary\.discriminator' lacks its 'name'"):
        load_config(path)


def test_a_discriminator_has_a_level():
    with pytest.raises(ValueError, match="at least 1 item"):
        AdversaryConfig.model_validate({"discriminator": {"name": "pixel", "channels": []}})


def test_help_documents_the_adversary(capsys):
    with pytest.raises(SystemExit):
        parse_as(SegmentationConfig, Arguments, ["--help-all"])
    words = " ".join(capsys.readouterr().out.split())
    for name in AdversaryConfig.model_fields:
        assert f"--adversary.{name.replace('_', '-')}" in words
    assert "steps of the discriminator for each of the generator" in words
    assert "--adversary.unlabelled.confidence" in words
