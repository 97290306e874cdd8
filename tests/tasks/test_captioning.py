from dataclasses import replace

import pytest
import torch
from toy_captions import VOCAB, captioner, module, of_split, prepared, write_corpus, write_weights

from seq2seq.batches import Batch
from seq2seq.errors import ConfigError
from seq2seq.search import SearchOptions
from seq2seq.sequences import PAD_ID
from seq2seq.tasks.captioning import Captioner
from seq2seq.tasks.options import TeacherForcing
from seq2seq.words import caption_words

# Lightning warns of every frozen network.
pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("captions"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_weights(tmp_path_factory.mktemp("weights") / "backbone.pt"))


@pytest.fixture
def batch(root):
    """Return all training pictures, with one to three captions each."""
    data = prepared(root, batch_size=6)
    data.show_to(captioner().geometry, None)
    [whole] = data.train_dataloader()
    return whole


def with_weights(weights, **options):
    task = captioner(**options)
    task.encoder.load_weights(weights)
    return task


# What it learns.


@pytest.mark.parametrize("attention", ["none", "bilinear"])
def test_the_captions_of_six_pictures_are_learned(root, weights, make_trainer, attention):
    feed = "output" if attention == "none" else "layer"
    task = captioner(attention=attention, feed=feed, backbone_weights=weights)
    data = module(root, cache_features=True)
    make_trainer(max_steps=100, gradient_clip_val=1.0, limit_val_batches=0).fit(task, data)
    found = {}
    for pictures in data.train_dataloader():
        predictions = task.eval().predict_batch(pictures, task.validation_decoding)
        assert [len(best) for best in predictions] == [1] * len(pictures.inputs)
        texts = [best.text for [best] in predictions]
        found |= dict(zip(pictures.indices.tolist(), texts, strict=True))
    for index, entry in enumerate(of_split("train")):
        right = [" ".join(caption_words(text)) for text in entry.captions]
        assert found[index] in right


@pytest.mark.parametrize("method", ["parallel", "step"])
def test_it_learns_from_its_own_words(root, make_trainer, method):
    forcing = TeacherForcing(schedule="linear", ratio=0.6, decay_steps=5, method=method)
    trainer = make_trainer(max_steps=4, limit_val_batches=0)
    trainer.fit(captioner(teacher_forcing=forcing), module(root))
    assert trainer.callback_metrics["train/teacher_forcing_ratio"] == pytest.approx(0.6 * 2 / 5)
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_validation_and_test_decode_and_score(root, make_trainer):
    trainer, task = make_trainer(), captioner()
    [scores] = trainer.validate(task, module(root), verbose=False)
    names = {"bleu_1", "bleu_4", "rouge_l", "cider_d", "exact_match", "distinct_captions", "loss"}
    assert {f"val/{name}" for name in names} <= scores.keys()
    assert task.signatures["captions"].startswith("nrefs:1-2|tok:")
    [scores] = trainer.test(task, module(root), verbose=False)
    assert Captioner.monitor.replace("val/", "test/") in scores
    assert task.signatures["captions"].startswith("nrefs:2|tok:")


# One picture, several captions.


def test_a_picture_is_encoded_once_for_all_its_captions(batch, monkeypatch):
    task, seen = captioner(), []
    extract = task.encoder.extract

    def counted(pictures):
        seen.append(len(pictures))
        return extract(pictures)

    monkeypatch.setattr(task.encoder, "extract", counted)
    task.compute_loss(batch)
    assert seen == [6]
    assert len(batch.target) == 12


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_the_loss_is_that_of_repeated_pictures(weights, batch, ratio):
    task = with_weights(weights, attention_penalty=0.3)
    repeated = batch._replace(inputs=batch.inputs[batch.rows], rows=None)
    losses = [task.compute_loss(item, ratio) for item in (batch, repeated)]
    torch.testing.assert_close(losses[0], losses[1])
    assert losses[0].tokens > len(batch.target)


def test_the_loss_is_the_sum_over_single_pictures(weights, batch):
    task = with_weights(weights, attention_penalty=0.3)
    whole = task.compute_loss(batch)
    singles = [task.compute_loss(batch.example(row)) for row in range(6)]
    torch.testing.assert_close(whole.total, sum(single.total for single in singles))
    assert whole.tokens == sum(single.tokens for single in singles) == (batch.target != 0).sum()


def test_every_parameter_that_learns_gets_a_gradient(batch):
    task = captioner(fine_tune_from="all", attention_penalty=0.1)
    task.encoder.fine_tune(True)
    task.train().compute_loss(batch).total.backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name


def test_attention_that_leaves_cells_out_costs(weights, batch):
    task = with_weights(weights)
    output = task.follow_target(batch)
    plain = task.score_target(batch.target, output)
    task.attention_penalty = 0.7
    penalised = task.score_target(batch.target, output)
    naive = 0.0
    for weights_of_row, target in zip(output.attention, batch.target, strict=True):
        for cell in range(weights_of_row.shape[1]):
            received = sum(
                weights_of_row[place, cell]
                for place, token in enumerate(target.tolist())
                if token != PAD_ID
            )
            naive += (1 - received) ** 2
    torch.testing.assert_close(penalised.total, plain.total + 0.7 * naive)
    assert torch.equal(penalised.negative_log_likelihood, plain.negative_log_likelihood)


# Decoding.


DECODINGS = [
    SearchOptions(beam_size=1),
    SearchOptions(beam_size=3, n_best=2),
    SearchOptions(method="sample", n_best=2, seed=4),
]


@pytest.mark.parametrize("options", DECODINGS)
def test_captions_do_not_depend_on_the_batch(weights, batch, root, options):
    task = with_weights(weights).eval()
    for parameter in task.decoder.parameters():
        torch.nn.init.normal_(parameter)
    task.tokenizers = prepared(root).tokenizers
    pictures = Batch(batch.inputs, None, batch.indices)
    whole = task.predict_batch(pictures, options)
    for row, expected in enumerate(whole):
        [alone] = task.predict_batch(pictures.example(row), options)
        assert [best.tokens for best in alone] == [best.tokens for best in expected]
        for best, other in zip(alone, expected, strict=True):
            assert best.score == pytest.approx(other.score, abs=1e-4)
    assert len({best.text for best, *_ in whole}) > 1


@pytest.mark.parametrize("options", DECODINGS)
def test_no_caption_has_an_id_that_stands_for_nothing(weights, batch, root, options):
    task = with_weights(weights).eval()
    task.tokenizers = prepared(root, minimum_count=3, vocab_size=VOCAB).tokenizers
    unused = task.tokenizers["target"].unused_ids
    assert len(unused) == 3
    with torch.no_grad():
        task.decoder.output_layer.bias[list(unused)] = 30  # by far the likeliest
    for found in task.decode(batch, options):
        assert all(set(each.tokens).isdisjoint(unused) for each in found)


def test_a_prediction_tells_where_it_looked(weights, batch, root):
    task = with_weights(weights).eval()
    task.tokenizers = prepared(root).tokenizers
    options = SearchOptions(beam_size=2, return_attention=True)
    for [best] in task.predict_batch(batch, options):
        assert best.grid == (4, 4)
        assert best.attention.shape == (len(best.tokens), 16)
        assert best.source_tokens is None
    figure = task.figure(batch.example(5), best)
    assert len(figure.axes) == 1 + len(best.tokens) - (best.tokens[-1] == "</s>")


def test_captions_have_a_largest_length(weights, batch):
    task = with_weights(weights, max_caption_length=3).eval()
    for _ in range(2):
        lengths = [len(best.tokens) for [best] in task.decode(batch, SearchOptions())]
        assert max(lengths) == 3
        torch.nn.init.constant_(task.decoder.output_layer.bias, -1e3)
        task.decoder.output_layer.bias.data[7] = 0  # never the end


# Options.


def test_all_bad_options_are_named_together():
    message = (
        r"(?s)cell is 'gur'.*hidden_size=0.*attention_penalty=-1.*fine_tune_start=-2"
        r".*fine_tune_learning_rate=0 .*image_mean has 2 values.*image_size=0.*image_resize='zoom'"
    )
    with pytest.raises(ConfigError, match=message):
        captioner(
            cell="gur",
            hidden_size=0,
            attention_penalty=-1,
            fine_tune_start=-2,
            fine_tune_learning_rate=0,
            image_mean=[0.5, 0.5],
            image_size=0,
            image_resize="zoom",
        )
    with pytest.raises(ConfigError, match=r"attention_penalty needs an attention"):
        captioner(attention="none", feed="output", attention_penalty=1)
    with pytest.raises(ConfigError, match=r"fine_tune_from 'layer4' is no layer"):
        captioner(fine_tune_from="layer4")


def test_a_vocabulary_of_another_size_is_refused(root, make_trainer):
    task = Captioner(16, "mobilenet_v3_small", "features.1", None, image_size=32)
    with pytest.raises(ConfigError, match=r"target tokenizer has 15 pieces, the model expects 16"):
        make_trainer(max_steps=1).fit(task, module(root))


def test_validation_has_a_beam_of_its_own():
    task = captioner(decoding=SearchOptions(beam_size=4, n_best=2), validation_beam_size=3)
    assert task.validation_decoding == replace(task.decoding, beam_size=3, n_best=1)
