"""examples/joint_tokens.py: what it tells, and that it is dense attention on concatenated tokens."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "joint_tokens.py"


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [((6, 9), 4, 1), ((7, 8), 5, 3), ((6, 6), 6, 2), ((5, 7), 3, 1)]
)
def test_both_kinds_of_tokens_and_their_gradients_are_those_of_dense_attention(size, kernel, stride):
    example = runpy.run_path(str(EXAMPLE))
    g = torch.Generator().manual_seed(0)

    def tokens(*shape):
        return tuple(
            torch.randn(2, *shape, 3, 8, generator=g, dtype=torch.float64, requires_grad=True)
            for _ in range(3)
        )

    image, text = tokens(*size), tokens(5)
    found = []
    for function in ("joint_attention", "by_dense_attention"):
        out = example[function](image, text, kernel, stride)
        total = sum(t.sin().sum() for t in out)
        found.append((out, torch.autograd.grad(total, (*image, *text))))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_text_changes_what_the_image_attends_and_a_far_pixel_does_not():
    example = runpy.run_path(str(EXAMPLE))
    image = tuple(torch.randn(1, 9, 9, 2, 8) for _ in range(3))
    text = tuple(torch.randn(1, 4, 2, 8) for _ in range(3))
    of_image, _ = example["joint_attention"](image, text, 3)
    changed = (*text[:2], text[2] + 1)
    assert (example["joint_attention"](image, changed, 3)[0] != of_image).all()
    far = image[2].clone()
    far[:, 8, 8] += 1
    after, of_text = example["joint_attention"]((*image[:2], far), text, 3)
    assert torch.equal(after[:, :6, :6], of_image[:, :6, :6])
    assert not torch.equal(of_text, example["joint_attention"](image, text, 3)[1])


@pytest.mark.parametrize("side", [20, 96])
def test_it_tells_how_both_differ(side, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["joint_tokens.py", "--side", str(side), "--text", "7", "--kernel", "5", "--stride", "2"]
    )
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{side}x{side} image and 7 text tokens: \d+\.\d ms", first)
    if side == 96:
        assert second == "dense attention under a mask is left out above 8192 tokens"
        return
    told = re.fullmatch(
        r"dense attention under a mask: \d+\.\d ms, largest difference (\d\.\de-\d\d)", second
    )
    assert told is not None, second
    assert float(told[1]) <= 5e-6
