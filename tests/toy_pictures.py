"""Pictures for tests."""

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 7, 5
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def noise(width=WIDTH, height=HEIGHT, seed=1):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def two_colours(first, second):
    """Return a picture with ``first`` on the left and ``second`` on the right."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), first)
    picture.paste(second, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture
