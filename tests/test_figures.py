import io

import numpy as np
import pytest
import torch
from PIL import Image

from seq2seq.batches import Prediction
from seq2seq.figures import attention_figure, overlay_figure
from seq2seq.search import SearchOptions

WORDS = ["▁a", "▁dog", "s", "▁in", "▁$5", "▁of", "▁$", "</s>"]


def prediction(tokens, grid, text="a dogs in $5 of $"):
    weights = torch.rand(len(tokens), grid[0] * grid[1]).softmax(dim=-1)
    return Prediction(text, -1.0, tokens, [0.0] * len(tokens), weights, grid=grid)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def pixels(axes):
    return axes.images[0].get_array()


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


def test_the_matrix_has_a_row_per_token(trained):
    [[found]] = trained.predict_batch(
        trained.collate(["7.11.1987"]), SearchOptions(return_attention=True)
    )
    [axes] = attention_figure(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == found.tokens
    assert [label.get_text() for label in axes.get_xticklabels()] == found.source_tokens


def test_a_very_long_source_can_still_be_drawn():
    words = ["$a$"] * 1100
    found = Prediction("", 0.0, ["a", "b"], [0.0, 0.0], torch.rand(2, 1100), words)
    figure = attention_figure(found)
    assert max(figure.get_size_inches()) * figure.dpi < 2**16


def test_an_overlay_has_the_picture_and_a_panel_per_word():
    picture = torch.randint(0, 256, (3, 21, 34), dtype=torch.uint8)
    figure = overlay_figure(picture, prediction(WORDS, (3, 5)))
    assert titles(figure) == ["", "a", "dog", "s", "in", "$5", "of", "$"]
    assert "".join(text.get_text() for text in figure.texts) == "a dogs in $5 of $"
    shown = torch.tensor(pixels(figure.axes[0])).permute(2, 0, 1)
    assert torch.equal((shown * 255).round().to(torch.uint8), picture)


def test_an_output_cut_short_has_no_end_to_leave_out():
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    assert titles(overlay_figure(picture, prediction(["dog", "on"], (2, 2)))) == ["", "dog", "on"]
    assert titles(overlay_figure(picture, prediction(["</s>"], (2, 2), text=""))) == [""]


@pytest.mark.parametrize("grey", [0, 100, 255])
@pytest.mark.parametrize("cell", [0, 4, 5, 11])
def test_a_word_lights_up_the_cell_it_attends_to(grey, cell):
    rows, columns, side = 3, 4, 10
    found = prediction(["dog"], (rows, columns))
    weights = torch.full((1, rows * columns), 0.01)
    weights[0, cell] = 0.3
    picture = torch.full((3, rows * side, columns * side), grey, dtype=torch.uint8)
    panel = pixels(overlay_figure(picture, found._replace(attention=weights)).axes[1])
    brightness = torch.tensor(panel).mean(dim=-1)
    assert 0 <= brightness.min() < brightness.max() <= 1
    row, column = divmod(int(brightness.argmax()), columns * side)
    assert (row // side, column // side) == divmod(cell, columns)
    # Whatever lies there, and however little the largest weight is.
    assert brightness.max() - brightness.min() > 0.25


def test_each_panel_is_scaled_by_itself():
    picture = torch.randint(0, 256, (3, 12, 12), dtype=torch.uint8)
    found = prediction(["dog"], (2, 3))
    panels = [
        pixels(overlay_figure(picture, found._replace(attention=found.attention * scale)).axes[1])
        for scale in (1.0, 0.02)
    ]
    np.testing.assert_allclose(*panels, atol=1e-6)


def test_an_overlay_becomes_an_image_of_its_shape():
    def size(height, words, text="a dog"):
        picture = torch.zeros(3, height, 40, dtype=torch.uint8)
        return png(overlay_figure(picture, prediction(["dog"] * words, (2, 2), text))).size

    width, height = size(40, 4)
    assert size(40, 5)[0] == size(40, 2)[0] == width
    assert size(40, 5)[1] > 1.8 * height
    assert size(80, 4)[1] > 1.5 * height
    assert size(40, 4, text="many words " * 20)[1] > height
    inks = np.asarray(png(overlay_figure(torch.zeros(3, 9, 9).byte(), prediction(WORDS, (3, 3)))))
    assert (inks[:3, :, :3] == 255).all()  # nothing is cut off above
