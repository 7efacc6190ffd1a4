"""YAML and command lines become one validated config; what is wrong is said in one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from segmed.commands.command_line import parse, parse_as
from segmed.config import AUGMENT_PRESETS, AugmentConfig, Section, SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_as, load_config, load_written, load_yaml, set_values
from segmed.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
JARGON = re.compile(
    r"[Ii]nput should|instance of|instantiated|dictionary|\w+Config\b|literal|pydantic|\[type=|field required"
)
TOOLS = sorted((ROOT / "tools").glob("*.py"))


class Arguments(Section):
    config: Path | None = Field(None, description="YAML")
    number: int = Field(1, description="a number")


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
        return path

    return write


ROOT = Path(__file__).resolve().parents[2]
KINDS = {"seg": SegmentationConfig, "cls": ClassificationConfig}


def experiment(*argv):
    return parse_as(SegmentationConfig, Arguments, list(map(str, argv)))[1]


def test_the_command_line_overrides_the_file(written):
    path = written("train: {epochs: 7, clip: 1.0}")
    made = experiment("--config", path, "--train.epochs", 9)
    assert (made.train.epochs, made.train.clip) == (9, 1.0)


def test_kebab_case_options_reach_fields_with_underscores():
    assert experiment("--train.budget-minutes", 20).train.budget_minutes == 20


def test_tuples_are_given_as_several_words():
    assert experiment("--patches.size", 64, 48, 32).patches.size == (64, 48, 32)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--augment.broaden", "true"], {"broaden": True}),
        (["--augment.broaden=False"], {"broaden": False}),
        (["--train.budget-minutes", "null"], {"budget_minutes": None}),
        (["--loss.batch", "false", "--inference.mirror", "True"], {"batch": False, "mirror": True}),
        (["--loss.batch=true", "--inference.mirror=false"], {"batch": True, "mirror": False}),
        (["--loss.no-batch", "--inference.mirror", "--name", "null"], {"batch": False, "mirror": True}),
    ],
)
def test_truth_and_nothing_are_spelt_as_in_yaml(argv, expected, written):
    made = experiment("--config", written("train: {budget_minutes: 3}"), *argv)
    found = {
        "broaden": made.augment.broaden, "budget_minutes": made.train.budget_minutes,
        "batch": made.loss.batch, "mirror": made.inference.mirror,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("argv", "read", "expected"),
    [
        (["--name", "true"], lambda made: made.name, "true"),
        (["--data.unlabelled", "true", "false"], lambda made: made.data.unlabelled, ("true", "false")),
        (["--inference.largest-component", "null"], lambda made: made.inference.largest_component, ("null",)),
        (["--loss.batch", "NO"], lambda made: made.loss.batch, False),
    ],
)
def test_a_word_of_text_stays_what_it_is(argv, read, expected):
    assert read(experiment(*argv)) == expected


def test_a_tools_own_flag_takes_a_word_too():
    class Own(Section):
        quiet: bool = Field(True, description="say nothing")

    assert not parse(Own, ["--quiet", "false"]).quiet
    assert parse(Own, ["--quiet=True"]).quiet


def test_a_changed_name_replaces_its_section_instead_of_merging_into_it(written):
    path = written("network: {name: unet, encoder: {name: dense}}\nloss: {name: tversky, alpha: 0.1}")
    made = experiment("--config", path, "--network.name", "dynunet", "--loss.name", "dice")
    assert made.network.name == "dynunet"
    assert made.loss.name == "dice"
    assert not hasattr(made.loss, "alpha")


def test_a_preset_on_the_command_line_brings_its_numbers(written):
    path = written("augment: {name: none, noise_sd: 0.5}")
    made = experiment("--config", path, "--augment.name", "full")
    assert made.augment.rotation_deg == AUGMENT_PRESETS["full"]["rotation_deg"]


@pytest.mark.parametrize("argv", [(), ("--augment.name", "auto"), ("--train.epochs", 7)])
def test_the_preset_that_a_plan_chooses_brings_its_numbers_through_a_command_line(written, argv):
    made = experiment("--config", written("augment: {name: auto}"), *argv)
    assert made.augment.filled("full") == AugmentConfig(name="full")


SHIPPED = [(kind, path) for kind, schema in KINDS.items() for path in sorted((ROOT / "configs" / kind).glob("*.yaml"))]


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_a_shipped_config_is_the_same_from_a_command_line(kind, path):
    """And so is each preset that a plan may choose for it."""
    schema = KINDS[kind]
    loaded, made = load_as(schema, path), parse_as(schema, Arguments, ["--config", str(path)])[1]
    assert made == loaded
    for preset in AUGMENT_PRESETS:
        assert made.augment.filled(preset) == loaded.augment.filled(preset)


def test_numbers_given_beside_auto_stay_whether_in_the_file_or_on_the_command_line(written):
    path = written("augment: {name: auto, elastic_probability: 0}")
    made = experiment("--config", path, "--augment.blur-probability=0", "--augment.scale", 0.5)
    assert made.augment.keep == ("scale", "elastic_probability", "blur_probability")
    wanted = AugmentConfig(name="full", elastic_probability=0.0, blur_probability=0.0, scale=0.5)
    assert made.augment.filled("full") == wanted


def test_a_number_that_is_set_in_a_whole_experiment_is_given():
    data = SegmentationConfig(augment=AugmentConfig(name="auto")).model_dump()
    set_values(data, {"augment.elastic_probability": 0.0}, SegmentationConfig)
    filled = SegmentationConfig.model_validate(data).augment.filled("full")
    assert filled == AugmentConfig(name="full", elastic_probability=0.0)


@pytest.mark.parametrize("missing", [(), ("modality_dropout",), ("synthetic_probability", "contrast_points")])
def test_a_config_that_an_older_run_wrote_gives_no_numbers_to_keep(written, missing):
    """It has all numbers of its day, at their defaults, and none that came later."""
    section = {
        field: value
        for field, value in AugmentConfig(name="none").model_dump(mode="json").items()
        if field not in (*missing, "keep", "broaden")
    }
    path = written(yaml.safe_dump({"augment": {**section, "name": "auto", "blur_probability": 0.9}}))
    made = load_written(SegmentationConfig, path).augment
    assert made.keep == ("blur_probability",)
    assert made.filled("full") == AugmentConfig(name="full", blur_probability=0.9)


def test_many_numbers_that_are_given_by_hand_stay(written):
    own = {field: AugmentConfig.model_fields[field].default for field in list(AugmentConfig.model_fields)[1:25]}
    made = load_as(SegmentationConfig, written(yaml.safe_dump({"augment": {"name": "auto", **own}}))).augment
    assert made.keep == tuple(own)
    assert made.filled("full").rotation_deg == own["rotation_deg"] == 0.0


@pytest.mark.parametrize("names", [("light", "full"), ("none", "full"), ("full", "full")])
def test_of_a_name_that_is_given_twice_the_last_one_counts_with_its_numbers(names):
    argv = [word for name in names for word in ("--augment.name", name)]
    assert experiment(*argv).augment == AugmentConfig(name=names[-1])
    assert experiment(*argv[:-2], f"--augment.name={names[-1]}").augment == AugmentConfig(name=names[-1])


def test_the_name_that_is_there_already_leaves_the_numbers_beside_it(written):
    path = written("augment: {rotation_deg: 30, flip_probability: 0.5}\nnetwork: {encoder: {name: dense}}")
    made = experiment("--config", path, "--augment.name", "light", "--network.name", "unet")
    assert (made.augment.rotation_deg, made.augment.flip_probability) == (30, 0.5)
    assert made.network.encoder.name == "dense"
    stage = "cascade: {region: [a], coarse: {labels: {a: [a]}, augment: {scale: 0.4}}, fine: {labels: {a: [a]}}}"
    made = experiment("--config", written(stage), "--cascade.coarse.augment.name", "light")
    assert made.cascade.coarse.augment.scale == 0.4


@pytest.mark.parametrize("names", [("rotation_deg", "name"), ("name", "rotation_deg")])
def test_values_may_be_given_in_any_order(written, names):
    values = {"augment.rotation_deg": 40.0, "augment.name": "full"}
    made = load_config(written("name: x"), {f"augment.{name}": values[f"augment.{name}"] for name in names})
    assert made.augment == AugmentConfig(name="full", rotation_deg=40.0)


def test_a_value_behind_an_alias_belongs_to_its_own_section(written):
    path = written(
        "cascade:\n  region: [a]\n  coarse: {labels: {a: [a]}, augment: &same {name: full}}\n"
        "  fine: {labels: {a: [a]}, augment: *same}"
    )
    made = experiment("--config", path, "--cascade.coarse.augment.name", "none").cascade
    assert (made.coarse.augment.name, made.fine.augment.name) == ("none", "full")
    loaded = load_config(path, {"cascade.coarse.augment.scale": 0.9}).cascade
    assert (loaded.coarse.augment.scale, loaded.fine.augment.scale) == (0.9, AUGMENT_PRESETS["full"]["scale"])


def test_a_name_to_keep_that_is_no_number_is_one_line(written):
    with pytest.raises(ConfigError, match="keep names 'rotation': give numbers of augment, such as rotation_deg"):
        load_config(written("augment: {name: auto, keep: [rotation]}"))


def test_numbers_beside_a_preset_win():
    made = AugmentConfig(name="full", rotation_deg=3.0)
    assert (made.rotation_deg, made.elastic_mm) == (3.0, AUGMENT_PRESETS["full"]["elastic_mm"])


def test_a_resolved_config_reloads_equal(written):
    made = SegmentationConfig(augment=AugmentConfig(name="full", blur_probability=0.0))
    assert load_config(written(yaml.safe_dump(made.model_dump(mode="json")))) == made


def test_exponents_without_a_dot_are_numbers(written):
    assert load_yaml(written("a: 1e-3\nb: 5e5\nc: 12\nd: 1e"))["a"] == 1e-3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trian: {epochs: 3}", "unknown key 'trian', did you mean 'train'?"),
        ("train: {epoch: 3}", "unknown key 'train.epoch', did you mean 'epochs'?"),
        ("network: {name: unet, encodr: plain}", "unknown key 'network.encodr', did you mean 'encoder'?"),
        ("network: {name: unett}", "'network.name' is 'unett', did you mean 'unet'? Choose one of 'unet', 'dynunet'"),
        ("network: {encoder: {}}", "'network' lacks its 'name': choose one of 'unet', 'dynunet'"),
        (
            "network: {name: unet, encoder: {name: densse}}",
            "'network.encoder.name' is 'densse', did you mean 'dense'? Choose one of 'plain', 'residual'",
        ),
        ("loss: {name: dice, class_weights: [1, 2]}", "unknown key 'loss.class_weights', known here: 'batch', 'name'"),
        ("network: {name: vgg16}", "experiment.yaml is a config of classification: `segmed train-cls`"),
        ("image: {size: [8, 8]}", "is a config of classification"),
        ("data: {layout: {name: folders}}", "is a config of classification"),
        ("data: {classes: [yes, no]}", "is a config of classification"),
        ("rows: {}", "experiment.yaml is a config of a comparison: `segmed compare --config`"),
        ("train: {epochs: many}", "'train.epochs' is 'many': give a whole number"),
        ("train: {epochs: 0}", "'train.epochs' is 0: give 1 or more"),
        ("train: {batch_size: -3}", "'train.batch_size' is -3: give 1 or more or 'auto'"),
        ("train: {learning_rate: fast}", "'train.learning_rate' is 'fast': give a number or 'auto'"),
        (
            "train: {optimiser: adamm}",
            "'train.optimiser' is 'adamm', did you mean 'adam'? Choose one of 'adamw', 'adam', 'sgd'",
        ),
        ("split: {test: 1.5}", "'split.test' is 1.5: give 1 or less"),
        (
            "augment: {name: fulll}",
            "'augment.name' is 'fulll', did you mean 'full'? Choose one of 'auto', 'none', 'light', 'full', 'wide'",
        ),
        ("augment: {name: [1]}", "'augment.name' is [1]: give 'auto', 'none', 'light', 'full' or 'wide'"),
        ("train: [1, 2]", "'train' is [1, 2]: give a section, keys with values"),
        ("train:", "'train' is nothing: give a section, keys with values"),
        ("patches: {size: [64, 64.5, 64]}", "'patches.size.1' is 64.5: give a whole number"),
        ("data: {mirror_pairs: [[left]]}", "'data.mirror_pairs.0.1' is missing: give it"),
        ("adversary: {discriminator: {name: ptch}}", "did you mean 'patch'? Choose one of 'pixel', 'patch'"),
        ("data: {layout: {name: nnunett}}", "did you mean 'nnunet'? Choose one of 'msd', 'nnunet', 'pattern'"),
        ("- a\n- b", "not a mapping"),
        ("train: {epochs: 3", "not valid YAML at line 1: it ends too early: a bracket or a quote is not closed"),
        ("train:\n\tepochs: 3", "not valid YAML at line 2: a tab stands there: indent with spaces"),
        ("7", "holds a single value, not a mapping"),
        ("train: {epochs: 3}\ntrain: {epochs: 4}", "stands twice"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_it(written, text, words):
    with pytest.raises(ConfigError) as error:
        load_config(written(text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not JARGON.search(str(error.value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b: {<<: *x}", {"p": 1, "q": 2}),
        ("b: {<<: *x, q: 3}", {"p": 1, "q": 3}),
        ("b: {q: 3, <<: *x}", {"p": 1, "q": 3}),
        ("y: &y {<<: *x, q: 3}\nb: {<<: *y, r: 4}", {"p": 1, "q": 3, "r": 4}),
        ("y: &y {<<: *x, q: 3}\nz: *y\nb: *y", {"p": 1, "q": 3}),
        ("y: &y {q: 5, r: 7}\nb: {<<: [*x, *y]}", {"p": 1, "q": 2, "r": 7}),
        ("y: &y {p: {u: 1, v: 2}}\nb: {<<: *y, p: {u: 3}}", {"p": {"u": 3}}),
        ("b: {'<<': 1}", {"<<": 1}),
    ],
    ids=["alone", "own last", "own first", "of a merge", "named twice", "of two, first", "no deeper", "quoted"],
)
def test_a_merge_takes_in_keys_and_those_of_the_mapping_itself_win(written, text, expected):
    loaded = load_yaml(written(f"x: &x {{p: 1, q: 2}}\n{text}"))
    assert loaded["b"] == expected
    assert loaded["x"] == {"p": 1, "q": 2}


def test_a_merged_section_is_that_of_a_config(written):
    network = "network: {name: unet, encoder: &five {norm: batch, channels: [8, 16]}}"
    made = load_config(
        written(f"{network}\nensemble:\n  network: {{name: unet, encoder: {{<<: *five, channels: [4, 8]}}}}")
    )
    assert (made.network.encoder.channels, made.ensemble.network.encoder.channels) == ((8, 16), (4, 8))
    assert made.ensemble.network.encoder.norm == "batch"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x: &x {p: 1}\nb:\n  <<: *x\n  q: 3\n  q: 4", 5, "key 'q' stands twice"),
        ("x: &x {p: 1}\nb:\n  q: 3\n  <<: *x\n  q: 4", 5, "key 'q' stands twice"),
        ("x: &x\n  p: 1\n  p: 2\nb: {<<: *x}", 3, "key 'p' stands twice"),
        ("x: &x {p: 1}\nb:\n  <<: *x\n  <<: *x", 4, "key '<<' stands twice"),
        ("x: &x [1]\nb:\n  <<: *x", 1, "expected a mapping for merging"),
        ("a: 1\nb:\n  {{case}}: 2", 3, "a key must be one word"),
        ("a: 1\n? [1, 2]\n: 3", 2, "a key must be one word"),
    ],
)
def test_a_key_that_can_not_be_is_refused_with_its_line(written, text, line, words):
    with pytest.raises(ConfigError) as error:
        load_yaml(written(text))
    assert f"not valid YAML at line {line}: " in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_tags_that_would_run_code_are_refused(written, tmp_path):
    proof = tmp_path / "executed"
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(
            written(f"name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{proof}]]")
        )
    assert not proof.exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--train.epochs", "x"], "--train.epochs"),
        (["--train.epochs", "0"], "'train.epochs' is 0: give 1 or more"),
        (
            ["--train.epoch", "3"],
            "unknown option --train.epoch; did you mean --train.epochs or --train.steps-per-epoch?",
        ),
        (["--train.batch-size", "many"], "'--train.batch-size' is 'many': give a whole number or auto"),
        (["--train.clip=x"], "'--train.clip' is 'x': give a number"),
        (["--train.optimiser", "adamm"], "did you mean 'adam'? Choose one of 'adamw', 'adam', 'sgd', 'adadelta'"),
        (["--network.encoder.name", "resnt"], "Choose one of 'plain', 'residual', 'dense', 'convnext', 'mednext'"),
        (["--patches.size", "0", "1"], "'patches.size.0' is 0: give 1 or more"),
        (["--nothing", "1"], "unknown option --nothing: --help-all lists every option"),
        (
            ["--network.deep-supervision", "2"],
            "'2' after --network.deep-supervision is one value too many: --help-all lists every option",
        ),
        (["phantom"], "'phantom' belongs to no option: --help-all lists every option"),
        (["--network.name", "foo"], "'unet', 'dynunet'"),
        (["--number", "x"], "--number"),
        (["--config", "nowhere.yaml"], "cannot read config nowhere.yaml"),
        (["--patches.size", "64", "a"], "'--patches.size' is '64 a': give whole numbers or auto"),
        (["--number"], "--number needs a value"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_it(argv, words):
    with pytest.raises(ConfigError) as error:
        parse_as(SegmentationConfig, Arguments, argv)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not JARGON.search(str(error.value))


class Needs(Section):
    references: Path
    output: Path


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--reference", "tiny"], "unknown option --reference; did you mean --references?"),
        (["--reference", "tiny", "--outptu", "x"], "unknown options --reference, --outptu; did you mean --references?"),
        (["--else", "x"], "unknown option --else: --help-all lists every option"),
        (["--output", "x"], "--references must be given"),
    ],
)
def test_a_slip_is_named_where_required_options_are_missing_too(argv, words):
    with pytest.raises(ConfigError) as error:
        parse(Needs, argv)
    assert str(error.value) == words


def test_a_config_that_is_a_binary_file_is_one_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\x1f\x8b\x08\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        load_config(path)


def test_parse_reads_a_tool_of_its_own():
    assert parse(Arguments, ["--number", "4"]).number == 4


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_help_documents_every_option_without_loading_torch(tool):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(tool)!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'torch', 'monai', 'torchio'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout


def test_every_field_of_the_schema_has_a_description():
    def undocumented(model):
        for name, field in model.model_fields.items():
            for inner in _models(field.annotation):
                yield from undocumented(inner)
            if not _models(field.annotation) and not field.description and name != "name":
                yield f"{model.__name__}.{name}"

    def _models(annotation):
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return [annotation]
        return [m for inner in getattr(annotation, "__args__", ()) for m in _models(inner)]

    assert not list(undocumented(SegmentationConfig))


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_an_unknown_option_ends_a_tool_with_one_line_and_code_2(tool):
    result = subprocess.run(
        [sys.executable, str(tool), "--no-such-option"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("error: ")
