"""Decoders around backbones: the backbone's own maps, any size, and what is refused."""

import pytest
import timm
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.export import IMAGES, TOLERANCE, export_onnx
from qna.models import create_segmenter
from tests.models.random_images import images

smp = pytest.importorskip("segmentation_models_pytorch")
NANO = "qna_vit_nano_16"


@pytest.mark.parametrize("decoder", ["unet", "fpn", "segformer", "linknet"])
def test_any_size(decoder):
    model = create_segmenter(NANO, num_classes=5, decoder=decoder).eval()
    with torch.no_grad():
        for size in ((32, 32), (21, 38), (8, 9)):
            assert model(images(*size)).shape == (2, 5, *size)


@pytest.mark.parametrize("name", [NANO, "qna_vit_tiny", "test_resnet", "test_convnext"])
def test_the_decoder_sees_the_maps_of_the_backbone(name):
    model = create_segmenter(name, num_classes=5).eval()
    backbone = timm.create_model(name, features_only=True).eval()
    inner = model.network.encoder.model
    inner.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        x = images(64, 96)
        maps = model.network.encoder(x)
        expected = backbone(x)
    assert torch.equal(maps[0], x)
    for got, want in zip(maps[-len(expected) :], expected, strict=True):
        assert torch.equal(got, want)


def test_filling_up_does_not_move_the_image():
    """The upper left part of the logits is that of the filled image."""
    model = create_segmenter(NANO, num_classes=4).eval()
    x = images(19, 30)
    filled = torch.nn.functional.pad(x, (0, 2, 0, 5), mode="replicate")
    assert model.step == 8
    with torch.no_grad():
        assert torch.equal(model(x), model(filled)[:, :, :19, :30])


def test_arguments_of_both():
    model = create_segmenter(
        NANO,
        num_classes=3,
        in_chans=1,
        decoder="unet",
        decoder_arguments={"decoder_channels": (48, 24, 12)},
        drop_path_rate=0.2,
        qna_blocks=(1, 1, 1),
    )
    assert model.network.segmentation_head[0].weight.shape == (3, 12, 3, 3)
    assert len(model.network.encoder.model.model.stages[0]) == 1
    # with no argument of its own, the shallow pyramid takes the decoder's finest levels
    plain = create_segmenter(NANO, num_classes=3)
    assert plain.network.segmentation_head[0].weight.shape == (3, 16, 3, 3)


def test_tables_are_exempt_from_decay_and_checkpointing_changes_nothing():
    model = create_segmenter(NANO, num_classes=3, drop_path_rate=0.0)
    names = dict(model.named_parameters())
    assert model.no_weight_decay() == {
        n for n in names if n.rsplit(".", 1)[-1] in ("table", "position_table")
    }
    x, gradients = images(16, 16), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model.train()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.long
@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_onnx_of_any_size(decoder, tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="qna[export] brings it")
    model = create_segmenter(NANO, num_classes=5, decoder=decoder, dim=16).eval()
    sizes = [
        {"batch": b, "height": h, "width": w}
        for b, h, w in ((1, 16, 16), (3, 37, 53), (2, 64, 64), (1, 8, 9))
    ]
    exported = export_onnx(model, tmp_path / "model.onnx", IMAGES, sizes=sizes)
    assert exported.difference < TOLERANCE


def test_a_model_that_segments_by_itself():
    model = create_segmenter("qna_unet_nano", num_classes=3, in_chans=1)
    assert model(torch.randn(1, 1, 9, 14)).shape == (1, 3, 9, 14)
    with pytest.raises(InvalidInput, match="qna_unet_nano segments by itself and takes no decoder, got fpn"):
        create_segmenter("qna_unet_nano", num_classes=3, decoder="fpn")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"name": "qna_vit_nanno"}, UnknownName, "unknown model 'qna_vit_nanno'"),
        ({"decoder": "unett"}, UnknownName, "unknown decoder 'unett'; did you mean 'unet'"),
        ({"decoder": "dpt"}, UnknownName, "unknown decoder 'dpt'"),
        (
            {"decoder_arguments": {"decoder_chanels": 3}},
            UnknownName,
            "unknown argument of decoder unet 'decoder_chanels'; did you mean 'decoder_channels'",
        ),
        ({"decoder_arguments": {"classes": 3}}, UnknownName, "unknown argument of decoder unet 'classes'"),
        ({"twist": 3}, UnknownName, "unknown argument of model qna_vit_nano_16 'twist'"),
        (
            {"decoder_arguments": {"decoder_channels": (1, 2)}},
            InvalidInput,
            "decoder unet around qna_vit_nano_16 cannot be built with encoder_depth=3, decoder_channels=",
        ),
        (
            {"patch_size": 3},
            InvalidInput,
            "halve from 1, 2 or 4 pixels per position on, and those .* 3, 6, 12",
        ),
        ({"patch_size": 4}, InvalidInput, "built with .*patch_size=4"),
        ({"name": "test_vit"}, InvalidInput, "halve from 1, 2 or 4 pixels"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(arguments, error, says):
    with pytest.raises(error, match=says) as refused:
        create_segmenter(**{"name": NANO, "num_classes": 3, **arguments})
    assert "\n" not in str(refused.value)
