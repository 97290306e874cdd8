import pickle
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seq2seq
from datamodules.synthetic import generate_dates
from seq2seq.errors import CheckpointError, ConfigError, DataError
from seq2seq.prediction_input import read_lines, ready_chunks
from seq2seq.search import SearchOptions

WRITTEN = [written for written, _ in generate_dates(40, seed=7)]
OPTIONS = {
    "greedy": SearchOptions(beam_size=1),
    "beam": SearchOptions(beam_size=4, n_best=2),
    "sample": SearchOptions(method="sample", n_best=2, seed=5),
}

lines = st.one_of(
    st.sampled_from(WRITTEN),
    st.text("may 123,é☃", max_size=12),
    st.sampled_from(["", "   ", "\t"]),
)


def assert_same(predictions, others):
    """Texts are equal; scores up to what sums in another order differ by."""
    assert [best.text for best in predictions] == [best.text for best in others]
    for one, other in zip(predictions, others, strict=True):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-3)


# What an output depends on.


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_an_output_depends_on_its_input_alone(predictor, method):
    @given(st.lists(lines, min_size=1, max_size=9), st.integers(1, 10), st.randoms())
    @settings(max_examples=25)
    def check(items: list[str], batch_size: int, shuffler: random.Random):
        alone = {item: predictor.predict_chunk([item], OPTIONS[method], 1)[0] for item in {*items}}
        shuffler.shuffle(items)
        found = predictor.predict_chunk(items, OPTIONS[method], batch_size)
        for item, predictions in zip(items, found, strict=True):
            assert_same(predictions, alone[item])

    check()


def test_a_sample_depends_on_the_seed_and_its_place_alone(predictor):
    @given(st.lists(lines, min_size=1, max_size=9), st.integers(1, 10), st.integers(0, 500))
    @settings(max_examples=25)
    def check(items: list[str], batch_size: int, offset: int):
        found = predictor.predict_chunk(items, OPTIONS["sample"], batch_size, offset)
        for place, (item, predictions) in enumerate(zip(items, found, strict=True)):
            [alone] = predictor.predict_chunk([item], OPTIONS["sample"], 1, offset + place)
            assert_same(predictions, alone)

    check()


def test_equal_inputs_at_other_places_get_other_samples(predictor):
    options = SearchOptions(method="sample", temperature=3.0, max_length=12)
    found = predictor.predict_chunk([WRITTEN[0]] * 6, options)
    assert len({best.text for [best] in found}) > 1


def test_predict_takes_decoding_options_and_any_iterable(predictor):
    outputs = predictor.predict(iter(["the 3rd of May, 2021", "", WRITTEN[3]]), beam_size=2)
    assert outputs[1] == ""
    assert len(outputs) == 3
    assert predictor.predict(["7.11.1987"], max_length=2) != predictor.predict(["7.11.1987"])
    assert predictor.predict([]) == []


def test_a_long_stream_keeps_its_order_and_places(predictor):
    items = [*WRITTEN, "", *WRITTEN]
    options = OPTIONS["sample"]
    streamed = list(predictor.stream(iter(items), options, batch_size=2))
    whole = predictor.predict_chunk(items, options)
    assert len(streamed) == len(items)
    for one, other in zip(streamed, whole, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("item", ["☃ 漢字 \u200b", "\u200b", "\x00", "a" * 3000, "</s> <pad>"])
def test_any_text_has_an_output(predictor, item):
    [output] = predictor.predict([item])
    assert "\n" not in output


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(predictor, batch_size):
    with pytest.raises(ConfigError, match=r"batch_size=-?\d must be at least 1"):
        predictor.predict(WRITTEN, batch_size=batch_size)


def test_a_bad_decoding_option_is_refused(predictor):
    with pytest.raises(ConfigError, match=r"n_best=6 is more than beam_size=5"):
        predictor.predict(WRITTEN, n_best=6)


def test_a_misspelled_decoding_option_is_refused(predictor):
    with pytest.raises(ConfigError, match=r"beam_sze: no such decoding option.*beam_size, "):
        predictor.predict(WRITTEN, beam_sze=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(checkpoint):
    with pytest.raises(ConfigError, match=r"--device cuda: no GPU is visible\. Use --device cpu"):
        seq2seq.load(checkpoint, "cuda")


# Checkpoints that cannot be used.


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as error:
        seq2seq.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.fixture
def altered(checkpoint, tmp_path):
    """Return what saves the checkpoint with something done to it."""

    def alter(change):
        content = torch.load(checkpoint, weights_only=True)
        change(content)
        torch.save(content, tmp_path / "altered.ckpt")
        return tmp_path / "altered.ckpt"

    return alter


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def test_a_checkpoint_as_a_string_is_enough(checkpoint):
    assert seq2seq.load(str(checkpoint), "cpu").predict([""]) == [""]


def test_a_missing_checkpoint(tmp_path):
    refused(tmp_path / "none.ckpt", "there is no such file")


def test_a_directory(tmp_path):
    refused(tmp_path, "cannot be read: Is a directory")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_checkpoint(checkpoint, tmp_path, share):
    content, path = checkpoint.read_bytes(), tmp_path / "cut.ckpt"
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "is damaged or was not written to its end. Use another one")


@pytest.mark.parametrize(
    "content", [b"seed_everything: 1\n", b"I1\n.", bytes(range(256)), b"\x80\x02}q\x00."]
)
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    refused(path, "is no checkpoint.*Use one that `seq2seq fit` wrote")


@pytest.mark.parametrize("content", [torch.ones(3), {"state_dict": {}}, {"seq2seq": 1}])
def test_a_torch_file_of_another_project(tmp_path, content):
    torch.save(content, tmp_path / "foreign.ckpt")
    refused(tmp_path / "foreign.ckpt", "is no checkpoint of this project")


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))]
)
def test_code_in_a_checkpoint_is_not_executed(tmp_path, write):
    victim = tmp_path / "victim"
    write({"seq2seq": Payload(victim)}, tmp_path / "evil.ckpt")
    refused(tmp_path / "evil.ckpt", "nothing in it was executed")
    assert not victim.exists()
    pickle.loads(pickle.dumps(Payload(victim)))
    assert victim.exists()  # the payload does work


def test_a_checkpoint_of_another_task(altered):
    path = altered(lambda content: content["seq2seq"].update(task="Juggler"))
    refused(path, r"is a checkpoint of the task 'Juggler' \(seq2seq [\d.]+\).*can predict with Tr")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["state_dict"].update(extra=torch.ones(2)),
        lambda content: content["state_dict"].popitem(),
        lambda content: content["hyper_parameters"].update(hidden_size=31),
        lambda content: content["hyper_parameters"].update(heads=8),
        lambda content: content["hyper_parameters"].update(cell="sru"),
        lambda content: content["seq2seq"]["tokenizers"].update(source=torch.ones(9).byte()),
        lambda content: content["seq2seq"]["tokenizers"].update(source="a word"),
        lambda content: content["seq2seq"].update(tokenizers=[]),
        lambda content: content.update(hyper_parameters=[]),
        lambda content: content["hyper_parameters"].update(vocab_size="many"),
        lambda content: content["hyper_parameters"].update({"": 1}),
        lambda content: content.pop("state_dict"),
        lambda content: content["seq2seq"].pop("tokenizers"),
    ],
)
def test_a_checkpoint_of_another_version(altered, change):
    refused(altered(change), r"does not fit this version \(see CHANGELOG\.md\)")


# Lines and chunks.


def test_chunks_are_what_is_there_and_no_larger_than_asked():
    chunks = list(ready_chunks(iter("abcdefg"), 3))
    assert "".join(item for chunk in chunks for item in chunk) == "abcdefg"
    assert max(map(len, chunks)) <= 3
    assert list(ready_chunks(iter([]), 3)) == []


def test_what_came_before_an_error_is_not_lost(tmp_path):
    path, found = tmp_path / "in.txt", []
    path.write_bytes(b"one\r\ntwo\ncaf\xe9\nfour\n")
    with path.open("rb") as stream:
        chunks = ready_chunks(read_lines(stream, str(path)), 64)
        with pytest.raises(DataError, match=r"in\.txt:3: is not UTF-8 \(byte 4 of the line\)"):
            found.extend(line for chunk in chunks for line in chunk)
    assert found == ["one", "two"]


def test_bf16_changes_scores_a_little_and_learned_outputs_not_at_all(predictor, checkpoint):
    mixed = seq2seq.load(checkpoint, "cpu", "bf16")
    exact = [best for best, *_ in predictor.stream(WRITTEN, OPTIONS["beam"])]
    found = [best for best, *_ in mixed.stream(WRITTEN, OPTIONS["beam"])]
    sure = [row for row, best in enumerate(exact) if best.score > -0.2]
    assert len(sure) > len(WRITTEN) / 2
    assert [found[row].text for row in sure] == [exact[row].text for row in sure]
    scores = torch.tensor([found[row].score - exact[row].score for row in sure])
    assert 0 < scores.abs().max() < 0.05
