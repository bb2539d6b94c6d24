"""What users hand over by mistake or in another order in memory, to mixers without tests of it elsewhere."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.mixers import MIXERS, HyperZZWLocal2d, VariedSizeWindowAttention2d

FAMILIES = (
    *("neighborhood", "window", "halo", "stand_alone", "control", "aggregated", "varied_size"),
    *("focal", "contmix", "routing"),
    *("global_context", "linear", "spectral", "gating", "hyperzzw", "dual", "messages"),
)
NAMES = [name for name, row in MIXERS.items() if row.build.__module__.split(".")[2] in FAMILIES]


@pytest.fixture(params=NAMES)
def mixer(request):
    """A mixer of 8 channels with no weight zero."""
    row = MIXERS[request.param]
    with seeded(0):
        made = row.build(8, **row.example.arguments).eval()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    made.axes, made.space = row.traits.axes, row.example.space
    return made


def test_all_of_the_families_are_here():
    assert len(NAMES) == 32


def test_an_empty_map_is_refused_and_an_empty_batch_is_not(mixer):
    space = mixer.space
    assert mixer(torch.randn(0, *space, 8)).shape == (0, *space, 8)
    with pytest.raises(InvalidInput, match=r"only the batch may be empty, got \(2, 0"):
        mixer(torch.randn(2, 0, *space[1:], 8))


def test_an_empty_batch_gives_no_weight_a_gradient_that_is_no_number(mixer):
    mixer.train()(torch.randn(0, *mixer.space, 8, requires_grad=True)).sum().backward()
    found = {name: p.grad for name, p in mixer.named_parameters() if p.grad is not None}
    assert not [name for name, gradient in found.items() if gradient.any() or not gradient.isfinite().all()]


def test_any_order_in_memory(mixer):
    space = mixer.space
    every_second = (slice(None), *[slice(None, None, 2)] * (mixer.axes + 1))
    views = {
        "channels first": torch.randn(2, 8, *space).movedim(1, -1),
        "every second": torch.randn(2, *(2 * n for n in space), 16)[every_second],
        "one image for all": torch.randn(1, *space, 8).expand(3, *space, 8),
        "one channel for all": torch.randn(1, *space, 1).expand(1, *space, 8),
    }
    for what, x in views.items():
        torch.testing.assert_close(mixer(x), mixer(x.contiguous()), msg=lambda m, what=what: f"{what}: {m}")


# what warns is torch's fallback for fused attention
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap(mixer):
    x = torch.randn(3, 1, *mixer.space, 8)
    torch.testing.assert_close(torch.func.vmap(mixer)(x), torch.stack([mixer(one) for one in x]))


# what warns is torch's fallback for fused attention
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_vmap_under_autocast(mixer, dtype):
    """Autocast casts some ops under vmap and not others; each mixer gives what it gives alone, rounded."""
    x = torch.randn(3, 1, *mixer.space, 8)
    expected = torch.stack([mixer(one) for one in x])
    with torch.autocast("cpu", dtype=dtype):
        mapped = torch.func.vmap(mixer)(x)
    # a chain of at most some sixteen roundings
    error = (mapped.float() - expected).abs().max()
    assert error < 16 * torch.finfo(dtype).eps * expected.abs().max()


# torch's rules of forward mode are scripted
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_forward_mode_derivatives(mixer):
    """Along one direction, as the difference quotient has it; outputs are smooth in the input."""
    if isinstance(mixer, HyperZZWLocal2d):
        # the term of its renormalisation that no derivative passes
        torch.nn.init.zeros_(mixer.slow_net.alpha)
    mixer = mixer.double()
    x, step = torch.randn(2, 1, *mixer.space, 8, dtype=torch.float64)
    if isinstance(mixer, VariedSizeWindowAttention2d):
        # torch's sampling has none; the day that it has, this is as the others
        with pytest.raises(NotImplementedError, match="grid_sampler_2d"):
            torch.func.jvp(mixer, (x,), (step,))
        return
    _, tangent = torch.func.jvp(mixer, (x,), (step,))
    h = 1e-5
    with torch.no_grad():
        quotient = (mixer(x + h * step) - mixer(x - h * step)) / (2 * h)
    # what the quotient leaves out is of order h^2, what it rounds of order eps / h
    assert (tangent - quotient).abs().max() < 1e-7 * quotient.abs().max()


def test_what_a_mixer_shows_of_an_empty_batch_is_empty(mixer):
    x = torch.randn(0, *mixer.space, 8)
    for name in ("attention_map", "attention_received", "routes", "dynamic_kernels"):
        if hasattr(mixer, name):
            shown = getattr(mixer, name)(x)
            assert all(len(t) == 0 for t in (shown if isinstance(shown, tuple) else (shown,)))
    if hasattr(mixer, "attention_rows"):
        assert len(mixer.attention_rows(x).shares) == 0
