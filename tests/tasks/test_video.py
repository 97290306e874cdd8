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


def test_the_scores_of_an_evaluation_are_those_of_its_predictions():
    task = classifier()
    examples = batch()
    predictions = task.validation_step(examples)
    scores = task.compute_metrics()
    pairs = zip(predictions, examples.references, strict=True)
    assert scores["accuracy"] == pytest.approx(sum(p.text == r for p, [r] in pairs) / VIDEOS)
    assert task.confusion.sum() == VIDEOS
    right = probabilities(task, examples).gather(2, (examples.target - FIRST_LABEL_ID)[..., None])
    torch.testing.assert_close(task._evaluation_loss.compute(), -right.log().mean())


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
