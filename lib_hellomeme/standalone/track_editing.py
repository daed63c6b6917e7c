"""Tracks changed and joined: `python -m lib_hellomeme edit-track a.json b.json --out c.json --yaw-gain 0.5`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.face.edit import edit_track, neutral_frame
from lib_hellomeme.face.join import join_tracks
from lib_hellomeme.face.plot import plot_track
from lib_hellomeme.face.track import FaceTrack
from lib_hellomeme.settings import Settings, grouped_options
from lib_hellomeme.standalone.option_arguments import add_options
from lib_hellomeme.standalone.pictures import check_picture_path, save_picture

GAINS = ["pose_weight", "expression_weight", *grouped_options()["Head and expression"]]
NEUTRAL_HELP = (
    "what counts as the driving face at rest: absolute (a face that looks straight ahead, without expression), first "
    "or auto (the track's first frame, or the calmest that looks ahead), or a frame's number from 0 (%(default)s)"
)
MAXIMUM_SMOOTHING = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("tracks", nargs="+", metavar="TRACK", help="face tracks (.json); several are joined in this order")
    add("--out", required=True, metavar="FILE", help="where the result goes")
    add_plot(parser)
    add("--blend", type=int, default=0, metavar="N", help="frames in which joined tracks melt together (%(default)s)")
    add(
        "--smoothing",
        type=float,
        default=0.0,
        metavar="STRENGTH",
        help="takes jitter away without a delay: 0 not at all, 1 as usual (%(default)s)",
    )
    add("--neutral", default="absolute", metavar="absolute|first|auto|N", help=NEUTRAL_HELP)
    description = "About the face at rest, which stands for the reference below; 1 leaves the motion as it was found."
    add_options(parser.add_argument_group("gains", description).add_argument, GAINS)
    parser.set_defaults(shift_gain=1.0)


def run(arguments: argparse.Namespace) -> None:
    """Raises FaceError and SettingsError in one line."""
    settings = Settings.from_mapping({name: getattr(arguments, name) for name in GAINS})
    if not 0.0 <= arguments.smoothing <= MAXIMUM_SMOOTHING:
        raise SettingsError(f"Smoothing: {arguments.smoothing:g} is outside 0 to {MAXIMUM_SMOOTHING:g}.")
    tracks = [FaceTrack.load(path) for path in arguments.tracks]
    joined = join_tracks(tracks, arguments.blend) if len(tracks) > 1 else tracks[0]
    edited = edit_track(joined, settings, neutral_frame(joined, arguments.neutral), arguments.smoothing)
    save_track(edited, arguments.out, arguments.plot)


def add_plot(parser: argparse.ArgumentParser) -> None:
    help = "head and expression over time, as a picture"
    parser.add_argument("--plot", metavar="PICTURE", type=check_picture_path, help=help)


def save_track(track: FaceTrack, path: str, plot: Path | None) -> None:
    """Write a track, and its plot where a place for it is given; say what it is, with its warnings."""
    track.save(path)
    if plot:
        save_picture(plot_track(track), plot)
    for warning in track.warnings:
        print(f"hellomeme: {warning}", file=sys.stderr)
    print(f"{path}: {len(track.frames)} frames, {float(len(track.frames) / track.fps):.2f} s")
