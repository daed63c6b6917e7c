"""The README's pictures of the track command: `python -m tests.face.make_preview_pictures FOLDER`.

Leaves a clip of scikit-image's astronaut (NASA's photo, public domain) who turns, nods, tilts her head and opens her
mouth, its track, preview and plot, and one preview frame as a JPEG.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image

from lib_hellomeme.standalone.command_line import main
from lib_hellomeme.video.decode import open_video
from lib_hellomeme.video.encode import VideoWriter

FPS = Fraction(25)
SECONDS = 6
SHOWN = 125  # the frame for the README
HEAD, RADII, DEPTH = np.array([225.0, 112.0]), np.array([78.0, 105.0]), 62.0  # px in the photo: an ellipsoid
NECK = (225.0, 215.0)
LIPS, UPPER_EDGE, LOWER_EDGE = 225.0, 142.0, 150.0  # px: the mouth's middle, and the inner edges of the lips


def turning_head() -> Iterator[np.ndarray]:
    """512 x 512 px."""
    photo = skimage.data.astronaut()
    for index in range(int(SECONDS * FPS)):
        time = float(index / FPS)
        picture = jaw_dropped(photo, 13 * max(0.0, np.sin(4 * time)))
        picture = turned(picture, yaw=0.32 * np.sin(1.6 * time), pitch=0.2 * np.sin(1.1 * time + 1.0))
        tilt = cv2.getRotationMatrix2D(NECK, 9 * np.sin(0.9 * time), 1.0)
        tilted = cv2.warpAffine(picture, tilt, picture.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
        yield cv2.resize(tilted[0:330, 60:390], (512, 512), interpolation=cv2.INTER_CUBIC)


def turned(picture: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """What stands out of the picture moves across it, as far as the ellipsoid of the head does there (radians)."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    away = ((x - HEAD[0]) / RADII[0]) ** 2 + ((y - HEAD[1]) / RADII[1]) ** 2
    height = DEPTH * np.clip(1.0 - away, 0.0, 1.0)
    source = (x - height * np.sin(yaw)).astype(np.float32), (y - height * np.sin(pitch)).astype(np.float32)
    return cv2.remap(picture, *source, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def jaw_dropped(photo: np.ndarray, drop: float) -> np.ndarray:
    """The gap between the lips opens by `drop` px, and chin and neck take it back."""
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
    seen = [0, UPPER_EDGE, LOWER_EDGE + drop, LOWER_EDGE + 84, photo.shape[0]]
    rows = np.interp(y, seen, [0, UPPER_EDGE, LOWER_EDGE, LOWER_EDGE + 84, photo.shape[0]])
    source = y + (rows - y) * np.exp(-(((x - LIPS) / 40.0) ** 2))
    return cv2.remap(photo, x, source.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def make(folder: Path) -> None:
    clip, preview = folder / "astronaut.mp4", folder / "track_preview.mp4"
    with VideoWriter(clip, FPS) as writer:
        for picture in turning_head():
            writer.write(picture)
    outputs = ["--out", str(folder / "track.json"), "--preview", str(preview), "--plot", str(folder / "track_plot.png")]
    main(["track", str(clip), *outputs, "--again"])
    shown = next(picture for index, (picture, _) in enumerate(open_video(preview).frames()) if index == SHOWN)
    Image.fromarray(shown).save(folder / "track_preview.jpg", quality=85)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
