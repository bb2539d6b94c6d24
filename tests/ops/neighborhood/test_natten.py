"""The op beside NATTEN 0.21.7 (MIT), whose pure-Python path made the numbers below, in float32.

They are outputs of `natten.functional.na1d`, `na2d` and `na3d` with ``backend="flex-fna"`` for the inputs of
`made`, at the places of `probes`.
"""

import pytest
import torch

from qna.ops import neighborhood_attention

CAUSAL_TIME = (True, False, False)
# space, window, what NATTEN gives at the probes
GOLDEN = {
    "1d-even": (
        (11,),
        {"kernel_size": (4,)},
        "0.3404655 -0.0500505 -0.7850357 -0.5863463 -0.4371732 -0.6391928 "
        "-0.1209967 -0.6193702 -0.2171694 0.0102539 0.1151183 -0.4669963",
    ),
    "1d-strided-dilated": (
        (15,),
        {"kernel_size": (5,), "stride": (3,), "dilation": (2,)},
        "0.1104531 -0.4139351 0.5268056 0.3872062 -0.3352696 -0.4083315 "
        "-0.5633610 0.3951863 -0.6946359 -0.3194814 0.6572573 0.6188669",
    ),
    "1d-causal-strided": (
        (10,),
        {"kernel_size": (4,), "stride": (3,), "is_causal": (True,)},
        "0.0000000 -0.0675267 0.4934035 0.1046609 0.8829478 -0.6987236 "
        "0.5879192 -0.5678472 0.2203020 -0.6994292 -0.4746381 -0.2537474",
    ),
    "2d-odd-even": (
        (5, 8),
        {"kernel_size": (3, 4)},
        "-0.0715342 -0.2875926 0.6840241 0.1969576 -0.4548128 -0.4428722 "
        "-0.7070352 -0.6721053 0.3280831 0.2681828 0.5755783 -0.1316781",
    ),
    "2d-strided-short-group": (
        (8, 7),
        {"kernel_size": (4, 5), "stride": (3, 2)},
        "-0.3943169 -0.2752458 -0.4934178 -0.3996342 0.4465156 0.0772498 "
        "-0.1345104 0.1970382 -0.1672016 0.2801788 -0.4510210 -0.3365191",
    ),
    "2d-dilated-unequal-groups": (
        (9, 7),
        {"kernel_size": (4, 2), "dilation": (2, 3), "stride": (2, 1)},
        "-0.1805721 0.1082435 0.3536451 -0.4196087 0.3762900 -0.2629248 "
        "-0.0334472 0.3318467 -0.0449974 -0.0547144 0.1386247 -0.1810607",
    ),
    "2d-causal-rows": (
        (6, 7),
        {"kernel_size": (3, 4), "is_causal": (True, False), "dilation": (2, 1)},
        "0.3404655 -0.2146498 0.5667562 -0.0842819 0.6689592 -0.1804071 "
        "0.1498290 -0.6079271 0.1240953 -0.5770053 0.4901453 -0.6778185",
    ),
    "3d-causal-time": (
        (4, 5, 4),
        {"kernel_size": (3, 2, 4), "stride": (1, 2, 3), "dilation": (1, 2, 1), "is_causal": CAUSAL_TIME},
        "0.5039326 0.7689853 0.4337174 -0.4314575 0.0342397 -0.2809334 "
        "-0.7627845 0.3528717 -0.2573860 0.2389777 0.1754865 0.2178444",
    ),
}


def made(space):
    """Queries, keys and values of two items, two heads and eight channels, by a formula."""
    shape = (2, *space, 2, 8)
    at = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)
    # waves of different lengths, so that no two keys are alike
    return tuple((a * (at * w).sin()).float() for a, w in ((1.5, 0.61), (1.3, 0.37), (1.0, 0.83)))


def probes(out):
    """Twelve numbers spread over the output."""
    flat = out.flatten()
    return flat[:: -(-flat.numel() // 12)]


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("name", GOLDEN)
def test_equals_natten(name, backend):
    space, window, golden = GOLDEN[name]
    out = neighborhood_attention(*made(space), **window, backend=backend)
    # both are sums of about as many terms in float32, and these are printed to seven places
    torch.testing.assert_close(
        probes(out), torch.tensor([float(number) for number in golden.split()]), rtol=0, atol=2e-6
    )
