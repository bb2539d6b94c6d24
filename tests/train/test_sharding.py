"""What can be said about shards in one process."""

import pytest
import timm
import torch

from qna._core.errors import InvalidInput
from qna.train.sharding import blocks, check_sharding


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp16"}, "precision fp16 cannot be used with sharding fsdp: take bf16"),
        ({"channels_last": True}, "channels_last cannot be used with sharding fsdp: shards are contiguous"),
        ({"compile": True}, "compile cannot be used with sharding fsdp: leave one of the two out"),
    ],
)
def test_what_shards_do_not_do_is_refused(config, changed, options, said):
    with pytest.raises(InvalidInput, match=said):
        check_sharding(changed(config, sharding="fsdp", **options), processes=2)
    check_sharding(changed(config, **options), processes=2)
    check_sharding(changed(config, sharding="fsdp"), processes=2)


@pytest.mark.parametrize(
    ("model", "count", "part"),
    [
        ("qna_vit_tiny", 16, 0.97),
        ("test_vit", 6, 0.67),
        ("test_convnext", 9, 0.68),
        ("swin_tiny_patch4_window7_224", 12, 0.92),
        ("focalnet_tiny_srf", 12, 0.92),
    ],
)
def test_blocks_are_what_a_network_repeats(model, count, part):
    with torch.device("meta"):
        network = timm.create_model(model)
    found = list(blocks(network))
    assert len(found) == count
    assert len({type(block) for block in found}) == 1
    # no parameter is in two of them
    inside = [id(p) for block in found for p in block.parameters()]
    assert len(set(inside)) == len(inside)
    held = sum(p.numel() for block in found for p in block.parameters())
    assert held / sum(p.numel() for p in network.parameters()) == pytest.approx(part, abs=0.01)
