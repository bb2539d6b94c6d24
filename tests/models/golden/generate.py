"""Write the golden logits: the authors' own model, run in JAX on the weights and the image of `rule.py`.

    PYTHON_WITH_JAX tests/models/golden/generate.py --official CHECKOUT_OF_moabarar/qna

Tried with jax 0.10.2 and flax 0.12.8. It also writes Flax's bytes for toy trees, to test the reader on.
"""

import argparse
import base64
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import rule  # noqa: E402

# name of the case -> model, changes to the authors' configuration, ours, image size
CASES = {
    "tiny": ("qna_vit_tiny", {}, {}, 224),
    "tiny_7x7": ("qna_vit_tiny_7x7", {}, {}, 224),
    "small": ("qna_vit_small", {}, {}, 224),
    "base": ("qna_vit_base", {}, {}, 224),
    "tiny_resnet": ("qna_vit_tiny", {"stem_type": "resnet"}, {"stem": "resnet"}, 224),
    "tiny_qnav1": ("qna_vit_tiny", {"classification_head_type": "qnav1"}, {"global_pool": "qnav1"}, 224),
    "tiny_qnav2": ("qna_vit_tiny", {"classification_head_type": "qnav2"}, {"global_pool": "qnav2"}, 224),
    "tiny_avgpool": ("qna_vit_tiny", {"qna_down_skip": "avgpool"}, {"shortcut": "avgpool"}, 224),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", required=True, type=Path)
    sys.path.insert(0, str(parser.parse_args().official))
    logits = {name: run(*case) for name, case in CASES.items()}
    (HERE / "logits.json").write_text(json.dumps(logits, indent=1) + "\n")
    (HERE / "flax_files.json").write_text(json.dumps(flax_files(), indent=1) + "\n")


def run(model, theirs, ours, size):
    """The authors' logits for one case."""
    import jax
    import ml_collections
    from flax import traverse_util
    from models import qna_vit

    defaults = qna_vit.default_config

    def configured():
        config = defaults()
        for key, value in theirs.items():
            config[key] = value
        return config

    qna_vit.default_config = configured
    network = qna_vit.create_model(model, ml_collections.ConfigDict())(num_classes=1000, train=False)
    qna_vit.default_config = defaults
    image = rule.image(size)
    shapes = jax.eval_shape(lambda: network.init(jax.random.PRNGKey(0), image))
    flat = traverse_util.flatten_dict(shapes, sep="/")
    weights = traverse_util.unflatten_dict({p: rule.tensor(p, s.shape) for p, s in flat.items()}, sep="/")
    logits = np.asarray(jax.jit(network.apply)(weights, image))[0].astype(np.float64)
    count = sum(int(np.prod(s.shape)) for p, s in flat.items() if p.startswith("params/"))
    print(f"{model} {theirs}: {count} parameters, deviation {logits.std():.3f}")  # noqa: T201 - progress
    return {
        "model": model,
        "arguments": ours,
        "image_size": size,
        "parameters": count,
        "tensors": len(flat),
        "norm": float(np.linalg.norm(logits)),
        "logits": [round(float(v), 7) for v in logits[:50]],
    }


def flax_files():
    """Flax's own bytes for small trees, with the arrays that must come out."""
    import flax.serialization as flax
    import ml_dtypes

    draw = np.random.RandomState(3).standard_normal
    arrays = {
        "float32": draw((2, 3)).astype(np.float32),
        "float64": draw((3,)),
        "float16": draw((2, 1, 2)).astype(np.float16),
        "bfloat16": draw((4,)).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 3), np.float32),
        "none": np.zeros((), np.float32),
    }
    state = {
        "step": np.int64(7),
        "params": {"StemBlock_0": arrays},
        "opt_state": {"0": {"count": np.int32(3), "angle": 1 + 2j, "key": np.arange(2, dtype=np.uint32)}},
        "dynamic_scale": None,
    }
    whole = flax.msgpack_serialize(state)
    limit, flax.MAX_CHUNK_SIZE = flax.MAX_CHUNK_SIZE, 16
    pieces = flax.msgpack_serialize(state)
    flax.MAX_CHUNK_SIZE = limit
    encode = lambda raw: base64.b64encode(raw).decode()  # noqa: E731
    return {
        "whole": encode(whole),
        "pieces_of_16_bytes": encode(pieces),
        "arrays": {
            name: {"shape": a.shape, "values": a.astype(np.float64).flatten().tolist()}
            for name, a in arrays.items()
        },
    }


if __name__ == "__main__":
    main()
