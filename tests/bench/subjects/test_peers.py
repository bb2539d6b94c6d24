"""Every peer computes its own definition, and the gate refuses a peer that does not."""

import dataclasses
import re
import types

import pytest
import torch

from qna._core.errors import UnknownName
from qna.bench.measure.contender import BACKWARD, FORWARD, Setting
from qna.bench.measure.gate import WrongOutput, positions, verify
from qna.bench.measure.work import ContenderWork
from qna.bench.subjects.comparison import PeerRequest
from qna.bench.subjects.ops import op_row
from qna.bench.subjects.peers import PEERS, neighbourhood, of_ops, registered
from qna.bench.subjects.questions import make
from qna.mixers import MIXERS

# 16 x 24 has tiles and blocks of 8 for the peers that want them, and padding for windows of 3 and 5
SIZES = {"batch": 2, "height": 16, "width": 24, "dim": 32, "heads": 4}
COMPILED = {"two-conv-compiled", "neighbourhood"}
REGISTERED = {peer.name for peer in registered.PEERS}
# what this machine lacks, or needs a card
ELSEWHERE = {"natten", *(n for n in PEERS if n.endswith(("-triton", "-cuda")))}
HAND_WRITTEN = [n for n in PEERS if n not in COMPILED | REGISTERED | ELSEWHERE | {"qna-cpu"}]


def built(name, level="op", **changes):
    setting = Setting(**{"window": 3, **SIZES, **changes})
    return PEERS[name].build(setting, level), PEERS[name].declines, setting


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("level", ["op", "layer"])
@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_output_and_gradients_are_the_definition(name, level, window):
    contender, declines, setting = built(name, level, window=window)
    mode = BACKWARD if declines(setting, level, BACKWARD) is None else FORWARD
    verify(contender, mode)


@pytest.mark.long  # what is compiled is also held to its definition before every figure
@pytest.mark.slow
# inductor imports a module of torch that uses it
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("level", ["op", "layer"])
@pytest.mark.parametrize("name", sorted(COMPILED))
def test_compiled_peers_are_their_definition(name, level):
    contender, declines, setting = built(name, level, window=5)
    verify(contender, FORWARD)
    if declines(setting, level, BACKWARD) is None:
        verify(contender, BACKWARD)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("name", ["qna", "two-conv", "depthwise", "swin", "copy"])
def test_other_dtypes_pass_the_gate(name, dtype):
    verify(built(name, dtype=dtype)[0], BACKWARD)


@pytest.mark.parametrize("name", ["qna", "depthwise", "sasa-unfold"])
def test_even_windows(name):
    verify(built(name, window=4)[0], BACKWARD)


WRONG = {
    "shifted by one column": lambda y: y.roll(1, dims=2),
    "one position wrong in the last image": lambda y: y.index_add(
        0, torch.tensor([1]), torch.zeros_like(y[:1]).index_fill(1, torch.tensor([15]), 1e-2)
    ),
    "scaled by a thousandth": lambda y: y * 1.001,
    "not a number at a corner": lambda y: y.index_fill(1, torch.tensor([0]), float("nan")),
    "gradient lost": lambda y: y.detach() + 0.0 * y,
    "gradient doubled": lambda y: 2 * y - y.detach(),
}


@pytest.mark.parametrize("name", ["qna", "swin", "halo", "depthwise"])
@pytest.mark.parametrize("fault", WRONG)
def test_the_gate_refuses_a_fault(name, fault):
    contender = built(name)[0]
    right = contender.forward
    wrong = dataclasses.replace(contender, forward=lambda: WRONG[fault](right()))
    verify(contender, BACKWARD)
    with pytest.raises(WrongOutput, match=r"(output|gradient of \w+) differs by .*, rounding allows"):
        verify(wrong, BACKWARD)


def test_sampled_positions_hold_all_corners_once():
    at = positions(torch.empty(3, 5, 7, 1)).tolist()
    assert len(at) == len({tuple(p) for p in at})
    assert [[b, y, x] for b in (0, 2) for y in (0, 4) for x in (0, 6)] == at[:8]
    assert len(positions(torch.empty(1, 1, 1, 1))) == 1


def test_contiguous_and_layer_layout_hold_equal_values_in_other_strides():
    layers = built("qna")[0].leaves
    plain = PEERS["two-conv"].build(Setting(window=3, **SIZES), "op").leaves
    for name in ("scores", "value"):
        assert torch.equal(layers[name], plain[name])
        assert plain[name].is_contiguous()
    # heads are the fastest axis, and values and scores share one buffer
    assert layers["value"].stride()[-2:] == (1, 4)
    assert layers["value"].untyped_storage().data_ptr() == layers["scores"].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("halo", {"height": 17}, "no block of 4 to 8 positions divides the map"),
        ("halo", {"window": 4}, "even"),
        ("two-conv", {"window": 4}, "odd window"),
        ("neighbourhood", {"window": 17}, "odd windows inside the map"),
        ("neighbourhood-unfold", {"window": 17}, "windows inside the map"),
        ("neighbourhood-unfold", {"height": 4096, "width": 4096, "window": 13}, "GiB of windows"),
        ("neighbourhood", {"dim": 16, "device": "cuda"}, "heads of 16 channels at least on a GPU, got 4"),
        ("full", {"height": 4096, "width": 4096}, "TFLOP"),
        ("sasa-unfold", {"height": 4096, "width": 4096, "window": 13}, "GiB of windows"),
        ("qna-contiguous", {}, "reference|a layer has one layout"),
    ],
)
def test_peers_decline_with_a_reason(name, changes, says):
    setting = Setting(**{"window": 3, **SIZES, **changes})
    reason = PEERS[name].declines(setting, "layer" if name == "qna-contiguous" else "op", FORWARD)
    assert reason is not None
    assert re.search(says, reason)


@pytest.mark.parametrize("name", ["neighborhood", "neighbourhood-unfold"])
def test_windows_on_a_map_of_one_row_are_rows(name):
    contender = built(name, height=1, width=40, window=9)[0]
    assert contender.terms == 9 + 32
    verify(contender, BACKWARD)


def test_natten_is_asked_by_name_where_it_is_installed(monkeypatch):
    setting = Setting(window=3, **SIZES)
    natten = PEERS["natten"]
    monkeypatch.setattr(neighbourhood, "_has_natten", lambda: False)
    assert "pip install natten" in natten.declines(setting, "op", FORWARD)
    monkeypatch.setattr(neighbourhood, "_has_natten", lambda: True)
    assert natten.declines(setting, "op", FORWARD) is None
    assert "no backward on CPU" in natten.declines(setting, "op", BACKWARD)
    assert "natten" not in PeerRequest("op", ("all",), ((1, 8, 8, 8),), (3,)).names()


def test_backward_of_flex_attention_on_cpu_is_refused_with_the_reason():
    setting = Setting(window=3, **SIZES)
    assert "no backward on CPU" in PEERS["neighbourhood"].declines(setting, "op", BACKWARD)
    assert PEERS["neighbourhood"].declines(setting, "op", FORWARD) is None


def test_work_is_made_from_json_and_its_gradient_has_the_output_s_strides():
    setting = dataclasses.asdict(Setting(window=3, **SIZES))
    work = make({"kind": "op", "name": "depthwise", "setting": setting})
    assert isinstance(work, ContenderWork)
    gradients = work.call(BACKWARD)()
    assert [g.shape for g in gradients] == [t.shape for t in work.contender.leaves.values()]
    assert not work.call(FORWARD)().requires_grad


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_mixers_of_the_registry_are_peers_of_layers_and_say_what_they_are_held_to(name):
    row = {"height": 1} if len(MIXERS[name].example.space) == 1 else {}
    if not MIXERS[name].traits.any_size:
        row = {"height": SIZES["width"]}  # a product of matrices needs a square
    contender, declines, setting = built(name, "layer", **row)
    assert declines(setting, "layer", BACKWARD) is None
    assert "a whole layer" in declines(setting, "op", BACKWARD)
    verify(contender, BACKWARD)
    assert contender.extra["held_to"].startswith("its own copy in fp64")
    # no tensor at one value, whose part in the output would not show
    assert all(bool((t != t.flatten()[0]).any()) for t in contender.leaves.values() if t.numel() > 1)


def test_the_registry_s_mixers_take_the_setting_s_window_and_heads():
    assert {"QnA2d", "WindowAttention2d"} <= REGISTERED
    assert not REGISTERED & {"QnAPool2d", "QnAUpsample1d"}
    made = built("QnA2d", "layer", window=5)[0]
    assert made.extra["arguments"] == {"num_heads": 4, "kernel_size": 5, "num_queries": 2}
    windows = built("WindowAttention2d", "layer", window=5)[0].extra["arguments"]
    assert (windows["num_heads"], windows["window_size"]) == (1, 5)
    halo = built("HaloAttention2d", "layer", window=5)[0].extra["arguments"]
    assert (halo["block_size"], halo["halo_size"]) == (8, 2)
    right = made.forward
    with pytest.raises(WrongOutput, match="output differs"):
        verify(dataclasses.replace(made, forward=lambda: right() * 1.001), FORWARD)


def test_mixers_of_sequences_and_volumes_are_peers_on_the_maps_that_suit_them():
    assert {"NeighborhoodAttention1d", "NeighborhoodAttention3d"} <= REGISTERED
    _, declines, setting = built("NeighborhoodAttention1d", "layer")
    assert declines(setting, "layer", FORWARD) == "mixes sequences: wants maps of one row, got 16"
    sequence = built("NeighborhoodAttention1d", "layer", height=1)[0]
    # plain windows, whatever the row's example has
    assert sequence.extra["arguments"] == {
        "num_heads": 1, "kernel_size": 3, "dilation": 1, "is_causal": False
    }  # fmt: skip
    assert sequence.forward().shape == (2, 1, 24, 32)
    volume = built("NeighborhoodAttention3d", "layer")[0]
    x = volume.leaves["x"]
    (grad,) = torch.autograd.grad(volume.forward()[0].sum(), x)
    # the images of a batch are planes that see each other
    assert grad.shape == (2, 16, 24, 32)
    assert bool((grad[1] != 0).any())


class Toy:
    """An op with one weight per tap, on maps of one channel per head."""

    @dataclasses.dataclass(frozen=True)
    class Case:
        name: str = "2d"
        space: tuple = (4, 5)
        kernel: tuple = (3, 3)
        batch: int = 1
        heads: int = 2
        head_dim: int = 2
        window: dict = dataclasses.field(default_factory=dict)

        def make(self, dtype, device, *, seed=0):
            g = torch.Generator().manual_seed(seed)
            return {
                "x": torch.randn(self.batch, *self.space, self.heads, self.head_dim, generator=g).to(dtype)
            }

    @staticmethod
    def run(x, *, backend=None):
        return x * x * (1.001 if backend == "wrong" else 1)

    def row(self):
        backends = [types.SimpleNamespace(name=n) for n in ("wrong", "reference")]
        return types.SimpleNamespace(name="toy", function=self.run, backends=backends, cases=[Toy.Case()])


def test_an_op_s_row_alone_makes_its_peers_and_a_wrong_backend_is_found():
    peers = {peer.name: peer for peer in of_ops.peers_of("toy", Toy().row())}
    assert list(peers) == ["toy", "toy-wrong", "toy-reference"]
    setting = Setting(window=3, **SIZES)
    right = peers["toy"].build(setting, "op")
    assert right.leaves["x"].shape == (2, 16, 24, 1, 32)
    verify(right, BACKWARD)
    with pytest.raises(WrongOutput, match="output differs"):
        verify(peers["toy-wrong"].build(setting, "op"), FORWARD)
    assert "an op" in peers["toy"].declines(setting, "layer", FORWARD)


def test_all_means_the_forms_of_the_op_that_is_asked(monkeypatch):
    (toy, *_) = of_ops.peers_of("toy", Toy().row())
    monkeypatch.setitem(PEERS, "toy", toy)
    rows = {"toy": Toy().row(), "learned_query": op_row("learned_query")}
    monkeypatch.setattr("qna.bench.subjects.ops.op_rows", lambda: rows)

    def names(level, **which):
        return PeerRequest(level, ("all",), ((1, 8, 8, 8),), (3,), **which).names()

    assert {"qna", "swin"} <= set(names("op"))
    assert "toy" not in names("op")
    assert {"toy", "swin"} <= set(names("op", op="toy"))
    assert "qna" not in names("op", op="toy")
    assert "qna" in names("layer", op="toy")
    with pytest.raises(UnknownName, match="unknown op 'learned'"):
        names("op", op="learned")
