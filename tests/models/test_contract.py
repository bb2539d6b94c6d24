"""What every registered model must do: timm's contract, on small images."""

import pytest
import timm
import torch

from qna.models import QNA_VIT, QnAViT

NAMES = sorted(QNA_VIT)
# every kind of block is in the smallest one
FAST = "qna_vit_nano_16"
EACH = [n if n == FAST else pytest.param(n, marks=pytest.mark.long) for n in NAMES]
each_model = pytest.mark.parametrize("name", EACH)


def build(name, **arguments):
    torch.manual_seed(0)
    model = timm.create_model(name, **{"num_classes": 7, "drop_path_rate": 0.0, **arguments}).eval()
    randomise(model)
    return model


def randomise(model):
    """Random values in every table and bias, which start at zero or near it and would hide errors."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            for name in getattr(module, "no_weight_decay", set)() if module is not model else ():
                module.get_parameter(name).normal_()


def images(*size, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def reductions(model):
    return [info["reduction"] for info in model.feature_info]


@each_model
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 32)])
def test_any_size_and_every_stage_rounds_up(name, size):
    model = build(name)
    with torch.no_grad():
        x = images(*size)
        assert model(x).shape == (2, 7)
        maps = model.forward_intermediates(x, intermediates_only=True)
    expected, (height, width) = [], size
    for info, before in zip(model.feature_info, [1, *reductions(model)], strict=False):
        step = info["reduction"] // before
        height, width = -(-height // step), -(-width // step)
        expected.append((2, info["num_chs"], height, width))
    assert [tuple(m.shape) for m in maps] == expected


def test_33_by_47_as_the_documentation_says():
    maps = build("qna_vit_tiny").forward_intermediates(images(33, 47), intermediates_only=True)
    assert [tuple(m.shape[2:]) for m in maps] == [(9, 12), (5, 6), (3, 3), (2, 2)]


@each_model
def test_an_image_does_not_depend_on_its_batch(name):
    model, x = build(name).double(), images(33, 47, batch=3).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-10, atol=1e-10)


@each_model
def test_every_parameter_gets_a_gradient(name):
    model = build(name)
    model(images(64, 64)).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@each_model
def test_features_only(name):
    model, x = build(name), images(33, 47)
    features = timm.create_model(name, features_only=True).eval()
    assert features.feature_info.channels() == [i["num_chs"] for i in model.feature_info]
    assert features.feature_info.reduction() == reductions(model)
    features.model.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        maps = features(x)
        expected = model.forward_intermediates(x, intermediates_only=True)
    for got, want in zip(maps, expected, strict=True):
        assert torch.equal(got, want)


@each_model
def test_features_only_leaves_later_stages_out(name):
    features = timm.create_model(name, features_only=True, out_indices=(0, 1))
    assert len(features.model.stages) == 2
    with torch.no_grad():
        assert [m.shape[1] for m in features(images(32, 32))] == features.feature_info.channels()


@each_model
@pytest.mark.parametrize("kind", ["hook", "list", "dict", "fx"])
def test_every_way_of_timm_to_take_features(name, kind):
    """They give the maps as the model has them, channels last."""
    model, x = build(name), images(33, 47)
    features = timm.create_model(name, features_only=True, feature_cls=kind, out_indices=(0, 2)).eval()
    # prefixes and separators differ by the way
    own = {n.replace(".", "_"): t for n, t in model.state_dict().items()}
    with torch.no_grad():
        for key, tensor in features.state_dict().items():
            tensor.copy_(own[key.removeprefix("body.").removeprefix("graph_module.").replace(".", "_")])
        maps = features(x)
        expected = model.forward_intermediates(x, [0, 2], output_fmt="NHWC", intermediates_only=True)
    assert features.output_fmt == "NHWC"
    assert features.feature_info.channels() == [m.shape[-1] for m in expected]
    for got, want in zip(maps.values() if kind == "dict" else maps, expected, strict=True):
        assert torch.equal(got, want)


@each_model
def test_every_module_is_called(name):
    """Hooks of other tools fire on whatever the state dict and feature_info name, and change nothing."""
    model, x, called = build(name).double(), images(32, 48).double(), set()
    with torch.no_grad():
        before = model(x)
        for prefix, module in model.named_modules():
            module.register_forward_hook(lambda *_, prefix=prefix: called.add(prefix))
        torch.testing.assert_close(model(x), before, rtol=1e-10, atol=1e-10)
    holders = {key.rpartition(".")[0] for key in model.state_dict()}
    assert not holders - called
    assert not {info["module"] for info in model.feature_info} - called
    assert {n for n, _ in model.named_modules()} == called


def test_a_gradient_reaches_the_map_of_the_last_stage():
    model, seen = build(FAST), []
    model.stages[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model(images(32, 32))
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), seen[0])
    assert gradient.shape == (2, 4, 4, model.num_features)
    assert gradient.any()


@each_model
def test_forward_is_features_and_head(name):
    model, x = build(name), images(32, 48)
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        assert features.shape[-1] == model.num_features
        assert pooled.shape == (2, model.head_hidden_size)
        assert torch.equal(model.forward_head(features), model(x))
        assert torch.equal(model.get_classifier()(pooled), model(x))


@each_model
def test_forward_intermediates(name):
    model, x = build(name), images(32, 48)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x, norm=True)
        assert torch.equal(final, model.forward_features(x))
        assert torch.equal(maps[-1].permute(0, 2, 3, 1), final)
        only = model.forward_intermediates(x, [-1, 0], intermediates_only=True, output_fmt="NHWC")
        assert torch.equal(only[0], maps[0].permute(0, 2, 3, 1))
        early, one = model.forward_intermediates(x, [0], stop_early=True)
        assert torch.equal(one[0], maps[0])
        assert torch.equal(early.permute(0, 3, 1, 2), maps[0])
        (last,) = model.forward_intermediates(x, 1, intermediates_only=True)
        assert torch.equal(model.norm(last.permute(0, 2, 3, 1)), final)


@each_model
def test_reset_classifier(name):
    model, x = build(name), images(32, 32)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model.num_classes == 3
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), model.forward_features(x))
    model.reset_classifier(4, "qnav1")
    assert model(x).shape == (2, 4)


@each_model
def test_grad_checkpointing_changes_no_gradient(name):
    gradients = []
    for enable in (False, True):
        model = build(name)
        model.set_grad_checkpointing(enable)
        model.train()
        model(images(32, 32)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


@each_model
def test_meta_construction(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
        assert model(torch.empty(2, 3, 32, 32)).device.type == "meta"
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}
    build(name).load_state_dict(model.to_empty(device="cpu").state_dict())


@each_model
def test_state_dict_round_trip(name):
    first, x = build(name), images(32, 32)
    second = timm.create_model(name, num_classes=7).eval()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first(x), second(x))


@each_model
def test_default_cfg(name):
    model = build(name)
    cfg = model.default_cfg
    assert cfg["architecture"] == name
    assert cfg["input_size"] == (3, QNA_VIT[name].image_size, QNA_VIT[name].image_size)
    assert isinstance(model.get_submodule(cfg["first_conv"]), torch.nn.Conv2d)
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()


@each_model
def test_no_weight_decay_exempts_position_bias_and_query_weights_only(name):
    model = build(name)
    exempt = model.no_weight_decay()
    parameters = dict(model.named_parameters())
    tables = {n for n in parameters if n.rsplit(".", 1)[-1] in ("table", "position_table")}
    assert exempt == tables
    blocks = [b for stage in model.stages for b in stage]
    windowed = sum(hasattr(b.mixer, "position_table") for b in blocks)
    assert len(tables) == windowed + 2 * (len(blocks) - windowed)


@each_model
def test_layer_groups_cover_every_parameter(name):
    from timm.optim import param_groups_layer_decay

    model = build(name)
    groups = param_groups_layer_decay(model, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    blocks = sum(len(stage) for stage in model.stages)
    # a group for the stem, each block, and what follows the last
    assert len({g["lr_scale"] for g in groups}) == blocks + 2


@pytest.mark.slow  # mixers compile in the fast tier
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_graph_breaks(name):
    model, x = build(name), images(32, 32)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_exports_with_a_dynamic_batch():
    model, x = build(FAST), images(32, 32)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        larger = images(32, 32, batch=5)
        torch.testing.assert_close(exported.module()(larger), model(larger), rtol=1e-4, atol=1e-5)


@each_model
def test_fuse_changes_only_the_parameters(name):
    model, x = build(name).double(), images(32, 32).double()
    with torch.no_grad():
        before = model(x)
        torch.testing.assert_close(model.fuse()(x), before, rtol=1e-10, atol=1e-10)
    assert not [n for n, _ in model.named_parameters() if n.endswith((".key", ".query"))]


def test_registered_under_every_name():
    assert sorted(timm.list_models("qna_vit*")) == NAMES
    assert all(timm.is_model(name) for name in NAMES)
    assert isinstance(timm.create_model(FAST, num_classes=0), QnAViT)
