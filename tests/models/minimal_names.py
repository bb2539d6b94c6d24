"""What the re-implementation of the minimal transformer calls our tensors, and the golden cases."""

import re

# ours -> theirs
_WORDS = {
    r"^stem\.conv\.": "embedding.patcher.0.",
    r"^stem\.class_token$": "embedding.cls_token",
    r"^stem\.position$": "embedding.position_embeddings",
    r"^stages\.(\d+)\.0\.": r"transformer_encoder.layers.\1.",
    r"\.attention\.q\.": ".self_attn.query.",
    r"\.attention\.k\.": ".self_attn.key.",
    r"\.attention\.triangle$": ".self_attn.trainable_params",
    r"\.attention\.": ".self_attn.",
    r"\.mlp\.fc1\.": ".mlp.0.",
    r"\.mlp\.fc2\.": ".mlp.2.",
    r"^head\.fc\.": "classifier.",
}
# our form of queries and keys, and of values -> their modification
MODIFICATIONS = {
    ("full", "full"): "unchanged",
    ("collapsed", "full"): "Wqk",
    ("collapsed", "none"): "Wqk+noWvWo",
    ("symmetric", "full"): "symmetry",
}
SIZES = ((16, 16), (12, 20))
SMALL = {"dim": 12, "depth": 2, "patch_size": 4}
CLASSES = 5
# name -> heads, MLP, queries and keys, values: the re-implementation's own list, and collapsed with an MLP
CASES = {
    f"{'-'.join(forms)}{'-mlp' * mlp}-{heads}": (heads, mlp, *forms)
    for heads, mlp, forms in (
        (1, True, ("full", "full")),
        (4, True, ("full", "full")),
        (1, True, ("collapsed", "full")),
        (1, True, ("collapsed", "none")),
        (1, False, ("full", "full")),
        (4, False, ("full", "full")),
        (1, False, ("symmetric", "full")),
        (4, False, ("symmetric", "full")),
        (1, False, ("collapsed", "full")),
        (1, False, ("collapsed", "none")),
    )
}


def their_name(name):
    for ours, theirs in _WORDS.items():
        name = re.sub(ours, theirs, name)
    return name
