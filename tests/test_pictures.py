import io
import random
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from toy_pictures import BLUE, GREEN, HEIGHT, RED, WHITE, WIDTH, noise, two_colours

from seq2seq.errors import DataError
from seq2seq.pictures import find_pictures, is_picture_name, open_picture


def corners(picture):
    """Return the colours of the top left and the bottom right pixel."""
    return picture.getpixel((0, 0)), picture.getpixel((picture.width - 1, picture.height - 1))


def opened(folder, picture, name, **options):
    picture.save(folder / name, **options)
    result = open_picture(folder / name)
    assert type(result) is Image.Image
    assert result.mode == "RGB"
    assert not result.info
    return result


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.ppm", "x.tif", "x.jp2", "x.dat"])
def test_a_colour_picture_is_read_as_it_is(tmp_path, name):
    options = {"format": "PNG"} if name == "x.dat" else {}  # the content decides
    found = opened(tmp_path, noise(), name, **options)
    assert np.array_equal(found, noise())


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_the_same_in_all_channels(tmp_path, mode):
    grey = two_colours(WHITE, (0, 0, 0)).convert(mode)
    assert corners(opened(tmp_path, grey, "x.png")) == (WHITE, (0, 0, 0))


def test_a_palette_is_looked_up(tmp_path):
    picture = two_colours(RED, GREEN).quantize(4)
    assert corners(opened(tmp_path, picture, "x.png")) == (RED, GREEN)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_transparent_entries_of_a_palette_are_white(tmp_path, suffix):
    picture = two_colours(RED, GREEN).quantize(4)
    found = opened(tmp_path, picture, f"x.{suffix}", transparency=picture.getpixel((0, 0)))
    assert corners(found) == (WHITE, GREEN)


def test_half_transparent_entries_of_a_palette_are_mixed_with_white(tmp_path):
    picture = two_colours(RED, BLUE).quantize(2)
    alphas = bytearray([255, 255])
    alphas[picture.getpixel((0, 0))] = 128
    assert corners(opened(tmp_path, picture, "x.png", transparency=bytes(alphas))) == (
        (255, 127, 127),
        BLUE,
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_lies_on_white(tmp_path, suffix):
    picture = two_colours(RED, GREEN).convert("RGBA")
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.putpixel((WIDTH - 1, HEIGHT - 1), (0, 0, 0, 127))
    options = {"lossless": True} if suffix == "webp" else {}
    assert corners(opened(tmp_path, picture, f"x.{suffix}", **options)) == (WHITE, (128, 128, 128))


def test_grey_with_alpha_lies_on_white(tmp_path):
    picture = Image.new("LA", (WIDTH, HEIGHT), (0, 0))
    picture.putpixel((WIDTH - 1, HEIGHT - 1), (40, 255))
    assert corners(opened(tmp_path, picture, "x.png")) == (WHITE, (40, 40, 40))


def test_a_colour_that_stands_for_transparency_is_white(tmp_path):
    found = opened(tmp_path, two_colours(RED, GREEN), "x.png", transparency=GREEN)
    assert corners(found) == (RED, WHITE)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_inks_become_light(tmp_path, suffix):
    # Pillow writes CMYK in JPEG inverted, as Adobe does.
    picture = Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0))
    found = np.array(opened(tmp_path, picture, f"x.{suffix}")).astype(int)
    assert np.abs(found - RED).max() <= 2


def test_other_colour_spaces_are_converted(tmp_path):
    found = np.array(opened(tmp_path, two_colours(RED, BLUE).convert("YCbCr"), "x.tif"))
    assert np.abs(found[0, 0].astype(int) - RED).max() <= 2


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, suffix):
    gradient = np.arange(256, dtype=np.uint16).reshape(8, 32) * 257
    found = np.array(opened(tmp_path, Image.fromarray(gradient), f"x.{suffix}"))
    assert np.array_equal(found[..., 1], gradient // 257)
    assert np.array_equal(found[..., 0], found[..., 2])


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path):
    dark = np.full((HEIGHT, WIDTH), 2570, dtype=np.uint16)
    assert corners(opened(tmp_path, Image.fromarray(dark), "x.png"))[0] == (10, 10, 10)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 200]], np.float32), [0, 100, 200]),
        (np.array([[0, 257, 65535]], np.float32), [0, 1, 255]),
        (np.array([[-3, 0, 3]], np.float32), [0, 128, 255]),
        (np.array([[0, 50_000, 100_000]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, np.inf, 1]], np.float32), [0, 0, 255]),
        (np.array([[-7, -7, -7]], np.float32), [0, 0, 0]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-2000, 0, 2000]], np.int32), [0, 128, 255]),
        (np.array([[0, 2**29, 2**30]], np.int32), [0, 128, 255]),
    ],
)
def test_other_numbers_are_scaled_to_eight_bits(tmp_path, values, expected):
    found = np.array(opened(tmp_path, Image.fromarray(values), "x.tif"))
    assert found[0, :, 0].tolist() == expected


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_of_an_animation_is_shown(tmp_path, suffix):
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in (RED, BLUE))
    options = {"save_all": True, "append_images": [second]}
    found = np.array(opened(tmp_path, first, f"x.{suffix}", **options)).astype(int)
    assert np.abs(found - RED).max() <= 2


def test_a_camera_s_file_of_several_pictures_gives_the_first(tmp_path):
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in (RED, BLUE))
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    assert np.abs(np.array(open_picture(tmp_path / "x.jpg")).astype(int) - RED).max() <= 2


# What EXIF 2.32, table 6, says of the stored rows and columns, undone.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("name", "options"),
    [("x.png", {}), ("x.tif", {}), ("x.tif", {"compression": "tiff_lzw"}), ("x.jpg", {})],
)
def test_a_picture_stands_upright_whatever_its_orientation(tmp_path, name, options, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = two_colours(RED, BLUE) if name == "x.jpg" else noise()
    if name == "x.jpg":
        stored = stored.resize((32, 16), Image.Resampling.NEAREST)  # whole blocks
        options = {"quality": 100, "subsampling": 0}
    found = opened(tmp_path, stored, name, exif=exif, **options)
    expected = UPRIGHT[orientation](np.array(stored)).astype(int)
    assert np.array(found).shape == expected.shape
    assert np.abs(np.array(found) - expected).mean() <= (6 if name == "x.jpg" else 0)
    assert np.array_equal(ImageOps.exif_transpose(found), found)  # nobody turns it again


def test_sixteen_bits_are_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 257
    found = opened(tmp_path, Image.fromarray(values), "x.png", exif=exif)
    assert np.array(found)[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_broken_metadata_do_not_make_a_picture_bad(tmp_path, exif):
    noise().save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(open_picture(tmp_path / "x.png"), noise())


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.jpg: does not exist"):
        open_picture(tmp_path / "x.jpg")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(DataError, match=r"is a folder"):
        open_picture(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.jpg: the file is empty"),
        (b"This is not a picture.\n", r"x\.jpg: is not a picture of a known format \(.*JPEG.*\)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture of a known format"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_picture(tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_truncated_picture_is_named(tmp_path, kind):
    buffer = io.BytesIO()
    noise(60, 40).save(buffer, kind)
    (tmp_path / "x").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])
    with pytest.raises(DataError, match=r"x: (cannot be decoded \(.+\)|is not a picture)"):
        open_picture(tmp_path / "x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_damage_of_any_kind_is_a_data_error_or_a_picture(tmp_path, kind):
    draw = random.Random(1)
    buffer = io.BytesIO()
    noise(30, 20).save(buffer, kind)
    errors = []
    for _ in range(60):
        content = bytearray(buffer.getvalue())
        for _ in range(4):
            content[draw.randrange(min(len(content), 200))] = draw.randrange(256)
        (tmp_path / "x").write_bytes(content)
        try:
            open_picture(tmp_path / "x")
        except DataError as error:
            errors.append(str(error))
    assert errors
    assert all(error.startswith(f"{tmp_path / 'x'}: ") for error in errors)


@pytest.mark.parametrize("limit", [WIDTH * HEIGHT - 1, WIDTH * HEIGHT // 3])
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_too_many_pixels_are_an_error_from_pillow_s_limit_on(tmp_path, monkeypatch, limit, action):
    noise().save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(DataError, match=rf"x\.png: has more pixels than .*\({limit}\)\. Make"):
            open_picture(tmp_path / "x.png")


def test_a_picture_at_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT)
    opened(tmp_path, noise(), "x.png")


def test_pictures_are_found_by_name(tmp_path):
    for name in ("b.JPG", "a.jpeg", "sub/c.webp", "sub/notes.txt", ".hidden.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]
    assert found == ["a.jpeg", "b.JPG", "sub/c.webp"]
    assert not is_picture_name(tmp_path / "jpg")


def test_a_hidden_folder_may_be_searched_itself(tmp_path):
    (tmp_path / ".album").mkdir()
    (tmp_path / ".album" / "a.png").touch()
    assert find_pictures(tmp_path / ".album") == [tmp_path / ".album" / "a.png"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="absent: does not exist"):
        find_pictures(tmp_path / "absent")
