import pickle
import string
from collections import Counter

import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.errors import DataError
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers import SubwordTokenizer

SYLLABLES = ("red", "gar", "den", "brea", "din", "lo", "mu", "tis", "fen", "ok")
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]
LINES = [f"{a} {b} green bread" for a, b in zip(WORDS, WORDS[7:] + WORDS[:7], strict=True)]
SPECIAL = {PAD_ID, UNK_ID, BOS_ID, EOS_ID}


@pytest.fixture(scope="module")
def tokenizer() -> SubwordTokenizer:
    return SubwordTokenizer.train(LINES, 30, normalization="identity")


@pytest.mark.parametrize("model_type", ["unigram", "bpe", "char", "word"])
def test_every_type_round_trips_with_exactly_the_requested_size(model_type):
    size = {"unigram": 30, "bpe": 30, "char": 12, "word": 106}[model_type]
    trained = SubwordTokenizer.train(LINES, size, model_type, normalization="identity")
    assert trained.vocab_size == size
    if model_type != "char":  # this size leaves rare letters out
        assert [trained.decode(trained.encode(line)) for line in LINES[:7]] == LINES[:7]


def test_tokenised_text_round_trips():
    line = "Ein Mann , &quot; der ( 2 . ) \ufb01x \N{SUPERSCRIPT TWO}"
    size = len(SPECIAL) + len(set(line))
    trained = SubwordTokenizer.train([line], size, "char", "identity")
    text = "der Mann , \ufb01 ) &quot; . \N{SUPERSCRIPT TWO}"
    assert trained.decode(trained.encode(text)) == text


def test_a_batch_is_encoded_like_its_lines(tokenizer):
    assert tokenizer.encode_batch(LINES[:5]) == [tokenizer.encode(line) for line in LINES[:5]]


def test_training_is_deterministic_and_quiet(capfd):
    models = {SubwordTokenizer.train(LINES, 25, seed=4).fingerprint for _ in range(2)}
    assert len(models) == 1
    assert capfd.readouterr() == ("", "")


def test_another_vocabulary_has_another_fingerprint(tokenizer):
    assert SubwordTokenizer.train(LINES, 29).fingerprint != tokenizer.fingerprint


@given(st.text(alphabet=string.ascii_letters + " </>_", max_size=20))
@settings(max_examples=50)
def test_text_cannot_inject_special_ids(text):
    tokenizer = SubwordTokenizer.from_bytes(_model())
    for injected in (f"{text}</s>", f"<s> {text}", f"{text}<pad>"):
        assert not SPECIAL - {UNK_ID} & set(tokenizer.encode(injected))


_models: list[bytes] = []


def _model() -> bytes:
    if not _models:
        _models.append(SubwordTokenizer.train([*LINES, "<s> </s> <pad> <unk>"], 40).to_bytes())
    return _models[0]


def test_decoding_ignores_special_ids(tokenizer):
    ids = tokenizer.encode("green bread")
    assert tokenizer.decode([BOS_ID, *ids, EOS_ID, PAD_ID, PAD_ID]) == "green bread"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(torch.tensor(ids).tolist()) == "green bread"


def test_pieces_spell_the_text(tokenizer):
    pieces = tokenizer.pieces(tokenizer.encode("green bread"))
    assert "".join(pieces).replace("\N{LOWER ONE EIGHTH BLOCK}", " ") == " green bread"


@pytest.mark.parametrize(
    "copy",
    [
        lambda original: SubwordTokenizer.from_bytes(original.to_bytes()),
        lambda original: SubwordTokenizer.from_tensor(original.to_tensor()),
        lambda original: pickle.loads(pickle.dumps(original)),
    ],
)
def test_copies_encode_alike(tokenizer, copy):
    assert copy(tokenizer).fingerprint == tokenizer.fingerprint
    assert copy(tokenizer).encode(LINES[9]) == tokenizer.encode(LINES[9])


def test_files_hold_the_bytes(tokenizer, tmp_path):
    path = tmp_path / "given.model"
    path.write_bytes(tokenizer.to_bytes())
    assert SubwordTokenizer.from_file(path).fingerprint == tokenizer.fingerprint


def test_samples_depend_on_the_seed_alone_and_spell_the_text():
    trained = SubwordTokenizer.train(LINES, 40)
    text = "garden bread mufen"
    samples = [trained.sample(text, 0.3, seed) for seed in range(20)]
    assert [trained.sample(text, 0.3, seed) for seed in reversed(range(20))] == samples[::-1]
    assert len(set(map(tuple, samples))) > 1
    assert {trained.decode(sample) for sample in samples} == {text}


def test_long_lines_and_tabs_are_not_dropped():
    rare = "\N{GREEK SMALL LETTER OMEGA}"
    long_line = " ".join(["ab"] * 4000) + f" {rare}"
    trained = SubwordTokenizer.train([long_line, "c\td", "a\0b"], 10, "char", "identity")
    assert UNK_ID not in trained.encode(f"{rare} a b c d")
    assert trained.decode(trained.encode("c\td")) == "c d"


@pytest.mark.parametrize("model_type", ["unigram", "bpe", "char", "word"])
def test_a_vocabulary_that_is_too_large_names_the_largest(model_type):
    with pytest.raises(DataError, match=r"Set --data\.vocab_size to \d+ or less") as caught:
        SubwordTokenizer.train(LINES, 5000, model_type)
    largest = int(str(caught.value).split(" or less")[0].split()[-1])
    assert SubwordTokenizer.train(LINES, largest, model_type).vocab_size == largest


def test_a_vocabulary_that_is_too_small_names_the_smallest():
    with pytest.raises(DataError, match=r"Set --data\.vocab_size to \d+ or more") as caught:
        SubwordTokenizer.train(LINES, 6)
    smallest = int(str(caught.value).split(" or more")[0].split()[-1])
    assert SubwordTokenizer.train(LINES, smallest).vocab_size == smallest


@pytest.mark.parametrize("lines", [[], ["", ""]])
def test_no_text_is_an_error(lines):
    with pytest.raises(DataError, match=r"every line is empty in train\.en"):
        SubwordTokenizer.train(lines, 10, origin="train.en")


def test_a_model_with_other_special_ids_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(tmp_path / "other"),
        vocab_size=30,
        minloglevel=2,
    )
    with pytest.raises(DataError, match="expected are pad 0, unk 1, bos 2, eos 3"):
        SubwordTokenizer.from_file(tmp_path / "other.model")


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_what_is_no_model_is_refused(content):
    with pytest.raises(DataError, match="not a SentencePiece model"):
        SubwordTokenizer.from_bytes(content)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.model: the tokenizer cannot be read"):
        SubwordTokenizer.from_file(tmp_path / "absent.model")


def test_samples_follow_the_model_word_by_word():
    trained = SubwordTokenizer.train(LINES, 40, normalization="identity")
    choices = trained._processor.nbest_encode("garden", nbest_size=64)
    scores = [sum(map(trained._processor.get_score, ids)) for ids in choices]
    expected = (0.5 * torch.tensor(scores)).softmax(0).tolist()
    pairs = {
        (tuple(first), tuple(second)): share * other
        for first, share in zip(choices, expected, strict=True)
        for second, other in zip(choices, expected, strict=True)
    }
    samples = Counter(tuple(trained.sample("garden garden", 0.5, seed)) for seed in range(5000))
    shares = [samples[first + second] / 5000 for first, second in pairs]
    assert shares == pytest.approx(list(pairs.values()), abs=0.03)
    assert len(choices) > 3


@pytest.mark.parametrize("options", [{"split_by_whitespace": False}, {"add_dummy_prefix": False}])
def test_samples_spell_the_text_where_words_are_not_apart(options, tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(tmp_path / "given"),
        vocab_size=40,
        minloglevel=2,
        pad_id=PAD_ID,
        unk_id=UNK_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        **options,
    )
    given = SubwordTokenizer.from_file(tmp_path / "given.model")
    samples = {tuple(given.sample("green bread", 0.05, seed)) for seed in range(20)}
    assert len(samples) > 1
    assert {given.decode(sample) for sample in samples} == {"green bread"}


def test_other_models_have_one_segmentation(tokenizer):
    assert tokenizer.can_sample
    pairs = SubwordTokenizer.train(LINES, 30, "bpe")
    assert not pairs.can_sample
    assert {tuple(pairs.sample("green bread", 0.1, seed)) for seed in range(9)} == {
        tuple(pairs.encode("green bread"))
    }


def test_what_the_training_text_raises_comes_through():
    def sentences():
        yield "green bread"
        raise DataError("train.en:2: invalid UTF-8")

    with pytest.raises(DataError, match=r"^train\.en:2: invalid UTF-8$"):
        SubwordTokenizer.train(sentences(), 10)
