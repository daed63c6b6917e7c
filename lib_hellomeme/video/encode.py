"""Pictures with exact times to a video file, as a stream: memory does not grow with the length."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lib_hellomeme.errors import DependencyError, PictureError
from lib_hellomeme.video.decode import USUAL_FPS
from lib_hellomeme.video.sound import sound_packets


class _Kind(NamedTuple):
    """What a suffix stands for, in FFmpeg's names."""

    container: str
    encoder: str
    options: dict[str, str]
    pixels: str
    clock: int  # ticks a second, at most
    sound_codecs: tuple[str, ...] = ()  # that are copied; others are encoded anew with the first


_H264 = {"preset": "veryfast", "crf": "18", "bf": "0"}  # without B-frames every length in a file is exact
_VP9 = {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "28", "b": "0"}
_KINDS = {
    ".mp4": _Kind("mp4", "libx264", _H264, "yuv420p", 90000, ("aac", "mp3", "ac3", "alac", "opus")),
    ".mov": _Kind("mov", "libx264", _H264, "yuv420p", 90000, ("aac", "mp3", "ac3", "alac", "pcm_s16le")),
    ".mkv": _Kind("matroska", "libx264", _H264, "yuv420p", 1000, ("aac", "mp3", "ac3", "flac", "opus", "vorbis")),
    ".webm": _Kind("webm", "libvpx-vp9", _VP9, "yuv420p", 1000, ("libopus", "opus", "vorbis")),
    ".gif": _Kind("gif", "gif", {}, "pal8", 100),
}
_BT709, _LIMITED = 1, 1  # FFmpeg's numbers of the colour space and of the range 16 to 235


class VideoWriter:
    """A video file that takes pictures one by one; it appears whole when its `with` ends well, or not at all.

        with VideoWriter("out.mp4", video.fps) as writer:
            for picture, time in video.frames():
                writer.write(picture, time)

    The suffix says the format: .mp4, .mov and .mkv (H.264), .webm (VP9), .gif (no sound). Times are kept to the
    container's clock: in MP4 and MOV exactly where the rate is constant or they are multiples of 1/90000 s, in MKV and
    WebM to a millisecond, in GIF to a hundredth of a second. Odd sizes are made even by repeating the last row or
    column. Raises PictureError, in one line, for other suffixes, without any picture, and where the file cannot be
    written; DependencyError where PyAV or its encoder is missing.
    """

    def __init__(
        self, path: str | os.PathLike[str], fps: Fraction = USUAL_FPS, sound: str | os.PathLike[str] | None = None
    ) -> None:
        """fps: of pictures without a time; 1/fps is how long the last one is shown.

        sound: a file whose first sound stream is taken along, if it has one, from where its pictures begin to the last
        picture's end: copied where the format may hold it, otherwise encoded anew.
        """
        self.path, self.fps = check_video_path(path), Fraction(fps)
        self._kind = _KINDS[self.path.suffix.lower()]
        self._ticks = _ticks_a_second(self.fps, self._kind.clock)
        self._sound_file = sound
        self._temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        self._container: Any = None  # until the first picture says the size
        self._stream: Any = None
        self._sound: Any = None  # a generator of packets
        self._packet: Any = None  # of the sound, to be written next
        self._shape: tuple[int, ...] = ()
        self._last, self._next = -1, Fraction(0)  # ticks of the last picture, seconds of the next

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, picture: np.ndarray, time: Fraction | None = None) -> None:
        """RGB uint8 (H, W, 3), all of one size, and seconds from the start, by default 1/fps after the last picture.

        A time that is not later than the last one is moved to the clock's next tick.
        """
        with _errors_in_one_line(self.path):
            if not self._shape:
                self._begin(picture.shape)
            if picture.shape != self._shape:
                raise ValueError(f"a picture of shape {picture.shape} in a video of {self._shape}")
            time, step = self._next if time is None else time, max(1, round(self._ticks / self.fps))
            self._last, self._next = max(self._last + 1, round(time * self._ticks)), time + 1 / self.fps
            frame = _frame(picture, self._kind.pixels)
            frame.pts, frame.duration, frame.time_base = self._last, step, Fraction(1, self._ticks)
            self._container.mux(self._stream.encode(frame))
            self._write_sound(Fraction(self._last + step, self._ticks))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._discard()

    def _begin(self, shape: tuple[int, ...]) -> None:
        import av
        from av.codec.codec import UnknownCodecError

        kind, self._shape = self._kind, shape
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = {"movflags": "faststart"} if kind.container in ("mp4", "mov") else {}
        self._container = av.open(str(self._temporary), "w", format=kind.container, options=options)
        try:
            self._stream = self._container.add_stream(kind.encoder, rate=self.fps, options=dict(kind.options))
        except UnknownCodecError as error:
            suffix = self.path.suffix
            raise DependencyError(
                f"this PyAV cannot write {suffix} ({kind.encoder} is missing): pip install av"
            ) from error
        height, width = _even(shape) if kind.pixels == "yuv420p" else shape[:2]
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, kind.pixels
        context = self._stream.codec_context
        self._stream.time_base = context.time_base = Fraction(1, self._ticks)
        if kind.pixels == "yuv420p":
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
        if self._sound_file is not None and kind.sound_codecs:
            self._sound = sound_packets(self._sound_file, self._container, kind.sound_codecs)
            self._packet = next(self._sound, None)

    def _write_sound(self, until: Fraction) -> None:
        """Not all at once: a container keeps what lies far ahead of its other stream in memory."""
        while self._packet and self._packet.pts * self._packet.time_base < until:
            self._container.mux(self._packet)
            self._packet = next(self._sound, None)

    def _finish(self) -> None:
        if self._container is None:
            raise PictureError(f"{self.path.name}: there are no pictures to write")
        with _errors_in_one_line(self.path):
            self._container.mux(self._stream.encode())
            self._container.close()
            os.replace(self._temporary, self.path)

    def _discard(self) -> None:
        """Closes what is open still; after a good end there is nothing left to do."""
        if self._sound:
            self._sound.close()
        if self._container is not None:
            with contextlib.suppress(Exception):  # it failed before, which is what the user is told
                self._container.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()


def check_video_path(path: str | os.PathLike[str]) -> Path:
    """Raises PictureError for a suffix that no video can be written with."""
    path = Path(path)
    if path.suffix.lower() not in _KINDS:
        raise PictureError(f"{path.name}: videos are written as {', '.join(_KINDS)}; choose such a name")
    return path


def _ticks_a_second(fps: Fraction, most: int) -> int:
    """The finest clock up to `most` (or `most` itself) in which pictures at this rate have whole times."""
    return most // fps.numerator * fps.numerator or most


def _even(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0] + shape[0] % 2, shape[1] + shape[1] % 2


def _frame(picture: np.ndarray, pixels: str) -> Any:
    import av

    if pixels == "pal8":
        indexed = Image.fromarray(picture).quantize(256, Image.Quantize.FASTOCTREE)
        colours = np.array(indexed.getpalette(), np.uint8).reshape(-1, 3)
        palette = np.full((256, 4), 255, np.uint8)  # alpha first
        palette[: len(colours), 1:] = colours
        untyped: Any = av.VideoFrame  # its annotations lack the pair of indices and palette
        return untyped.from_ndarray((np.asarray(indexed), palette), format="pal8")
    height, width = _even(picture.shape)
    if (height, width) != picture.shape[:2]:
        picture = np.pad(picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)), "edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(format=pixels, dst_colorspace=_BT709, dst_color_range=_LIMITED)


@contextlib.contextmanager
def _errors_in_one_line(path: Path) -> Iterator[None]:
    try:
        import av
    except ImportError as error:
        raise DependencyError("PyAV is not installed; install the package av to write videos") from error
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise PictureError(f"{path} cannot be written ({error.strerror}); choose another place") from error
