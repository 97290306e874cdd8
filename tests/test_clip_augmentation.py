import numpy as np
import pytest
import torch

from datamodules.clip_augmentation import ClipAugmentation
from seq2seq.errors import ConfigError

EVERYTHING = ClipAugmentation(
    flip=True, crop_scale=0.5, zoom_out=1.2, rotate_degrees=20, brightness=0.3, contrast=0.4
)


def generator(seed=1):
    return np.random.default_rng(seed)


def random_clip(time=4, channels=3, height=9, width=9):
    shape = (1, time, channels, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3)).byte()


@pytest.mark.parametrize("channels", [1, 3])
def test_all_frames_of_a_clip_are_changed_alike(channels):
    frame = random_clip(time=1, channels=channels)
    clip = frame.expand(1, 5, channels, 9, 9)
    for seed in range(8):
        changed = EVERYTHING(clip, generator(seed))
        assert changed.shape == clip.shape
        assert changed.dtype == torch.uint8
        assert torch.equal(changed, changed[:, :1].expand_as(changed))
        assert not torch.equal(changed, clip)


def test_a_frame_is_changed_alike_whatever_clip_it_is_in():
    geometric = ClipAugmentation(flip=True, crop_scale=0.4, rotate_degrees=30, brightness=0.5)
    clip = random_clip()
    whole = geometric(clip, generator(4))
    for time in range(4):
        alone = geometric(clip[:, time : time + 1], generator(4))
        assert torch.equal(alone[:, 0], whole[:, time])


def test_contrast_is_about_the_mean_of_the_clip():
    # Frames of one brightness each: about their own means nothing would change.
    clip = torch.tensor([40, 60, 110, 190], dtype=torch.uint8).view(1, 4, 1, 1, 1)
    clip = clip.expand(1, 4, 1, 3, 3)
    factors = set()
    for seed in range(6):
        changed = ClipAugmentation(contrast=0.5)(clip, generator(seed))[0, :, 0, 1, 1].float()
        factor = (changed[3] - changed[0]).item() / 150
        assert changed.tolist() == pytest.approx(
            [100 + factor * d for d in (-60, -40, 10, 90)], abs=2
        )
        assert 0.48 < factor < 1.52
        factors.add(round(factor, 2))
    assert len(factors) > 4


def test_brightness_is_multiplied():
    clip = torch.tensor([20, 40, 100], dtype=torch.uint8).view(1, 3, 1, 1, 1).expand(1, 3, 1, 2, 2)
    factors = []
    for seed in range(40):
        changed = ClipAugmentation(brightness=0.2)(clip, generator(seed))[0, :, 0, 0, 0].float()
        factors.append(changed[2].item() / 100)
        assert changed.tolist() == pytest.approx([factors[-1] * n for n in (20, 40, 100)], abs=1.5)
    assert 0.79 <= min(factors) < 0.85 < 1.15 < max(factors) <= 1.21


def test_every_second_clip_is_mirrored():
    clip = random_clip()
    mirrored = 0
    for seed in range(60):
        changed = ClipAugmentation(flip=True)(clip, generator(seed))
        assert torch.equal(changed, clip) or torch.equal(changed, clip.flip(-1))
        mirrored += torch.equal(changed, clip.flip(-1))
    assert 18 < mirrored < 42


def test_a_crop_has_no_less_than_its_share_of_the_area():
    # Rows and columns tell where they come from.
    places = torch.arange(60).float() * 4
    clip = torch.stack([places.view(60, 1).expand(60, 60), places.view(1, 60).expand(60, 60)])
    clip = clip.byte().view(1, 2, 1, 60, 60)
    shares = []
    for seed in range(60):
        rows, columns = ClipAugmentation(crop_scale=0.3)(clip, generator(seed))[0, :, 0].float()
        height = (rows[-1, 30] - rows[0, 30]).item() / 4 + 1
        width = (columns[30, -1] - columns[30, 0]).item() / 4 + 1
        shares.append(height * width / 3600)
        assert 0.7 < height / width < 1.42
    assert 0.27 < min(shares) < 0.4
    assert 0.85 < max(shares) < 1.02


def test_clips_are_scaled_down_up_to_the_largest_share_with_black_around_them():
    clip = torch.full((1, 2, 1, 40, 40), 200, dtype=torch.uint8)
    shares = []
    for seed in range(60):
        frame = ClipAugmentation(crop_scale=0.9, zoom_out=2.0)(clip, generator(seed))[0, 0, 0]
        is_clip = frame > 100
        rows, columns = is_clip.any(dim=1).sum().item(), is_clip.any(dim=0).sum().item()
        shares.append(1600 / (rows * columns))
    assert min(shares) < 1.1
    assert 1.7 < max(shares) < 2.1


def test_clips_are_turned_about_their_middle():
    clip = torch.zeros(1, 1, 1, 9, 9, dtype=torch.uint8)
    clip[..., 4, :] = 200
    turned = ClipAugmentation(rotate_degrees=90)(clip, generator(2))
    assert turned[0, 0, 0, 4, 4] == 200
    assert not torch.equal(turned, clip)


def test_the_same_generator_gives_the_same_clip():
    clip = random_clip()
    assert torch.equal(EVERYTHING(clip, generator(7)), EVERYTHING(clip, generator(7)))
    assert not torch.equal(EVERYTHING(clip, generator(7)), EVERYTHING(clip, generator(8)))


def test_one_option_does_not_change_the_choices_of_another():
    clip = random_clip()
    for seed in range(9):
        alone = ClipAugmentation(flip=True)(clip, generator(seed))
        both = ClipAugmentation(flip=True, brightness=1e-6, crop_scale=1.0)(clip, generator(seed))
        assert torch.allclose(both.float(), alone.float(), atol=1)


def test_without_options_there_is_nothing_to_do():
    assert not ClipAugmentation().is_active
    assert EVERYTHING.is_active
    clip = random_clip()
    assert torch.equal(ClipAugmentation()(clip, generator()), clip)


def test_options_out_of_range_are_named_together():
    options = {
        "crop_scale": 0.0,
        "zoom_out": 0.5,
        "rotate_degrees": 181,
        "brightness": -0.1,
        "contrast": 1.5,
    }
    with pytest.raises(ConfigError) as caught:
        ClipAugmentation(**options)
    for option in options:
        assert f"--data.augmentation.{option}=" in str(caught.value)
