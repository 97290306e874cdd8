import itertools
import math

import pytest
import torch

from seq2seq.errors import ConfigError
from seq2seq.videos.clips import ClipSampling


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def dense(clip_frames, frame_rate_hz, clips=1):
    return ClipSampling("dense", clip_frames, frame_rate_hz, clips)


@pytest.mark.parametrize("sampling", ["uniform", "segment"])
def test_frames_are_in_the_middle_of_equal_segments(sampling):
    # 6 s in 4 segments of 1.5 s
    times = ClipSampling(sampling, 4).evaluation_times(0.0, 6.0)
    assert times == [[0.75, 2.25, 3.75, 5.25]]


def test_a_part_of_a_video_is_sampled_like_a_whole_one():
    times = ClipSampling("uniform", 4).evaluation_times(10.0, 16.0)
    assert times == [[10.75, 12.25, 13.75, 15.25]]


def test_uniform_training_looks_where_evaluation_does():
    sampling = ClipSampling("uniform", 5)
    assert [sampling.training_times(1.0, 3.0)] == sampling.evaluation_times(1.0, 3.0)


def test_clips_of_a_spread_video_take_turns():
    # segments of 1.5 s; three clips at a sixth, a half and five sixths of each
    clips = ClipSampling("uniform", 2, clips=3).evaluation_times(0.0, 3.0)
    assert clips == pytest.approx(
        torch.tensor([[0.25, 1.75], [0.75, 2.25], [1.25, 2.75]], dtype=torch.float64)
    )
    [together] = ClipSampling("uniform", 6).evaluation_times(0.0, 3.0)
    assert sorted(itertools.chain(*clips)) == pytest.approx(together)


def test_a_random_time_is_taken_of_each_segment():
    sampling = ClipSampling("segment", 4)
    drawn = torch.tensor([sampling.training_times(2.0, 10.0, seeded(n)) for n in range(300)])
    starts = torch.tensor([2.0, 4.0, 6.0, 8.0])
    assert (drawn >= starts).all()
    assert (drawn < starts + 2).all()
    # All of it is used, and each segment for itself.
    assert (drawn.min(0).values < starts + 0.1).all()
    assert (drawn.max(0).values > starts + 1.9).all()
    assert torch.corrcoef((drawn - starts).T).triu(1).abs().max() < 0.25


def test_a_training_clip_may_be_spread_over_a_part_of_the_video():
    # Of 8 s, parts of 4 to 8 s, and of each a time in either half.
    sampling = ClipSampling("segment", 2, span_share=0.5)
    drawn = torch.tensor([sampling.training_times(2.0, 10.0, seeded(n)) for n in range(500)])
    assert (drawn >= 2).all()
    assert (drawn <= 10).all()
    assert (drawn[:, 0] < drawn[:, 1]).all()
    # Where the whole has its halves, neither time is bound to its own.
    assert drawn[:, 0].max() > 6.5
    assert drawn[:, 1].min() < 5.5
    assert sampling.evaluation_times(2.0, 10.0) == [[4.0, 8.0]]


def test_dense_frames_are_at_the_wanted_rate_and_one_clip_is_in_the_middle():
    # 4 frames at 10 Hz are 0.4 s; 0.6 s remain, half of it before.
    [times] = dense(4, 10.0).evaluation_times(0.0, 1.0)
    assert times == pytest.approx([0.35, 0.45, 0.55, 0.65])


def test_dense_clips_start_with_the_video_and_end_with_it():
    # 0.6 s remain for three clips: starts at 0, 0.3 and 0.6 s
    first, second, third = dense(4, 10.0, clips=3).evaluation_times(5.0, 6.0)
    assert first == pytest.approx([5.05, 5.15, 5.25, 5.35])
    assert second == pytest.approx([5.35, 5.45, 5.55, 5.65])
    assert third == pytest.approx([5.65, 5.75, 5.85, 5.95])


def test_a_dense_clip_of_training_starts_anywhere_within_the_video():
    sampling = dense(3, 4.0)  # 0.75 s
    drawn = torch.tensor([sampling.training_times(1.0, 3.0, seeded(n)) for n in range(300)])
    assert torch.allclose(drawn.diff(), torch.tensor(0.25))
    firsts = drawn[:, 0] - 0.125
    assert 1.0 <= firsts.min() < 1.03
    assert 2.22 < firsts.max() < 2.25


def test_the_last_frame_of_a_short_video_is_held():
    # 0.42 s at 10 Hz: the fifth frame would be at 0.45 s
    [times] = dense(6, 10.0).evaluation_times(0.0, 0.42)
    assert times == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.35, 0.35])
    assert dense(6, 10.0).training_times(0.0, 0.42) == times


def test_what_follows_a_part_is_not_shown():
    # A frame at 2.25 s would be the first one after the part.
    [times] = dense(3, 10.0).evaluation_times(2.0, 2.25)
    assert times == pytest.approx([2.05, 2.15, 2.15])


def test_a_video_that_just_fits_is_not_held():
    [times] = dense(3, 10.0).evaluation_times(0.0, 0.3)
    assert times == pytest.approx([0.05, 0.15, 0.25])


def test_of_a_single_short_frame_its_middle_is_taken():
    assert dense(3, 10.0, clips=2).evaluation_times(1.0, 1.04) == [[1.02] * 3] * 2


@pytest.mark.parametrize("sampling", ["uniform", "dense", "segment"])
@pytest.mark.parametrize("seconds", [1e-6, 0.3, 0.77, 5.0, 7200.1])
def test_all_times_are_ascending_and_within_the_video(sampling, seconds):
    clips = ClipSampling(sampling, 7, 12.5, clips=3)
    start, end = 3.0, 3.0 + seconds
    for times in [*clips.evaluation_times(start, end), clips.training_times(start, end, seeded(2))]:
        assert len(times) == 7
        assert times == sorted(times)
        assert start <= times[0]
        assert times[-1] < end


@pytest.mark.parametrize("sampling", ["dense", "segment"])
def test_the_generator_decides(sampling):
    clips = ClipSampling(sampling, 5)
    first, again = (clips.training_times(0.0, 9.0, seeded(1)) for _ in range(2))
    assert first == again
    assert first != clips.training_times(0.0, 9.0, seeded(2))


def test_settings_rebuild_the_sampling():
    sampling = dense(5, 8.0, clips=3)
    assert ClipSampling(**sampling.settings()) == sampling


def test_all_problems_are_named():
    with pytest.raises(ConfigError) as error:
        ClipSampling("sparse", 0, math.nan, -1, 1.5)
    for option in (
        r"--model.sampling='sparse' is unknown; choose one of uniform, dense, segment",
        "--model.clip_frames=0 is too small",
        "--model.frame_rate_hz=nan is no rate",
        "--model.clips=-1 is too small",
        "--model.span_share=1.5 is no share of a video",
    ):
        assert option in str(error.value)
