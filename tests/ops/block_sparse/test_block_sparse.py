"""Block-sparse attention: a loop over the definition, FlexAttention, memory, NaN, refusals."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention

from qna._core.errors import InvalidInput, NoBackend
from qna.ops import block_sparse_attention
from qna.ops.block_sparse import cpu, flex, reference
from qna.ops.block_sparse.cases import CASES, BlockSparseCase
from tests.ops.tolerance import assert_close_to_oracle

needs_kernel = pytest.mark.skipif(bool(cpu.missing()), reason="no compiled kernels here")
CASE = BlockSparseCase("drawn", 45, 8)


def by_loop(inputs, block, scale):
    """The docstring's sets, a query after the other."""
    q, k, v, kept = inputs.values()
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    shared = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = [j for j in range(i + 1) if kept[b, h, i // block, j // block]]
                if seen:
                    scores = torch.stack([scale * q[b, h, i] @ k[b, h // shared, j] for j in seen])
                    out[b, h, i] = scores.softmax(0) @ v[b, h // shared, seen]
    return out


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_kernel)])
@pytest.mark.parametrize("name", ["1d", "odd-block", "nothing-kept", "blocks-of-one", "one-position"])
def test_equals_a_loop_over_the_definition(backend, name):
    case = next(case for case in CASES if case.name == name)
    inputs = case.make(torch.float64)
    out = block_sparse_attention(**inputs, block=case.block, scale=0.3, backend=backend)
    expected = by_loop(inputs, case.block, 0.3)
    assert_close_to_oracle(out, expected, terms=case.length)


@needs_kernel
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_double_precision_equals_the_reference(case):
    inputs = case.make(torch.float64)
    outs = [block_sparse_attention(**inputs, block=case.block, backend=b) for b in ("cpu", "reference")]
    assert_close_to_oracle(*outs, terms=case.length)


@needs_kernel
@pytest.mark.parametrize("head_dim", [16, 17, 40, 64, 128])
@pytest.mark.parametrize("length", [1, 127, 129, 200])
def test_all_blocks_are_dense_causal_attention(head_dim, length):
    case = BlockSparseCase("all", length, 64, heads=2, kv_heads=1, head_dim=head_dim, batch=1)
    inputs = case.make()
    inputs["kept"] = torch.ones_like(inputs["kept"])
    out = block_sparse_attention(**inputs, block=64, backend="cpu")
    q, k, v, _ = (t.double() for t in inputs.values())
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    assert_close_to_oracle(out, expected, terms=length * head_dim)


@needs_kernel
@pytest.mark.parametrize("sets", cpu._native.instruction_sets() if cpu._native else [])
def test_every_instruction_set(sets):
    before = cpu._native.in_use()
    try:
        cpu._native.use(sets)
        for dtype in (torch.float32, torch.float64):
            inputs = BlockSparseCase("sets", 100, 32, head_dim=20, value_dim=27).make(dtype)
            out = block_sparse_attention(**inputs, block=32, backend="cpu")
            double = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
            expected = block_sparse_attention(**double, block=32, backend="reference")
            assert_close_to_oracle(out, expected, terms=2000)
    finally:
        cpu._native.use(before)


@needs_kernel
def test_any_strides_and_any_number_of_threads():
    inputs = CASE.make()
    expected = block_sparse_attention(**inputs, block=CASE.block, backend="cpu")
    wide = {n: torch.cat([t, t], -1)[..., : t.shape[-1]] for n, t in inputs.items()}
    steps = {n: t.repeat_interleave(2, -1)[..., ::2] for n, t in inputs.items()}
    turned = {n: t.transpose(-1, -2).contiguous().transpose(-1, -2) for n, t in inputs.items()}
    before = torch.get_num_threads()
    for given in (wide, steps, turned):
        assert not given["q"].is_contiguous()
        out = block_sparse_attention(**given, block=CASE.block, backend="cpu")
        assert torch.equal(out, expected)
    try:
        torch.set_num_threads(3)
        assert torch.equal(block_sparse_attention(**inputs, block=CASE.block, backend="cpu"), expected)
    finally:
        torch.set_num_threads(before)


@needs_kernel
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_scores_of_any_size_and_masked_by_infinities(backend):
    inputs = CASE.make()
    inputs["q"] *= 1e4
    out = block_sparse_attention(**inputs, block=CASE.block, backend=backend)
    assert out.isfinite().all()
    # a key of minus infinity along the query's one channel is never attended
    q, v = torch.ones(1, 1, 9, 1), torch.randn(1, 1, 9, 1)
    k = torch.zeros(1, 1, 9, 1)
    k[0, 0, 4] = -math.inf
    kept = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    out = block_sparse_attention(q, k, v, kept, block=4, backend=backend)
    seen = [j for j in range(9) if j != 4]
    torch.testing.assert_close(out[0, 0, 8], v[0, 0, seen].mean(0))


@needs_kernel
def test_a_nan_reaches_the_queries_that_keep_it_and_no_others():
    case = BlockSparseCase("nan", 64, 8, most=2)
    for name in ("q", "k", "v"):
        inputs = case.make()
        inputs[name][0, 0, 20] = math.nan
        out = block_sparse_attention(**inputs, block=8, backend="cpu")
        heads = slice(0, 1) if name == "q" else slice(0, 2)
        hit = out.isnan().any(-1)
        assert not hit[1].any()
        assert not hit[0, heads.stop :].any()
        if name == "q":
            assert hit.nonzero().tolist() == [[0, 0, 20]]
            continue
        for head in (0, 1):
            keeps = inputs["kept"][0, head, :, 2].repeat_interleave(8)
            keeps &= torch.arange(64) >= 16
            # before it in its own block a product with zero decides
            assert hit[0, head, 20:].tolist() == keeps[20:].tolist()
            assert not hit[0, head, :16].any()


@needs_kernel
def test_nothing_is_read_of_blocks_that_are_not_kept():
    """The time and the numbers of skipped blocks: they may hold anything."""
    inputs = CASE.make()
    kept = torch.eye(6, dtype=torch.bool).expand(2, 4, 6, 6).contiguous()
    expected = block_sparse_attention(**{**inputs, "kept": kept}, block=8, backend="cpu")
    for n in range(5):
        other = {name: t.clone() for name, t in inputs.items()}
        other["k"][:, :, n * 8 : n * 8 + 8] = math.nan
        out = block_sparse_attention(**{**other, "kept": kept}, block=8, backend="cpu")
        same = [i for i in range(45) if i // 8 != n]
        assert torch.equal(out[:, :, same], expected[:, :, same])


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_kernel)])
def test_gradients_by_finite_differences(backend):
    case = BlockSparseCase("gradients", 11, 4, heads=2, kv_heads=1, head_dim=3, batch=1, spared=True)
    q, k, v, kept = case.make(torch.float64).values()
    assert torch.autograd.gradcheck(
        lambda *maps: block_sparse_attention(*maps, kept, block=4, backend=backend),
        [t.requires_grad_() for t in (q, k, v)],
    )


@pytest.mark.parametrize("name", ["1d", "one-block", "odd-block", "a-head-each"])
def test_flex_attention_of_the_block_mask_is_the_reference(name):
    """Uncompiled, which follows the mask of pairs; the blocks that it lists are held to it beside."""
    case = next(case for case in CASES if case.name == name)
    kept = case.make()["kept"]
    mask = flex.block_mask(kept, case.length, case.block)
    # above the diagonal nothing counts
    assert torch.equal(mask.to_dense().bool(), kept.tril())
    whole = mask.full_kv_num_blocks.sum()
    assert whole == kept.tril(-1).sum()
    seen = reference.pairs_seen(kept, case.length, case.block)
    by_mask = torch.zeros_like(seen)
    for at, (few, many) in enumerate(
        ((mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices))
    ):
        for b, h, r in torch.cartesian_prod(*map(torch.arange, few.shape)):
            for c in many[b, h, r, : few[b, h, r]].tolist():
                rows = torch.arange(r * case.block, min((r + 1) * case.block, case.length))
                columns = torch.arange(c * case.block, min((c + 1) * case.block, case.length))
                sees = torch.ones(len(rows), len(columns), dtype=torch.bool)
                asked = mask.mask_mod(b, h, rows[:, None], columns)
                by_mask[b, h, rows[:, None], columns] = sees if at else asked
    assert torch.equal(by_mask, seen)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_flex_attention_compiled_skips_and_is_the_reference():
    case = BlockSparseCase("compiled", 500, 128, heads=2, kv_heads=2, head_dim=32, batch=1, most=2)
    inputs = case.make()
    q, k, v, kept = inputs.values()
    mask = flex.block_mask(kept, case.length, case.block)
    out = torch.compile(flex_attention)(q, k, v, block_mask=mask, scale=32**-0.5)
    expected = block_sparse_attention(
        **{n: t.double() if t.is_floating_point() else t for n, t in inputs.items()},
        block=128,
        backend="reference",
    )
    assert_close_to_oracle(out, expected, terms=case.terms)


def test_flex_says_what_it_does_not_take():
    inputs = CASE.make(torch.float64)
    with pytest.raises(NoBackend) as raised:
        block_sparse_attention(**inputs, block=8, backend="flex")
    for words in ("block is 8, needs a multiple of 128", "float64", "device is cpu, needs cuda"):
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"block": 0}, "block must be an integer of at least 1, got 0"),
        ({"block": 9}, r"kept must be a bool tensor \(B, heads, blocks, blocks\) = \(2, 4, 5, 5\), for 45"),
        ({"kept": torch.ones(2, 4, 6, 6)}, r"got float32 \(2, 4, 6, 6\)"),
        ({"kept": None}, "got NoneType"),
        ({"k": torch.randn(2, 3, 45, 16)}, "heads of k must divide those of q"),
        ({"k": torch.randn(2, 2, 44, 16)}, "must agree in batch and positions"),
        ({"v": torch.randn(2, 2, 45, 16).half()}, "must have one dtype, got q torch.float32"),
        ({"q": torch.zeros(2, 4, 45, 16, dtype=torch.int64)}, r"got int64 \(2, 4, 45, 16\)"),
        ({"q": torch.zeros(4, 45, 16)}, r"q must be \(B, heads, N, channels\)"),
        ({"scale": math.inf}, "scale must be a finite number or None, got inf"),
        ({"q": torch.zeros(2, 4, 0, 16), "k": torch.zeros(2, 2, 0, 16)}, "only the batch may be empty"),
    ],
)
def test_refusals(changed, told):
    with pytest.raises(InvalidInput, match=told):
        block_sparse_attention(**{**CASE.make(), "block": 8, **changed})


def test_an_empty_batch():
    inputs = {name: t[:0] for name, t in CASE.make().items()}
    assert block_sparse_attention(**inputs, block=8).shape == (0, 4, 45, 16)


@needs_kernel
def test_half_precision_is_rounded_once():
    """Shares and sums stay in single precision: no worse than the exact result, rounded."""
    case = BlockSparseCase("rounded", 256, 64, heads=2, kv_heads=1, head_dim=64)
    inputs = case.make(torch.bfloat16)
    out = block_sparse_attention(**inputs, block=64, backend="cpu")
    exact = block_sparse_attention(
        **{n: t.double() if t.is_floating_point() else t for n, t in inputs.items()},
        block=64,
        backend="reference",
    )
    # half a unit in the last of 8 bits, and single precision on top
    assert ((out.double() - exact).abs() <= exact.abs() * (2**-8 + 2**-16) + 1e-5).all()
