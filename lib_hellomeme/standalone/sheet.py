"""Several pictures on one, each with a line of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 12  # px
TEXT_HEIGHT = 18
PAPER, INK = (250, 250, 250), (30, 30, 30)


def contact_sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]], side: int = 256, title: str = "") -> np.ndarray:
    """Labelled RGB uint8 pictures (H, W, 3) of any size, row by row, each fitted into a square of `side` px."""
    columns = max(map(len, rows))
    cell_height = side + TEXT_HEIGHT + MARGIN
    top = MARGIN + (TEXT_HEIGHT + MARGIN if title else 0)
    sheet = Image.new("RGB", (MARGIN + columns * (side + MARGIN), top + len(rows) * cell_height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(size=16))
    font = ImageFont.load_default(size=13)
    for row, cells in enumerate(rows):
        for column, (label, picture) in enumerate(cells):
            x, y = MARGIN + column * (side + MARGIN), top + row * cell_height
            small = Image.fromarray(picture)
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (x + (side - small.width) // 2, y + (side - small.height) // 2))
            pen.text((x, y + side + 2), label, INK, font)
    return np.asarray(sheet)
