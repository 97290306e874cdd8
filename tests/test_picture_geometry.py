import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from toy_pictures import BLUE, RED, noise, two_colours

from seq2seq.errors import ConfigError
from seq2seq.pictures import PictureGeometry


@pytest.mark.parametrize("size", [(300, 200), (201, 500), (50, 37), (64, 64), (33, 1000)])
@pytest.mark.parametrize(("side", "share"), [(56, 0.875), (24, 1.0), (31, 0.7)])
def test_crop_shows_what_torchvision_shows(size, side, share):
    picture = noise(*size)
    reference = v2.Compose([v2.Resize(round(side / share), antialias=True), v2.CenterCrop(side)])
    expected = np.array(reference(picture)).transpose(2, 0, 1).astype(int)
    found = PictureGeometry(side, "crop", share)(picture)
    assert found.dtype == torch.uint8
    assert found.shape == (3, side, side)
    assert np.abs(found.numpy() - expected).max() <= 1  # Pillow rounds twice


def test_squash_shows_the_whole_picture():
    found = PictureGeometry(8, "squash")(two_colours(RED, BLUE).resize((80, 20), 0))
    assert found[:, 3, 0].tolist() == list(RED)
    assert found[:, 3, -1].tolist() == list(BLUE)


@pytest.mark.parametrize("turn", [False, True])
def test_pad_shows_the_whole_picture_between_grey(turn):
    picture = two_colours(RED, BLUE).resize((40, 20), 0)
    shown = picture.transpose(Image.Transpose.TRANSPOSE) if turn else picture
    found = PictureGeometry(8, "pad")(shown)
    found = found.transpose(1, 2) if turn else found
    assert found[:, [0, 1, 6, 7]].unique().tolist() == [128]
    assert found[:, 2:6, 0].T.tolist() == [list(RED)] * 4
    assert found[:, 2:6, -1].T.tolist() == [list(BLUE)] * 4


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (1, 1)])
def test_odd_shapes_keep_their_colour(resize, size):
    found = PictureGeometry(16, resize)(Image.new("RGB", size, RED))
    assert found.shape == (3, 16, 16)
    assert found[:, 7, 7].tolist() == list(RED)


def silhouette(left, top, right, bottom, width=40, height=30):
    """Return a grey rectangle, brighter towards the bottom right, on black."""
    values = np.zeros((height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[top:bottom, left:right]
    values[top:bottom, left:right] = (50 + 2 * rows + 3 * columns)[..., None]
    return values


def test_foreground_is_cut_out_standing_in_the_middle():
    values = silhouette(20, 8, 25, 23)  # 15 high: three quarters of 20
    square = PictureGeometry(20, "foreground", 0.75)(Image.fromarray(values))
    assert np.array_equal(square.permute(1, 2, 0), values[3:23, 12:32])


def test_a_foreground_of_any_size_and_place_is_shown_alike():
    small, large = (
        PictureGeometry(10, "foreground")(Image.fromarray(picture)).float()
        for picture in (
            255 * (silhouette(5, 10, 9, 17) > 0).astype(np.uint8),
            255 * (silhouette(26, 7, 34, 21) > 0).astype(np.uint8),
        )
    )
    assert (small - large).abs().mean() < 10  # of 255


def test_what_lies_beyond_the_picture_is_black():
    values = silhouette(0, 0, 6, 10)
    square = PictureGeometry(20, "foreground", 0.5)(Image.fromarray(values)).permute(1, 2, 0)
    assert np.array_equal(square[10:, 7:13], values[:10, :6])
    assert square.sum() == values.sum()


def test_foreground_is_more_than_the_noise_of_a_codec_and_a_stray_pixel():
    values = silhouette(120, 40, 131, 80, 300, 100)
    geometry = PictureGeometry(20, "foreground")
    box = geometry.foreground(Image.fromarray(values))
    values[values == 0] = 8
    values[3, 3] = 255
    assert geometry.foreground(Image.fromarray(values)) == box


def test_an_arm_that_is_stretched_out_moves_the_square_little():
    values = silhouette(15, 5, 24, 25)
    geometry = PictureGeometry(20, "foreground")
    left, top, *_ = geometry.foreground(Image.fromarray(values))
    values[8:10, 24:36] = 100
    shifted, same, *_ = geometry.foreground(Image.fromarray(values))
    assert 0 <= (shifted - left) * 40 <= 1
    assert same == top


def test_a_thin_figure_in_a_wide_picture_is_no_noise():
    values = silhouette(10, 5, 12, 45, 400, 50)
    square = PictureGeometry(20, "foreground")(Image.fromarray(values))
    assert square[:, :, 8:12].any()


def test_a_tall_figure_takes_no_more_room_than_the_square():
    found = PictureGeometry(16, "foreground")(Image.new("RGB", (1, 20_000), RED))
    assert found.amax(dim=2)[:, 7].tolist() == list(RED)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 1)])
def test_a_box_is_cut_out_of_a_frame_of_any_size(size):
    box = PictureGeometry(16, "foreground").foreground(Image.fromarray(silhouette(30, 5, 34, 9)))
    found = PictureGeometry(16, "foreground")(Image.new("RGB", size, RED), box)
    assert found.shape == (3, 16, 16)


def test_of_a_black_picture_the_middle_is_shown():
    black = Image.new("RGB", (9, 5))
    assert PictureGeometry(4, "foreground").foreground(black) == (2 / 9, 0, 7 / 9, 1)
    assert not PictureGeometry(4, "foreground")(black).any()


def test_settings_make_an_equal_geometry():
    geometry = PictureGeometry(9, "pad", 0.5)
    assert PictureGeometry(**geometry.settings()) == geometry
    assert {type(value) for value in geometry.settings().values()} == {int, str, float}


def test_all_bad_options_are_named():
    with pytest.raises(ConfigError) as caught:
        PictureGeometry(0, "stretch", 1.5)
    for part in ("image_size=0", "image_resize='stretch'", "crop, squash, pad", "crop_share=1.5"):
        assert part in str(caught.value)


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan")])
def test_a_crop_share_must_be_a_share(share):
    with pytest.raises(ConfigError, match=r"--model\.image_crop_share"):
        PictureGeometry(crop_share=share)
