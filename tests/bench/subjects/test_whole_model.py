"""Whole models: the dtypes of inference and of a training step, and the compiled form."""

import pytest
import torch

from qna.bench.measure.contender import FORWARD
from qna.bench.measure.gate import WrongOutput
from qna.bench.measure.harness import Plan
from qna.bench.subjects import whole_model
from qna.bench.subjects.comparison import ModelChoice, Request, compare_models
from qna.bench.subjects.whole_model import STEP, ModelSetting, ModelWork

NAME = "qna_vit_nano_16"


def test_inference_has_weights_of_its_dtype_and_a_step_fp32_weights_under_autocast():
    work = ModelWork(NAME, ModelSetting(2, 16, "bfloat16"))
    work.verify(FORWARD)
    assert {p.dtype for p in work.model.parameters()} == {torch.bfloat16}
    logits = work.call(FORWARD)()
    assert isinstance(logits, torch.Tensor)
    assert logits.dtype == torch.bfloat16

    work, seen = ModelWork(NAME, ModelSetting(2, 16, "bfloat16")), []
    work.verify(STEP)
    work.model.register_forward_hook(lambda module, images, logits: seen.append(logits.dtype))
    work.call(STEP)()
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in work.model.parameters()} == {torch.float32}
    assert {None if p.grad is None else p.grad.dtype for p in work.model.parameters()} == {torch.float32}
    assert work.optimizer
    assert {t.dtype for state in work.optimizer.state.values() for t in state.values()} == {torch.float32}


def test_a_model_that_is_compiled_wrongly_is_found(monkeypatch):
    monkeypatch.setattr(
        whole_model, "compiled", lambda model, device, fullgraph: lambda images: model(images) + 1
    )
    with pytest.raises(WrongOutput, match="logits differs"):
        ModelWork(NAME, ModelSetting(2, 16), compile=True).verify(FORWARD)


def test_the_compiled_form_is_a_provider_and_what_compiles_not_leaves_the_others(monkeypatch):
    def fails(model, device, fullgraph):
        def run(images):
            raise RuntimeError("no kernel for this card\nmore")

        return run

    monkeypatch.setattr(whole_model, "compiled", fails)
    request = Request(modes=(FORWARD,), plan=Plan(seconds=0.001, memory=False))
    ((_, outcomes),) = compare_models(
        [ModelChoice(NAME)], ((2, 16),), request, lambda what: None, compile=True
    )
    eager, compiled = outcomes
    assert (eager.provider, compiled.provider) == (NAME, f"{NAME}-compiled")
    assert eager.seconds
    assert eager.extra["compiled"] is False
    assert not compiled.seconds
    assert compiled.reason == "RuntimeError: no kernel for this card"


@pytest.mark.long
@pytest.mark.slow
# inductor imports a module of torch that uses it
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_inference_and_steps_are_right():
    for mode in (FORWARD, STEP):
        work = ModelWork(NAME, ModelSetting(2, 16), compile=True)
        work.verify(mode)
        work.call(mode)()
