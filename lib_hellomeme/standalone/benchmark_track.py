"""Tracking a video against bare decoding and MediaPipe's FaceMesh: `python -m lib_hellomeme benchmark-track`.

Both are timed in turn in one process, over the same clip, made on the spot: scikit-image's astronaut, 512 px, moving.
Memory is that of processes of their own, one for each length.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from lib_hellomeme.errors import DependencyError
from lib_hellomeme.face.extract_video import track_video
from lib_hellomeme.face.mediapipe_solutions import import_solutions, quiet_native_logs
from lib_hellomeme.standalone.timing import peak_memory, time_in_turn
from lib_hellomeme.video.encode import VideoWriter

SIDE = 512  # px
ASKED_SHARE, ASKED_MEGABYTES = 0.6, 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--frames", type=int, default=300, metavar="N", help="of the timed clip (%(default)s)")
    add("--pairs", type=int, default=5, metavar="N", help="runs of each, in turn (%(default)s)")
    add("--lengths", type=int, nargs=2, default=[300, 3000], metavar="N", help="of the clips for memory (300 3000)")
    add("--no-memory", action="store_true", help="time only")


def run(arguments: argparse.Namespace) -> None:
    """Raises DependencyError where scikit-image, which brings the photo, or mediapipe is missing."""
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "timed.mp4", arguments.frames)
        bare, tracked = time_in_turn(
            [lambda: bare_mesh(clip), lambda: track_video(clip, extractor="solutions")], arguments.pairs
        )
        for name, taken in (("decoding and FaceMesh", bare), ("track", tracked)):
            rates = [arguments.frames / run.clock for run in taken]
            print(f"{name}: {statistics.median(rates):.0f} frames a second ({min(rates):.0f} to {max(rates):.0f})")
        shares = [one.clock / other.clock for one, other in zip(bare, tracked, strict=True)]
        print(
            f"share: median {statistics.median(shares):.3f}, from {min(shares):.3f} (asked: {ASKED_SHARE})", flush=True
        )
        if arguments.no_memory:
            return
        peaks = [in_new_process(make_clip(Path(folder) / f"{count}.mp4", count)) for count in arguments.lengths]
        short, long = arguments.lengths
        print(f"peak memory: {short} frames {peaks[0]:.0f} MB, {long} frames {peaks[1]:.0f} MB")
        print(f"difference: {peaks[1] - peaks[0]:.0f} MB (asked: at most {ASKED_MEGABYTES})")


def make_clip(path: Path, frames: int) -> Path:
    """The astronaut going about, nodding and coming nearer, as H.264."""
    try:
        from skimage import data
    except ImportError as error:
        raise DependencyError("the clip's photo comes with scikit-image: pip install scikit-image") from error
    photo = data.astronaut()
    with VideoWriter(path, Fraction(25)) as writer:
        for index in range(frames):
            matrix = cv2.getRotationMatrix2D((225.0, 130.0), 12 * np.sin(index / 20), 1.6 + 0.4 * np.sin(index / 31))
            matrix[:, 2] += [31 + 40 * np.sin(index / 17), 80 + 30 * np.sin(index / 11)]
            writer.write(cv2.warpAffine(photo, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT))
    return path


def bare_mesh(path: Path) -> None:
    """PyAV decodes, FaceMesh runs, as anybody would write it; nothing is kept."""
    import av

    with contextlib.ExitStack() as stack:
        with quiet_native_logs():
            mesh = stack.enter_context(import_solutions().face_mesh.FaceMesh(refine_landmarks=True))
        container = stack.enter_context(av.open(str(path)))
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            mesh.process(frame.to_ndarray(format="rgb24"))


def in_new_process(path: Path) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_of, (path,))


def peak_of(path: Path) -> float:
    """MB that this process has held at most, once the video is tracked; 0 where the system does not tell."""
    track = track_video(path, extractor="solutions")
    assert track.frames
    return peak_memory()
