"""Videos and animations as streams of pictures with exact times: memory does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lib_hellomeme.errors import DependencyError, PictureError

MAXIMUM_SIDE = 8192  # px
USUAL_FPS = Fraction(25)  # where a file does not say


@dataclass
class Video:
    """A file whose frames can be read once or again. `warnings` is filled while they are read."""

    path: Path
    fps: Fraction  # on average; the frames' times are exact
    count: int | None = None  # of frames, as far as the file says; the truth may differ
    warnings: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[tuple[np.ndarray, Fraction]]:
        """(RGB uint8 (H, W, 3), seconds from the first frame), turned as the file's metadata say.

        Damaged packets are skipped with a warning. Raises PictureError where not one frame can be decoded.
        """
        self.warnings.clear()
        count = 0
        for frame in _image_frames(self.path) if _is_image(self.path) else _video_frames(self):
            count += 1
            yield frame
        if count == 0:
            raise PictureError(f"{self.path.name}: no frame can be decoded; save or download the file again")


def open_video(path: str | Path) -> Video:
    """Raises PictureError, in one line, for missing and empty files and those without a video stream."""
    path = Path(path)
    if not path.is_file():
        raise PictureError(f"{path}: there is no such file; choose an existing video")
    if path.stat().st_size == 0:
        raise PictureError(f"{path.name} is empty (0 bytes); choose another video")
    if _is_image(path):
        with Image.open(path) as image:
            _check_size(image.width, image.height, path)
            duration, count = image.info.get("duration") or 0, getattr(image, "n_frames", 1)
        return Video(path, Fraction(1000) / Fraction(duration) if duration else USUAL_FPS, count)
    with _open_container(path) as container:
        stream = container.streams.video[0]
        _check_size(stream.codec_context.width, stream.codec_context.height, path)
        fps = Fraction(stream.average_rate or stream.guessed_rate or USUAL_FPS)
        microseconds = container.duration or 0
        return Video(path, fps, stream.frames or round(microseconds * fps / 10**6) or None)


def _is_image(path: Path) -> bool:
    """Animated GIF and WebP and stills: Pillow knows their exact durations, and FFmpeg no animated WebP."""
    try:
        with Image.open(path):
            return True
    except UnidentifiedImageError:
        return False
    except Exception:  # a decoder of a damaged file; FFmpeg may still read it
        return False


def _open_container(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise DependencyError("PyAV is not installed; install the package av to read videos") from error
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise PictureError(f"{path.name} is not a video that can be read; save it as MP4") from error
    if not container.streams.video:
        container.close()
        raise PictureError(f"{path.name} has no picture in it (only sound); choose a video")
    return container


def _check_size(width: int, height: int, path: Path) -> None:
    if max(width, height) > MAXIMUM_SIDE:
        raise PictureError(f"{path.name} is {width} x {height} px; scale it down to at most {MAXIMUM_SIDE} px a side")


def _image_frames(path: Path) -> Iterator[tuple[np.ndarray, Fraction]]:
    with Image.open(path) as image:
        time = Fraction(0)
        for index in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(index)
                picture = ImageOps.exif_transpose(image).convert("RGBA")
            except (OSError, ValueError, SyntaxError, EOFError):
                return  # cut off: what came before counts
            white = Image.new("RGBA", picture.size, "white")
            yield np.array(Image.alpha_composite(white, picture).convert("RGB")), time
            time += Fraction(image.info.get("duration") or 1000 / USUAL_FPS) / 1000


def _video_frames(video: Video) -> Iterator[tuple[np.ndarray, Fraction]]:
    import av

    skipped, start, index = 0, None, 0
    with _open_container(video.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        while True:
            try:
                decoded = next(packets).decode()
            except StopIteration:
                break
            except av.FFmpegError:
                skipped += 1
                if skipped > 1000:  # demuxers of wrecked files repeat the same error for ever
                    break
                continue
            for frame in decoded:
                time = Fraction(index) / video.fps if frame.pts is None else frame.pts * Fraction(frame.time_base)
                start = time if start is None else start
                yield _upright(frame), time - start
                index += 1
    if skipped:
        video.warnings.append(f"{video.path.name}: {skipped} damaged packets were skipped")


def _upright(frame: Any) -> np.ndarray:
    """frame.rotation: degrees counterclockwise that the player shall turn the picture by."""
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
