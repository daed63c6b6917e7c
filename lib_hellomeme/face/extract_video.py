"""From a video to a FaceTrack: one face followed over all frames, as a stream."""

from __future__ import annotations

import contextlib
from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from lib_hellomeme.face.between import interpolate_frames
from lib_hellomeme.face.expression import from_own_rest
from lib_hellomeme.face.extract import (
    WARN_DRAWING,
    WARN_NO_FACE,
    FaceBox,
    assumed_frame,
    checked_box,
    faces_in_box,
    likeness,
    opened_extractor,
)
from lib_hellomeme.face.extractor import Extractor
from lib_hellomeme.face.track import FaceFrame, FaceTrack
from lib_hellomeme.face.which import STRANGE_LOOK, Person, Seen, WhichFace, centre, choose, match, size
from lib_hellomeme.video.decode import Video, open_video

Missing = Literal["interpolate", "hold", "leave out"]

MOST_FACES = 4  # followed at once, so that the chosen one is not mixed up with its neighbours
REST_FRAMES = 50  # with a face, that tell what it is like at rest
FORGOTTEN = 250  # frames in which one of the neighbours was not seen
SEARCH_PAUSE = Fraction(1, 2)  # seconds between thorough searches for a lost face


def track_video(
    video: str | Path | Video,
    which: WhichFace | int = "largest",
    missing: Missing = "interpolate",
    progress: Callable[[int], None] | None = None,
    *,
    face_box: FaceBox | None = None,
    reference: np.ndarray | None = None,
    extractor: str | Extractor = "auto",
    models: Path | None = None,
) -> FaceTrack:
    """One face of a video to a track with as many frames as the video.

    which, reference: the face in the first frame that has any, see `which.choose` and `track_picture`; from then on the
    nearest that looks like it. face_box: that face is in it; where none is ever recognised in it (a drawing), the head
    is assumed there in all frames. missing: frames without the face (found False) take what lies between their
    neighbours, repeat the last, or are left as they are, for those to leave out who use them. extractor, models: see
    `open_extractor`. Coefficients measured by distances are taken from the face's own rest where the video is long
    enough to show it. progress is called with the number of frames done. Raises PictureError where there is no video
    to read, FaceError for a number that no face has, DependencyError and CheckpointError where no extractor works.
    """
    video = video if isinstance(video, Video) else open_video(video)
    opened, warnings = opened_extractor(extractor, models)
    frames: list[FaceFrame] = []

    def pick(picture: np.ndarray, faces: list[FaceFrame]) -> int:
        return choose(faces, which, likeness(picture, faces, which, reference, models))

    box = None if face_box is None else checked_box(face_box)
    with contextlib.closing(_Follower(opened, pick, box)) as follower:
        for picture, time in video.frames():
            frames.append(follower.find(picture, time))
            if progress:
                progress(len(frames))
    lost = sum(not frame.found for frame in frames)
    if opened.by_distances and len(frames) - lost >= REST_FRAMES:
        frames = _from_own_rest(frames)
    if lost < len(frames):
        frames = fill_missing(frames, missing)
    measured = opened.measured if lost < len(frames) else frozenset()
    said = (*warnings, *video.warnings, *follower.warnings, *_missed(lost, len(frames), missing, box is not None))
    return FaceTrack(video.fps, tuple(frames), measured, opened.name, said)


def _from_own_rest(frames: list[FaceFrame]) -> list[FaceFrame]:
    found = [index for index, frame in enumerate(frames) if frame.found]
    changed = from_own_rest(np.stack([frames[index].coefficients for index in found]))
    settled = dict(zip(found, changed, strict=True))
    return [replace(frame, coefficients=settled.get(index, frame.coefficients)) for index, frame in enumerate(frames)]


def _missed(lost: int, count: int, missing: Missing, boxed: bool) -> tuple[str, ...]:
    if lost == count:
        return (WARN_DRAWING if boxed else WARN_NO_FACE,)
    what = "left out" if missing == "leave out" else f"filled in ({missing})"
    return (f"the face was not found in {lost} of {count} frames; they were {what}",) if lost else ()


class _Follower:
    """Which of the faces in each frame is the one that was chosen."""

    def __init__(
        self, extractor: Extractor, pick: Callable[[np.ndarray, list[FaceFrame]], int], box: np.ndarray | None
    ) -> None:
        self.extractor, self.pick, self.box = extractor, pick, box
        self.warnings: list[str] = []
        self._open = contextlib.ExitStack()
        self._follow(1)
        self._people: list[Person] = []  # the first is the chosen one
        self._searched = -SEARCH_PAUSE

    def close(self) -> None:
        self._open.close()

    def find(self, picture: np.ndarray, time: Fraction) -> FaceFrame:
        """The chosen face, or an assumed one, not found."""
        faces = [Seen.of(picture, face) for face in self._find(picture, time)] if self._people else []
        pairs = match(self._people, faces)
        if not self._sure(pairs) and time - self._searched >= SEARCH_PAUSE:
            self._searched = time
            everyone = self.extractor.faces(picture)
            if not self._people:
                everyone = self._chosen(picture, everyone)
            elif len(everyone) > self._followed:
                self._follow(len(everyone))
            faces = [Seen.of(picture, replace(face, time=time)) for face in everyone] or faces
            self._people = self._people or [Person.of(seen) for seen in faces]
            pairs = match(self._people, faces)
        self._remember(faces, pairs)
        found = pairs[0] if pairs else None
        return self._assumed(picture, time) if found is None else found.face

    def _sure(self, pairs: list[Seen | None]) -> bool:
        """The chosen face was found, and looks as it did: otherwise it may be hidden, and this be the one in front."""
        found = pairs[0] if pairs else None
        return found is not None and self._people[0].strangeness(found) < STRANGE_LOOK

    def _chosen(self, picture: np.ndarray, faces: list[FaceFrame]) -> list[FaceFrame]:
        """The first time: the chosen face, then the others; none where it is not there yet."""
        if self.box is not None:
            chosen = self._in_box(picture)
        else:
            chosen = faces[self.pick(picture, faces)] if faces else None
        if chosen is None:
            return []
        others = [face for face in faces if np.linalg.norm(centre(face) - centre(chosen)) > size(chosen) / 2]
        if others and self.box is None:
            self.warnings.append(f"{len(faces)} faces were found; one is followed (choose another by its place)")
        if others:
            self._follow(len(others) + 1)
        others.sort(key=lambda face: float(np.linalg.norm(centre(face) - centre(chosen))))
        return [chosen, *others[: MOST_FACES - 1]]

    def _in_box(self, picture: np.ndarray) -> FaceFrame | None:
        assert self.box is not None
        height, width = picture.shape[:2]
        return next(iter(faces_in_box(self.extractor, picture, self.box * [width, height, width, height])), None)

    def _follow(self, count: int) -> None:
        self.close()
        self._followed = min(count, MOST_FACES)
        self._find = self._open.enter_context(self.extractor.follow(self._followed))

    def _remember(self, faces: list[Seen], pairs: list[Seen | None]) -> None:
        for person, seen in zip(self._people, pairs, strict=True):
            if seen is None:
                person.missed()
            else:
                person.found(seen)
        self._people[1:] = [person for person in self._people[1:] if person.unseen < FORGOTTEN]
        strangers = [seen for seen in faces if not any(seen is known for known in pairs)]
        self._people += [Person.of(seen) for seen in strangers[: MOST_FACES - len(self._people)]]

    def _assumed(self, picture: np.ndarray, time: Fraction) -> FaceFrame:
        height, width = picture.shape[:2]
        box = None if self.box is None else self.box * [width, height, width, height]
        return assumed_frame(width, height, time, box)


def fill_missing(frames: list[FaceFrame], missing: Missing) -> list[FaceFrame]:
    """Gives frames without a face the head of their neighbours; they stay marked as not found."""
    found = [index for index, frame in enumerate(frames) if frame.found]
    if not found or missing == "leave out":
        return frames
    filled = list(frames)
    for index, frame in enumerate(frames):
        if frame.found:
            continue
        place = bisect(found, index)
        left, right = frames[found[max(place - 1, 0)]], frames[found[min(place, len(found) - 1)]]
        model = left
        if missing == "interpolate" and left is not right:
            model = interpolate_frames(left, right, float((frame.time - left.time) / (right.time - left.time)))
        filled[index] = replace(model, time=frame.time, found=False)
    return filled
