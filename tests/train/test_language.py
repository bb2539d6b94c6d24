"""Language as a task: what it learns, that it goes on bit for bit, two processes, and what it refuses."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput, UnknownName
from qna.adapters import merged
from qna.data.text import UNSCORED, Bytes, TokenBatch
from qna.models.decoder import create_decoder
from qna.train import RunStopped, TrainConfig, fit, resume
from qna.train.config import ImageOptions, LanguageOptions, NetworkOptions, OptimOptions, RunOptions
from qna.train.recipes import recipe_for
from qna.train.reload import load_classifier, task_of
from qna.train.reload_language import load_language
from qna.train.tasks.language import Language
from tests.train.processes import torchrun
from tests.train.stopping import Stop, assert_same_end

MIXERS = "mixers=('CausalAttention1d',('SlidingAttention1d',{'window':5}),'CausalLinearAttention1d')"


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """Words in an order that repeats, in several files."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(5):
        (folder / f"{number}.txt").write_text("the cat sat on the mat\n" * (20 + number))
    return folder


@pytest.fixture
def config(text, tmp_path):
    """Four updates in two epochs."""
    return TrainConfig(
        images=ImageOptions(data=str(text)),
        network=NetworkOptions(model="decoder_pico", model_kwargs=("dim=32", "depth=3", MIXERS)),
        language=LanguageOptions(context=24, lengths=(40,), held_out=0.2, limit=400),
        optim=OptimOptions(epochs=2, batch_size=8, lr=0.3, warmup_epochs=0.5, ema=0.5, clip=1.0),
        run=RunOptions(task="language", out=tmp_path / "run", device="cpu", tensorboard=False),
    )


def test_it_learns_what_is_there_to_read(config, changed):
    outcome = fit(changed(config, epochs=12, limit=0, ema=0.0, lr=0.2))
    # the words alone are 3.1 bits a byte
    assert outcome.metrics["bits_per_byte"] < 1.0
    assert outcome.metrics["right"] > 0.75
    first, longer = outcome.metrics["lengths"]
    assert (first["length"], longer["length"]) == (24, 40)
    assert first["bits_per_byte"] == outcome.metrics["bits_per_byte"] == outcome.history[-1]["bits_per_byte"]
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"] / 2
    # and the network that is brought back from the folder is the same
    model = load_language(str(outcome.folder))
    assert isinstance(model.tokens, Bytes)
    assert task_of(str(outcome.folder)) == "language"
    batch = outcome.data.held_out.parts[0].batch([0, 1], 0)
    with torch.no_grad():
        assert torch.equal(model.network(batch.tokens), outcome.network.eval()(batch.tokens))
    with pytest.raises(InvalidInput, match="is a run of language, and only networks that classify can be"):
        load_classifier(str(outcome.folder))


def test_it_learns_to_recall(config, changed):
    """And the answers, not the filler, are what is learned."""
    name = "induction:symbols=4"
    outcome = fit(
        changed(
            config,
            data=name,
            context=8,
            lengths=(),
            limit=0,
            sequences=512,
            model_kwargs=("dim=32", "depth=2"),
            batch_size=32,
            epochs=6,
            lr=0.08,
            ema=0.0,
        )
    )
    assert outcome.task.headline.name == "right"
    # chance is a quarter
    assert outcome.metrics["right"] > 0.6
    assert "bits_per_byte" not in outcome.metrics
    assert load_language(str(outcome.folder)).tokens is None


@pytest.mark.parametrize("data", [None, "recall:pairs=2"])
@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(config, changed, data, at):
    if data is not None:
        config = changed(config, data=data, limit=0, sequences=16)
    whole = fit(config)
    with pytest.raises(RunStopped, match=rf"up to update {at} of 4"):
        fit(config, Stop(at))
    outcome = resume(whole.folder.with_name("run-2"))
    assert outcome.scores == whole.scores
    assert_same_end(outcome.folder, whole.folder)


@pytest.fixture
def longer(config, changed):
    """A decoder that was trained at a short context, and how it is adapted to one twice as long."""
    pytest.importorskip("peft", reason="qna[language] brings it")
    sizes = ("dim=32", "depth=2")
    base = fit(changed(config, model_kwargs=(*sizes, "mixers='CausalAttention1d'"), epochs=4, ema=0.0))
    return base, changed(
        config,
        model_kwargs=(*sizes, "mixers=('SinkFixedAttention1d',{'rope_scale':2.0})"),
        weights=base.folder / "model.safetensors",
        adapter=("lora", "rank=4"),
        context=48,
        lengths=(96,),
        limit=800,
        lr=0.05,
    )


def test_a_trained_decoder_is_adapted_to_a_longer_context(longer):
    """In groups while it learns; all but updates, embedding and norms stays; and it comes back adapted."""
    base, config = longer
    outcome = fit(config)
    assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]
    before, after = base.network.state_dict(), outcome.network.state_dict()
    for name, tensor in before.items():
        path, _, last = name.rpartition(".")
        now = after.get(name, after.get(f"{path}.base_layer.{last}"))
        assert torch.equal(now, tensor) == (not any(part in name for part in ("embed", "norm"))), name
    model = load_language(str(outcome.folder))
    batch = outcome.data.held_out.parts[0].batch([0, 1], 0)
    with torch.no_grad():
        expected = outcome.network.eval()(batch.tokens)
        assert torch.equal(model.network(batch.tokens), expected)
        # merged, it is a decoder of full attention with positions interpolated
        plain = create_decoder(
            "decoder_pico", dim=32, depth=2, mixers=("CausalAttention1d", {"rope_scale": 2.0})
        )
        plain.load_state_dict(merged(model.network).state_dict())
        torch.testing.assert_close(plain(batch.tokens), expected)


@pytest.mark.parametrize("at", [1, 3])
def test_adapting_goes_on_bit_for_bit(longer, at):
    _, config = longer
    whole = fit(config)
    with pytest.raises(RunStopped):
        fit(config, Stop(at))
    outcome = resume(whole.folder.with_name("run-3"))
    assert outcome.scores == whole.scores
    assert_same_end(outcome.folder, whole.folder)


DECONSTRUCTED = (
    "mixers=(('FixedTextQueryKey1d',{'length':60}),'RandomQueryKey1d','KeyOnlyAttention1d','StaticQueryKey1d',"
    "'TaylorAttention1d','PositionwiseMlp1d')"
)


@pytest.mark.parametrize("data", [None, "recall:pairs=2"])
def test_deconstructed_attention_goes_on_bit_for_bit_and_keeps_its_text(config, changed, data):
    """All variants in one network, averages too; its text is the beginning of what is trained on."""
    config = changed(config, model_kwargs=("dim=32", "depth=6", DECONSTRUCTED))
    if data is not None:
        config = changed(config, data=data, limit=0, sequences=16)
    whole = fit(config)
    with pytest.raises(RunStopped, match=r"up to update 3 of 4"):
        fit(config, Stop(3))
    outcome = resume(whole.folder.with_name("run-2"))
    assert outcome.scores == whole.scores
    assert_same_end(outcome.folder, whole.folder)
    text = outcome.data.train.batch([0, 1, 2], 0).tokens.flatten()[:60]
    network = load_language(str(outcome.folder)).network
    assert torch.equal(network.text, text)
    batch = outcome.data.held_out.parts[0].batch([0, 1], 0)
    with torch.no_grad():
        assert torch.equal(network(batch.tokens), outcome.network.eval()(batch.tokens))


def test_a_text_that_the_data_has_not_is_refused(config, changed):
    mixers = "mixers=('FixedTextQueryKey1d',{'length':4000})"
    with pytest.raises(InvalidInput, match=r"a fixed text of 4,000 tokens, and .* give the mixer a smaller"):
        fit(changed(config, model_kwargs=("dim=32", "depth=2", mixers)))
    mixers = "mixers=('FixedTextQueryKey1d',{'length':30})"
    with pytest.raises(InvalidInput, match="fixed text of 30 tokens, and the sequence has 40"):
        fit(changed(config, model_kwargs=("dim=32", "depth=2", mixers)))


def test_workers_change_nothing(config, changed):
    assert_same_end(fit(config).folder, fit(changed(config, workers=1)).folder)


def test_every_epoch_has_other_sequences(config, changed):
    for data, limit in ((config.images.data, 400), ("recall:pairs=2", 0)):
        task = Language()
        loaded = task.load(changed(config, data=data, limit=limit))
        from qna.data import TrainingOrder

        order = TrainingOrder(len(loaded.train), 4, 0)
        first, second = (next(task.training_batches(loaded, order, epoch, 0)) for epoch in (0, 1))
        assert not torch.equal(first.tokens, second.tokens)
        assert torch.equal(first.tokens, next(task.training_batches(loaded, order, 0, 0)).tokens)


def test_text_that_changed_is_told(config, text, tmp_path, changed):
    import shutil

    own = shutil.copytree(text, tmp_path / "own")
    folder = fit(changed(config, data=str(own))).folder
    for path in own.iterdir():
        path.write_text(path.read_text().replace("cat", "dog"))
    with pytest.raises(InvalidInput, match="order or contents of the training sequences changed"):
        resume(folder)


@pytest.mark.slow
def test_two_processes_train_alike_and_judge_every_sequence_once(config, changed, tmp_path):
    """Both see half of every update; the sum is that of one process with twice the batch."""
    one = fit(changed(config, batch_size=8, ema=0.0))
    two = dataclasses.replace(
        changed(config, batch_size=4, ema=0.0, out=tmp_path / "two"),
    )
    (tmp_path / "config.json").write_text(two.to_json())
    run = torchrun("-m", "qna", "train", "--config", tmp_path / "config.json")
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert [n["sequences"] for n in metrics["lengths"]] == [n["sequences"] for n in one.metrics["lengths"]]
    assert [n["scored"] for n in metrics["lengths"]] == [n["scored"] for n in one.metrics["lengths"]]
    # the order of sequences is another one, so that weights are not the same
    assert abs(metrics["loss"] - one.metrics["loss"]) < 0.5


def test_the_loss_is_of_what_is_asked(config):
    task = Language()
    task.load(config)
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=g)
    targets = torch.randint(7, (2, 5), generator=g)
    targets[0, :4] = UNSCORED
    loss = task.loss(logits, TokenBatch(targets, targets), 0)
    asked = [(0, 4), *((1, i) for i in range(5))]
    expected = sum(F.cross_entropy(logits[b, i], targets[b, i]) for b, i in asked) / 6
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"smoothing": 0.2}, InvalidInput, "task language makes no use of smoothing=0.2: leave it at 0.1"),
        ({"image_size": 32}, InvalidInput, "task language makes no use of image_size=32"),
        (
            {"adapter": ("evit",)},
            InvalidInput,
            "evit works on timm's plain vision transformers .* not on Decoder",
        ),
        ({"data": "nowhere"}, InvalidInput, "'nowhere' is neither a file or folder of text"),
        ({"data": "recal:pairs=2"}, InvalidInput, "'recal:pairs=2' is neither a file or folder of text"),
        ({"data": "recall:pair=2", "limit": 0}, UnknownName, "unknown option of recall 'pair'"),
        ({"data": "recall"}, InvalidInput, "recall is drawn as tokens, and limit=400 is of text"),
        ({"model": "qna_vit_tiny"}, UnknownName, "unknown decoder 'qna_vit_tiny'"),
        (
            {"model_kwargs": ("vocabulary=3",)},
            InvalidInput,
            "cannot set vocabulary: it follows from the data",
        ),
        ({"model_kwargs": ("mixers=QnA1d",)}, InvalidInput, "QnA1d is not causal"),
        ({"task": "classification"}, InvalidInput, "no use of context=24: it belongs to language"),
    ],
)
def test_what_cannot_be_trained_is_refused(config, changed, options, error, says):
    with pytest.raises(error, match=says):
        fit(changed(config, **options))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"held_out": 1.0}, r"held_out must be in \(0, 1\), got 1.0"),
        ({"lengths": (3, 0)}, "lengths must be at least 1, got 0"),
        ({"sequences": 0}, "sequences must be at least 1, got 0"),
    ],
)
def test_options_that_are_refused(config, changed, options, says):
    with pytest.raises(InvalidInput, match=says):
        changed(config, **options)


def test_the_recipe():
    assert recipe_for("recall:pairs=2", "language").language.limit == 0
    config = recipe_for(None, "language")
    assert (config.run.task, config.images.data) == ("language", "stdlib")
    with pytest.raises(UnknownName, match="unknown data"):
        recipe_for("language-laptop-x")
