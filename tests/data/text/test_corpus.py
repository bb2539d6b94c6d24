"""Text of files: what is read, what is held out, how windows lie, and tokens there and back."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data.text import STDLIB, Bytes, FileTokens, TokenWindows, load_drawn, load_text, tokens_told
from qna.data.text.corpus import split
from qna.data.text.tokens import joined

PLAIN = {"context": 8, "lengths": (8,), "suffixes": (".txt",), "share": 0.3, "limit": 0, "seed": 0}


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        place = tmp_path / f"part{number % 2}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.txt").write_bytes(bytes([97 + number]) * (30 + number))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "other.bin").write_bytes(b"x" * 99)
    return tmp_path


def test_files_are_held_out_whole(folder):
    data = load_text(str(folder), Bytes(), **PLAIN)
    train, held_out = data.train.tokens, data.held_out.parts[0].tokens
    assert data.vocabulary == 257
    assert set(train) & set(held_out) == {256}
    assert set(train) | set(held_out) == {256, *range(97, 103)}
    # an end before each text, and behind the last
    for stream in (train, held_out):
        assert stream[0] == stream[-1] == 256
        ends = np.flatnonzero(stream == 256)
        assert all(len(set(stream[a + 1 : b])) == 1 for a, b in pairwise(ends))
    texts = len(np.flatnonzero(held_out == 256)) - 1
    assert data.tokens_per_byte == (len(held_out) - 1) / (len(held_out) - 1 - texts)
    assert 0.3 * 195 <= len(held_out) <= 0.3 * 195 + 40
    again = load_text(str(folder), Bytes(), **PLAIN)
    assert again.train.digest == data.train.digest
    others = {load_text(str(folder), Bytes(), **{**PLAIN, "seed": s}).train.digest for s in range(8)}
    assert len(others) > 1


def test_what_is_held_out_follows_from_names_alone():
    files = [(f"f{i}", None, 10) for i in range(20)]
    train, held_out = split(files, share=0.2, seed=0)
    assert len(held_out) == 4
    assert sorted(train + held_out) == sorted(files)
    other_order = split(files[::-1], share=0.2, seed=0)
    assert other_order == (train, held_out)
    assert split(files, share=0.2, seed=1)[1] != held_out
    assert len(split(files, share=0.99, seed=0)[0]) == 1


def test_a_limit_is_of_bytes(folder):
    data = load_text(str(folder), Bytes(), **{**PLAIN, "limit": 40})
    # two of the files, the first of which is not enough, and their ends
    assert len(set(data.train.tokens)) == 3
    assert len(data.train.tokens) == 40 + 3
    assert len(data.held_out.parts[0].tokens) == 12 + 2


def test_windows():
    windows = TokenWindows(np.arange(30, dtype=np.uint16), 8)
    assert len(windows) == 3
    batch = windows.batch([0, 2], 0)
    assert batch.tokens.tolist() == [list(range(8)), list(range(16, 24))]
    assert torch.equal(batch.targets, batch.tokens + 1)
    # every epoch cuts at other places, inside the stream
    starts = {int(windows.batch([0], seed).tokens[0, 0]) for seed in range(1, 60)}
    assert starts == set(range(8))
    for seed in range(1, 60):
        assert int(windows.batch(range(3), seed).targets.max()) <= 29
    # the last token is a target of the last whole window
    assert len(TokenWindows(np.arange(25), 8)) == 3
    assert len(TokenWindows(np.arange(24), 8)) == 2
    assert int(TokenWindows(np.arange(25), 8).batch([2], 0).targets[0, -1]) == 24


def test_the_standard_library():
    data = load_text(STDLIB, Bytes(), **{**PLAIN, "limit": 3000, "suffixes": ()})
    assert "the source of Python's standard library" in data.origin
    assert 3000 < len(data.train.tokens) < 3100
    assert b"import" in bytes(int(t) for t in data.train.tokens if t < 256)


def test_bytes_there_and_back():
    text = "naïve — 漢字\n\x00".encode()
    tokens, reader = Bytes(), Bytes().reader()
    encoded = tokens.encode(text).tolist()
    shown = [reader.read(token) for token in [*encoded, tokens.end]]
    assert "".join(shown) == text.decode()
    # nothing is shown inside a character
    assert shown[2:4] == ["", "ï"]
    assert reader.rest() == ""
    reader.read(0xE6)
    assert reader.rest() == "\ufffd"
    assert isinstance(tokens_told(tokens.told(), "it"), Bytes)


@pytest.fixture
def tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="qna[language] brings it")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<s>"],
    )
    model.train_from_iterator(["the cat and the hat and the bat"] * 4, trainer)
    model.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    model.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizers_file(tokenizer, folder):
    tokens = FileTokens.from_file(tokenizer)
    text = "the cat — 漢字 and the bat".encode()
    encoded = tokens.encode(text).tolist()
    assert len(encoded) < len(text)
    # what the file puts around a text is left out; the end of a text is ours
    assert 0 not in encoded
    assert tokens.end == tokens.vocabulary - 1 > max(encoded)
    reader = tokens.reader()
    shown = [reader.read(token) for token in [*encoded, tokens.end]]
    assert "".join(shown) == text.decode()
    assert all("\ufffd" not in part for part in shown)
    again = tokens_told(tokens.told(), "it")
    assert again.encode(text).tolist() == encoded
    (folder / "part0" / "0.txt").write_bytes(b"the cat and the hat " * 20)
    data = load_text(str(folder), tokens, **PLAIN)
    assert data.vocabulary == tokens.vocabulary
    assert data.tokens_per_byte != 1


def test_drawn_sequences():
    data = load_drawn("recall:pairs=2", context=16, lengths=(16, 64), count=80, seed=0)
    assert (len(data.train), len(data.held_out)) == (80, 20)
    assert [part.length for part in data.held_out.parts] == [16, 64]
    # what is judged is never trained on, though seeds of batches may be alike
    assert not torch.equal(data.train.batch([0], 0).tokens, data.held_out.parts[0].batch([0], 0).tokens)
    assert data.tokens is None


def test_what_is_refused(folder, tmp_path):
    def load(name, **changes):
        return load_text(str(name), Bytes(), **{**PLAIN, **changes})

    with pytest.raises(
        InvalidInput, match="'nowhere' is neither a file or folder of text, nor 'stdlib', nor"
    ):
        load("nowhere")
    with pytest.raises(InvalidInput, match=r"has no text in files that end in \.md or \.rst"):
        load(folder, suffixes=(".md", ".rst"))
    with pytest.raises(InvalidInput, match="there must be two of them with text, got 1"):
        load(folder / "part0" / "0.txt")
    with pytest.raises(InvalidInput, match="tokens to train on, which make no window of 900; give more text"):
        load(folder, context=900)
    with pytest.raises(InvalidInput, match="tokens to judge on, which make no window of 900"):
        load(folder, lengths=(8, 900))
    with pytest.raises(InvalidInput, match="does not tell what its tokens are"):
        tokens_told({"kind": "words"}, "it")
    (tmp_path / "no.json").write_text("{}")
    pytest.importorskip("tokenizers", reason="qna[language] brings it")
    with pytest.raises(InvalidInput, match=r"no\.json is no file of the tokenizers library"):
        FileTokens.from_file(tmp_path / "no.json")
    assert len(joined([], Bytes())) == 0
