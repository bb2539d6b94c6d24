"""Folders of adapted networks that were changed by hand: one sentence each."""

import json

import pytest

from qna._core.errors import InvalidInput
from qna.adapters import TAPADL, EViT, SwapMixer, from_pretrained, save_pretrained, sharing
from qna.models.registry import create
from tests.adapters.bases import BASES


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ([{"name": "evitt", "arguments": {}}], "unknown adapter 'evitt'; did you mean 'evit'"),
        ([{"name": "evit"}], "names no adapter with arguments"),
        ([{"name": 3, "arguments": {}}], "names no adapter with arguments"),
        ([{"name": "evit", "arguments": {"keep": 1}}], "unknown field of adapter evit 'keep'"),
        ([{"name": "evit", "arguments": {"name": "gated"}}], "unknown field of adapter evit 'name'"),
        ([{"name": "evit", "arguments": {"beside": []}}], "unknown field of adapter evit 'beside'"),
        ([{"name": "evit", "arguments": {"layers": [9]}}], "layers must be different block numbers"),
        ("evit", "qna_adapters"),
    ],
)
def test_what_a_changed_folder_is_refused_with(held, says, tmp_path):
    folder = tmp_path / "kept"
    save_pretrained(EViT(layers=(1,)).apply(BASES["vit"]()), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "qna_adapters": held}))
    with pytest.raises(InvalidInput, match=says) as refused:
        from_pretrained(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (TAPADL(scales=2), {"scales": 10**6}),
        (SwapMixer("QnA2d", "attention", arguments={"kernel_size": 3}), {"arguments": {"kernel_size": 3001}}),
    ],
)
def test_a_folder_that_asks_for_more_than_its_weights_is_refused_before_memory_is_taken(
    made, asked, tmp_path, monkeypatch
):
    folder = tmp_path / "kept"
    save_pretrained(made.apply(BASES["vit"]()), folder)
    config = json.loads((folder / "config.json").read_text())
    config["qna_adapters"][0]["arguments"] |= asked
    (folder / "config.json").write_text(json.dumps(config))
    taken = []
    monkeypatch.setattr(sharing, "read_tensors", taken.append)
    with pytest.raises(
        InvalidInput, match=r"its weights would be more numbers than the .* bytes of their file"
    ):
        from_pretrained(folder)
    assert not taken


def test_timm_s_door_does_not_leave_adapters_out(tmp_path):
    save_pretrained(EViT(layers=(1,)).apply(BASES["vit"]()), tmp_path / "kept")
    with pytest.raises(InvalidInput, match=r"holds adapters; qna\.adapters\.from_pretrained reads it"):
        create(f"local-dir:{tmp_path / 'kept'}", pretrained=True)


def test_a_network_without_adapters_is_kept_as_ever(tmp_path):
    save_pretrained(BASES["vit"](), tmp_path / "kept")
    assert "qna_adapters" not in json.loads((tmp_path / "kept" / "config.json").read_text())
    from_pretrained(tmp_path / "kept")
