import json
from pathlib import Path

import pytest

from qna._core.errors import InvalidInput, UnknownName
from qna.train import RECIPES, TrainConfig, recipe
from qna.train.config import NetworkOptions, RunOptions


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    assert TrainConfig.from_json(recipe(name).to_json()) == recipe(name)


def test_paths_survive_json():
    config = TrainConfig(run=RunOptions(out=Path("a") / "b"))
    assert TrainConfig.from_json(config.to_json()) == config


def test_what_is_left_out_takes_its_default():
    assert TrainConfig.from_json('{"optim": {"lr": 1}}').optim.lr == 1.0
    assert TrainConfig.from_json("{}") == TrainConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"optim": {"epoch": 3}}', "unknown field of optim 'epoch'; did you mean 'epochs'?"),
        ('{"optimiser": {}}', "unknown field of the configuration 'optimiser'; did you mean 'optim'?"),
        ('{"optim": {"epochs": 3.5}}', "epochs must be int, got 3.5"),
        ('{"optim": {"epochs": true}}', "epochs must be int, got True"),
        ('{"optim": {"lr": "fast"}}', "lr must be float, got 'fast'"),
        ('{"optim": 3}', "optim must be OptimOptions, got 3"),
        ('{"run": {"precision": "fp8"}}', "unknown precision 'fp8'; did you mean"),
        ('{"run": {"out": 3}}', "out must be Path, got 3"),
        ("{", "the configuration is not JSON"),
        ('{"optim": {"epochs": 0}}', "epochs must be at least 1, got 0"),
        ('{"optim": {"lr": NaN}}', "NaN is not a number"),
        ('{"augment": {"smoothing": 1}}', r"smoothing must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_json_is_named(text, message):
    with pytest.raises(InvalidInput, match=message):
        TrainConfig.from_json(text)


def test_arguments_of_a_model_are_python_values_or_words():
    words = ("dim=24", "depths=1,2", "rate=.5", "bias=False", "stem=patch-2", "k='a=b'")
    values = {"dim": 24, "depths": (1, 2), "rate": 0.5, "bias": False}
    network = NetworkOptions(model_kwargs=words)
    assert network.model_arguments() == {**values, "stem": "patch-2", "k": "a=b"}
    config = TrainConfig(network=network)
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dim",), "must be NAME=VALUE, dim=24 for example, got 'dim'"),
        (("dim=",), "must be NAME=VALUE, dim=24 for example, got 'dim='"),
        (("a b=1",), "must be NAME=VALUE"),
        (("dim=1", "dim=2"), "names dim twice"),
        (("bias=false",), "write bias=False for bias=false"),
        (("ls_init_value=None",), "timm hands no None on to a model, got ls_init_value=None; leave it out"),
        (("depths=(1,",), r"depths must be a Python value or a word, got '\(1,'"),
    ],
)
def test_arguments_of_a_model_that_cannot_be_read_are_named(words, message):
    with pytest.raises(InvalidInput, match=message):
        NetworkOptions(model_kwargs=words)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown recipe 'digts'; did you mean 'digits'"):
        recipe("digts")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"cannot read the configuration .*none.json: No such file"):
        TrainConfig.from_file(tmp_path / "none.json")


def test_field_names_are_options_and_therefore_unique():
    groups = json.loads(TrainConfig().to_json()).values()
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"run": {"out": "caf\xe9"}}', "config.json: the configuration is not UTF-8"),
        (b"[" * 100_000, "config.json: the configuration is not JSON"),
        (b'{"optim": {"lr": 1e999}}', "config.json: lr must be finite, got inf"),
        (b'{"run": {"seed": 1%s}}' % (b"0" * 30), "config.json: seed must have at most 64 bits"),
        (b'{"run": {"threads": 5000}}', "config.json: threads must be at most 1,024, got 5,000"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, content, said):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as raised:
        TrainConfig.from_file(tmp_path / "config.json")
    assert "\n" not in str(raised.value)
