"""Tracks of faces that move by themselves: `python -m lib_hellomeme make-track --out a.json --motions blink,nod`."""

from __future__ import annotations

import argparse
from fractions import Fraction

from lib_hellomeme.face.procedural import MOTIONS, make_track
from lib_hellomeme.standalone.track_editing import add_plot, save_track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, metavar="FILE", help="where the track goes (.json)")
    add_plot(parser)
    add("--motions", default="blink,sway", metavar="NAMES", help=f"of {', '.join(MOTIONS)} (%(default)s)")
    add("--seconds", type=float, default=4.0, metavar="S", help="(%(default)s)")
    add("--fps", type=_fraction, default=Fraction(25), metavar="RATE", help="like 25 or 30000/1001 (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="another one, other moments (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Raises FaceError in one line."""
    motions = [name.strip() for name in arguments.motions.split(",") if name.strip()]
    track = make_track(motions, arguments.seconds, arguments.fps, arguments.seed)
    save_track(track, arguments.out, arguments.plot)


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no frame rate; give it like 25 or 30000/1001") from None
