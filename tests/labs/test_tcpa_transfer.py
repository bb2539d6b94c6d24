"""The laboratory of prompts: equal counts, what is trained, epochs, enlarged digits, its rule."""

import copy

import torch

from qna.data.images.labelled import TensorImages
from qna.labs.small_vit import small_vit
from qna.labs.tcpa_transfer.config import TCPATransferConfig
from qna.labs.tcpa_transfer.training import ALL, CHOSEN, PROBE, ROLES, adapt, contenders, enlarged
from qna.labs.tcpa_transfer.verdict import made_up, verdict

CONFIG = TCPATransferConfig(dim=32, depth=2, pool=3, top=2, target_epochs=20)


def networks():
    bare = small_vit(CONFIG, (1, 28, 28), 10)
    return {name: ready(copy.deepcopy(bare)) for name, ready in contenders(CONFIG).items()}


def test_as_many_prompts_in_every_block_and_the_same_classifier():
    made = networks()
    head, blocks = 32 * 10 + 10, CONFIG.depth
    trained = {
        name: sum(p.numel() for p in network.parameters() if p.requires_grad)
        for name, network in made.items()
    }
    assert trained[ALL] == trained[ROLES] == blocks * 6 * 32 + head
    # keys beside prompts
    assert trained[CHOSEN] == 2 * blocks * 6 * 32 + head
    assert trained[PROBE] == head
    prompts = [made[name].blocks[0].prompts.for_images(1).shape for name in (CHOSEN, ROLES, ALL)]
    assert prompts == [(1, 6, 32)] * 3


def test_a_tenth_of_the_epochs_is_at_random(monkeypatch):
    network, seen = networks()[CHOSEN], []
    pools = network.blocks[0].prompts
    told = type(pools).begin_epoch

    def noted(self, epoch, epochs):
        told(self, epoch, epochs)
        seen.append((epoch, epochs, self.at_random))

    monkeypatch.setattr(type(pools), "begin_epoch", noted)
    images = TensorImages(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.arange(2))
    frozen = {name: p.clone() for name, p in network.named_parameters() if not p.requires_grad}
    adapt(network, images, CONFIG, 1e-2, 0)
    of_one = seen[:: CONFIG.depth]
    assert of_one[:4] == [(0, 20, True), (1, 20, True), (2, 20, False), (3, 20, False)]
    assert all(torch.equal(p, frozen[n]) for n, p in network.named_parameters() if n in frozen)


def test_digits_are_enlarged_not_changed():
    images = TensorImages(torch.full((2, 1, 8, 8), 77, dtype=torch.uint8), torch.tensor([3, 4]))
    large = enlarged(images, torch.Size((28, 28)))
    assert torch.equal(large.pixels, torch.full((2, 1, 28, 28), 77, dtype=torch.uint8))
    assert large.labels.tolist() == [3, 4]


def test_the_rule():
    assert verdict(made_up()).word == "held"
    assert verdict(made_up(probe=0.5)).word == "not seen"
    assert verdict(made_up(noise=2.0)).word == "direction only"
    assert verdict(made_up(noise=1.0)).word == "held"
    assert "missing" in verdict({}).figures
