"""The sound of one file for another whose pictures are being written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

LEAD_IN = Fraction(1, 10)  # seconds: packets before the first sound, which decoders need but do not play
ENCODED_RATE = 48000  # Hz; every encoder takes it


def sound_packets(source: str | os.PathLike[str], container: Any, codecs: tuple[str, ...]) -> Iterator[Any]:
    """PyAV packets for an open output container, in order, moved so that the source's pictures begin at 0.

    The first sound stream is copied where its codec is one of `codecs`, otherwise encoded anew with the first of them;
    nothing comes where there is none or the file cannot be read, and what is damaged in it is left out. The stream is
    added to the container with the first packet, which has to be taken before anything is written.
    """
    import av

    with contextlib.suppress(av.FFmpegError), av.open(str(source)) as file:
        if not file.streams.audio:
            return
        stream = file.streams.audio[0]
        pictures = file.streams.video[0] if file.streams.video else stream
        start = (pictures.start_time or 0) * Fraction(pictures.time_base or 1)
        if stream.codec_context.name in codecs:
            yield from _copied(file, stream, container, start)
        else:
            yield from _encoded(file, stream, container, codecs[0], start)


def _copied(file: Any, stream: Any, container: Any, start: Fraction) -> Iterator[Any]:
    target = container.add_stream_from_template(stream)
    shift = round(start / stream.time_base)
    for packet in file.demux(stream):
        if packet.pts is None or packet.dts is None or (packet.pts - shift) * stream.time_base < -LEAD_IN:
            continue
        packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, target
        yield packet


def _encoded(file: Any, stream: Any, container: Any, codec: str, start: Fraction) -> Iterator[Any]:
    import av

    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    target = container.add_stream(codec, rate=ENCODED_RATE, layout=layout)
    resampler = av.AudioResampler(target.codec_context.format, layout, ENCODED_RATE)
    shift = round(start * ENCODED_RATE)
    for packet in file.demux(stream):
        with contextlib.suppress(av.InvalidDataError):
            for frame in (resampled for decoded in packet.decode() for resampled in resampler.resample(decoded)):
                if frame.pts is None or frame.pts - shift < 0:
                    continue
                frame.pts -= shift
                yield from target.encode(frame)
    yield from target.encode()
