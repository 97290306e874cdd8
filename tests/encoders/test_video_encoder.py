import pytest
import torch

from seq2seq.batches import VideoInput
from seq2seq.encoders.frames import RawFrames, SmallNetwork, build_frame_network
from seq2seq.encoders.video import VideoEncoder, describe, with_differences
from seq2seq.errors import ConfigError
from seq2seq.nn.conv_recurrent import ConvRecurrentStack
from seq2seq.nn.recurrent import RecurrentStack

VIDEOS, CLIPS, TIME, SIDE, MEMORY = 3, 2, 5, 16, 12
LENGTHS = torch.tensor([[5, 3], [1, 2], [4, 5]])
RECURRENCES = {
    "conv": lambda: ConvRecurrentStack("lstm", 16, 8),
    "conv, two layers with a stride": lambda: ConvRecurrentStack("gru", 16, 8, 2, strides=[1, 2]),
    "conv, both directions": lambda: ConvRecurrentStack("gru", 16, 8, 2, bidirectional=True),
    "vector": lambda: RecurrentStack("lstm", 128, 7),
    "vector, both directions": lambda: RecurrentStack("gru", 128, 7, bidirectional=True),
    "none": lambda: None,
}
FORWARD = [name for name in RECURRENCES if "both" not in name]


def encoder(recurrence, **options):
    torch.manual_seed(1)
    channels = 2 if options.get("differences") else 1
    network = SmallNetwork(channels, [0.5] * channels, [0.25] * channels, [8, 16])
    return VideoEncoder(
        network, RECURRENCES[recurrence](), memory_size=MEMORY, parts=2, **options
    ).eval()


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(1)
    shape = (VIDEOS, CLIPS, TIME, 1, SIDE, SIDE)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return VideoInput(frames, LENGTHS)


@pytest.mark.parametrize("name", RECURRENCES)
def test_padding_and_other_clips_change_nothing(name, clips):
    model = encoder(name)
    memory = model(clips)
    assert memory.values.shape == (VIDEOS * CLIPS, TIME, MEMORY)
    assert memory.mask.sum(dim=1).tolist() == LENGTHS.flatten().tolist()
    for row, length in enumerate(LENGTHS.flatten().tolist()):
        video, clip = divmod(row, CLIPS)
        frames = clips.frames[video : video + 1, clip : clip + 1, :length]
        alone = model(VideoInput(frames, torch.tensor([[length]])))
        torch.testing.assert_close(alone.summary[0], memory.summary[row])
        torch.testing.assert_close(alone.values[0], memory.values[row, :length])


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("name", FORWARD)
def test_a_stream_sees_what_the_whole_clip_shows(name, clips, differences):
    model = encoder(name, differences=differences)
    state = None
    for step in range(TIME):
        frame = clips.frames[:, 0, step]
        memory, state = model.step(frame, state)
        start = clips.frames[:, :1, : step + 1]
        whole = model(VideoInput(start, torch.full((VIDEOS, 1), step + 1)))
        torch.testing.assert_close(memory.summary, whole.summary)


@pytest.mark.parametrize("name", [name for name in RECURRENCES if "both" in name])
def test_what_reads_from_the_end_cannot_stream(name, clips):
    with pytest.raises(ConfigError, match=r"bidirectional=false"):
        encoder(name).step(clips.frames[:, 0, 0])


def test_the_mean_of_the_frames_knows_no_order_and_a_recurrence_does(clips):
    whole = VideoInput(clips.frames, torch.full((VIDEOS, CLIPS), TIME))
    backwards = VideoInput(clips.frames.flip(2), whole.lengths)
    for name in FORWARD:
        model = encoder(name)
        is_same = torch.allclose(model(whole).summary, model(backwards).summary, atol=1e-4)
        assert is_same == (name == "none")


@pytest.mark.parametrize("name", RECURRENCES)
def test_every_parameter_learns(name, clips):
    model = encoder(name).train()
    memory = model(clips)
    (memory.values.square().sum() + memory.summary.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_cells_of_frames_are_positions_in_the_order_of_the_frames(clips):
    model = encoder("conv", positions="cells")
    memory = model(clips)
    cells = (SIDE // 4) ** 2
    assert memory.values.shape == (VIDEOS * CLIPS, TIME * cells, MEMORY)
    assert memory.mask.sum(dim=1).tolist() == (LENGTHS.flatten() * cells).tolist()
    changed = clips.frames.clone()
    changed[:, :, 2] = 255 - changed[:, :, 2]
    other = model(VideoInput(changed, LENGTHS)).values
    is_same = (other == memory.values).all(dim=2)[0]  # its clip has five frames
    assert is_same[: 2 * cells].all()
    assert not is_same[2 * cells :].any()


def test_positions_of_cells_need_a_recurrence_over_grids():
    with pytest.raises(ConfigError, match=r"positions='cells' needs recurrence='conv'"):
        encoder("vector", positions="cells")


def test_features_in_place_of_frames_give_the_same_memory():
    torch.manual_seed(1)
    network = build_frame_network(
        "mobilenet_v3_small",
        widths=[],
        layer="features.3",
        image_size=32,
        mean=[0.5] * 3,
        std=[0.25] * 3,
        difference_std=None,
        fine_tune_from=None,
        fine_tune_statistics=False,
    )
    stack = ConvRecurrentStack("rnn", network.channels, 8)
    model = VideoEncoder(network, stack, memory_size=MEMORY).eval()
    frames = torch.randint(0, 256, (2, 1, 3, 3, 32, 32), dtype=torch.uint8)
    lengths = torch.tensor([[3], [2]])
    features = network.extract(frames.flatten(0, 2)).unflatten(0, (2, 1, 3))
    seen, read = (model(VideoInput(each, lengths)) for each in (frames, features))
    torch.testing.assert_close(seen.summary, read.summary)
    torch.testing.assert_close(seen.values, read.values)


def test_pixels_are_scaled_by_the_given_mean_and_deviation():
    network = RawFrames(1, [0.5], [0.25])
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert network(frames).flatten().tolist() == [-2, 2]


def test_a_frame_comes_with_what_changed_since_the_one_before():
    frames = torch.tensor([10, 30, 25], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    before = torch.tensor([9], dtype=torch.uint8).view(1, 1, 1, 1, 1)
    assert with_differences(frames, before).flatten(1).tolist() == [[10, 1, 30, 20, 25, -5]]


def test_a_grid_is_described_by_means_and_maxima_of_its_parts():
    grids = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 1, 2, 2)
    assert describe(grids, 1).tolist() == [[[3.0, 6.0]]]
    assert describe(grids, 2).tolist() == [[[1.0, 2.0, 3.0, 6.0] * 2]]


@pytest.mark.parametrize("widths", [[], [8, 12], [0]])
def test_widths_that_cannot_be_grouped_are_refused(widths):
    with pytest.raises(ConfigError, match=r"frame_widths=.* multiples of 8"):
        SmallNetwork(1, [0.5], [0.25], widths)
