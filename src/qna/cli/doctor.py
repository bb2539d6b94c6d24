"""`qna doctor`."""

from __future__ import annotations

import argparse


def main(arguments: list[str]) -> int:
    """Print the report."""
    argparse.ArgumentParser("qna doctor", description="Show what this machine has.").parse_args(arguments)
    from qna._core.doctor import report
    from qna.ops import OPS

    print(report({op.name: op.backends for op in OPS}))
    return 0
