"""The face in a video as a file to look at, to edit and to drive with: `python -m lib_hellomeme track VIDEO ...`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.cache import cache_folder, tracked_video
from lib_hellomeme.face.extract_video import Missing
from lib_hellomeme.face.extractors import EXTRACTORS
from lib_hellomeme.face.pictures import read_picture
from lib_hellomeme.face.plot import plot_track
from lib_hellomeme.face.preview import write_preview
from lib_hellomeme.face.which import WhichFace
from lib_hellomeme.standalone.host import DEFAULT_MODELS
from lib_hellomeme.standalone.pictures import check_picture_path, save_picture
from lib_hellomeme.video.decode import open_video
from lib_hellomeme.video.encode import check_video_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("video", metavar="VIDEO", type=Path, help="a video, an animated GIF or WebP, or a picture")
    add("--out", required=True, metavar="JSON", type=Path, help="where the track goes")
    add(
        "--preview", metavar="VIDEO", type=check_video_path, help="what was seen beside the condition image, with sound"
    )
    add("--plot", metavar="PICTURE", type=check_picture_path, help="head and expression over time")
    faces = f"{', '.join(get_args(WhichFace))} or a number from the left, counted from 0"
    add("--face", type=_face, default="largest", metavar="WHICH", help=f"{faces} (%(default)s)")
    add("--reference", metavar="PICTURE", help="whom the face is alike, with --face alike")
    add("--box", type=_box, metavar="X0,Y0,X1,Y1", help="around the face, in fractions of the picture: for drawings")
    help = (
        "what frames without the face get: something between their neighbours, the last head, or nothing (%(default)s)"
    )
    choices = [choice.replace(" ", "-") for choice in get_args(Missing)]
    add("--missing", choices=choices, default="interpolate", help=help)
    add("--smoothing", type=float, default=1.0, metavar="NUMBER", help="0 leaves all as measured (%(default)s)")
    add("--extractor", choices=["auto", *EXTRACTORS], default="auto", help="what finds the face (%(default)s)")
    add("--models", metavar="DIR", type=Path, default=Path(DEFAULT_MODELS), help="its model files (%(default)s)")
    add("--cache", metavar="DIR", type=Path, help=f"where results are kept ({cache_folder()})")
    add("--again", action="store_true", help="track it even where a result was kept")


def run(arguments: argparse.Namespace) -> None:
    """Raises HelloMemeError in one line. Every file is written whole or not at all."""
    video = open_video(arguments.video)
    outputs = [path for path in (arguments.out, arguments.preview, arguments.plot) if path]
    _check_outputs(video.path, outputs)
    reference = None if arguments.reference is None else read_picture(arguments.reference)
    with _bar("tracking", video.count) as progress:
        track = tracked_video(
            video.path,
            arguments.face,
            arguments.missing.replace("-", " "),
            progress,
            smoothing=arguments.smoothing,
            face_box=arguments.box,
            reference=reference,
            extractor=arguments.extractor,
            models=arguments.models,
            folder=arguments.cache,
            again=arguments.again,
        )
    for warning in track.warnings:
        print(f"hellomeme: {warning}", file=sys.stderr)
    track.save(arguments.out)
    if arguments.preview:
        with _bar("preview", len(track.frames)) as progress:
            write_preview(video, track, arguments.preview, progress=progress)
    if arguments.plot:
        save_picture(plot_track(track, f"{video.path.name}, {track.extractor}"), arguments.plot)
    print(*outputs, sep="\n")


def _check_outputs(video: Path, outputs: list[Path]) -> None:
    """Before the long work: every folder is there, and no file is given twice."""
    seen = {video.resolve()}
    for path in outputs:
        if path.resolve() in seen:
            raise FaceError(f"{path} is given twice, or is the video itself; choose another name")
        seen.add(path.resolve())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FaceError(f"{path} cannot be written ({error.strerror}); choose another folder") from error


@contextlib.contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Not shown at once, so that what is wrong before the first frame stays one line."""
    from tqdm import tqdm

    with tqdm(desc=what, total=total, unit="frame", delay=0.5) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show


def _face(text: str) -> str | int:
    if text.isdecimal():
        return int(text)
    if text not in get_args(WhichFace):
        raise argparse.ArgumentTypeError(f"{text!r} names no face: {', '.join(get_args(WhichFace))} or a number from 0")
    return text


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no box; give it like 0.3,0.2,0.7,0.6") from None
    return left, top, right, bottom
