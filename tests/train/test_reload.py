import json
import math

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.data import evaluation_batches, load_data
from qna.eval import evaluate
from qna.train import fit
from qna.train.checkpoint import load_tensors, save_tensors
from qna.train.reload import ViewOptions, load_classifier


@pytest.fixture
def outcome(config, changed):
    return fit(changed(config, epochs=1))


def judged(classifier):
    """Scores as the run itself counts them."""
    data = load_data("few")
    view = classifier.view.pixels(data.held_out)
    batches = (
        batch._replace(images=classifier.view.standardise(batch.images))
        for batch in evaluation_batches(data.held_out, view, 8)
    )
    return evaluate(classifier.network, batches, 2)


@pytest.mark.parametrize("source", ["", "model.safetensors"])
def test_a_run_comes_back_with_its_classes_view_and_scores(outcome, source):
    classifier = load_classifier(str(outcome.folder / source))
    assert classifier.classes == ("above", "below")
    assert (classifier.data, classifier.data_dir) == ("few", None)
    assert (classifier.view.size, classifier.view.mean, classifier.view.std) == (32, (0.4,), (0.3,))
    assert (classifier.view.crop_pct, classifier.view.interpolation) == (1.0, "bilinear")
    assert not classifier.network.training
    scores = judged(classifier)
    assert scores.confusion == outcome.scores.confusion
    # the same numbers, standardised one step later: a few roundings
    assert scores.loss == pytest.approx(outcome.scores.loss, rel=1e-5)


def test_a_timm_name_takes_the_weights_of_a_run_and_what_they_say(outcome):
    path = outcome.folder / "model.safetensors"
    classifier = load_classifier("test_vit", weights=path)
    assert classifier.classes == ("above", "below")
    assert (classifier.view.size, classifier.view.mean) == (32, (0.4,))
    assert classifier.data is None
    assert judged(classifier).confusion == outcome.scores.confusion


def test_arguments_of_the_model_come_back(config, changed):
    words = ("dim=16", "kernel_size=5", "qna_blocks=1,1,0")
    run = fit(changed(config, model="qna_vit_nano_16", model_kwargs=words, image_size=16, epochs=1))
    weights = run.folder / "model.safetensors"
    for classifier in (load_classifier(str(run.folder)), load_classifier("qna_vit_nano_16", weights=weights)):
        assert classifier.network.stages[0][0].mixer.kernel_size == (5, 5)
        assert judged(classifier).confusion == run.scores.confusion


def test_a_torch_file_of_tensors_tells_the_number_of_classes(outcome, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(outcome.network.state_dict(), path)
    # test_vit is fixed in size: the run's is not known from such a file
    classifier = load_classifier("test_vit", weights=path, channels=1, view=ViewOptions(image_size=32))
    assert classifier.classes == ("0", "1")
    assert classifier.view.channels == 1
    for name, tensor in classifier.network.state_dict().items():
        assert torch.equal(tensor, outcome.network.state_dict()[name])


def test_the_view_can_be_changed(outcome):
    asked = ViewOptions(crop_pct=0.5, mean=(0.1,), std=(0.2,))
    view = load_classifier(str(outcome.folder), view=asked).view
    assert (view.crop_pct, view.mean, view.std, view.size) == (0.5, (0.1,), (0.2,), 32)
    larger = load_classifier(str(outcome.folder), view=ViewOptions(image_size=48))
    assert larger.view.size == 48
    assert larger.network(torch.zeros(1, 1, 48, 48)).shape == (1, 2)
    with pytest.raises(InvalidInput, match=r"mean needs one number for each of 1 channels, got \(0.1, 0.2\)"):
        load_classifier(str(outcome.folder), view=ViewOptions(mean=(0.1, 0.2)))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("test_vitt", {}, "unknown model 'test_vitt'; did you mean 'test_vit'"),
        ("test_vit", {}, "test_vit has no weights: give --pretrained for timm's, or --weights FILE"),
        ("no/such/run", {}, "there is no run or weights file no/such/run"),
        ("none.safetensors", {}, "none.safetensors is not a run that can be used: there is no"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(source, options, message):
    with pytest.raises((InvalidInput, UnknownName), match=message) as raised:
        load_classifier(source, **options)
    assert "\n" not in str(raised.value)


def test_damaged_and_foreign_files(outcome, tmp_path):
    path = outcome.folder / "model.safetensors"
    tensors, about = load_tensors(path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:1000])
    bare = tmp_path / "bare.safetensors"
    save_tensors(bare, tensors, {})
    other = tmp_path / "other.safetensors"
    save_tensors(other, {"a": torch.zeros(3)}, about)
    spoiled = tmp_path / "spoiled.safetensors"
    save_tensors(spoiled, {**tensors, "head.bias": tensors["head.bias"] * math.nan}, about)
    for file, message in [
        (spoiled, "spoiled.safetensors: 'head.bias' holds NaN"),
        (cut, "cut.safetensors is not a checkpoint of qna"),
        (bare, "bare.safetensors does not say what it was trained on"),
        (other, "other.safetensors has the weights of another network"),
    ]:
        with pytest.raises(InvalidInput, match=message) as raised:
            load_classifier(str(file))
        assert "\n" not in str(raised.value)
    with pytest.raises(InvalidInput, match="has no classifier of 'test_vit'"):
        load_classifier("test_vit", weights=other)
    with pytest.raises(InvalidInput, match="weights of its own; --weights and --pretrained go with timm's"):
        load_classifier(str(outcome.folder), weights=path)


def test_an_unfinished_run_says_how_to_go_on(outcome):
    (outcome.folder / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"if it was stopped, `qna train --resume .*` goes on with it"):
        load_classifier(str(outcome.folder))


def test_a_folder_that_timm_can_read(tmp_path):
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("test_vit", num_classes=3, img_size=160)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    about = {
        "architecture": "test_vit",
        "num_classes": 3,
        "label_names": ["x", "y", "z"],
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "fixed_input_size": True,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(about))
    classifier = load_classifier(str(tmp_path))
    assert classifier.classes == ("x", "y", "z")
    assert classifier.view.mean == (0.5, 0.5, 0.5)
    for name, tensor in classifier.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_an_untrained_network_is_had_only_if_asked_for():
    classifier = load_classifier("test_vit", untrained=True)
    again = load_classifier("test_vit", untrained=True)
    assert torch.equal(classifier.network.cls_token, again.network.cls_token)
    assert len(classifier.classes) == 1000
    # ImageNet's first class, by its common name
    assert classifier.classes[0] == "tench"
