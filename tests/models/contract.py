"""What every registered model must do: timm's contract; one function per clause, called with a name.

Clauses about stages, features and the head are asked of families that classify.
"""

import math
import pickle
from copy import deepcopy

import pytest
import timm
import torch
from timm.layers import create_feature_extractor
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay

from qna._core.errors import InvalidInput
from qna.models._parts.hierarchy import Stage
from qna.models.timm_entry import FAMILY_OF
from tests.clauses import Contract

CONTRACT = Contract()
clause = CONTRACT.clause


def classifies(family):
    return family.task == "classification"


def takes_any_size(family):
    return not any(family.timm_cfg(v).get("fixed_input_size") for v in family.variants.values())


def build(name, **arguments):
    """The model in evaluation mode, with random values where zeros at initialisation would hide errors."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{"num_classes": 7, "drop_path_rate": 0.0, **arguments}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def images(name, size=(32, 48), batch=2, channels=3):
    """Random images of a size, or of the only size that the model takes."""
    cfg = timm.get_pretrained_cfg(name)
    size = cfg.input_size[1:] if cfg.fixed_input_size else size
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def channels_first(model, y):
    return y.permute(0, 3, 1, 2) if model.output_fmt == "NHWC" else y


def stage_sizes(model, size):
    """Shapes (C, H, W) after each stage, by `feature_info`: each rounds up."""
    sizes, before = [], 1
    for info in model.feature_info:
        size = [math.ceil(n * before / info["reduction"]) for n in size]
        before = info["reduction"]
        sizes.append((info["num_chs"], *size))
    return sizes


def loss(y):
    return y.square().sum()


def gradients(model, x):
    """Of every parameter, by name; None where the output does not depend on it."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss(model(x)), parameters, allow_unused=True), strict=True))


# forward and backward


@clause(takes_any_size)
def any_size(name):
    model = build(name)
    with torch.no_grad():
        for size in ((32, 32), (33, 47), (64, 32)):
            assert model(images(name, size)).isfinite().all()


@clause(lambda family: takes_any_size(family) and classifies(family))
def every_stage_rounds_up(name):
    model = build(name)
    with torch.no_grad():
        for size in ((32, 32), (33, 47), (64, 32)):
            maps = model.forward_intermediates(images(name, size), intermediates_only=True)
            assert [tuple(m.shape[1:]) for m in maps] == stage_sizes(model, size)


@clause()
def an_image_does_not_depend_on_its_batch(name):
    model, x = build(name).double(), images(name, batch=3).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-10, atol=1e-10)


@clause()
def every_parameter_gets_a_gradient(name):
    found = gradients(build(name).train(), images(name, (64, 64)))
    assert not [n for n, gradient in found.items() if gradient is None or not gradient.any()]


@clause()
def grad_checkpointing_changes_no_gradient(name):
    """Nor what batch norms remember."""
    model, x = build(name).train(), images(name)
    twin = deepcopy(model)
    plain = gradients(twin, x)
    model.set_grad_checkpointing()
    calls = []
    stage = next(module for module in model.modules() if isinstance(module, Stage))
    next(iter(stage)).register_forward_pre_hook(lambda *_: calls.append(1))
    checkpointed = gradients(model, x)
    # once forward, and once more in the backward pass
    assert len(calls) == 2
    for n in plain:
        assert torch.equal(plain[n], checkpointed[n])
    for buffer, expected in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(buffer, expected)


@clause()
def channels_last_images_and_weights(name):
    model, x = build(name).double(), images(name).double()
    with torch.no_grad():
        expected = model(x)
        model.to(memory_format=torch.channels_last)
        y = model(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


@clause()
def every_floating_dtype(name):
    model, x = build(name), images(name)
    with torch.no_grad():
        model(x)  # nothing of it may be kept in the old dtype
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            y = model.to(dtype)(x.to(dtype))
            assert y.dtype == dtype
            assert y.isfinite().all()


@clause()
def images_of_other_channels(name):
    for channels in (1, 4):
        model = build(name, in_chans=channels)
        assert model.in_chans == channels
        assert model.get_submodule(model.default_cfg["first_conv"]).weight.shape[1] == channels
        model(images(name, channels=channels))
        with pytest.raises(InvalidInput, match=rf"C = {channels}, got \(2, 3,"):
            model(images(name))


@clause()
def every_module_is_called(name):
    """Hooks of other tools fire on whatever the state dict and feature_info name, and change nothing."""
    model, x, called = build(name).double(), images(name).double(), set()
    with torch.no_grad():
        before = model(x)
        for prefix, module in model.named_modules():
            module.register_forward_hook(lambda *_, prefix=prefix: called.add(prefix))
        torch.testing.assert_close(model(x), before, rtol=1e-10, atol=1e-10)
    assert {n for n, _ in model.named_modules()} == called
    assert not {info["module"] for info in model.feature_info} - called


# how models are made, kept and described


@clause()
def made_on_a_device_in_a_dtype(name):
    model = timm.create_model(name, num_classes=7, device="meta", dtype=torch.float64)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device.type for t in tensors} == {"meta"}
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}
    with torch.device("meta"):
        assert model(images(name).to("meta", torch.float64)).device.type == "meta"
    # same names and shapes
    build(name).load_state_dict(model.to_empty(device="cpu").state_dict())


@clause()
def arguments_that_it_does_not_take_are_refused(name):
    with pytest.raises(TypeError, match="not_an_argument"):
        timm.create_model(name, not_an_argument=1, device="meta")


@clause()
def state_dict_round_trip_and_copies(name):
    model, x = build(name), images(name)
    again = timm.create_model(name, num_classes=7).eval()
    with torch.no_grad():
        expected = model(x)
        assert not torch.equal(again(x), expected)
        again.load_state_dict(model.state_dict())
        for twin in (again, deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(x), expected)


@clause(classifies)
def default_cfg(name):
    """What the configuration says is what the network does with an image of the named size."""
    model = timm.create_model(name, device="meta").eval()
    cfg, variant = model.default_cfg, FAMILY_OF[name].variants[name]
    # of ImageNet, unless the family says otherwise
    classes = FAMILY_OF[name].timm_cfg(variant).get("num_classes", 1000)
    assert model.pretrained_cfg is cfg
    assert cfg["architecture"] == name
    assert cfg["input_size"] == (model.in_chans, variant.image_size, variant.image_size)
    assert cfg["num_classes"] == model.num_classes == classes
    assert len(cfg["mean"]) == len(cfg["std"]) == model.in_chans
    assert isinstance(model.get_submodule(cfg["first_conv"]), torch.nn.Conv2d)
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert cfg["license"]
    x = torch.empty(1, *cfg["input_size"], device="meta")
    features = channels_first(model, model.forward_features(x))
    assert features.shape == (1, model.num_features, *cfg["pool_size"])
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (1, model.head_hidden_size)
    assert model(x).shape == (1, classes)


@clause()
def no_weight_decay_names_parameters(name):
    model = build(name)
    assert model.no_weight_decay() <= {n for n, _ in model.named_parameters()}


@clause()
def layers_are_grouped_from_the_images_to_the_output(name):
    model = build(name)
    names = [n for n, _ in model.named_parameters()]
    for coarse in (False, True):
        layer = group_parameters(model, model.group_matcher(coarse), reverse=True)
        assert sorted(layer) == sorted(names)
        depths = [layer[n] for n in names]
        assert depths == sorted(depths)
        assert set(depths) == set(range(max(depths) + 1))
        assert max(depths) > len(model.feature_info) - 1
    exempt = model.no_weight_decay()
    groups = param_groups_layer_decay(model, 0.1, no_weight_decay_list=exempt, layer_decay=0.5)
    assert sum(len(g["params"]) for g in groups) == len(names)
    scales = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    assert scales[id(model.get_parameter(names[-1]))] == 1 == 2 * max(s for s in scales.values() if s < 1)


# features


@clause(classifies)
def forward_is_features_and_head(name):
    model, x = build(name), images(name)
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        assert channels_first(model, features).shape[1] == model.num_features
        assert pooled.shape == (2, model.head_hidden_size)
        assert torch.equal(model.forward_head(features), model(x))
        assert torch.equal(model.get_classifier()(pooled), model(x))


@clause(classifies)
def forward_intermediates(name):
    model, x = build(name), images(name)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]
        channels_last = model.forward_intermediates(x, [-1, 0], output_fmt="NHWC", intermediates_only=True)
        for got, want in zip(channels_last, (maps[0], maps[-1]), strict=True):
            assert torch.equal(got, want.permute(0, 2, 3, 1))
        (normed,) = model.forward_intermediates(x, 1, norm=True, intermediates_only=True)
        assert torch.equal(normed, channels_first(model, final))
        # a network whose blocks end in their own norms may have no last one
        assert torch.equal(normed, maps[-1]) == isinstance(model.norm, torch.nn.Identity)
        for norm in (False, True):
            early, (first,) = model.forward_intermediates(x, [0], norm=norm, stop_early=True)
            assert torch.equal(first, maps[0])
            assert torch.equal(channels_first(model, early), maps[0])
    # with gradients, for which other kernels may be taken
    plain, plain_maps = model.forward_intermediates(x)
    model.set_grad_checkpointing()
    final, maps = model.forward_intermediates(x)
    assert final.requires_grad
    assert all(map(torch.equal, (final, *maps), (plain, *plain_maps)))
    stages = len(maps)
    for indices in ([], [stages], [-stages - 1], 0):
        with pytest.raises(InvalidInput, match=rf"indices must name some of {stages} stages"):
            model.forward_intermediates(x, indices)
    with pytest.raises(InvalidInput, match="output_fmt"):
        model.forward_intermediates(x, output_fmt="NLC")


@clause(classifies)
def pruning_keeps_what_is_taken(name):
    model, x = build(name), images(name)
    with torch.no_grad():
        logits, maps = model(x), model.forward_intermediates(x, intermediates_only=True)
        whole = deepcopy(model)
        assert whole.prune_intermediate_layers([len(maps) - 1], prune_head=False) == [len(maps) - 1]
        assert torch.equal(whole(x), logits)
    for i, expected in enumerate(maps):
        pruned = deepcopy(model)
        assert pruned.prune_intermediate_layers([i], prune_norm=True) == [i]
        with torch.no_grad():
            (taken,) = pruned.forward_intermediates(x, [i], intermediates_only=True)
            assert torch.equal(taken, expected)
            assert torch.equal(channels_first(pruned, pruned.forward_features(x)), expected)
        channels = model.feature_info[i]["num_chs"]
        assert pruned.num_features == pruned.head_hidden_size == channels
        assert pruned.num_classes == 0
        # no layer is left that nothing runs through, and a head can stand on what is left
        assert None not in gradients(pruned, x).values()
        pruned.reset_classifier(3, model.global_pool)
        assert pruned(x).shape == (2, 3)
        assert pruned.get_classifier().weight.shape == (3, channels)


@clause(classifies)
def features_only(name):
    """Maps as channels first, without what comes after the last one taken."""
    model, x = build(name), images(name, (33, 47))
    everything = model.forward_intermediates(x, intermediates_only=True)
    for indices in (None, (0, 1), (-1,)):
        taken = {} if indices is None else {"out_indices": indices}
        features = timm.create_model(name, features_only=True, **taken).eval()
        own = model.state_dict()
        features.model.load_state_dict({n: own[n] for n in features.model.state_dict()})
        places = list(range(len(everything)))
        places = places if indices is None else [places[i] for i in indices]
        assert features.feature_info.channels() == [model.feature_info[i]["num_chs"] for i in places]
        assert features.feature_info.reduction() == [model.feature_info[i]["reduction"] for i in places]
        assert len(features.model.stages) == max(places) + 1
        maps = features(x)
        for got, i in zip(maps, places, strict=True):
            assert torch.equal(got, everything[i])
        found = torch.autograd.grad(sum(map(loss, maps)), list(features.parameters()), allow_unused=True)
        assert None not in found
        features.model.set_grad_checkpointing()
        assert all(map(torch.equal, features(x), maps))


@clause(classifies)
def three_levels_of_features(name):
    """The least that timm's decoders and its own suite take for granted; of two stages both are given."""
    stages = timm.create_model(name, device="meta").feature_info
    channels = timm.create_model(name, features_only=True, device="meta").feature_info.channels()
    assert len(channels) >= min(3, len(stages))


@clause(classifies)
def a_gradient_reaches_the_map_of_every_stage(name):
    """Of one logit, by a hook: what Grad-CAM and its kin read."""
    model, maps = build(name), []
    for info in model.feature_info:
        model.get_submodule(info["module"]).register_forward_hook(lambda *call: maps.append(call[-1]))
    logits = model(images(name))
    assert [channels_first(model, m).shape[1] for m in maps] == [i["num_chs"] for i in model.feature_info]
    for gradient in torch.autograd.grad(logits[:, 3].sum(), maps):
        assert gradient.any()


@clause(classifies)
def every_way_of_timm_to_take_features(name):
    """They give the maps as the model has them, and gradients; checkpoints change neither."""
    model, x = build(name).double(), images(name, (33, 47)).double()
    fmt = model.output_fmt
    expected = model.forward_intermediates(x, [0, -1], output_fmt=fmt, intermediates_only=True)
    # prefixes and separators differ by the way
    own = {n.replace(".", "_"): t for n, t in model.state_dict().items()}
    for kind in ("hook", "list", "dict", "fx"):
        wrapped = {"features_only": True, "feature_cls": kind, "out_indices": (0, -1)}
        features = timm.create_model(name, **wrapped, drop_path_rate=0.0, dtype=torch.float64)
        assert features.eval().output_fmt == fmt
        with torch.no_grad():
            for key, tensor in features.state_dict().items():
                tensor.copy_(own[key.removeprefix("body.").removeprefix("graph_module.").replace(".", "_")])
        found = [_features_and_gradients(features, x)]
        if hasattr(features, "set_grad_checkpointing"):
            features.set_grad_checkpointing()
            found.append(_features_and_gradients(features, x))
        for maps, _ in found:
            for got, want in zip(maps, expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
        for gradient, again in zip(found[0][1], found[-1][1], strict=True):
            assert gradient is again is None or torch.equal(gradient, again)
        # those of the first convolution, which all maps depend on
        assert found[0][1][0].any()


def _features_and_gradients(features, x):
    maps = features(x)
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    return maps, torch.autograd.grad(sum(map(loss, maps)), list(features.parameters()), allow_unused=True)


@clause(classifies)
def reset_classifier(name):
    model, x = build(name).double(), images(name).double()
    model.requires_grad_(False)
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        model.reset_classifier(3)
        assert model.num_classes == 3
        assert model(x).shape == (2, 3)
        assert torch.equal(model.forward_head(features, pre_logits=True), pooled)
        assert {p.dtype for p in model.parameters()} == {torch.float64}
        assert not any(module.training for module in model.modules())
        # what is new is to be trained, all else stays as it was
        assert {p for p in model.parameters() if p.requires_grad} == set(model.get_classifier().parameters())
        model.reset_classifier(0)
        assert torch.equal(model(x), pooled)
        model.reset_classifier(0, "")
        assert torch.equal(model(x), features)
        assert not any(p.requires_grad for p in model.parameters())
    assert timm.create_model(name, num_classes=0, device="meta")(x.float().to("meta")).shape == pooled.shape
    whole = timm.create_model(name, num_classes=0, global_pool="", device="meta")
    assert whole(x.float().to("meta")).shape == features.shape


# graphs


@clause()
def torch_fx(name):
    """timm's extractor of nodes: the classifier's output and the gradients of every parameter."""
    model, x = build(name).train(), images(name)
    output = model.default_cfg["classifier"]
    graph = create_feature_extractor(model, {output: "logits"})
    assert isinstance(graph, torch.fx.GraphModule)
    assert torch.equal(graph(x)["logits"], model(x))
    expected = gradients(model, x)
    names, parameters = zip(*graph.named_parameters(), strict=True)
    assert set(names) == set(expected)
    for n, gradient in zip(names, torch.autograd.grad(loss(graph(x)["logits"]), parameters), strict=True):
        assert torch.equal(gradient, expected[n])
    # recorded for any image, not for one
    with torch.no_grad():
        other = images(name, (47, 33), batch=1)
        assert torch.equal(graph.eval()(other)["logits"], model.eval()(other))


@clause()
def torch_script_is_refused_in_one_sentence(name):
    model = build(name)
    graph = create_feature_extractor(model, [model.default_cfg["classifier"]])
    features = timm.create_model(name, features_only=True, device="meta")
    for scripted in (model, graph, features):
        with (
            pytest.warns(DeprecationWarning, match="script"),
            pytest.raises(InvalidInput, match="trace") as refused,
        ):
            torch.jit.script(scripted)
        assert "\n" not in str(refused.value)


@clause(costly=True)
def compiles_without_graph_breaks(name):
    model, x = build(name), images(name)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
