import math

import pytest
import torch

from seq2seq.batches import Batch, VideoInput
from seq2seq.errors import ConfigError
from seq2seq.search import SearchOptions
from seq2seq.tasks.video import VideoClassifier
from seq2seq.tokenizers import FIRST_LABEL_ID, LabelVocabulary

NAMES = ("clap", "jump", "push", "sit", "wave")
VIDEOS, CLIPS, TIME = 3, 2, 4
GREEDY = SearchOptions(beam_size=1)


def classifier(**options):
    torch.manual_seed(1)
    defaults = {
        "num_classes": len(NAMES),
        "image_size": 16,
        "image_channels": 1,
        "clip_frames": TIME,
        "clips": CLIPS,
        "frame_widths": [8],
        "hidden_size": 8,
        "memory_size": 10,
        "decoder_size": 12,
        "dropout": 0.0,
    }
    task = VideoClassifier(**(defaults | options)).eval()
    task.tokenizers = {"target": LabelVocabulary.of(NAMES)}
    return task


def batch(clips=CLIPS, label_steps=1, videos=VIDEOS):
    generator = torch.Generator().manual_seed(1)
    shape = (videos, clips, TIME, 1, 16, 16)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    classes = torch.randint(0, len(NAMES), (videos, label_steps), generator=generator)
    lengths = torch.full((videos, clips), TIME)
    target = classes + FIRST_LABEL_ID
    references = tuple((";".join(NAMES[c] for c in row),) for row in classes.tolist())
    return Batch(VideoInput(frames, lengths), target, torch.arange(videos), references)


def only_clip(of, clip):
    inputs = VideoInput(of.inputs.frames[:, [clip]], of.inputs.lengths[:, [clip]])
    return of._replace(inputs=inputs)


def probabilities(task, of):
    return torch.stack([best.probabilities for [best] in task.predict_batch(of, GREEDY)])


@pytest.mark.parametrize("attention", ["none", "bilinear"])
def test_the_probabilities_of_clips_are_averaged(attention):
    task = classifier(attention=attention)
    both = batch()
    parts = [probabilities(task, only_clip(both, clip)) for clip in range(CLIPS)]
    torch.testing.assert_close(probabilities(task, both), torch.stack(parts).mean(dim=0))
    torch.testing.assert_close(probabilities(task, both).sum(dim=-1), torch.ones(VIDEOS, 1))


@pytest.mark.parametrize("label_steps", [1, 2])
def test_an_output_has_the_probability_of_its_labels(label_steps):
    task = classifier(label_steps=label_steps)
    options = SearchOptions(beam_size=25, n_best=25)
    for row in task.predict_batch(batch(label_steps=label_steps), options):
        assert len(row) == len(NAMES) ** label_steps
        assert all(len(each.text.split(";")) == label_steps for each in row)
        shares = [torch.tensor(each.token_log_probs).sum().exp() for each in row]
        assert float(sum(shares)) == pytest.approx(1)
        best = row[0].probabilities[0]
        first = sum(s for s, each in zip(shares, row, strict=True) if each.tokens[0] == "jump")
        torch.testing.assert_close(first, best[NAMES.index("jump")])


@pytest.mark.parametrize("label_steps", [1, 2])
@pytest.mark.parametrize("recurrence", ["conv", "vector", "none"])
def test_a_stream_gives_what_the_clip_so_far_gives(label_steps, recurrence):
    task = classifier(label_steps=label_steps, recurrence=recurrence)
    clip = only_clip(batch(videos=1), 0)
    stream = task.stream()
    for step in range(TIME):
        frame = clip.inputs.frames[0, 0, step]
        posterior = stream.step(frame.expand(3, -1, -1))
        start = VideoInput(clip.inputs.frames[:, :, : step + 1], torch.tensor([[step + 1]]))
        whole = probabilities(task, clip._replace(inputs=start))[0]
        torch.testing.assert_close(posterior, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"attention": "dot", "memory_size": 12}, {"bidirectional": True}]
)
def test_what_needs_the_whole_video_cannot_stream(options):
    with pytest.raises(ConfigError, match=r"--model\.attention none and --model\.bidirectional"):
        classifier(**options).stream()


@pytest.mark.parametrize(
    ("label_steps", "decoding"),
    [
        (1, {"beam_size": 1}),
        (1, {"beam_size": 1, "banned_tokens": [FIRST_LABEL_ID + 1]}),
        (2, {"beam_size": 5}),
    ],
)
def test_the_scores_of_an_evaluation_are_those_of_its_predictions(label_steps, decoding):
    videos = 8
    task = classifier(label_steps=label_steps, decoding=SearchOptions(**decoding))
    torch.manual_seed(7)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter)  # so large that a beam corrects its first label
    examples = batch(label_steps=label_steps, videos=videos)
    found = [best for best, *_ in task.predict_batch(examples, task.decoding)]
    is_usual = label_steps == 1 and "banned_tokens" not in decoding
    assert is_usual == all(most_probable(each) == each.tokens for each in found)
    # Two videos keep a label by chance; of the others, the truth is what is found.
    texts = [text for [text] in examples.references[:2]] + [each.text for each in found[2:]]
    target = torch.tensor(task.tokenizers["target"].encode_batch(texts))
    predictions = task.test_step(examples._replace(target=target))
    scores = task.compute_metrics()
    assert [each.text for each in predictions] == [each.text for each in found]
    pairs = list(zip(predictions, texts, strict=True))
    assert scores["accuracy"] == pytest.approx(sum(p.text == t for p, t in pairs) / videos)
    steps = [pair for p, t in pairs for pair in zip(t.split(";"), p.tokens, strict=True)]
    assert scores["step_accuracy"] == pytest.approx(sum(t == p for t, p in steps) / len(steps))
    expected = [[steps.count((truth, other)) for other in NAMES] for truth in NAMES]
    assert task.confusion.tolist() == expected
    rights = [right_log_probs(task, examples.example(row), texts[row]) for row in range(videos)]
    torch.testing.assert_close(task._evaluation_loss.compute(), -torch.tensor(rights).mean())


def most_probable(prediction):
    return [NAMES[number] for number in prediction.probabilities.argmax(dim=-1)]


def right_log_probs(task, example, text):
    [found] = task.predict_batch(example, SearchOptions(beam_size=25, n_best=25))
    [right] = [each for each in found if each.text == text]
    return right.token_log_probs


def test_the_loss_of_equally_weighted_classes_is_that_of_balanced_ones():
    examples = only_clip(batch(), 0)
    plain = classifier().compute_loss(examples)
    weighted = classifier(class_weights="balanced")
    torch.testing.assert_close(weighted.compute_loss(examples).total, plain.total)
    weighted._weights = torch.tensor([2.0] * len(NAMES))
    torch.testing.assert_close(weighted.compute_loss(examples).total, 2 * plain.total)


def test_mixup_is_repeatable_and_ends_with_training(monkeypatch):
    monkeypatch.setattr(VideoClassifier, "global_step", 3)
    examples = only_clip(batch(), 0)
    task = classifier(mixup=0.4)
    plain = classifier().compute_loss(examples).total
    torch.testing.assert_close(task.compute_loss(examples).total, plain)
    task.train()
    first, again = (task.compute_loss(examples).total for _ in range(2))
    torch.testing.assert_close(first, again)
    assert not torch.isclose(first, plain)
    assert not torch.isclose(task.compute_loss(examples, batch_number=1).total, first)


@pytest.mark.parametrize("label_steps", [1, 2])
def test_it_learns_a_few_clips(label_steps):
    task = classifier(label_steps=label_steps).train()
    examples = only_clip(batch(label_steps=label_steps), 0)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.02)
    for _ in range(60):
        loss = task.compute_loss(examples)
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        optimizer.step()
    best = [best.text for [best] in task.eval().predict_batch(examples, GREEDY)]
    assert best == [reference for [reference] in examples.references]


def test_all_wrong_options_are_named_together():
    with pytest.raises(ConfigError) as caught:
        classifier(
            num_classes=1,
            label_steps=0,
            recurrence="both",
            class_weights="some",
            mixup=-1,
            image_channels=2,
            sampling="all",
            image_size=0,
        )
    named = ("num_classes", "label_steps", "recurrence", "class_weights", "mixup", "image_channels")
    for option in (*named, "sampling", "size"):
        assert option in str(caught.value)


def test_a_network_of_torchvision_needs_colours():
    with pytest.raises(
        ConfigError, match=r"resnet18 sees colours: set --model\.image_channels to 3"
    ):
        classifier(frame_network="resnet18")


def test_a_network_that_there_is_not_is_named_by_its_option():
    with pytest.raises(
        ConfigError, match=r"--model\.frame_network is 'nonsense'; .*small.*resnet18"
    ):
        classifier(frame_network="nonsense", image_channels=1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"hidden_size": 0}, r"--model\.hidden_size=0 must be"),
        ({"dropout": 1.0}, r"--model\.dropout=1\.0 must be"),
        ({"strides": [0]}, r"--model\.strides are \[0\]"),
    ],
)
def test_a_number_that_cannot_be_is_named_by_its_option(options, match):
    with pytest.raises(ConfigError, match=match):
        classifier(**options)


def test_differences_are_scaled_by_their_own_deviation():
    def scales(**options):
        network = classifier(frame_differences=True, image_std=[0.2], **options).encoder.network
        return network.std.flatten().tolist()

    assert scales() == pytest.approx([0.2, 0.2])
    assert scales(difference_std=[0.05]) == pytest.approx([0.2, 0.05])


def test_a_deviation_of_differences_needs_differences():
    with pytest.raises(ConfigError, match="difference_std is for frame_differences true"):
        classifier(difference_std=[0.05])
    with pytest.raises(ConfigError, match="difference_std has 2 values; give one for each channel"):
        classifier(frame_differences=True, difference_std=[0.05, 0.1])


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("image_std", 0.0, r"is \[0\.0\]; its values must be finite and above 0"),
        ("image_std", -0.2, r"is \[-0\.2\]; its values must be finite and above 0"),
        ("image_std", math.nan, r"is \[nan\]; its values must be finite and above 0"),
        ("difference_std", 0.0, r"is \[0\.0\]; its values must be finite and above 0"),
        ("difference_std", math.inf, r"is \[inf\]; its values must be finite and above 0"),
        ("image_mean", -math.inf, r"is \[-inf\]; its values must be finite\."),
    ],
)
def test_frames_cannot_be_normalised_by_any_number(option, value, problem):
    with pytest.raises(ConfigError, match=rf"--model\.{option} {problem}"):
        classifier(frame_differences=True, **{option: [value]})


def test_the_mean_of_frames_may_be_zero():
    assert classifier(image_mean=[0.0]).hparams["image_mean"] == [0.0]
