"""Small calls of the Triton backend, for a tool that watches the card."""

from qna.ops import learned_query_attention
from qna.ops.learned_query.cases import BY_NAME

NAMES = (
    "1d",
    "1d-even-strided",
    "2d-3x3",
    "2d-one-pixel",
    "2d-two-pixels",
    "2d-kernel-one",
    "2d-even",
    "2d-larger-than-map",
    "2d-stride-2",
    "2d-stride-3-rectangular",
    "2d-dilated",
    "2d-dilated-strided-even",
)


def main(device="cuda"):
    """Forward and backward of each case."""
    for name in NAMES:
        case = BY_NAME[name]
        inputs = {k: t.requires_grad_() for k, t in case.make(device=device).items()}
        learned_query_attention(**inputs, **case.window, backend="triton").sum().backward()


if __name__ == "__main__":
    main()
