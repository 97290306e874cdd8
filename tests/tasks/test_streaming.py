import pytest
import torch
from toy_videos import write_video

from seq2seq.tasks.video import VideoClassifier
from seq2seq.tokenizers import LabelVocabulary

NAMES = ("clap", "jump", "sit")
# A pause, and a burst after it.
TIMES_MS = [0, 30, 60, 90, 120, 150, 180, 210, 600, 640, 700]


def classifier(**options):
    sizes = {"image_size": 8, "frame_widths": [8], "hidden_size": 5, "decoder_size": 7}
    task = VideoClassifier(len(NAMES), **(sizes | options)).eval()
    task.tokenizers = {"target": LabelVocabulary.of(NAMES)}
    return task


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "a.mkv", "ffv1", count=len(TIMES_MS), times_ms=TIMES_MS)


@pytest.mark.parametrize(
    ("options", "followed"),
    [
        ({"sampling": "dense", "frame_rate_hz": 10.0}, [0, 120, 210, 600, 700]),
        ({"sampling": "dense", "frame_rate_hz": 25.0}, [0, 60, 90, 120, 180, 210, 600, 640, 700]),
        ({"sampling": "dense", "frame_rate_hz": 1000.0}, TIMES_MS),
        ({"sampling": "segment", "frame_rate_hz": 10.0}, TIMES_MS),
        ({"sampling": "uniform", "frame_rate_hz": 10.0}, TIMES_MS),
    ],
)
def test_one_frame_of_each_interval_is_taken_where_training_had_a_steady_rate(
    video, options, followed
):
    predictions = classifier(**options).stream().follow(video)
    seconds = [prediction.seconds for prediction in predictions]
    assert seconds == pytest.approx([time / 1000 for time in followed], abs=1e-3)


def kept(part):
    """Return shape, type and bytes of all tensors of a state."""
    if isinstance(part, torch.Tensor):
        return [(part.shape, part.dtype, part.untyped_storage().nbytes())]
    return [each for parts in part or () for each in kept(parts)]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("recurrence", ["conv", "vector", "none"])
def test_a_stream_keeps_as_much_after_many_frames_as_after_a_few(recurrence, cell):
    stream = classifier(recurrence=recurrence, cell=cell, encoder_layers=2).stream()
    after = {}
    for count in range(1, 31):
        stream.step(torch.full((3, 20, 18), count, dtype=torch.uint8))
        state = stream._state
        after[count] = kept((state.recurrent, state.total))
    assert after[3]
    assert after[30] == after[3]


def test_the_mean_of_very_many_frames_still_moves_in_half_precision():
    task = classifier(recurrence="none")
    frames = torch.rand(600, 3, 8, 8).mul(255).byte()
    exact, mixed = task.stream(), task.stream()
    for frame in frames:
        posterior = exact.step(frame)
        with torch.autocast("cpu", torch.bfloat16):
            close = mixed.step(frame)
    torch.testing.assert_close(mixed._state.total, exact._state.total, rtol=0.01, atol=0.5)
    torch.testing.assert_close(close, posterior, atol=0.01, rtol=0)
