"""QnA-UNet: every size, independence of the batch, gradients, timm's contract for what it has of it."""

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.mixers import QnAUpsample2d
from qna.models import QNA_UNET, create
from qna.models._parts.shortcut import RepeatedShortcut
from tests.mixers.contract import randomise
from tests.models.random_images import images

NANO = "qna_unet_nano"
SMALL = {"dim": 8, "num_classes": 4}


def build(**arguments):
    torch.manual_seed(0)
    model = create(NANO, **{**SMALL, **arguments}).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (5, 64)])
@pytest.mark.parametrize("patch_size", [2, 4])
def test_any_size(size, patch_size):
    model = build(patch_size=patch_size)
    with torch.no_grad():
        x = images(*size)
        assert model(x).shape == (2, 4, *size)
        features = model.forward_features(x)
        assert features.shape == (2, *(-(-n // patch_size) for n in size), 8)
        if not any(n % patch_size for n in size):
            assert torch.equal(model.forward_head(features), model(x))
        assert model.forward_head(features, pre_logits=True).shape[1] == 8


def test_logits_lie_over_their_pixels():
    """Rolling an image by the coarsest step rolls what lies far from the edges of the logits."""
    model, x = build().double(), images(256, 256, batch=1).double()
    step = 16
    with torch.no_grad():
        plain, rolled = model(x), model(x.roll(step, 3))
    # the windows of all layers together reach 88 pixels
    middle = slice(112, 144)
    torch.testing.assert_close(
        rolled[:, :, middle, 112 + step : 144 + step], plain[:, :, middle, middle], rtol=1e-9, atol=1e-9
    )


def test_an_image_does_not_depend_on_its_batch():
    model, x = build().double(), images(33, 47, batch=3).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-10, atol=1e-10)


def test_every_parameter_gets_a_gradient_and_checkpointing_changes_none():
    gradients = []
    for enable in (False, True):
        model = build()
        model.set_grad_checkpointing(enable)
        model.train()
        model(images(64, 64)).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert not [n for n, g in gradients[0].items() if g is None or not g.any()]
    assert all(torch.equal(g, gradients[1][n]) for n, g in gradients[0].items())


def test_space_is_moved_by_learned_queries_alone():
    model = create(NANO, **SMALL)
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == ["encoder.stem.conv"]
    assert sum(isinstance(m, QnAUpsample2d) for m in model.modules()) == len(model.decoder) + 1


def test_features_are_the_encoders():
    model, x = build(), images(33, 47)
    features = timm.create_model(NANO, features_only=True, **SMALL).eval()
    features.model.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        maps, expected = features(x), model.forward_intermediates(x, intermediates_only=True)
    assert features.feature_info.reduction() == [2, 4, 8, 16]
    for got, want in zip(maps, expected, strict=True):
        assert torch.equal(got, want)
    assert not [n for n in features.state_dict() if "decoder" in n or "head" in n]


def test_intermediates_come_with_the_features_as_timm_has_them():
    model, x = build(), images(33, 47)
    with torch.no_grad():
        features, every = model.forward_features(x), model.forward_intermediates(x, intermediates_only=True)
        for checkpointed in (False, True):
            model.set_grad_checkpointing(checkpointed)
            final, maps = model.forward_intermediates(x)
            assert torch.equal(final, features)
            for got, want in zip(maps, every, strict=True):
                assert torch.equal(got, want)
        _, (last,) = model.forward_intermediates(x, 1, output_fmt="NHWC")
        assert torch.equal(last, every[-1].permute(0, 2, 3, 1))
        early, (first,) = model.forward_intermediates(x, [0], stop_early=True, output_fmt="NHWC")
        assert torch.equal(early, first)
        assert torch.equal(first, every[0].permute(0, 2, 3, 1))
    with pytest.raises(InvalidInput, match="must name some of 4 stages"):
        model.forward_intermediates(x, [4])
    with pytest.raises(InvalidInput, match="output_fmt"):
        model.forward_intermediates(x, output_fmt="NLC")


def test_reset_classifier_decay_and_cfg():
    model, x = build(), images(16, 16)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3, 16, 16)
    model.reset_classifier(0)
    assert model(x).shape == (2, 8, 16, 16)
    names = {n for n, _ in model.named_parameters() if n.endswith(".table")}
    assert model.no_weight_decay() == names
    model = create(NANO)
    assert model.default_cfg["num_classes"] == 21
    assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()
    assert isinstance(model.get_submodule(model.default_cfg["first_conv"]), nn.Conv2d)


def test_fuse_changes_only_the_parameters():
    model, x = build().double(), images(32, 32).double()
    with torch.no_grad():
        before = model(x)
        torch.testing.assert_close(model.fuse()(x), before, rtol=1e-10, atol=1e-10)
    assert not [n for n, _ in model.named_parameters() if n.endswith((".key", ".query"))]


def test_meta_and_round_trip():
    with torch.device("meta"):
        model = create(NANO, **SMALL)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 4, 32, 32)
    build().load_state_dict(model.to_empty(device="cpu").state_dict())


def test_every_module_is_called():
    model, called = build(), set()
    for prefix, module in model.named_modules():
        module.register_forward_hook(lambda *_, prefix=prefix: called.add(prefix))
    with torch.no_grad():
        model(images(32, 48))
    holders = {key.rpartition(".")[0] for key in model.state_dict()}
    assert not holders - called


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    model, x = build(), images(32, 32)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_repeated_skip_path_tells_where_positions_come_from():
    skip = RepeatedShortcut(3, 3, factor=2)
    with torch.no_grad():
        skip.proj.weight.copy_(torch.eye(3))
        x = torch.randn(2, 2, 5, 3)
        out = skip(x)
    assert out.shape == skip.out_size(x.shape) == (2, 4, 10, 3)
    dense = skip.position_rows(x).dense(10)
    torch.testing.assert_close(dense @ x.flatten(1, 2), out.flatten(1, 2))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"decoder_blocks": (1, 1)}, "one level of its decoder fewer than stages of its encoder"),
        ({"encoder_blocks": (1, -1, 1, 1)}, "must hold integers of at least 0"),
        ({"dim": 12}, "head_dim must divide dim=12, got 8"),
        ({"num_classes": -1}, "num_classes must be an integer of at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be(arguments, says):
    with pytest.raises(InvalidInput, match=says):
        create(NANO, **arguments)


def test_sizes_of_the_family():
    assert [v.image_size % (v.patch_size * 2 ** len(v.levels)) for v in QNA_UNET.values()] == [0, 0, 0]
