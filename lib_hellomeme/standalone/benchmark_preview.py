"""What tracking a video takes, with its preview and a second time: `python -m lib_hellomeme benchmark-preview`.

The clip is made on the spot: scikit-image's astronaut, 512 px, turning slowly. Each run is in a process of its own, so
that peaks of memory are its own; the networks of the extractor are loaded before the clock starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from lib_hellomeme.errors import DependencyError
from lib_hellomeme.face.cache import tracked_video
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.preview import write_preview
from lib_hellomeme.video.decode import open_video
from lib_hellomeme.video.encode import VideoWriter

PADDED_TO = 20_000_000  # bytes of the file whose second run is timed
SIDE = 512  # px
ASKED_RATE, ASKED_SECONDS = 25, 0.2  # frames a second; seconds of the second time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--frames", type=int, nargs="+", default=[300, 3000], help="lengths of the clip (300 3000)")
    add("--extractor", default="solutions", help="(%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Raises DependencyError where scikit-image, which brings the photo, is missing."""
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.frames:
            video = _clip(Path(folder) / f"{count}.mp4", count)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                track, preview, again, peak = pool.apply(_measure, (video, arguments.extractor))
            print(f"{count} frames: track {count / track:.0f} a second, with its preview", end=" ")
            print(f"{count / (track + preview):.0f} (asked: {ASKED_RATE}); peak memory {peak:.0f} MB")
            print(f"again: {again:.3f} s for {PADDED_TO / 1e6:.0f} MB (asked: {ASKED_SECONDS})", flush=True)


def _clip(path: Path, count: int) -> Path:
    try:
        from skimage import data
    except ImportError as error:
        raise DependencyError("the clip's photo comes with scikit-image: pip install scikit-image") from error
    photo = data.astronaut()
    with VideoWriter(path, Fraction(25)) as writer:
        for index in range(count):
            turn = cv2.getRotationMatrix2D((225.0, 200.0), 12 * np.sin(index / 20), 1.0)
            writer.write(cv2.warpAffine(photo, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT))
    with path.open("ab") as file:  # what follows a video's last box is not looked at
        file.write(os.urandom(max(0, PADDED_TO - path.stat().st_size)))
    return path


def _measure(path: Path, extractor: str) -> tuple[float, float, float, float]:
    """Seconds of tracking, of the preview and of the second time, and the peak memory in MB (0 where it is unknown)."""
    picture, _ = next(open_video(path).frames())
    track_picture(picture, extractor=extractor)
    cache = path.parent / "cache"
    start = time.perf_counter()
    track = tracked_video(path, extractor=extractor, folder=cache, again=True)
    tracked = time.perf_counter()
    write_preview(open_video(path), track, path.with_name("preview.mp4"))
    previewed = time.perf_counter()
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        tracked_video(path, extractor=extractor, folder=cache)
        seconds.append(time.perf_counter() - begin)
    return tracked - start, previewed - tracked, min(seconds), _peak()


def _peak() -> float:
    if sys.platform != "linux":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
