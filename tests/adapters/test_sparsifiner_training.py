"""Sparsifiner in training: its phases, who learns in them, what its teacher is and where it is kept."""

import copy
import json
import pickle

import pytest
import torch

import qna.models
from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.adapters import Sparsifiner, added_names, from_pretrained, save_pretrained
from qna.adapters.sparsifiner import SparseAttention
from qna.train.checkpoint import Progress, Saved, load_checkpoint, save_checkpoint
from tests.adapters.bases import BASES
from tests.adapters.contract import images

FEW = {"keep_rate": 0.4, "reduce_tokens": 3}
LABELS = torch.tensor([0, 1, 2, 3])


def made(base="vit", seed=0, **arguments):
    torch.manual_seed(seed)
    network = BASES[base]()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return Sparsifiner(**{**FEW, **arguments}).apply(network).train()


def begin(network, epoch, epochs=9):
    for module in network.modules():
        if hasattr(module, "begin_epoch"):
            module.begin_epoch(epoch, epochs)


def step(network, optimizer):
    output = network(images(4))
    loss = torch.nn.functional.cross_entropy(output.output, LABELS) + sum(output.losses.values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return output


def changed(before, network):
    return {n for n, t in network.state_dict().items() if not torch.equal(before[n], t)}


def optimizer_of(network):
    return torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.05)


def test_predictors_learn_first_and_the_network_after_them():
    network = made(reconstruction_epochs=2)
    optimizer, predictors = optimizer_of(network), added_names(network)
    assert all(".attn.mask_predictor." in name for name in predictors)
    for epoch in (0, 1, 2, 4):
        begin(network, epoch)
        before = copy.deepcopy(network.state_dict())
        output = step(network, optimizer)
        if epoch < 2:
            assert output.losses.keys() == {"attention_reconstruction"}
            # decay alone would move what only gets no gradient from the loss
            assert changed(before, network) == predictors
        else:
            assert output.losses.keys() == {"logits_distillation", "token_distillation"}
            assert changed(before, network) == network.state_dict().keys() - predictors
    # evaluation is sparse in every phase, and brings no losses
    begin(network, 0)
    sparse = network.eval()(images())
    begin(network, 4)
    assert torch.equal(network(images()), sparse)


def test_fitting_raises_recall_above_chance():
    torch.manual_seed(0)
    network = made(keep_rate=0.25, basis_threshold=0.0, reduce_tokens=2)
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight.mul_(6)

    def recall():
        found = []

        def compare(m, given):
            q, k, _ = m.qkv(given[0]).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
            weights = (q @ k.mT * m.scale).softmax(-1)[:, :, 1:]
            true = torch.zeros_like(weights).scatter_(-1, weights.topk(5).indices, 1.0)
            found.append(true.gather(-1, m.mask_predictor.choose(q, k, 5)).mean().item())

        hooks = [b.attn.register_forward_pre_hook(compare) for b in network.blocks]
        network.eval()(images(8))
        for hook in hooks:
            hook.remove()
        return sum(found) / len(found)

    # chance is 5 of 17, 0.294
    assert 0.26 < recall() < 0.32
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        network.train()
        optimizer.zero_grad()
        network(images(8)).losses["attention_reconstruction"].backward()
        optimizer.step()
    assert recall() > 0.36


def test_the_teacher_is_the_network_that_the_second_phase_began_with():
    network = made(reconstruction_epochs=1)
    optimizer = optimizer_of(network)
    step(network, optimizer)
    begin(network, 1)
    bare = BASES["vit"]().eval()
    bare.load_state_dict({n: t for n, t in network.state_dict().items() if n not in added_names(network)})
    expected = bare(images(4)).log_softmax(-1)
    features = bare.forward_features(images(4))[:, 1:]
    for _ in range(3):
        output = step(network, optimizer)
        own = output.output.detach().log_softmax(-1)
        told = 0.5 * (expected.exp() * (expected - own)).sum(1).mean()
        assert output.losses["logits_distillation"].item() == pytest.approx(told.item(), rel=1e-4)
    network.eval()
    own = network.forward_features(images(4))[:, 1:]
    network.train()
    last = network(images(4)).losses["token_distillation"].item()
    assert last == pytest.approx(0.5 * (own - features).square().mean().item(), rel=1e-4)


def test_the_teacher_is_in_no_state_dict_and_copies_share_it():
    network = made(reconstruction_epochs=0)
    early = copy.deepcopy(network)
    before = set(network.state_dict())
    count = sum(p.numel() for p in network.parameters())
    network(images(4))
    teacher = network.distillation.teacher.network
    assert teacher is not None
    # nor does it hold what it has compared, with all activations before
    assert network.distillation.seen is None
    assert not any(p.requires_grad for p in teacher.parameters())
    assert set(network.state_dict()) == before
    assert sum(p.numel() for p in network.parameters()) == count
    assert not any("mask_predictor" in name for name in teacher.state_dict())
    assert not any(isinstance(m, SparseAttention) and m.mask_predictor for m in teacher.modules())
    assert copy.deepcopy(network).distillation.teacher.network is teacher
    early(images(4))
    assert early.distillation.teacher.network is not teacher
    again = pickle.loads(pickle.dumps(network))
    assert again.distillation.teacher.network is not teacher
    torch.testing.assert_close(dict(again(images(4)).losses), dict(network(images(4)).losses))
    # it follows to other numbers
    assert network.double()(images(4).double()).losses["logits_distillation"].dtype is torch.float64


def test_a_teacher_that_is_not_wanted_is_not_made():
    network = made(reconstruction_epochs=0, logits=0.0, tokens=0.0)
    assert not isinstance(network(images(4)), WithLosses)
    assert not hasattr(network, "distillation")
    alone = made(reconstruction_epochs=0, tokens=0.0)
    assert alone(images(4)).losses.keys() == {"logits_distillation"}
    alone = made(reconstruction_epochs=0, logits=0.0)
    assert alone(images(4)).losses.keys() == {"token_distillation"}


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
@pytest.mark.parametrize("drop", [False, True])
def test_tokens_that_went_are_not_compared(base, drop):
    pruned = {"token_keep_rate": 0.5, "token_layers": (0, 2), "drop_tokens": drop}
    network = made(base, reconstruction_epochs=1, **pruned)
    assert network(images(4)).losses.keys() == {"attention_reconstruction"}
    begin(network, 1)
    seen = []
    network.norm.register_forward_hook(lambda m, x, y: seen.append((x[0].detach(), y.detach())))
    output = network(images(4))
    teacher, prefix = network.distillation.teacher.network, network.num_prefix_tokens
    features = teacher.forward_features(images(4))[:, prefix:]
    blocks, own = (t[:, prefix:] for t in seen[0])
    if drop:
        features = torch.stack([f[p] for f, p in zip(features, network.blocks.places, strict=True)])
    else:
        there = (blocks != 0).any(-1)
        assert (there.sum(1) == 4).all()
        own, features = own[there], features[there]
    assert own[..., 0].numel() == 16
    expected = 0.5 * (own - features).square().mean().item()
    assert output.losses["token_distillation"].item() == pytest.approx(expected, rel=1e-4)
    sum(output.losses.values()).backward()


def test_a_checkpoint_keeps_the_teacher_and_a_shared_folder_does_not(tmp_path):
    network = made(reconstruction_epochs=1)
    optimizer = optimizer_of(network)
    for epoch in (0, 1, 2):
        begin(network, epoch)
        step(network, optimizer)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, network=network, average=None, optimizer=optimizer, saved=Saved(Progress()))
    again = made(seed=9, reconstruction_epochs=1)
    other = optimizer_of(again)
    load_checkpoint(path, network=again, average=None, optimizer=other)
    for each, its in ((network, optimizer), (again, other)):
        begin(each, 2)
        step(each, its)
    assert not changed(network.state_dict(), again)
    save_pretrained(network, tmp_path / "kept")
    weights = (tmp_path / "kept" / "model.safetensors").stat().st_size
    assert weights < 1.2 * 4 * sum(p.numel() for p in network.parameters()) + 20_000
    shared = from_pretrained(tmp_path / "kept")
    assert shared.distillation.teacher.network is None
    assert torch.equal(shared(images()), network.eval()(images()))
    # one that is trained on learns from what it was read as
    begin(shared.train(), 3)
    shared(images(4))
    told = shared.distillation.teacher.network.state_dict()
    assert all(torch.equal(told[n], t) for n, t in shared.state_dict().items() if n in told)


def test_a_checkpoint_of_another_teacher_is_refused(tmp_path):
    network = made(reconstruction_epochs=0)
    optimizer = optimizer_of(network)
    step(network, optimizer)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, network=network, average=None, optimizer=optimizer, saved=Saved(Progress()))
    network.distillation.teacher.network.head = torch.nn.Linear(24, 7)
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, network=network, average=None, optimizer=optimizer, saved=Saved(Progress()))
    with pytest.raises(InvalidInput, match=r"not a checkpoint of this run: .*head"):
        load_checkpoint(other, network=made(), average=None, optimizer=optimizer)
    bare = made(reconstruction_epochs=0, logits=0.0, tokens=0.0)
    with pytest.raises(InvalidInput, match=r"not a checkpoint of this run: .*distillation"):
        load_checkpoint(path, network=bare, average=None, optimizer=optimizer_of(bare))


@pytest.mark.parametrize("epoch", [0, 1])
def test_activations_that_are_computed_again(epoch):
    """What a backward pass leaves behind does not reach the next call."""
    network, plain = (made(reconstruction_epochs=1) for _ in range(2))
    network.set_grad_checkpointing(True)
    for _ in range(2):
        for each in (network, plain):
            begin(each, epoch)
            each.zero_grad()
            output = each(images(4))
            (output.output.square().mean() + sum(output.losses.values())).backward()
        for name, p in network.named_parameters():
            torch.testing.assert_close(p.grad, dict(plain.named_parameters())[name].grad, msg=name)


def test_a_call_that_breaks_off_leaves_nothing_to_the_next():
    network = made(reconstruction_epochs=1)
    expected = network(images(4)).losses["attention_reconstruction"]

    def break_off(*given):
        raise KeyboardInterrupt

    for part in (network.head, network.blocks[2]):
        hook = part.register_forward_pre_hook(break_off)
        with pytest.raises(KeyboardInterrupt):
            network(2 * images(4))
        hook.remove()
        assert torch.equal(network(images(4)).losses["attention_reconstruction"], expected)
    begin(network, 1)
    hook = network.head.register_forward_pre_hook(break_off)
    with pytest.raises(KeyboardInterrupt):
        network(images(4))
    hook.remove()
    # a teacher is copied now, and nothing of the call before
    assert network(images(4)).losses.keys() == {"logits_distillation", "token_distillation"}


def test_another_classifier_than_the_teacher_s_is_said():
    network = made(reconstruction_epochs=0)
    network(images(4))
    network.reset_classifier(7)
    with pytest.raises(InvalidInput, match="the teacher gives 5 logits and the network 7"):
        network(images(4))


def test_gradients_of_functions_find_the_teacher_there():
    """Inside a transform weights have no numbers to copy: of those that were moved there torch crashed."""
    network = made(reconstruction_epochs=0)
    weights = {n: p.detach() for n, p in network.named_parameters()}

    def loss(weights):
        output = torch.func.functional_call(network, weights, (images(4),))
        return output.output.square().mean() + sum(output.losses.values())

    with pytest.raises(InvalidInput, match=r"torch\.func must not be the first to call a network"):
        torch.func.grad(loss)(weights)
    output = network(images(4))
    (output.output.square().mean() + sum(output.losses.values())).backward()
    found = torch.func.grad(loss)(weights)
    for name, p in network.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("drop", [False, True])
def test_losses_are_planned_on_meta(drop):
    with torch.device("meta"):
        network = made(reconstruction_epochs=0, token_keep_rate=0.5, token_layers=(1,), drop_tokens=drop)
        output = network(torch.empty(4, 3, 32, 32))
    assert output.output.shape == (4, 5)
    assert all(loss.shape == () for loss in output.losses.values())


# what the compiler itself asks of tensors between two graphs
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.long
@pytest.mark.parametrize("epochs", [0, 1])
def test_training_compiles(epochs):
    torch._dynamo.reset()
    network, plain = (made(reconstruction_epochs=epochs) for _ in range(2))
    found, expected = torch.compile(network, backend="eager")(images(4)), plain(images(4))
    torch.testing.assert_close(found.output, expected.output)
    assert found.losses.keys() == expected.losses.keys()
    torch.testing.assert_close(dict(found.losses), dict(expected.losses))


def test_hooks_fire_on_predictors_and_their_parts():
    called = []
    for epochs in (0, 1):
        network = made(reconstruction_epochs=epochs)
        for name, module in network.named_modules():
            if "mask_predictor" in name:
                module.register_forward_hook(lambda *given, name=name: called.append(name))
        network(images(4))
        parts = {n for n, _ in network.named_modules() if "mask_predictor" in n}
        assert {*called} == parts
        called.clear()


def test_attention_dropout_keeps_what_is_chosen():
    network = made(reconstruction_epochs=0)
    attention = network.blocks[0].attn
    x = torch.randn(2, 17, 24)
    expected = attention(x)
    attention.attn_drop.p = 1e-9
    torch.testing.assert_close(attention(x), expected)
    attention.attn_drop.p = 0.5
    assert not torch.allclose(attention(x), expected)


def test_what_was_told_of_it_is_in_the_folder(tmp_path):
    network = made()
    save_pretrained(network, tmp_path / "kept")
    (held,) = json.loads((tmp_path / "kept" / "config.json").read_text())["qna_adapters"]
    assert held["name"] == "sparsifiner"
    assert held["arguments"]["keep_rate"] == 0.4
    assert qna.models is not None
