import pytest
import torch
import yaml
from toy_sentiment import ToyTexts, classifier, texts

from seq2seq.errors import ConfigError, DataError
from seq2seq.gradient_figures import gradient_figure, reach
from seq2seq.gradient_norms import by_distance, gradient_norms, main, run

# The recurrence alone: no way around it.
OPTIONS = {"bidirectional": False, "attention": "none", "embedding_size": 8, "hidden_size": 12}


@pytest.fixture
def recipe(tmp_path):
    """Return what writes a recipe on generated dates, with further options of the model."""

    def write(**options):
        sizes = {"train_count": 60, "val_count": 1, "test_count": 1}
        config = {
            "run_dir": "runs/dates",
            "seed_everything": 1,
            "model": {"class_path": "Translator", "init_args": {**OPTIONS, **options}},
            "data": {
                "class_path": "DatesDataModule",
                "init_args": {"root": str(tmp_path / "dates"), "vocab_size": 80, **sizes},
            },
            "trainer": {"max_epochs": 3, "callbacks": [{"class_path": "EarlyStopping"}]},
            "checkpoint": {"monitor": "val/exact_match"},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(config))
        return ["--config", str(path), "--output", str(tmp_path / "gradients.png")]

    return write


# What is measured.


def test_a_norm_is_that_of_the_gradient_of_the_row_alone():
    data = ToyTexts()
    pairs = texts(4, seed=5)
    task = classifier(bidirectional=False, pooling="last")
    norms, lengths = gradient_norms(task, data.batch(pairs))
    assert lengths.tolist() == [len(text.split()) + 1 for text, _ in pairs]
    for row, pair in enumerate(pairs):
        batch = data.batch([pair])
        size = int(lengths[row])
        assert (norms[row, :size] > 0).all()
        assert (norms[row, size:] == 0).all()
        task.zero_grad()
        task.compute_loss(batch).total.backward()
        # Each of the words that occur once moves the loss through its own row of the embedding.
        tokens = batch.inputs.tokens[0].tolist()
        for place, token in enumerate(tokens):
            if tokens.count(token) == 1:
                expected = task.encoder.embedding.weight.grad[token].norm()
                torch.testing.assert_close(norms[row, place], expected, rtol=1e-5, atol=0)


def test_distances_count_from_the_end_as_far_as_half_of_the_rows_reach():
    lengths = torch.tensor([4, 2, 3, 3])
    norms = torch.tensor(
        [[9.0, 1.0, 2.0, 3.0], [4.0, 5.0, 0.0, 0.0], [6.0, 7.0, 8.0, 0.0], [1.0, 3.0, 4.0, 0.0]]
    )
    expected = torch.tensor([(3 + 5 + 8 + 4) / 4, (2 + 4 + 7 + 3) / 4, (1 + 6 + 1) / 3])
    torch.testing.assert_close(by_distance(norms, lengths), expected)


# The command.


def test_each_cell_has_a_line_and_a_ratio(recipe, tmp_path, capsys):
    norms = run(recipe())
    assert list(norms) == ["rnn", "gru", "lstm"]
    assert len({len(values) for values in norms.values()}) == 1
    assert all((values > 0).all() for values in norms.values())
    *ratios, last = capsys.readouterr().out.splitlines()
    expected = [f"{cell}: first / last {reach(values):.3g}" for cell, values in norms.items()]
    assert ratios == expected
    assert last == f"{tmp_path / 'gradients.png'} shows the norms."
    assert (tmp_path / "gradients.png").read_bytes().startswith(b"\x89PNG")


def test_a_seed_gives_the_same_norms_for_any_choice_of_cells(recipe):
    first, again, other = (
        run([*recipe(dropout=0.5), "--cells", *cells, "--seed", seed])["gru"]
        for cells, seed in ((["gru"], "3"), (["lstm", "gru", "gru"], "3"), (["gru"], "4"))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_gradient_that_goes_through_the_recurrence_alone_falls_with_the_distance(recipe):
    alone = run([*recipe(), "--cells", "gru"])["gru"]
    assert (alone.diff() < 0).all()
    arguments = ["--cells", "gru", "--model.bidirectional", "true", "--model.attention", "additive"]
    assert reach(run([*recipe(), *arguments])["gru"]) > 10 * reach(alone)


def test_a_few_steps_of_training_can_come_before(recipe):
    fresh, trained = (
        run([*recipe(), "--cells", "rnn", "--train_steps", steps])["rnn"] for steps in ("0", "3")
    )
    assert len(trained) > 1
    assert not torch.equal(fresh, trained)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--train_steps", "-1"], ConfigError, "--train_steps=-1 must not be negative"),
        (
            ["--model", "VideoClassifier", "--model.num_classes", "3"],
            ConfigError,
            "model is a VideoClassifier.*TextClassifier or a Translator",
        ),
        (["--output", "none/x.png"], DataError, "none/x.png: the picture cannot be written"),
        (["--output", "x.txt"], DataError, "x.txt: the picture cannot be written: Format 'txt'"),
    ],
)
def test_what_cannot_work_is_an_error(recipe, tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        run([*recipe(), "--cells", "rnn", *arguments])


def test_the_exit_status_tells_options_from_data(recipe, monkeypatch, capsys):
    for arguments, status, message in (
        ([], 2, "There is nothing to measure: give a --config with a model and data."),
        (["--cells", "sru"], 2, "cells"),
        ([*recipe(), "--cells", "rnn", "--output", "none/x.png"], 1, "cannot be written"),
    ):
        monkeypatch.setattr("sys.argv", ["seq2seq-gradients", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == status
        shown = capsys.readouterr().err
        assert shown.startswith("seq2seq-gradients: error: ")
        assert message in shown


# The picture.


def test_time_runs_to_the_right_on_a_logarithmic_scale_of_sixteen_decades():
    norms = {
        "lstm": torch.tensor([1.0, 0.1, 0.01]),
        "rnn": torch.tensor([2.0, 1e-9, 0.0], dtype=torch.float64),
    }
    axes = gradient_figure(norms, "$title").axes[0]
    lstm, rnn = axes.get_lines()
    assert lstm.get_label() == "LSTM: first / last 1.0e-02"
    assert rnn.get_label() == "tanh RNN: first / last 0.0e+00"
    assert list(lstm.get_ydata()) == pytest.approx([1, 0.1, 0.01])
    assert axes.get_xlim() == (2, 0)
    bottom, top = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert top / bottom == pytest.approx(9e16)
