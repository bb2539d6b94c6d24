"""Layers on graphs: on lists of edges by torch-geometric, and on masks of pairs by torch alone."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qna.graph.dense import DenseSINCConv, DenseSIRConv
    from qna.graph.message_passing import SINCConv, SIRConv

__all__ = ["DenseSINCConv", "DenseSIRConv", "SINCConv", "SIRConv"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'qna.graph' has no attribute {name!r}")
    # the dense layers need torch alone, also where torch-geometric is not installed
    home = "dense" if name.startswith("Dense") else "message_passing"
    return getattr(importlib.import_module(f"qna.graph.{home}"), name)
