"""Every training option does what it says."""

import sys
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna.train import Observer, fit, resume
from qna.train.config import AugmentOptions, NetworkOptions
from qna.train.mixing import BatchMixer
from qna.train.network import freeze, train_mode
from qna.train.tasks.classification import build_classifier


class Losses(Observer):
    def __init__(self):
        self.losses = []

    def update(self, step, epoch, loss):
        self.losses.append(loss)


def losses(config):
    fit(config, observer := Losses())
    return observer.losses


@pytest.fixture
def plain(config, changed):
    """No randomness but the order and the first weights."""
    return changed(config, rotate=0, shift=0, zoom=0, flip=False, drop_path=0.0, ema=0.0, warmup_epochs=0)


def test_accumulated_batches_make_the_update_of_one_large_batch(plain, changed):
    large, small = losses(plain), losses(changed(plain, batch_size=2, accumulate=4))
    assert small == pytest.approx(large, rel=1e-4)
    assert len(small) == 4


def weights(config):
    return [p.detach() for p in fit(config).network.parameters()]


def test_clipping_bounds_the_gradient(plain, changed):
    start = weights(changed(plain, lr=0.0, weight_decay=0.0, epochs=1))
    free = weights(changed(plain, weight_decay=0.0, epochs=1))
    # AdamW divides by |g| + 1e-8: only a gradient far below 1e-8 moves nothing
    held = weights(changed(plain, weight_decay=0.0, epochs=1, clip=1e-15))

    def moved(after):
        return max(float((a - b).abs().max()) for a, b in zip(after, start, strict=True))

    assert moved(free) > 1e-4
    assert moved(held) < 1e-8


def test_a_constant_rate_stays(plain, changed):
    outcome = fit(changed(plain, schedule="constant"))
    assert [r["lr"] for r in outcome.history] == [0.02 * 8 / 256] * 2


def test_frozen_parts_keep_weights_and_statistics(plain, changed):
    config = changed(plain, model="test_resnet", freeze=("conv1", "layer1", "bn1"))
    start = build_start(config)
    after = fit(config).network.state_dict()
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    assert moved
    assert not {n for n in moved if n.startswith(("conv1", "bn1", "layer1"))}
    assert {n for n in moved if n.startswith("layer2")}


def build_start(config):
    """The weights that a run begins with."""
    seen = {}

    class First(Observer):
        def begin(self, run):
            seen.update({n: t.clone() for n, t in run.learner.network.state_dict().items()})

    fit(config, First())
    return seen


def test_freezing_names_its_mistakes():
    with pytest.raises(UnknownName, match="unknown part to freeze 'block'; did you mean 'blocks"):
        fine(freeze=("block",))
    network = fine()
    everything = tuple(name for name, _ in network.named_parameters())
    with pytest.raises(InvalidInput, match="leaves nothing to train"):
        freeze(network, everything)


def test_training_mode_leaves_frozen_norms_in_evaluation_mode():
    options = NetworkOptions(model="test_resnet", freeze=("layer1",))
    network = build_classifier(options, classes=2, channels=1, image_size=32)
    train_mode(network)
    assert network.training
    assert not any(m.training for m in network.layer1.modules() if list(m.parameters()))
    assert all(m.training for m in network.layer2.modules())


def fine(**options):
    return build_classifier(NetworkOptions(model="test_vit", **options), classes=2, channels=1, image_size=32)


def built(model, *words, **options):
    given = NetworkOptions(model=model, model_kwargs=words, **options)
    return build_classifier(given, classes=3, channels=1, image_size=16)


def test_arguments_reach_models_of_both_libraries():
    plain = built("qna_vit_nano_16")
    words = ("dim=24", "window_head_dim=12", "kernel_size=5", "num_queries=3", "qna_blocks=2,1,1")
    network = built("qna_vit_nano_16", *words, "window_blocks=(0, 0, 0)")
    assert [len(stage) for stage in network.stages] == [2, 2, 2]
    mixer = network.stages[1][0].mixer
    assert (mixer.dim, mixer.kernel_size, mixer.num_queries) == (24, (5, 5), 3)
    assert plain.stages[0][0].mixer.num_queries == 2
    conv = built("test_convnext", "depths=[1, 1, 1, 1]", "patch_size=1", "act_layer=relu")
    assert len(conv.stages[1].blocks) == 1
    assert any(isinstance(m, nn.ReLU) for m in conv.modules())


def test_features_follow_the_stages_that_are_asked_for():
    network = timm.create_model(
        "qna_vit_nano_16", features_only=True, qna_blocks=(1, 1), window_blocks=(0, 0), window_sizes=(4, 4)
    )
    assert network.feature_info.channels() == [32, 64]


@pytest.mark.parametrize(
    ("model", "word", "says"),
    [
        (
            "qna_vit_nano_16",
            "kernelsize=5",
            "unknown argument of model qna_vit_nano_16 'kernelsize'; did you",
        ),
        (
            "test_convnext",
            "depth=3",
            "unknown argument of model test_convnext 'depth'; did you mean 'depths'",
        ),
        ("qna_vit_nano_16", "qna_blocks=1,1", "one number per stage in each of window_blocks=.*qna_blocks="),
        ("qna_vit_nano_16", "dim=25", "head_dim must divide dim=25, got 8"),
        ("qna_vit_nano_16", "dim=2.5", "dim must be a positive integer, got 2.5"),
        ("test_convnext", "depths=1", "model 'test_convnext' cannot be built with .*depths=1"),
        ("test_convnext", "img_size=32", "model_kwargs cannot set img_size: use image_size"),
        ("test_convnext", "num_classes=3", "model_kwargs cannot set num_classes: it follows from the data"),
    ],
)
def test_arguments_that_a_model_does_not_take_are_named(model, word, says):
    with pytest.raises(InvalidInput, match=says):
        built(model, word)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_run_starts_from_a_file(tmp_path, suffix):
    source, path = fine(), tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(dict(source.state_dict()), path)
    network = fine(weights=path)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), network.parameters(), strict=True))
    # a classifier for other classes starts anew, all else is taken over
    options = NetworkOptions(model="test_vit", weights=path)
    other = build_classifier(options, classes=5, channels=1, image_size=32)
    assert other.head.weight.shape[0] == 5
    assert torch.equal(other.blocks[0].norm1.weight, source.blocks[0].norm1.weight)


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    state = {n: t.clone() for n, t in fine().state_dict().items()}
    save_file({n: t for n, t in state.items() if n != "norm.bias"}, path)
    with pytest.raises(InvalidInput, match=r"w.safetensors has no tensor 'norm.bias'"):
        fine(weights=path)
    save_file({**state, "more": torch.zeros(1)}, path)
    with pytest.raises(InvalidInput, match="has a tensor 'more' that the network does not have"):
        fine(weights=path)
    save_file({**state, "norm.bias": torch.zeros(3)}, path)
    with pytest.raises(InvalidInput, match=r"the shape of 'norm.bias' is \(3,\), the network's is \(64,\)"):
        fine(weights=path)
    path.write_bytes(b"no weights")
    with pytest.raises(InvalidInput, match="cannot be read as weights"):
        fine(weights=path)


class Harmful:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_torch_file_with_more_than_tensors_is_refused(tmp_path, capsys):
    torch.save({"norm.bias": Harmful()}, tmp_path / "w.pth")
    with pytest.raises(InvalidInput, match="cannot be read as weights"):
        fine(weights=tmp_path / "w.pth")
    assert "never run" not in capsys.readouterr().out


def test_the_weights_of_a_run_start_another(config, changed):
    first = fit(config)
    start = build_start(changed(config, weights=first.folder / "model.safetensors"))
    kept = load_file(first.folder / "model.safetensors")
    assert all(torch.equal(kept[n], start[n]) for n in kept)


def test_the_checkpoint_of_a_run_starts_another_from_what_it_evaluates(config, changed):
    first = fit(config)
    start = build_start(changed(config, weights=first.folder / "checkpoint.safetensors"))
    kept = load_file(first.folder / "model.safetensors")
    assert all(torch.equal(kept[n], start[n]) for n in kept)


def test_a_run_goes_on_without_the_file_that_it_started_from(config, changed, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(dict(fine().state_dict()), path)
    outcome = fit(changed(config, weights=path))
    path.unlink()
    again = resume(outcome.folder)
    assert again.scores == outcome.scores


def test_gradient_checkpointing_changes_no_number(plain, changed):
    assert losses(changed(plain, grad_checkpointing=True)) == pytest.approx(losses(plain), rel=1e-5)


def test_channels_last_changes_no_number(plain, changed):
    config = changed(plain, model="test_convnext")
    assert losses(changed(config, channels_last=True)) == pytest.approx(losses(config), rel=1e-4)


def test_compiling_changes_no_number(plain, changed, monkeypatch):
    original, compiled = nn.Module.compile, []

    def quickly(self):
        # inductor takes minutes; whether the models compile with it is their own test
        compiled.append(self)
        return original(self, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", quickly)
    assert losses(changed(plain, compile=True)) == pytest.approx(losses(plain), rel=1e-4)
    assert len(compiled) == 1


def test_fp16_needs_a_gpu_and_says_so(config, changed):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InvalidInput, match="precision fp16 cannot be used on cpu; take fp32 or bf16"):
        fit(changed(config, precision="fp16"))


def images_and_labels():
    g = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 16, 16, generator=g), torch.arange(8) % 3


def test_no_mixing_hands_on_what_it_gets():
    images, labels = images_and_labels()
    mixer = BatchMixer(AugmentOptions(), 3)
    out = mixer(images, labels, 0)
    assert out[0] is images
    assert out[1] is labels
    assert not mixer.smooths


def test_erasing_replaces_rectangles_and_follows_from_the_seed():
    images, labels = images_and_labels()
    mixer = BatchMixer(AugmentOptions(erase=1.0), 3)
    state = torch.random.get_rng_state()
    one, two, three = (mixer(images, labels, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert torch.equal(torch.random.get_rng_state(), state)
    changed_part = (one != images).flatten(1).float().mean(1)
    assert (changed_part > 0).all()
    assert (changed_part < 0.5).all()
    assert torch.equal(images, images_and_labels()[0])


def test_mixup_mixes_images_and_targets_alike():
    images, labels = images_and_labels()
    mixed, targets = BatchMixer(AugmentOptions(mixup=0.8, smoothing=0.0), 3)(images, labels, 3)
    hot = F.one_hot(labels, 3).float()
    # the partner of image i is image 7 - i
    share = float(((targets - hot.flip(0)) / (hot - hot.flip(0)))[hot != hot.flip(0)].mean())
    assert 0 < share < 1
    torch.testing.assert_close(targets, share * hot + (1 - share) * hot.flip(0))
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.flip(0))


def test_cutmix_shares_targets_by_area():
    images, labels = images_and_labels()
    mixed, targets = BatchMixer(AugmentOptions(cutmix=1.0, smoothing=0.0), 3)(images, labels, 3)
    own = (mixed == images).float().mean((1, 2, 3))
    hot = F.one_hot(labels, 3).float()
    torch.testing.assert_close(targets, own[:, None] * hot + (1 - own[:, None]) * hot.flip(0))
    assert 0 < float(own.mean()) < 1


def test_smoothing_is_applied_once():
    images, labels = images_and_labels()
    mixer = BatchMixer(AugmentOptions(mixup=0.8, smoothing=0.3), 3)
    assert mixer.smooths
    assert mixer(images, labels, 0)[1].min() == pytest.approx(0.1)


def test_tensorboard_gets_the_curves_if_it_is_installed(config, changed, monkeypatch):
    scalars = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            scalars.append((self.folder.name, name, value, step))

        def close(self):
            scalars.append("closed")

    stand_in = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    outcome = fit(config)
    curve = [s for s in scalars if s[1:2] == ("epoch/top1",)]
    assert curve == [("tensorboard", "epoch/top1", r["top1"], r["step"]) for r in outcome.history]
    assert scalars[-1] == "closed"
    scalars.clear()
    fit(changed(config, tensorboard=False))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    fit(config)
    assert not scalars
