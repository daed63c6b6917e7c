"""The demo with the drawn world's weights: drawn people take on what a photo's face does, and one acts in a video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from lib_hellomeme.face.edit import retarget
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.preview import draw_preview
from lib_hellomeme.face.procedural import make_track
from lib_hellomeme.face.track import FaceTrack
from lib_hellomeme.recipes.reenact import Portrait, Seen
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.drawing import Drawing
from lib_hellomeme.standalone.evaluation import seen
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.standalone.pictures import save_picture
from lib_hellomeme.standalone.sheet import contact_sheet
from lib_hellomeme.training.base import CHECKPOINT
from lib_hellomeme.training.faces import face_state
from lib_hellomeme.training.identity import Identity, random_identity
from lib_hellomeme.training.people import Rendering, render
from lib_hellomeme.video.encode import VideoWriter

SIDE = 128  # px, as the weights are trained
SETTINGS = Settings(enabled=True, fit="crop")
PORTRAITS, DRIVER = (5, 9, 14), 21  # people, by the seeds that they are drawn from
STEPS, VIDEO_STEPS, CFG = 20, 10, 3.0
MOTIONS, SECONDS, FPS = ("look", "talk", "blink", "smile", "sway"), 5.0, Fraction(10)
TITLE = "Drawn people that the networks have never seen, driven by a photo"


def run_drawn_demo(folder: Path, world: Path, drivers: Mapping[str, np.ndarray], size: int = SIDE) -> None:
    """Leave a labelled sheet and a video in `folder`. drivers: photos of a face, RGB uint8, by what they show."""
    print(f"1/3 Loading the weights in {world}")
    host = EmbeddedHost(world / CHECKPOINT, world)
    people = [random_identity(np.random.default_rng(number)) for number in PORTRAITS]
    portraits = [portrait_of(who, size) for who in people]

    print("2/3 Drawing people with the pose and expression of photos (NASA's of Eileen Collins, by scikit-image)")
    tracks = {label: track_picture(photo) for label, photo in drivers.items()}
    sheet = folder / "sheet.png"
    save_picture(contact_sheet(sheet_rows(host, portraits, drivers, tracks, size), 2 * size, TITLE), sheet)

    print("3/3 Drawing a video, driven by a face that moves by itself")
    video = folder / "video.mp4"
    track = make_track(MOTIONS, SECONDS, FPS, seed=1, size=(size, size))
    with VideoWriter(video, FPS) as writer:
        for frame in tqdm(video_frames(host, portraits[0], track, size), total=len(track.frames), unit="frame"):
            writer.write(frame)
    print(f"\nLook at {sheet} and {video}: in the video, the portrait, the driver, and what was drawn.")


def portrait_of(who: Identity, size: int) -> Rendering:
    """Looking ahead, with a neutral face."""
    return render(who, face_state(size))


def sheet_rows(
    host: EmbeddedHost,
    portraits: list[Rendering],
    drivers: Mapping[str, np.ndarray],
    tracks: Mapping[str, FaceTrack],
    size: int,
) -> list[list[tuple[str, np.ndarray]]]:
    """The photos and what was seen in them; below, each portrait and what it became by each photo."""
    drawing = Drawing(steps=STEPS, cfg=CFG, seed=1, width=size, height=size)
    empty = np.full((size, size, 3), 250, np.uint8)
    rows = [
        [("", empty), *drivers.items()],
        [
            ("", empty),
            *((f"seen: {label}", draw_preview(drivers[label], tracks[label].frames[0])) for label in drivers),
        ],
    ]
    for portrait in portraits:
        row = [("portrait", enlarged(portrait.picture))]
        for label, photo in drivers.items():
            pair = Portrait(seen(portrait), Seen(photo, tracks[label]))
            row.append((label, enlarged(host.follow(pair, SETTINGS, drawing, progress=False).picture)))
        rows.append(row)
    return rows


def video_frames(host: EmbeddedHost, portrait: Rendering, track: FaceTrack, size: int) -> Iterator[np.ndarray]:
    """(2 size, 6 size, 3) each: the portrait, another drawn person who makes the track's motions, and the portrait
    drawn with them. All frames start from the same noise."""
    drawing = Drawing(steps=VIDEO_STEPS, cfg=CFG, seed=1, width=size, height=size)
    actor = random_identity(np.random.default_rng(DRIVER))
    rest = portrait_of(actor, size).face
    for frame in track.frames:
        driver = render(actor, retarget(frame, rest, SETTINGS, neutral=track.frames[0]))
        drawn = host.follow(Portrait(seen(portrait), seen(driver)), SETTINGS, drawing, progress=False).picture
        yield enlarged(np.concatenate([portrait.picture, driver.picture, drawn], axis=1))


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Twice as large."""
    return cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
