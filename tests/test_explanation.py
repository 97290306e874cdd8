import csv
import io
import json
import re
import sys
from typing import get_args

import pytest
import torch
from toy_sentiment import LINES, TOKENIZER, classifier, save_classifier, texts

import seq2seq
from seq2seq.batches import NOTHING, Prediction
from seq2seq.errors import ConfigError
from seq2seq.explanation import explain, require_explainable
from seq2seq.explanation_page import END_OF_TEXT, ExplanationPage
from seq2seq.nn.pooling import PoolingKind
from seq2seq.predict import main
from seq2seq.search import SearchOptions
from seq2seq.sequences import shift_right
from seq2seq.tasks.translation import Translator
from seq2seq.tokenizers import SubwordTokenizer

GREEDY = SearchOptions(beam_size=1)
SENTENCES = [text for text, _ in texts(4, seed=8)]


def explained(task, lines, kind):
    batch = task.collate(lines)
    best = [first for first, *_ in task.predict_batch(batch, GREEDY)]
    return explain(task, batch, best, kind)


# Gradient times input.


@pytest.mark.parametrize("pooling", get_args(PoolingKind))
@pytest.mark.parametrize("options", [{}, {"attention": "additive", "label_steps": 2}])
def test_a_contribution_is_the_growth_of_the_log_probability_with_the_word(pooling, options):
    task = classifier(pooling=pooling, cell="lstm", **options).double()
    change = 1e-6
    for line, found in zip(SENTENCES, explained(task, SENTENCES, "gradient"), strict=True):
        inputs = task.collate([line]).inputs
        labels = torch.tensor([task.tokenizers["target"].encode(found.text)])
        embedded = task.encoder.embedding(inputs.tokens).detach()
        assert found.source_tokens == [*line.split(), END_OF_TEXT]
        assert found.contributions.shape == (task.label_steps, len(found.source_tokens))
        for place in range(len(found.source_tokens)):
            log_probs = []
            for factor in (1 + change, 1 - change):
                scaled = embedded.clone()
                scaled[0, place] *= factor
                memory = task.encoder.encode(scaled, inputs.lengths)
                scores = task.decoder.score(task.decoder(shift_right(labels), memory).features)
                log_probs.append(scores[0].log_softmax(dim=-1).gather(1, labels.T).squeeze(1))
            slope = (log_probs[0] - log_probs[1]) / (2 * change)
            torch.testing.assert_close(
                found.contributions[:, place], slope.detach(), atol=1e-8, rtol=1e-5
            )


@pytest.mark.parametrize("kind", ["gradient", "attention"])
def test_the_rest_of_the_batch_changes_no_contribution(kind):
    task = classifier(attention="bilinear", pooling="max")
    for line, together in zip(SENTENCES, explained(task, SENTENCES, kind), strict=True):
        [alone] = explained(task, [line], kind)
        assert alone.source_tokens == together.source_tokens
        torch.testing.assert_close(alone.contributions, together.contributions)


def test_a_label_that_is_as_good_as_certain_still_has_contributions():
    task = classifier(pooling="last")
    with torch.no_grad():
        task.decoder.output_layer.bias[0] = 25
    [found] = explained(task, SENTENCES[:1], "gradient")
    assert found.token_log_probs == [pytest.approx(0, abs=1e-9)]
    assert (found.contributions != 0).all()


def test_weights_get_no_gradient_from_an_explanation():
    task = classifier()
    explained(task, SENTENCES, "gradient")
    assert all(parameter.grad is None for parameter in task.parameters())


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("start", "Black Zebra's"), ("end", "'s pale DEEP"), ("both", "Black Zebra DEEP")],
)
def test_words_are_shown_as_the_text_spells_them(keep, expected):
    line = "Black Zebra's, pale DEEP"
    cut = classifier(max_length=3, keep=keep)
    batch = cut.collate([line])
    best = [first for first, *_ in cut.predict_batch(batch, GREEDY)]
    [found] = explain(cut, batch, best, "gradient", [line])
    assert found.source_tokens == [*expected.replace("'s", " 's").split(), END_OF_TEXT]
    [plain] = explain(cut, batch, best, "gradient")
    assert "Zebra" not in plain.source_tokens
    assert torch.equal(plain.contributions, found.contributions)


def test_subwords_are_shown_as_they_are():
    subwords = SubwordTokenizer.train(["a dark day", "a light day"], 15, "char")
    task = classifier(vocab_size=subwords.vocab_size)
    task.tokenizers["source"] = subwords
    batch = task.collate(["a dart"])
    best = [first for first, *_ in task.predict_batch(batch, GREEDY)]
    [found] = explain(task, batch, best, "gradient", ["a dart"])
    assert found.source_tokens == [*subwords.pieces(subwords.encode("a dart")), END_OF_TEXT]


# Attention.


def test_attention_is_that_of_the_decoder():
    task = classifier(attention="additive", label_steps=2)
    batch = task.collate(SENTENCES)
    options = SearchOptions(beam_size=1, return_attention=True)
    best = [first for first, *_ in task.predict_batch(batch, options)]
    for found in explain(task, batch, best, "attention"):
        torch.testing.assert_close(found.contributions, found.attention)


def test_attention_is_that_of_the_pooling_where_the_decoder_has_none():
    task = classifier(pooling="attention", label_steps=2)
    [found] = explained(task, SENTENCES[:1], "attention")
    memory = task.encoder(task.collate(SENTENCES[:1]).inputs)
    expected = task.encoder.pooling.weigh(memory.values, memory.mask).detach()
    torch.testing.assert_close(found.contributions, expected.expand(2, -1))


def test_what_cannot_be_explained_is_an_error():
    plain = classifier(pooling="mean")
    assert require_explainable(plain, "gradient") is plain
    with pytest.raises(ConfigError, match=r"neither --model\.attention nor .* --explain gradient"):
        require_explainable(plain, "attention")
    require_explainable(classifier(pooling="attention"), "attention")
    require_explainable(classifier(pooling="last", attention="dot", decoder_size=14), "attention")
    with pytest.raises(ConfigError, match=r"--explain is for classifiers of text, .* Translator"):
        require_explainable(Translator(13), "gradient")


# The page.


def page(*predictions):
    output = io.StringIO()
    with ExplanationPage(output, "Gradient <times> input") as written:
        for number, prediction in enumerate(predictions, start=1):
            written.write(number, prediction)
    return output.getvalue()


def prediction(tokens, contributions, label="good"):
    found = Prediction(label, -0.1, [label], [-0.25], source_tokens=tokens)
    return found._replace(contributions=torch.tensor([contributions]))


def spans(text):
    """Return the words of a page: colour, opacity, number and word of each."""
    pattern = r'<span style="background: rgba\((\d+), .*?, ([\d.]+)\)" title="(.*?)">(.*?)</span>'
    return re.findall(pattern, text)


def test_words_are_shaded_by_the_size_and_the_sign_of_their_contribution():
    found = spans(page(prediction(["fine", "but", "dull"], [2.0, 0.0, -1.0])))
    [(green, most, number, word), (_, none, _, _), (red, half, other, _)] = found
    assert (word, number, other) == ("fine", "+2", "-1")
    assert (float(most), float(none), float(half)) == (0.8, 0.0, 0.4)
    assert int(green) < int(red)


def test_text_and_labels_are_escaped():
    text = page(prediction(["<script>", "&", '"'], [1.0, 1.0, 1.0], label="<b>"))
    assert [word for *_, word in spans(text)] == ["&lt;script&gt;", "&amp;", "&quot;"]
    assert "<small>1</small> &lt;b&gt; <small>0.7788</small>" in text
    assert "<h1>Gradient &lt;times&gt; input</h1>" in text
    assert "<script" not in text


def test_subwords_of_a_word_stand_together_and_words_apart():
    def shown(tokens):
        text = page(prediction(tokens, [1.0] * len(tokens)))
        return re.sub("<.*?>", "", text.rpartition("<p>")[2].partition("</p>")[0])

    assert shown(["▁un", "like", "ly", "▁so", END_OF_TEXT]) == "unlikely so (end of text)"
    assert shown(["not", "so", END_OF_TEXT]) == "not so (end of text)"


def test_every_label_has_its_words_and_a_text_without_one_says_so():
    two = prediction(["a", "b"], [1.0, 2.0])._replace(
        tokens=["lift", "cup"],
        token_log_probs=[-0.5, -1.0],
        contributions=torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
    )
    text = page(NOTHING, two)
    assert text.count("<section>") == text.count("</section>") == 2
    assert "<small>1</small> no text" in text
    assert "<small>2</small> lift <small>0.6065" in text
    assert "<small>2</small> cup <small>0.3679" in text
    assert [word for *_, word in spans(text)] == ["a", "b", "a", "b"]
    assert text.endswith("</body>\n</html>\n")


# The script.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier"), attention="bilinear")


@pytest.fixture
def predict(checkpoint, tmp_path, monkeypatch):
    """Return what runs the script in this process, from file to file, and gives its output."""
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")

    def run(*options, path=checkpoint):
        output = tmp_path / "out.txt"
        files = ["--ckpt_path", path, "--input", source, "--output", output]
        arguments = map(str, ["seq2seq-predict", *files, *options])
        monkeypatch.setattr(sys, "argv", list(arguments))
        main()
        return output.read_text(encoding="utf-8")

    return run


def test_lines_get_a_label_and_its_probability_in_every_format(predict, checkpoint):
    labels = seq2seq.load(checkpoint, "cpu").predict(LINES)
    rows = [line.split("\t") for line in predict().split("\n")[:-1]]
    assert [row[0] for row in rows] == labels
    assert [len(row) for row in rows] == [2 if label else 1 for label in labels]
    table = list(csv.DictReader(io.StringIO(predict("--format", "csv"))))
    assert list(table[0]) == ["source", "text", "probability", "score", "error"]
    assert [row["text"] for row in table] == labels
    assert [row["source"] for row in table] == LINES
    records = list(map(json.loads, predict("--format", "jsonl").splitlines()))
    for label, row, cells, record in zip(labels, rows, table, records, strict=True):
        assert record["text"] == label
        if label:
            assert sum(record["classes"][0].values()) == pytest.approx(1, abs=1e-4)
            assert record["classes"][0][label] == pytest.approx(record["probability"], abs=1e-4)
            assert float(row[1]) == pytest.approx(record["probability"], abs=1e-4)
            assert float(cells["probability"]) == record["probability"]
        else:
            assert cells["probability"] == ""
            assert "probability" not in record
        assert "contributions" not in record


@pytest.mark.parametrize("kind", ["gradient", "attention"])
def test_rows_have_contributions_on_request(predict, kind):
    plain, *others = (
        [json.loads(line) for line in predict("--format", "jsonl", *options).splitlines()]
        for options in (
            (),
            ("--explain", kind),
            ("--explain", kind, "--batch_size", "1"),
        )
    )
    for bare, record, alone in zip(plain, *others, strict=True):
        contributions, tokens = (
            record.pop(name, None) for name in ("contributions", "source_tokens")
        )
        assert record == bare
        if TOKENIZER.encode(bare["source"]):
            assert tokens[-1] == END_OF_TEXT
            [step] = contributions
            assert len(step) == len(tokens)
            assert step == pytest.approx(alone["contributions"][0], rel=1e-2, abs=1e-6)
            if kind == "attention":
                assert sum(step) == pytest.approx(1, abs=1e-3)
        else:
            assert contributions is None


def test_rows_have_the_words_of_the_line_as_it_spells_them(predict):
    rows = map(json.loads, predict("--format", "jsonl", "--explain", "gradient").splitlines())
    for row in rows:
        words = row.get("source_tokens", [])
        assert words[:-1] == TOKENIZER.spellings(row["source"])
        assert "<unk>" not in words


def test_a_page_shows_the_lines_in_their_order(predict, tmp_path):
    text = predict("--explain", "gradient", "--explain_page", tmp_path / "page.html")
    assert text == predict()
    shown = (tmp_path / "page.html").read_text(encoding="utf-8")
    sections = shown.split("<section>")[1:]
    assert len(sections) == len(LINES)
    for line, label, section in zip(LINES, text.split("\n"), sections, strict=False):
        words = [word for *_, word in spans(section)]
        ids = TOKENIZER.encode(line)
        assert len(words) == (len(ids) + 1 if ids else 0)
        assert (label.split("\t")[0] if ids else "no text") in section
    assert shown.count("</html>") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--explain", "gradient"], "--explain has no place in text. Set --format jsonl or"),
        (["--explain_page", "p.html"], "--explain_page shows contributions. Set --explain"),
        (
            ["--explain", "gradient", "--format", "jsonl", "--n_best", "2"],
            "--explain is about the most probable labels. Leave out --n_best.",
        ),
        (
            ["--explain", "gradient", "--explain_page", "none/p.html"],
            "none/p.html: cannot be written: No such file",
        ),
        (
            ["--explain", "gradient", "--explain_page", "in.txt"],
            "in.txt: --explain_page would overwrite --input",
        ),
        (
            ["--explain", "gradient", "--explain_page", "o", "--output", "o"],
            "--explain_page would overwrite --output",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(predict, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        predict(*options)
    assert str(ended.value.code).startswith(f"seq2seq-predict: {message}")


def test_a_checkpoint_that_cannot_be_explained_is_refused_before_any_output(predict, tmp_path):
    path = save_classifier(tmp_path, pooling="mean")
    with pytest.raises(SystemExit) as ended:
        predict("--explain", "attention", "--format", "jsonl", path=path)
    assert "--explain attention: this checkpoint was trained with neither" in ended.value.code
    assert not (tmp_path / "out.txt").exists()
