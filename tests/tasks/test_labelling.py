import pytest
import torch

from seq2seq.batches import Batch, VideoInput
from seq2seq.errors import CheckpointError, ConfigError
from seq2seq.search import SearchOptions
from seq2seq.tasks.video import VideoClassifier
from seq2seq.tokenizers import FIRST_LABEL_ID, LabelVocabulary

NAMES = ("clap", "jump", "sit")
VIDEOS, TIME = 4, 3
GREEDY = SearchOptions(beam_size=1)


def classifier(**options):
    torch.manual_seed(1)
    defaults = {
        "num_classes": len(NAMES),
        "frame_network": "none",
        "image_size": 6,
        "image_channels": 1,
        "clip_frames": TIME,
        "hidden_size": 5,
        "memory_size": 10,
        "decoder_size": 7,
        "dropout": 0.0,
    }
    task = VideoClassifier(**(defaults | options)).eval()
    task.tokenizers = {"target": LabelVocabulary.of(NAMES)}
    return task


def batch(classes, clips=1):
    """Return noise, labelled with ``classes``, ``(videos, steps)``."""
    classes = torch.tensor(classes)
    videos = len(classes)
    generator = torch.Generator().manual_seed(2)
    shape = (videos, clips, TIME, 1, 6, 6)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    lengths = torch.full((videos, clips), TIME)
    target = classes + FIRST_LABEL_ID
    return Batch(VideoInput(frames, lengths), target, torch.arange(videos))


ONE_STEP = [[2], [0], [2], [1]]
TWO_STEPS = [[2, 0], [0, 0], [1, 2], [2, 1]]
EXAMPLES = pytest.mark.parametrize(("steps", "classes"), [(1, ONE_STEP), (2, TWO_STEPS)])


def log_probs(task, examples):
    """Return the log-probability of each class, given the right labels before it."""
    views = [task.encoder(examples.inputs)]
    return task.posterior(views, examples.target).log()


# The loss.


@EXAMPLES
def test_the_loss_is_that_of_the_posterior(steps, classes):
    task, examples = classifier(label_steps=steps), batch(classes)
    right = log_probs(task, examples).gather(2, torch.tensor(classes).unsqueeze(2))
    loss = task.compute_loss(examples)
    torch.testing.assert_close(loss.total, -right.sum())
    torch.testing.assert_close(loss.negative_log_likelihood, -right.sum())
    assert loss.tokens == VIDEOS * steps


@EXAMPLES
def test_every_step_weighs_as_its_class_does_and_the_logged_loss_is_plain(steps, classes):
    task, examples = classifier(label_steps=steps), batch(classes)
    plain = task.compute_loss(examples)
    task._weights = torch.tensor([0.5, 3.0, 2.0])
    weighted = task.compute_loss(examples)
    right = log_probs(task, examples).gather(2, torch.tensor(classes).unsqueeze(2)).squeeze(2)
    expected = -(right * task._weights[torch.tensor(classes)]).sum()
    torch.testing.assert_close(weighted.total, expected)
    torch.testing.assert_close(weighted.negative_log_likelihood, plain.total.detach())


def test_smoothing_spreads_over_labels_and_not_over_special_ids():
    task, examples = classifier(label_smoothing=0.3), batch(ONE_STEP)
    target = torch.full((VIDEOS, 1, len(NAMES)), 0.3 / len(NAMES))
    target.scatter_(2, torch.tensor(ONE_STEP).unsqueeze(2), 0.7 + 0.3 / len(NAMES))
    expected = -(target * log_probs(task, examples)).sum()
    torch.testing.assert_close(task.compute_loss(examples).total, expected)


# The search.


def test_what_is_decoded_has_as_many_labels_as_there_are_steps_whatever_the_lengths_asked_for():
    task, examples = classifier(label_steps=2), batch(TWO_STEPS)
    expected = [[each.text for each in row] for row in task.predict_batch(examples, GREEDY)]
    for limits in ({"max_length": 1}, {"min_length": 9}, {"min_length": 1, "max_length": 1}):
        found = task.predict_batch(examples, SearchOptions(beam_size=1, **limits))
        assert [[each.text for each in row] for row in found] == expected


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_beam_finds_the_most_probable_labels(early_stopping):
    task, examples = classifier(label_steps=2), batch(TWO_STEPS)
    options = SearchOptions(beam_size=7, n_best=4, early_stopping=early_stopping)
    first = log_probs(task, examples)[:, 0]
    totals = []
    for label in range(len(NAMES)):
        given = examples._replace(target=torch.full((VIDEOS, 2), FIRST_LABEL_ID + label))
        totals.append(first[:, [label]] + log_probs(task, given)[:, 1])
    totals = torch.cat(totals, dim=1)  # (videos, pairs)
    best = totals.topk(4, dim=1)
    for row, found in enumerate(task.predict_batch(examples, options)):
        pairs = [divmod(pair, len(NAMES)) for pair in best.indices[row].tolist()]
        assert [each.tokens for each in found] == [[NAMES[a], NAMES[b]] for a, b in pairs]
        scores = torch.tensor([each.score for each in found])
        torch.testing.assert_close(scores, best.values[row] / 2)  # two labels long


def test_labels_can_be_banned_but_not_all_of_them():
    task, examples = classifier(), batch(ONE_STEP)
    jump, sit = (FIRST_LABEL_ID + NAMES.index(name) for name in ("jump", "sit"))
    options = SearchOptions(beam_size=1, banned_tokens=[jump, sit])
    assert {best.text for [best] in task.predict_batch(examples, options)} == {"clap"}
    options = SearchOptions(beam_size=1, banned_tokens=[FIRST_LABEL_ID, jump, sit])
    with pytest.raises(ConfigError, match=r"no label at some of the 1 steps\. Let banned_tokens"):
        task.predict_batch(examples, options)


def test_drawn_labels_are_labels():
    task, examples = classifier(label_steps=2), batch(TWO_STEPS)
    drawn = task.predict_batch(examples, SearchOptions(method="sample", n_best=9, temperature=5.0))
    assert {name for row in drawn for each in row for name in each.tokens} == set(NAMES)
    assert all(len(row) == 9 for row in drawn)


# Any batch, any precision.


@EXAMPLES
@pytest.mark.parametrize("attention", ["none", "additive"])
def test_other_videos_of_the_batch_change_nothing(steps, classes, attention):
    task, examples = classifier(label_steps=steps, attention=attention), batch(classes, clips=2)
    together = task.predict_batch(examples, GREEDY)
    for row, [best] in enumerate(together):
        [[alone]] = task.predict_batch(examples.example(row), GREEDY)
        torch.testing.assert_close(alone.probabilities, best.probabilities)
        assert alone.text == best.text
        assert alone.token_log_probs == pytest.approx(best.token_log_probs, abs=1e-5)


@pytest.mark.parametrize("recurrence", ["conv", "vector", "none"])
@pytest.mark.parametrize("attention", ["none", "bilinear"])
def test_half_the_bits_change_probabilities_little(recurrence, attention):
    task = classifier(recurrence=recurrence, attention=attention, label_steps=2, mixup=0.5)
    examples = batch(TWO_STEPS, clips=2)
    [exact, mixed] = [
        torch.stack([best.probabilities for [best] in found])
        for found in (task.predict_batch(examples, GREEDY), in_half(task, examples))
    ]
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.sum(dim=-1), torch.ones(VIDEOS, 2))
    torch.testing.assert_close(mixed, exact, atol=0.01, rtol=0)


def in_half(task, examples):
    with torch.autocast("cpu", torch.bfloat16):
        return task.predict_batch(examples, GREEDY)


@pytest.mark.parametrize("recurrence", ["conv", "vector", "none"])
def test_mixed_clips_train_in_half_precision(recurrence, monkeypatch):
    monkeypatch.setattr(VideoClassifier, "global_step", 3)
    task = classifier(recurrence=recurrence, mixup=0.5).train()
    examples = batch(ONE_STEP)
    exact = task.compute_loss(examples)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = task.compute_loss(examples)
    torch.testing.assert_close(mixed.total, exact.total, rtol=0.02, atol=0)
    mixed.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


# What attention shows.


@pytest.mark.parametrize("positions", ["frames", "cells"])
def test_the_figure_of_an_attention_has_a_row_per_label_and_a_column_per_frame(positions):
    task = classifier(attention="dot", memory_size=7, label_steps=2, memory_positions=positions)
    examples = batch(TWO_STEPS[:1], clips=2)
    options = SearchOptions(beam_size=1, return_attention=True)
    [[best]] = task.predict_batch(examples, options)
    axes = task.figure(examples, best).axes[0]
    shown = torch.tensor(axes.images[0].get_array())
    assert shown.shape == (2, TIME)
    torch.testing.assert_close(shown.sum(dim=1), torch.ones(2))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    assert [label.get_text() for label in axes.get_yticklabels()] == best.tokens
    assert task.figure(examples, best._replace(attention=None)) is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"memory_positions": "cell"}, "memory_positions is 'cell'; choose one of frames, cells"),
        ({"memory_positions": "cells"}, "memory_positions cells is for .* with an attention"),
        (
            {"memory_positions": "cells", "attention": "dot", "recurrence": "vector"},
            "memory_positions cells is for recurrence conv",
        ),
        ({"recurrence": "vector", "norm": "lyer"}, "norm is 'lyer'; choose one of none, layer"),
        ({"recurrence": "vector", "norm": "group"}, "norm group is for recurrence conv"),
    ],
)
def test_options_of_the_encoder_that_do_not_fit_are_named_as_the_user_knows_them(options, problem):
    with pytest.raises(ConfigError, match=rf"--model\.{problem}"):
        classifier(**options)


# Checkpoints.


def test_a_checkpoint_of_other_labels_is_refused_with_those_that_differ():
    checkpoint = {}
    classifier().on_save_checkpoint(checkpoint)
    task = classifier()
    task.tokenizers = {"target": LabelVocabulary.of(("clap", "leap", "sit"))}
    expected = r"other labels: only it has 'jump'; only the data have 'leap'\. .*--ckpt"
    with pytest.raises(CheckpointError, match=expected):
        task.on_load_checkpoint(checkpoint)


def test_a_checkpoint_of_the_same_labels_in_another_order_is_refused():
    checkpoint = {}
    classifier().on_save_checkpoint(checkpoint)
    task = classifier()
    task.tokenizers = {"target": LabelVocabulary(task.class_names[::-1])}
    with pytest.raises(CheckpointError, match="another target tokenizer"):
        task.on_load_checkpoint(checkpoint)


def test_of_many_other_labels_some_are_named():
    names = [f"{number:02}" for number in range(12)]
    checkpoint = {}
    one, other = classifier(num_classes=12), classifier(num_classes=12)
    one.tokenizers = {"target": LabelVocabulary.of(names)}
    one.on_save_checkpoint(checkpoint)
    other.tokenizers = {"target": LabelVocabulary.of(f"x{name}" for name in names)}
    with pytest.raises(CheckpointError, match=r"has '00', .*, '09' and 2 more; only the data have"):
        other.on_load_checkpoint(checkpoint)
