"""What was found of a face, changed: gains, a face at rest, retargeting to another head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.smooth import smooth_track
from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame, FaceTrack
from lib_hellomeme.settings import Settings

# What each gain acts on, by the beginnings of ARKit's names. REST follows the expression weight alone.
GROUPS: dict[str, tuple[str, ...]] = {
    "brows": ("brow",),
    "eyes": ("eyeBlink", "eyeSquint", "eyeWide"),
    "gaze": ("eyeLook",),
    "jaw": ("jaw",),
    "mouth": ("mouth",),
}
REST = ("cheek", "nose")

UNHEARD = "gains of parts of the face act on coefficients, not on the embeddings, which stay as they were found"

NEAREST = -1.0  # translation[2] of a head that no picture holds any more; an exaggerated way ends there
FACING_ANGLE = 0.2  # radians that count as much as one coefficient in full, for the most neutral frame


def group_members(group: str) -> list[int]:
    """The indices in ARKIT_NAMES of one of GROUPS."""
    return [index for index, name in enumerate(ARKIT_NAMES) if name.startswith(GROUPS[group])]


def changed_groups(settings: Settings) -> list[str]:
    """The groups of coefficients whose gain is not 1."""
    return [group for group, gain in _group_gains(settings).items() if gain != 1.0]


def retarget(
    driver: FaceFrame,
    reference: FaceFrame,
    settings: Settings,
    neutral: FaceFrame | None = None,
    first: FaceFrame | None = None,
) -> FaceFrame:
    """The reference's head, moved by the driver's: own + gain * (driver - neutral) for each angle and coefficient.

    neutral is the driver's face at rest, so that its motion is carried over; None takes the reference in its place,
    which carries the driver's own pose and expression over. A gain is that of the axis times pose_weight, or that of
    the group times expression_weight: 0 keeps the reference's, 1 takes the driver's, above 1 exaggerates. Angles are
    those of `rotation_angles`, the difference taken the short way round; coefficients stay within [0, 1]. Embeddings
    that both have follow expression_weight alone, without neutral; others are the driver's. The translation's neutral
    may be another frame, the `first` of a video: HelloMeme's `trans_ratio` (`utils.gen_control_heatmaps`) is the shift
    gain then.
    """
    base, start = neutral or reference, neutral or first or reference
    turned = driver.rotation - 2 * np.pi * np.round((driver.rotation - base.rotation) / (2 * np.pi))
    pose = settings.pose_weight * np.array([settings.pitch_gain, settings.yaw_gain, settings.roll_gain])
    shift = np.array(settings.pose_weight * settings.shift_gain)
    translation = _moved(reference.translation, start.translation, driver.translation, shift)
    gains = _coefficient_gains(settings)
    expression = _moved(reference.coefficients, base.coefficients, driver.coefficients, gains)
    return replace(
        reference,
        time=driver.time,
        rotation=_moved(reference.rotation, base.rotation, turned, pose),
        translation=np.minimum(translation, [np.inf, np.inf, NEAREST]),
        coefficients=np.clip(expression, 0.0, 1.0),
        pd_fgc=_between(reference.pd_fgc, driver.pd_fgc, settings.expression_weight),
        face_parts=_between(reference.face_parts, driver.face_parts, settings.expression_weight),
    )


def neutral_frame(track: FaceTrack, which: str) -> FaceFrame | None:
    """The frame of a track that is taken as its face at rest, None for "absolute".

    which: "absolute"; "first", where the face was found; "auto", the found frame that looks most straight ahead with
    the least expression; or a frame's number, counted from 0. Raises FaceError.
    """
    found = [frame for frame in track.frames if frame.found] or list(track.frames)
    if which == "absolute":
        return None
    if which == "first":
        return found[0]
    if which == "auto":
        return min(found, key=_unrest)
    if not which.isdecimal():
        raise FaceError(f"neutral {which!r} is none of absolute, first, auto and a frame's number; choose one of them")
    return numbered_frame(track, int(which))


def numbered_frame(track: FaceTrack, number: int) -> FaceFrame:
    """Counted from 0. Raises FaceError where there is no such frame."""
    if not 0 <= number < len(track.frames):
        raise FaceError(f"there is no frame {number} in the track; choose one from 0 to {len(track.frames) - 1}")
    return track.frames[number]


def edit_track(
    track: FaceTrack, settings: Settings, neutral: FaceFrame | None = None, smoothing: float = 0.0
) -> FaceTrack:
    """The track smoothed (`smooth_track` says how strongly), then with the gains of `retarget` about a face at rest.

    That is `neutral`, by default a face without expression that looks straight ahead from where the first frame has it.
    `Settings(shift_gain=1)` leaves everything as it was found. Boxes and anchors go on saying where the face was seen.
    """
    first = track.frames[0]
    rest = neutral or replace(
        first, rotation=np.zeros(3), coefficients=np.zeros(len(ARKIT_NAMES)), pd_fgc=None, face_parts=None
    )
    edited = []
    for frame in smooth_track(track, smoothing).frames:
        face = retarget(frame, rest, settings)
        kept: dict[str, Any] = {name: getattr(frame, name) for name in ("width", "height", "found", "box", "anchors")}
        edited.append(replace(face, **kept))
    embedded = any(frame.pd_fgc is not None or frame.face_parts is not None for frame in track.frames)
    warning = (UNHEARD,) if embedded and changed_groups(settings) else ()
    return replace(track, frames=tuple(edited), warnings=(*track.warnings, *warning))


def _moved(own: np.ndarray, base: np.ndarray, other: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """own + gain * (other - base); where own is base, exactly own at gain 0 and exactly other at gain 1."""
    return base * (1 - gain) + other * gain + (own - base)


def _between(own: np.ndarray | None, other: np.ndarray | None, weight: float) -> np.ndarray | None:
    return other if own is None or other is None else own + (other - own) * weight


def _group_gains(settings: Settings) -> dict[str, float]:
    return {group: getattr(settings, f"{group}_gain") for group in GROUPS}


def _coefficient_gains(settings: Settings) -> np.ndarray:
    """(51,), with the expression weight."""
    gains = np.ones(len(ARKIT_NAMES))
    for group, gain in _group_gains(settings).items():
        gains[group_members(group)] = gain
    return gains * settings.expression_weight


def _unrest(frame: FaceFrame) -> float:
    """How far from facing ahead without expression."""
    return float(np.linalg.norm(frame.rotation) / FACING_ANGLE + np.linalg.norm(frame.coefficients))
