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
UNUSUAL_PAUSE = Fraction(1, 3)  # seconds without frames, in a file of constant rate or at its end, that are said


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
        return Video(path, fps, round(_length(container) * fps) or stream.frames or None)


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

    skipped, index, start, end, pauses = 0, 0, None, Fraction(0), Fraction(0)
    with _open_container(video.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        constant = stream.average_rate == stream.base_rate
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
                stamp = Fraction(index) / video.fps if frame.pts is None else frame.pts * Fraction(frame.time_base)
                if start is None:
                    start = stamp
                elif stamp - start < end - 1 / video.fps:  # another clock: recordings one after the other
                    start = stamp - end
                elif constant and stamp - start - end > UNUSUAL_PAUSE:
                    pauses += stamp - start - end
                yield _upright(frame), stamp - start
                index, end = index + 1, stamp - start + 1 / video.fps
        video.warnings += _damages(video.path.name, skipped, pauses, _length(container) - end)


def _length(container: Any) -> Fraction:
    """Seconds, as far as the file says; 0 where the sound might be what is so long."""
    stream = container.streams.video[0]
    if stream.duration:
        return stream.duration * Fraction(stream.time_base)
    return Fraction(0) if container.streams.audio else Fraction(container.duration or 0, 10**6)


def _damages(name: str, skipped: int, pauses: Fraction, early: Fraction) -> list[str]:
    """A line for each kind: decoders often pass over damage without an error."""
    said = []
    if skipped:
        said.append(f"{name}: {skipped} damaged packets were skipped")
    if pauses:
        said.append(
            f"{name}: {float(pauses):.1f} s within it have no frames (damaged, or left out by what recorded it)"
        )
    if early > UNUSUAL_PAUSE:
        said.append(f"{name}: the last {float(early):.1f} s are missing or damaged; save or download it again")
    return said


def _upright(frame: Any) -> np.ndarray:
    """frame.rotation: degrees counterclockwise that the player shall turn the picture by."""
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
