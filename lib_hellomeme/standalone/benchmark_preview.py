"""What tracking a video takes, with its preview and a second time: `python -m lib_hellomeme benchmark-preview`.

The clip is that of `benchmark-track`. Each length is run in a process of its own, so that peaks of memory are its own;
the networks of the extractor are loaded before the clock starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

from lib_hellomeme.face.cache import tracked_video
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.preview import write_preview
from lib_hellomeme.standalone.benchmark_track import make_clip
from lib_hellomeme.standalone.timing import peak_memory
from lib_hellomeme.video.decode import open_video

PADDED_TO = 20_000_000  # bytes of the file whose second run is timed
ASKED_RATE, ASKED_SECONDS = 25, 0.2  # frames a second; seconds of the second time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--frames", type=int, nargs="+", default=[300, 3000], help="lengths of the clip (300 3000)")
    add("--extractor", default="solutions", help="(%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Raises DependencyError where scikit-image, which brings the photo, is missing."""
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.frames:
            video = _padded(make_clip(Path(folder) / f"{count}.mp4", count))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                track, preview, again, peak = pool.apply(_measure, (video, arguments.extractor))
            print(f"{count} frames: track {count / track:.0f} a second, with its preview", end=" ")
            print(f"{count / (track + preview):.0f} (asked: {ASKED_RATE}); peak memory {peak:.0f} MB")
            print(f"again: {again:.3f} s for {PADDED_TO / 1e6:.0f} MB (asked: {ASKED_SECONDS})", flush=True)


def _padded(clip: Path) -> Path:
    with clip.open("ab") as file:  # what follows a video's last box is not looked at
        file.write(os.urandom(max(0, PADDED_TO - clip.stat().st_size)))
    return clip


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
    return tracked - start, previewed - tracked, min(seconds), peak_memory()
