"""Small calls of the CUDA backend, for a tool that watches the card."""

import torch

from qna.ops import learned_query_attention
from tests.ops.learned_query.cuda.cases import LAYERS
from tests.ops.learned_query.triton.interpreter import heads_fastest


def main():
    """Forward and backward of each case, in fp32 and in bf16."""
    for case in LAYERS:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = {k: t.requires_grad_() for k, t in heads_fastest(case.make(dtype, "cuda")).items()}
            learned_query_attention(**inputs, **case.window, backend="cuda").sum().backward()


if __name__ == "__main__":
    main()
