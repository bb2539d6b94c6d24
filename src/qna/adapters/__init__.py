"""Adapters: what is put around a network that is there already; each a row by name.

``qna.adapters.SwapMixer(...).apply(network)`` changes a network in place and returns it, `adapter` makes a
configuration by its name, and `save_pretrained` keeps adapters with the weights.
"""

from qna.adapters.evit import EViT
from qna.adapters.gated import GatedAttention
from qna.adapters.lora import LoRA, merged
from qna.adapters.minimal import MinimalForm
from qna.adapters.moh import MoH
from qna.adapters.registry import ADAPTERS, adapter
from qna.adapters.row import Adapter, AdapterRow, Applied, added_names, applied
from qna.adapters.sharing import from_pretrained, save_pretrained
from qna.adapters.sparsifiner import Sparsifiner
from qna.adapters.swap_mixer import SwapMixer
from qna.adapters.tap_adl import TAPADL
from qna.adapters.tcpa import TCPA
from qna.adapters.vfpt import VFPT
from qna.adapters.vpt import VPT

__all__ = [
    "ADAPTERS",
    "TAPADL",
    "TCPA",
    "VFPT",
    "VPT",
    "Adapter",
    "AdapterRow",
    "EViT",
    "GatedAttention",
    "LoRA",
    "Applied",
    "MoH",
    "Sparsifiner",
    "MinimalForm",
    "SwapMixer",
    "adapter",
    "added_names",
    "applied",
    "from_pretrained",
    "merged",
    "save_pretrained",
]
