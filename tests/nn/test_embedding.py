import pytest
import torch

from seq2seq.errors import DataError
from seq2seq.nn.embedding import TokenEmbedding, load_embeddings
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID

PIECES = ["<pad>", "<unk>", "<s>", "</s>", "▁cat", "cat", "▁dog"]


def vectors(tmp_path, text):
    path = tmp_path / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_padding_is_zero_and_stays_zero():
    embedding = TokenEmbedding(7, 3)
    assert not embedding(torch.tensor([PAD_ID])).any()
    embedding(torch.tensor([PAD_ID, 5])).sum().backward()
    assert not embedding.weight.grad[PAD_ID].any()


def test_word_dropout_reads_words_as_unknown_but_keeps_special_tokens():
    embedding = TokenEmbedding(7, 3, word_dropout=1.0)
    embedded = embedding(torch.tensor([PAD_ID, BOS_ID, EOS_ID, 5]))
    torch.testing.assert_close(embedded, embedding.weight[[PAD_ID, BOS_ID, EOS_ID, UNK_ID]])


def test_word_dropout_does_nothing_in_evaluation():
    embedding = TokenEmbedding(7, 3, word_dropout=1.0).eval()
    torch.testing.assert_close(embedding(torch.tensor([5])), embedding.weight[[5]])


def test_a_vector_fills_the_word_and_the_piece_that_begins_a_word(tmp_path):
    embedding = TokenEmbedding(7, 2)
    before = embedding.weight.detach().clone()
    path = vectors(tmp_path, "3 2\ncat 1 2\nbird 3 4\n")
    assert load_embeddings(embedding, path, PIECES) == 2
    torch.testing.assert_close(embedding.weight[4:6], torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    torch.testing.assert_close(embedding.weight[6], before[6])


@pytest.mark.parametrize("word", [". . .", "at name@domain.com", "4 8 cats"])
def test_spaces_in_a_word_do_not_matter(tmp_path, word):
    embedding = TokenEmbedding(8, 2)
    path = vectors(tmp_path, f"dog 1 2\n{word} 3 4\ncat 5 6\n")
    assert load_embeddings(embedding, path, [*PIECES, word]) == 4
    expected = torch.tensor([[5.0, 6.0], [5.0, 6.0], [1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(embedding.weight[4:], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cat 1 2 3\n",
            r"vectors.txt:1: the vector has 3 values, the model expects 2.*embedding_size 3",
        ),
        (
            "the cat 1 2 3\n",
            r"vectors.txt:1: the vector has 4 values, the model expects 2",
        ),
        (
            "dog 1 2\ncat 1\n",
            r"vectors.txt:2: the vector has 1 values, the model expects 2.*embedding_size 1",
        ),
        ("dog 1 2\ncat 1 x\n", r"vectors.txt:2: not a vector of numbers"),
        ("dog 1 2\nthe cat x 1\n", r"vectors.txt:2: not a vector of numbers"),
    ],
)
def test_a_wrong_vector_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load_embeddings(TokenEmbedding(7, 2), vectors(tmp_path, text), PIECES)


@pytest.mark.parametrize("lines_before", [0, 3])
def test_a_line_that_is_not_utf8_is_named(tmp_path, lines_before):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"dog 1 2\n" * lines_before + b"caf\xe9 1 2\ncat 1 2\n")
    message = rf"vectors\.txt:{lines_before + 1}: not UTF-8 at byte 4 of the line"
    with pytest.raises(DataError, match=message):
        load_embeddings(TokenEmbedding(7, 2), path, PIECES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt: cannot read the embeddings"):
        load_embeddings(TokenEmbedding(7, 2), tmp_path / "absent.txt", PIECES)
