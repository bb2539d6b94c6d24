"""Detectors of transformers around our backbones: no image depends on its padding or its neighbours."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput, MissingExtra, UnknownName

try:
    from qna.models.detectors import DETECTORS, create_detector
    from qna.models.detectors.detr import Detr, OwnSizeEncoder, image_sizes, transformers
    from qna.models.detectors.rt_detr import RTDetr
except MissingExtra as missing:
    pytest.skip(str(missing), allow_module_level=True)

from qna.models import QNA_VIT, create

COMMON = {
    "num_queries": 6,
    "d_model": 16,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
SMALL = {
    "detr": {**COMMON, "encoder_layers": 1},
    "rt-detr": {**COMMON, "encoder_hidden_dim": 16, "num_denoising": 4},
}
# ours with windows and pooling of all kinds, and one of convolutions; (name, arguments)
BACKBONES = [
    ("qna_vit_nano_16", {"dim": 16}),
    ("qna_vit_nano_16", {"dim": 16, "mixers": "FocalModulation2d", "stem": "resnet"}),
    (
        "qna_vit_tiny_7x7",
        {"dim": 16, "window_head_dim": 16, "qna_blocks": (1, 1, 1, 0), "shortcut": "avgpool"},
    ),
    ("test_convnext", {}),
]
# heights and widths of one batch: odd, even, tiny, very wide, and two alike
SIZES = [(33, 47), (64, 40), (9, 70), (33, 47), (64, 72)]


def small(name, backbone="qna_vit_nano_16", own=None, **arguments):
    torch.manual_seed(0)
    return create_detector(
        name, backbone, classes=["a", "b", "c"], backbone_arguments=own, **{**SMALL[name], **arguments}
    ).eval()


def images(sizes, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=g, dtype=dtype) for size in sizes]


def padded(some, height, width, fill=0.0):
    batch = torch.full((len(some), 3, height, width), fill, dtype=some[0].dtype)
    mask = torch.zeros(len(some), height, width, dtype=torch.long)
    for i, image in enumerate(some):
        batch[i, :, : image.shape[1], : image.shape[2]] = image
        mask[i, : image.shape[1], : image.shape[2]] = 1
    return batch, mask


@pytest.mark.parametrize(("backbone", "own"), BACKBONES, ids=lambda value: str(value)[:40])
@torch.no_grad()
def test_features_and_boxes_of_an_image_depend_on_no_padding_and_no_neighbour(backbone, own):
    detector = small("detr", backbone, own).double()
    # timm's convolutions take no map smaller than their kernel
    sizes = [size for size in SIZES if "qna" in backbone or min(size) >= 32]
    some = images(sizes)
    alone = [detector(*padded([image], *image.shape[1:])) for image in some]
    encoder = detector.model.model.backbone
    for height, width, fill in ((64, 72, 0.0), (97, 101, 1e3)):
        batch, mask = padded(some, height, width, fill)
        found = detector(batch, mask)
        ((maps, inside),) = encoder(batch, mask)
        for i, image in enumerate(some):
            ((of_one, _),) = encoder(*padded([image], *image.shape[1:]))
            down, across = of_one.shape[2:]
            assert inside[i].sum() == down * across
            assert inside[i, :down, :across].all()
            # an image of a size of its own is read alone: the same bits
            equal = torch.equal if sizes.count(sizes[i]) == 1 else torch.allclose
            assert equal(maps[i, :, :down, :across], of_one[0])
            torch.testing.assert_close(found.logits[i], alone[i].logits[0])
            torch.testing.assert_close(found.boxes[i], alone[i].boxes[0])


@torch.no_grad()
def test_transformers_own_detr_does_depend_on_padding():
    """The promise is not kept by itself: the plain encoder, of the same weights, sees the padding."""
    detector = small("detr").double()
    encoder = detector.model.model.backbone
    (image,) = images([(33, 47)])
    ((of_one, _),) = encoder(*padded([image], 33, 47))
    encoder.__class__ = OwnSizeEncoder.__base__
    ((plain, _),) = encoder(*padded([image], 64, 64))
    down, across = of_one.shape[2:]
    assert (plain[0, :, :down, :across] - of_one[0]).abs().max() > 0.1


@torch.no_grad()
def test_boxes_of_rt_detr_depend_on_no_neighbour_and_padding_is_refused():
    detector = small("rt-detr").double()
    some = images([(32, 64)] * 3)
    batch, mask = padded(some, 32, 64)
    found = detector(batch, mask)
    for i, image in enumerate(some):
        alone = detector(*padded([image], 32, 64))
        torch.testing.assert_close(found.logits[i], alone.logits[0])
        torch.testing.assert_close(found.boxes[i], alone.boxes[0])
    with pytest.raises(InvalidInput, match="2048 pixels of the batch are padding: resize all images"):
        detector(*padded(some[:1], 64, 64))


@pytest.mark.parametrize("name", DETECTORS)
def test_the_detector_is_transformers_own(name, tmp_path):
    detector = small(name, own={"dim": 16})
    ours = detector.model
    kind: Any = type(ours).__base__
    plain = kind(ours.config).eval()
    plain.load_state_dict(ours.state_dict())
    batch, _ = padded(images([(32, 64)] * 2, torch.float32), 32, 64)
    labels = [
        {
            "class_labels": torch.tensor([0, 2]),
            "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.3, 0.3, 0.2, 0.2]]),
        },
        {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.6, 0.5, 0.3, 0.4]])},
    ]
    for model in (ours, plain):
        model.train()
    torch.manual_seed(0)
    found = ours(batch, labels=labels)
    torch.manual_seed(0)
    expected = plain(batch, labels=labels)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, rtol=0, atol=0)
    torch.testing.assert_close(found.loss, expected.loss)
    # what is saved is read by both, with the backbone's arguments
    ours.save_pretrained(tmp_path)
    for reader in (type(ours), kind):
        again = reader.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(batch).logits, ours.eval()(batch).logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_parameter_has_a_gradient_with_and_without_boxes(name):
    detector = small(name).train()
    batch, mask = padded(images([(32, 32)] * 2, torch.float32), 32, 32)
    box = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]])}
    none = {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    for targets in ([box, none], [none, none]):
        detector.zero_grad()
        detector(batch, mask, targets).loss.backward()
        assert not [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]


def test_the_backbone_begins_as_timm_makes_it():
    config = transformers.DetrConfig(backbone_config=small("detr").model.config.backbone_config)
    torch.manual_seed(0)
    detector = Detr(config)
    torch.manual_seed(0)
    alone = create("qna_vit_nano_16", features_only=True, out_indices=[2])
    held = detector.model.backbone.model.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in alone.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("backbone", QNA_VIT)
@pytest.mark.parametrize("name", DETECTORS)
@torch.no_grad()
def test_every_model_of_ours_carries_a_detector(name, backbone):
    found = small(name, backbone)(*padded(images([(64, 64)], torch.float32), 64, 64))
    assert found.boxes.shape == (1, 6, 4)
    assert found.logits.isfinite().all()


def test_weights_that_timm_has_for_a_name_are_taken(tmp_path):
    from qna.models.sharing import save_pretrained

    source: Any = create("qna_vit_nano_16", num_classes=3)
    nn.init.constant_(source.stem.conv.weight, 0.5)
    save_pretrained(source, tmp_path / "shared")
    detector = small("detr", f"local-dir:{tmp_path / 'shared'}", {"pretrained": True})
    assert (detector.model.model.backbone.model.model.stem.conv.weight == 0.5).all()


def test_detectors_are_copied_and_pickled():
    detector = small("detr")
    batch = padded(images([(33, 47), (20, 20)], torch.float32), 40, 48)
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert torch.equal(other(*batch).logits, detector(*batch).logits)


def test_the_names_that_should_not_decay_are_the_backbones():
    detector = small("detr")
    parameters = dict(detector.named_parameters())
    names = detector.no_weight_decay()
    assert names
    assert names <= parameters.keys()
    alone: Any = create("qna_vit_nano_16", features_only=True)
    own = alone.model.no_weight_decay()
    assert {name.partition("model.model.backbone.model.model.")[2] for name in names} == own


def test_a_mask_that_is_no_rectangle_is_refused():
    mask = torch.zeros(2, 8, 8)
    mask[0] = 1
    mask[1, :3, :5] = 1
    assert image_sizes(mask) == [(8, 8), (3, 5)]
    for hole in ((1, 1, 1), (1, 7, 7)):
        broken = mask.clone()
        broken[hole] = 1 - broken[hole]
        with pytest.raises(
            InvalidInput, match=r"that of image 1 covers 1[46] pixels, 3 in the first column and 5"
        ):
            image_sizes(broken)
    with pytest.raises(InvalidInput, match="that of image 0 covers 0 pixels"):
        image_sizes(torch.zeros(1, 4, 4))


@pytest.mark.parametrize("name", DETECTORS)
def test_detections_are_in_pixels_of_the_image_and_the_surest_first(name):
    detector = small(name)
    found = detector(*padded(images([(32, 32)] * 2, torch.float32), 32, 32))
    for answer, (height, width) in zip(
        detector.detections(found, [(100, 50), (32, 32)]), [(100, 50), (32, 32)], strict=True
    ):
        assert len(answer.scores) == len(answer.labels) == len(answer.boxes) == 6
        assert (answer.scores.diff() <= 0).all()
        assert ((answer.labels >= 0) & (answer.labels < 3)).all()
        left, top, right, bottom = answer.boxes.unbind(1)
        assert ((left >= 0) & (left <= right) & (right <= width)).all()
        assert ((top >= 0) & (top <= bottom) & (bottom <= height)).all()


def test_a_box_is_where_its_numbers_say():
    detector = small("detr")
    logits = torch.tensor([[[9.0, 0, 0, 0], [0, 0, 0, 9.0]] + [[0, 0, 0, 20.0]] * 4])
    boxes = torch.tensor([[[0.5, 0.25, 0.2, 0.1], [0.1, 0.1, 0.4, 0.4]] + [[0.5] * 4] * 4])
    (answer,) = detector.detections(type(found_of(detector))(logits, boxes, None), [(200, 100)])
    torch.testing.assert_close(answer.boxes[0], torch.tensor([40.0, 40, 60, 60]))
    # clipped at the left and upper border
    torch.testing.assert_close(answer.boxes[1], torch.tensor([0.0, 0, 30, 60]))
    assert answer.labels[0] == 0


def test_rt_detr_may_name_a_query_twice_and_each_answer_has_its_own_box():
    detector = small("rt-detr")
    logits = torch.full((1, 6, 3), -9.0)
    logits[0, 4, 1], logits[0, 4, 2], logits[0, 2, 0] = 3.0, 2.0, 1.0
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.2]).repeat(1, 6, 1)
    boxes[0, 4, 0], boxes[0, 2, 0] = 0.3, 0.7
    (answer,) = detector.detections(type(found_of(detector))(logits, boxes, None), [(100, 100)])
    assert answer.labels[:3].tolist() == [1, 2, 0]
    torch.testing.assert_close(answer.boxes[:3, 0], torch.tensor([20.0, 20, 60]))
    torch.testing.assert_close(answer.scores[:3], torch.tensor([3.0, 2, 1]).sigmoid())


def found_of(detector):
    return detector(*padded(images([(32, 32)], torch.float32), 32, 32))


def test_what_cannot_be_built_is_said():
    with pytest.raises(UnknownName, match="unknown detector 'dter'; did you mean 'detr'"):
        create_detector("dter", "qna_vit_nano_16", classes=["a"])
    with pytest.raises(UnknownName, match="unknown model 'qna_vit_nono_16'; did you mean 'qna_vit_nano_16'"):
        create_detector("detr", "qna_vit_nono_16", classes=["a"])
    with pytest.raises(
        UnknownName, match="unknown argument of detr 'num_querys'; did you mean 'num_queries'"
    ):
        create_detector("detr", "qna_vit_nano_16", classes=["a"], num_querys=3)
    with pytest.raises(UnknownName, match="unknown argument of rt-detr 'feat_strides'"):
        create_detector("rt-detr", "qna_vit_nano_16", classes=["a"], feat_strides=[1])
    with pytest.raises(
        InvalidInput, match=r"detr around qna_vit_nano_16 cannot be built with d_model=five: .*int"
    ):
        create_detector("detr", "qna_vit_nano_16", classes=["a"], d_model="five")
    with pytest.raises(UnknownName, match="argument of model qna_vit_nano_16 'dimm'; did you mean 'dim'"):
        create_detector("detr", "qna_vit_nano_16", classes=["a"], backbone_arguments={"dimm": 3})
    assert issubclass(RTDetr, nn.Module)


@pytest.mark.parametrize("name", DETECTORS)
def test_checkpointing_changes_no_gradient(name):
    batch = padded(images([(32, 32)] * 2, torch.float32), 32, 32)
    box = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]])}
    gradients, kept = [], []
    for enable in (False, True):
        detector = small(name, dropout=0.0).train()
        detector.set_grad_checkpointing(enable)
        held = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, held=held: held.append(x.numel()) or x, lambda x: x
        ):
            torch.manual_seed(0)
            loss = detector(*batch, [box, box]).loss
        loss.backward()
        kept.append(sum(held))
        gradients.append({n: p.grad for n, p in detector.named_parameters()})
    assert kept[1] < kept[0]
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], gradient, msg=parameter)
