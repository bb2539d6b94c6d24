"""A shared folder brings back the model, bit for bit, to this package and to timm."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import resolve_model_data_config

import qna.models
from qna._core.errors import InvalidInput, UnknownName
from qna.models import QnAViT, from_pretrained, save_pretrained

NAMES = ("bird", "cat", "dog", "ship")
DATA = {
    "input_size": (1, 24, 24),
    "interpolation": "bilinear",
    "mean": (0.25,),
    "std": (0.125,),
    "crop_pct": 0.9,
    "crop_mode": "center",
}
METRICS = {
    "model": "qna_vit_nano_16",
    "data": "pets",
    "trained_on": 1200,
    "held_out": 400,
    "unreadable": 3,
    "right": 311,
    "top1": 0.7775,
    "top5": 1.0,
    "loss": 0.61803,
    "epochs": 7,
    "seconds": 12.3,
    "device": "cpu",
    "torch": "2.13.0",
}


def make(name="qna_vit_nano_16", **arguments):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, in_chans=1, **arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def shared(tmp_path):
    """A model that was shared, and where."""
    model = make(img_size=24)
    model.save_pretrained(tmp_path / "a" / "shared", class_names=NAMES, data_config=DATA)
    return model, tmp_path / "a" / "shared"


def images():
    return torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(1))


def assert_same(model, other):
    assert not other.training
    with torch.no_grad():
        assert torch.equal(model(images()), other(images()))


def test_the_logits_come_back_to_the_bit(shared):
    model, folder = shared
    assert_same(model, QnAViT.from_pretrained(folder))
    assert_same(model, from_pretrained(str(folder)))
    assert_same(model, timm.create_model(f"local-dir:{folder}", pretrained=True).eval())
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == ["shared"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_classes_and_preparation_come_back(shared):
    _, folder = shared
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    said = resolve_model_data_config(model)
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()} == DATA
    assert tuple(model.pretrained_cfg["label_names"]) == NAMES


def test_the_hub_reads_the_same_folder(shared, monkeypatch):
    model, folder = shared

    def download(repo_id, filename, **_):
        # the hub's client, as timm calls it
        assert repo_id == "someone/pets"
        return str(folder / filename)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    for prefix in ("hf_hub:", "hf-hub:"):
        assert_same(model, timm.create_model(f"{prefix}someone/pets", pretrained=True).eval())


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_transformers_reads_the_same_folder(shared):
    transformers = pytest.importorskip("transformers", reason="a reader of shared folders, not installed")
    model, folder = shared
    other = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(other(images()).logits, model(images()))
    assert tuple(other.config.id2label.values()) == NAMES


def test_num_classes_stands_once_in_a_shared_folderuration(shared):
    config = json.loads((shared[1] / "config.json").read_text())
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 4
    assert "num_classes" not in config["model_args"]


def test_other_classes_and_channels_start_from_the_shared_weights(shared):
    model, folder = shared
    own = model.state_dict()
    tuned = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7, in_chans=3)
    assert tuned(torch.randn(1, 3, 24, 24)).shape == (1, 7)
    for name, tensor in tuned.state_dict().items():
        if name.startswith("head.fc"):
            assert tensor.shape[0] == 7
        elif name != "stem.conv.weight":
            assert torch.equal(tensor, own[name])
    # one channel becomes three equal ones of a third
    torch.testing.assert_close(tuned.stem.conv.weight.sum(1, keepdim=True), own["stem.conv.weight"])
    assert from_pretrained(folder, num_classes=0)(images()).shape == (2, 128)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_any_model_of_timm_can_be_shared(tmp_path, name):
    model = make(name, img_size=32) if "vit" in name else make(name)
    # channels-last weights are not contiguous
    model = model.to(memory_format=torch.channels_last)
    state = torch.random.get_rng_state()
    save_pretrained(model, tmp_path / "m")
    assert torch.equal(torch.random.get_rng_state(), state)
    again = from_pretrained(tmp_path / "m").state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in model.state_dict().items())
    with pytest.raises(InvalidInput, match=rf"holds a {type(model).__name__}, not a QnAViT"):
        QnAViT.from_pretrained(tmp_path / "m")


def test_the_card_says_what_was_measured_and_its_program_runs(tmp_path, capsys):
    model, folder = make(img_size=24), tmp_path / "pets"
    training = '{"optim": {"epochs": 7}}'
    save_pretrained(model, folder, class_names=NAMES, data_config=DATA, metrics=METRICS, training=training)
    card = (folder / "README.md").read_text()
    parameters = sum(p.numel() for p in model.parameters())
    assert card.startswith("---\nlibrary_name: timm\npipeline_tag: image-classification\n")
    for said in (
        "# qna_vit_nano_16 on pets",
        "311 of 400 held-out images right (77.75%)",
        f"| model | `qna_vit_nano_16`, {parameters:,} parameters, 4 classes |",
        "| reads | 1 x 24 x 24, bilinear, crop 0.9, mean 0.25, std 0.125 |",
        "| data | pets: 1,200 images trained on, 400 held out; 3 could not be read |",
        "| top-5 | 100.00% |",
        "| cross entropy | 0.6180 nats |",
        "| training | 7 epochs in 12 s on cpu, torch 2.13.0 |",
        f"```json\n{training}\n```",
    ):
        assert said in card
    from PIL import Image

    Image.new("RGB", (40, 30), (200, 100, 50)).save(tmp_path / "photo.png")
    (program,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    program = program.replace("local-dir:FOLDER", f"local-dir:{folder}")
    exec(program.replace("photo.png", str(tmp_path / "photo.png")), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == list(NAMES)
    assert sum(float(probability) for _, probability in lines) == pytest.approx(1, abs=2e-3)


def test_a_card_without_measurements_claims_none(shared):
    _, folder = shared
    card = (folder / "README.md").read_text()
    assert "# qna_vit_nano_16\n\nNothing that was measured came with it." in card
    assert "%" not in card
    assert "Training" not in card


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("mine", "file"):
        with pytest.raises(InvalidInput, match=rf"{name} is in use; .* so name a new one"):
            save_pretrained(make(), tmp_path / name)
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", "a.txt", "file"}
    (tmp_path / "empty").mkdir()
    save_pretrained(make(), tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 3


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(qna.models.sharing, "model_card", full)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(make(), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def fused():
    return make().fuse()


def with_another_head():
    model = make()
    model.head.fc = torch.nn.Sequential(torch.nn.Linear(128, 4))
    return model


@pytest.mark.parametrize(
    ("build", "arguments", "said"),
    [
        (make, {"class_names": ("a", "b")}, "the model has 4 classes, but there are 2 class names"),
        (make, {"data_config": {"men": 1}}, "unknown item of data_config 'men'; did you mean 'mean'"),
        (make, {"data_config": {"input_size": (3, 16, 16)}}, "cannot be shared: Requested 3 input channels"),
        (lambda: torch.nn.Linear(3, 4), {}, "Linear has no configuration of timm's; make it with timm"),
        (fused, {}, r"timm does not make it again; was it changed .* fuse\(\)"),
        (with_another_head, {}, "timm does not make it again; was it changed"),
        (lambda: make().bfloat16(), {}, "does not come back as it is; .* another type of numbers"),
    ],
)
def test_what_cannot_be_shared_is_said_and_nothing_is_written(tmp_path, build, arguments, said):
    with pytest.raises(InvalidInput, match=said) as refused:
        save_pretrained(build(), tmp_path / "m", **arguments)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_files_that_are_damaged_or_missing_are_named(shared, tmp_path):
    _, folder = shared
    config, weights = folder / "config.json", folder / "model.safetensors"
    text, whole = config.read_text(), weights.read_bytes()
    with pytest.raises(InvalidInput, match=r"no model in .*nowhere: config.json: No such file"):
        from_pretrained(tmp_path / "nowhere")
    for bad in ("{", "[]", "{}"):
        config.write_text(bad)
        with pytest.raises(InvalidInput, match=r"config.json is not a model's configuration as timm writes"):
            from_pretrained(folder)
    config.write_text(text.replace("qna_vit_nano_16", "qna_vit_nanno_16"))
    with pytest.raises(UnknownName, match="unknown model 'qna_vit_nanno_16'; did you mean 'qna_vit_nano_16'"):
        from_pretrained(folder)
    config.write_text(json.dumps({**json.loads(text), "model_args": {"patches": 3}}))
    with pytest.raises(InvalidInput, match=r"cannot be made again: TypeError: .*patches"):
        from_pretrained(folder)
    config.write_text(text)
    for part in (0, 100, len(whole) - 1):
        weights.write_bytes(whole[:part])
        with pytest.raises(InvalidInput, match=r"shared cannot be made again: "):
            from_pretrained(folder)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    save_file({name: t for name, t in tensors.items() if name != "norm.bias"}, weights)
    with pytest.raises(
        InvalidInput, match=r'cannot be made again: .*Missing key\(s\) .*"norm.bias"'
    ) as refused:
        from_pretrained(folder)
    assert "\n" not in str(refused.value)
    weights.unlink()
    # timm would take a pickle of that name instead
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match=r"no model in .*: model.safetensors is missing"):
        from_pretrained(folder)
