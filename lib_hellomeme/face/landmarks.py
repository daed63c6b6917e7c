"""MediaPipe's 478 face landmarks by name.

The numbers are those of MediaPipe's face mesh with irises (`face_mesh_connections.py` in its wheel names the same
outlines). "right" and "left" are the person's own; the person's right eye is at the left of the picture.
"""

from __future__ import annotations

MESH_POINTS = 468
ALL_POINTS = 478  # with five points an iris
PUBLISHED = "published"  # the anchor that holds all 222 landmarks of the published detector, where that was used

# Outlines run from the outer eye corner under the eye to the inner one and back above it; the mouth's from the person's
# right corner under the lip to the left one and back above it; the jaw's from the left temple to the right one.
ANCHORS: dict[str, tuple[int, ...]] = {
    "right_eye": (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    "left_eye": (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    "right_brow": (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    "left_brow": (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
    "mouth_outer": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    "mouth_inner": (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
    "jaw": (
        *(356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
        *(148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127),
    ),
    "nose": (168, 6, 197, 195, 5, 4, 1, 98, 97, 2, 326, 327),
    "right_pupil": (468,),
    "left_pupil": (473,),
    "eye_corners": (33, 133, 362, 263),
    "nose_tip": (1,),
    "mouth_corners": (61, 291),
}

# What the published 222 points span: from the brows to the chin, from temple to temple, without the forehead.
FACE_SPAN: tuple[int, ...] = ANCHORS["jaw"] + ANCHORS["right_brow"] + ANCHORS["left_brow"]
