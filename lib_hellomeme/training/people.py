"""The renderer of the demo world: a person, a pose and an expression become a picture whose truth is known.

The same parameters give the same pixels. `render` takes the state of the face as a FaceFrame, in the published
convention, and returns it with box and anchors as they are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import cv2
import numpy as np

from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.training.canvas import Canvas, Paint
from lib_hellomeme.training.hair import CENTRE, SECTORS, Hair
from lib_hellomeme.training.head import EYE_Y, TORSO_TURN, Ellipsoid, Expression, Eye, Head, Mouth, View
from lib_hellomeme.training.identity import (
    BACKGROUNDS,
    CLOTHES,
    EYES,
    GLASSES,
    HAIRS,
    SKINS,
    Colour,
    Identity,
    mixed,
)

BLACK: Colour = (24, 18, 24)
WHITE: Colour = (255, 255, 255)
BROW_CONTRAST = 30.0  # of brows and skin, in lightness of 0 to 100: fair brows were not seen to move on brown skin


class Region(IntEnum):
    """What a pixel of a rendering belongs to."""

    BACKGROUND = 0
    HAIR = 1
    CLOTHES = 2
    SKIN = 3
    EYE_WHITE = 4
    IRIS = 5
    LASHES = 6
    BROW = 7
    LIPS = 8
    MOUTH = 9
    BEARD = 10
    GLASSES = 11
    EARRING = 12


REGION_PAINTS: dict[Region, tuple[Paint, ...]] = {
    Region.BACKGROUND: (Paint.BACKGROUND, Paint.BACKDROP),
    Region.HAIR: (Paint.HAIR, Paint.HAIR_LIGHT, Paint.HAIR_DARK),
    Region.CLOTHES: (Paint.CLOTHES, Paint.CLOTHES_DARK, Paint.CLOTHES_LIGHT),
    Region.SKIN: (
        Paint.SKIN,
        Paint.SKIN_DARK,
        Paint.SKIN_LIGHT,
        Paint.CREASE,
        Paint.BLUSH,
        Paint.NECK,
        Paint.NECK_DARK,
    ),
    Region.EYE_WHITE: (Paint.SCLERA, Paint.SCLERA_DARK),
    Region.IRIS: (Paint.IRIS, Paint.IRIS_DARK, Paint.PUPIL, Paint.GLINT),
    Region.LASHES: (Paint.LASHES,),
    Region.BROW: (Paint.BROW,),
    Region.LIPS: (Paint.LIPS, Paint.LIPS_DARK),
    Region.MOUTH: (Paint.MOUTH, Paint.TEETH, Paint.TONGUE),
    Region.BEARD: (Paint.BEARD,),
    Region.GLASSES: (Paint.GLASSES,),
    Region.EARRING: (Paint.EARRING,),
}


@dataclass(frozen=True, eq=False)
class Rendering:
    """picture: RGB uint8 (H, W, 3). regions: uint8 (H, W), a Region for each pixel's middle. face: the truth."""

    picture: np.ndarray
    regions: np.ndarray
    face: FaceFrame


def render(person: Identity, face: FaceFrame) -> Rendering:
    """Draw the person with the face's rotation, translation and coefficients, at its width x height px."""
    head = Head(person, Expression(face.coefficients))
    view, torso = View(face.rotation, face), View(face.rotation * TORSO_TURN, face)
    canvas = Canvas(face.width, face.height)
    hair = None if person.hair_shape == "bald" else Hair(person)
    _draw_backdrop(canvas, torso)
    if hair is not None:
        _draw_back_hair(canvas, view, hair)
    _draw_body(canvas, view, torso, head)
    outline = _hull(view(head.skull()))
    skin = canvas.mask(outline)
    _draw_ears(canvas, view, head, near=False)
    canvas.fill(outline, Paint.SKIN)
    _draw_ears(canvas, view, head, near=True)
    _draw_skin(canvas, view, head, skin)
    _draw_nose(canvas, view, head, skin)
    _draw_mouth(canvas, view, head, skin)
    for sign in (-1, 1):
        _draw_eye(canvas, view, head, head.eye(sign), skin)
    if hair is not None:
        _draw_front_hair(canvas, view, hair, skin)
    for sign in (-1, 1):  # brows show through the fringe, as drawn people's do
        canvas.fill(view(head.on_face(head.brow(sign), 0.015)), Paint.BROW, skin)
    if person.glasses is not None:
        _draw_glasses(canvas, view, head)
    picture = _lit(canvas.picture(_palette(person)), view)
    truth = replace(face, found=True, **_truth(view, head))
    return Rendering(picture, _regions(canvas.points()), truth)


def _hull(points: np.ndarray) -> np.ndarray:
    """(n, 2) px to the outline of the least convex shape that holds them."""
    return cv2.convexHull(points.astype(np.float32))[:, 0]


def _draw_backdrop(canvas: Canvas, torso: View) -> None:
    height, width = (side / canvas.factor for side in canvas.paint.shape)
    turn = np.linspace(0, 2 * np.pi, 65)[:-1]
    circle = np.column_stack([np.cos(turn), np.sin(turn)]) * 0.41 * min(width, height)
    canvas.fill(np.add(circle, [width / 2, height / 2]), Paint.BACKDROP)


def _draw_back_hair(canvas: Canvas, view: View, hair: Hair) -> None:
    shape = hair.person.hair_shape
    if shape == "curly":
        _draw_curls(canvas, view, hair, behind=True)
    tails = {
        "bun": Ellipsoid((0.0, 0.9, -0.42), (0.22, 0.2, 0.22)),
        "ponytail": Ellipsoid((0.0, 0.2, -1.05), (0.2, 0.5, 0.24)),
    }
    if shape in tails:
        hull = _hull(view(tails[shape].points()))
        canvas.fill(hull, Paint.HAIR_DARK)
    hull = _hull(view(hair.back()))
    canvas.fill(hull, Paint.HAIR_DARK)


def _draw_curls(canvas: Canvas, view: View, hair: Hair, behind: bool) -> None:
    """Locks all about the hair: those that lie behind the head, or those before it."""
    generator = np.random.default_rng(hair.person.curl_seed)
    angle = np.radians(np.linspace(-180, 180, 23)[:-1])
    angles, heights = np.meshgrid(angle, np.linspace(-0.1, 0.8, 6))
    angles = angles.ravel() + generator.uniform(-0.1, 0.1, angles.size)
    sizes = generator.uniform(0.085, 0.125, angles.size)
    places = hair.surface(angles, heights.ravel(), swell=1.03)
    line = np.interp(angles, SECTORS, hair.line, left=-1.0, right=-1.0)
    depth = view.turned(places)[:, 2]
    covers = places[:, 1] > line + 0.05
    turn = np.linspace(0, 2 * np.pi, 17)[:-1]
    circle = np.column_stack([np.cos(turn), np.sin(turn)])
    centres = view(places)
    for index in np.argsort(depth):
        before = depth[index] > CENTRE[2] and covers[index]
        if before != behind:
            lock = centres[index] + circle * sizes[index] * view.scale
            canvas.fill(lock, Paint.HAIR_DARK if behind else Paint.HAIR)


def _draw_body(canvas: Canvas, view: View, torso: View, head: Head) -> None:
    broad = 0.92 if head.identity.woman else 1.06
    neck = 0.185 if head.identity.woman else 0.225
    s = np.linspace(0, 1, 15)
    across, height = broad * (0.2 + 0.78 * s**0.9), -0.69 - 0.28 * s**2.4 - 0.06 * s
    shoulder = np.column_stack([across, height, np.full(15, -0.4)])
    edge = np.array([[0.99 * broad, -1.4, -0.4], [1.02 * broad, -4.0, -0.4]])
    right = np.concatenate([shoulder, edge])
    canvas.fill(torso(np.concatenate([right, right[::-1] * [-1, 1, 1]])), Paint.CLOTHES)
    arms = [[0.66 * broad, -1.35, -0.3], [0.7 * broad, -1.7, -0.3], [0.72 * broad, -4.0, -0.3]]
    for sign in (-1, 1):
        canvas.line(torso(np.array(arms) * [sign, 1, 1]), 0.022 * view.scale, Paint.CLOTHES_DARK)
    upper = view([[-neck, -0.1, -0.42], [neck, -0.1, -0.42]])
    lower = torso([[neck * 1.12, -0.76, -0.4], [-neck * 1.12, -0.76, -0.4]])
    if head.identity.collar == "hood":
        ring = _arc(torso, 0.0, -0.69, neck * 1.75, 0.2, -0.5)
        canvas.fill(ring, Paint.CLOTHES_DARK)
    canvas.fill(np.concatenate([upper, lower]), Paint.NECK)
    _draw_collar(canvas, torso, head.identity, neck, view.scale)
    chin = _hull(view(np.add(head.skull(), [0.0, -0.12, -0.06])))
    canvas.fill(chin, Paint.NECK_DARK, canvas.shown(Paint.NECK))


def _draw_collar(canvas: Canvas, torso: View, person: Identity, neck: float, scale: float) -> None:
    depth = {"round": 0.12, "deep": 0.34, "shirt": 0.26, "hood": 0.16}[person.collar]
    width = neck * 1.3
    if person.collar in ("round", "hood"):
        canvas.fill(_arc(torso, 0.0, -0.74, width, depth, -0.4), Paint.NECK)
        canvas.line(_arc(torso, 0.0, -0.74, width, depth, -0.4)[24:], 0.04 * scale, Paint.CLOTHES_DARK)
    else:
        opening = [[-width, -0.71, -0.4], [width, -0.71, -0.4], [0.0, -0.75 - depth, -0.3]]
        canvas.fill(torso(opening), Paint.NECK)
    if person.collar == "shirt":
        for sign in (-1, 1):
            flap = np.array(
                [[width, -0.65, -0.4], [1.9 * width, -0.75, -0.4], [1.25 * width, -1.03, -0.3], [0.0, -1.01, -0.3]]
            )
            canvas.fill(torso(flap * [sign, 1, 1]), Paint.CLOTHES_LIGHT)
        canvas.line(torso([[0.0, -1.01, -0.3], [0.0, -4.0, -0.3]]), 0.02 * scale, Paint.CLOTHES_DARK)
    if person.collar == "hood":
        for sign in (-1, 1):
            cord = np.array([[0.13, -0.87, -0.3], [0.14, -1.15, -0.3]]) * [sign, 1, 1]
            canvas.line(torso(cord), 0.028 * scale, Paint.CLOTHES_LIGHT)


def _arc(view: View, x: float, y: float, width: float, height: float, z: float) -> np.ndarray:
    """(48, 2) px outline of an ellipse across the picture; its second half is the lower one."""
    turn = np.linspace(0, 2 * np.pi, 49)[:-1]
    return view(np.column_stack([x + width * np.cos(turn), y + height * np.sin(turn), np.full(48, z)]))


def _draw_ears(canvas: Canvas, view: View, head: Head, near: bool) -> None:
    """The ears that stand before the head's silhouette (`near`), or those behind it."""
    for sign in (-1, 1):
        centre = (sign * 0.5 * head.identity.head_width, 0.13, -0.36)
        inward = view.turned([[sign * 0.5, 0.0, -0.1]])[0, 2] > 0.06
        if inward != near:
            continue
        outer, inner = Ellipsoid(centre, (0.055, 0.135, 0.09)), Ellipsoid(centre, (0.05, 0.085, 0.05))
        canvas.fill(_hull(view(outer.points())), Paint.SKIN)
        shade = np.add(inner.points(), [sign * 0.02, -0.005, 0.03])
        canvas.fill(_hull(view(shade)), Paint.SKIN_DARK)
        if head.identity.earrings:
            drop = view([[sign * 0.52 * head.identity.head_width, -0.04, -0.33]])
            canvas.line(np.repeat(drop, 2, axis=0), 0.06 * view.scale, Paint.EARRING)


def _draw_skin(canvas: Canvas, view: View, head: Head, skin: np.ndarray) -> None:
    """Shade at one side, blush, freckles, the beard and the lines that cheeks and nose make."""
    person, expression = head.identity, head.expression
    shifted = view(head.skull() * [0.97, 0.98, 1.0]) - [0.09 * view.scale, 0.035 * view.scale]
    lit = canvas.mask(_hull(shifted))
    canvas.put(1 - lit, Paint.SKIN_DARK, skin)
    turn = np.linspace(0, 2 * np.pi, 25)[:-1]
    for sign in (-1, 1):
        puff = 1 + 0.25 * expression("cheekPuff") + 0.15 * expression.side("mouthSmile", sign)
        blush = np.column_stack([np.cos(turn) * 0.1 * puff, np.sin(turn) * 0.062 * puff])
        canvas.fill(view(head.on_face(np.add(blush, [sign * 0.29, 0.03 * (puff - 1)]))), Paint.BLUSH, skin)
        if person.freckles:
            dots = [(0.2, 0.05), (0.25, 0.02), (0.3, 0.055), (0.235, -0.035), (0.33, 0.0)]
            for dot in view(head.on_face(np.array(dots) * [sign, 1])):
                canvas.line(np.stack([dot, dot]), 0.016 * view.scale, Paint.SKIN_DARK, skin)
    if person.beard:
        _draw_beard(canvas, view, head, skin)
    _draw_creases(canvas, view, head, skin)


def _draw_beard(canvas: Canvas, view: View, head: Head, skin: np.ndarray) -> None:
    x = np.array([-0.62, -0.5, -0.42, -0.34, -0.22, -0.1, 0.0, 0.1, 0.22, 0.34, 0.42, 0.5, 0.62])
    y = np.array([0.16, 0.12, -0.02, -0.16, -0.14, -0.085, -0.1, -0.085, -0.14, -0.16, -0.02, 0.12, 0.16])
    upper = np.column_stack([x, y])
    lower = np.array([[0.62, -0.75], [0.3, -0.9], [-0.3, -0.9], [-0.62, -0.75]])
    canvas.fill(view(head.on_face(np.concatenate([upper, lower]))), Paint.BEARD, skin)


def _draw_creases(canvas: Canvas, view: View, head: Head, skin: np.ndarray) -> None:
    for sign in (-1, 1):
        for points, amount in _creases(head, sign):
            line = view(head.on_face(np.array(points) * [sign, 1]))
            canvas.line(line, 0.03 * amount * view.scale, Paint.CREASE, skin)


def _creases(head: Head, sign: int) -> list[tuple[list[tuple[float, float]], float]]:
    """Lines of one half of the face, x counted away from its middle, and how strong they are."""
    expression, mouth = head.expression, head.mouth()
    end = -1 if sign > 0 else 0
    out, y = float(mouth.x[end]) * sign, float(mouth.base[end])
    sneer = expression.side("noseSneer", sign)
    smile = min(expression.side("mouthSmile", sign) + 0.5 * sneer, 1.0)
    return [
        ([(0.13, -0.01), (0.5 * (0.17 + out), -0.07), (out + 0.045, y + 0.03)], smile),
        ([(0.14, 0.115), (0.215, 0.09), (0.3, 0.115)], expression.side("cheekSquint", sign)),
        ([(0.07, 0.2), (0.1, 0.165)], sneer),
        ([(0.06, 0.155), (0.095, 0.13)], sneer),
        ([(out + 0.04, y + 0.05), (out + 0.07, y), (out + 0.04, y - 0.05)], expression.side("mouthDimple", sign)),
        ([(0.035, 0.34), (0.03, 0.4)], expression.side("browDown", sign)),
    ]


def _draw_nose(canvas: Canvas, view: View, head: Head, skin: np.ndarray) -> None:
    size = head.identity.nose_size
    sneer = 0.02 * head.expression("noseSneerLeft") + 0.02 * head.expression("noseSneerRight")
    wing = 0.085 * size

    def at(points: list[tuple[float, float, float]]) -> np.ndarray:
        places = np.array(points)
        return view(head.on_face(places[:, :2] + [0.0, sneer * 0.5], 0.0) + places[:, 2:] * [0.0, 0.0, 1.0])

    tip = 0.15 * size
    canvas.fill(
        at([(0.02, 0.24, 0.03), (0.035, 0.1, 0.1 * size), (0.04, 0.03, tip), (wing, -0.02, 0.05), (0.05, 0.12, 0.02)]),
        Paint.SKIN_DARK,
        skin,
    )
    s = np.linspace(-1, 1, 13)
    below = [(wing * t, -0.005 - 0.045 * (1 - t**2), 0.05 + (tip - 0.05) * (1 - t**2)) for t in s]
    above = [(wing * t, -0.005 - 0.012 * (1 - t**2), 0.05 + (tip - 0.04) * (1 - t**2)) for t in s[::-1]]
    canvas.fill(at(below + above), Paint.SKIN_DARK, skin)
    glint = [(-0.03 + 0.022 * np.cos(a), 0.045 + 0.018 * np.sin(a), tip * 0.95) for a in np.linspace(0, 6.28, 13)[:-1]]
    canvas.fill(at(glint), Paint.SKIN_LIGHT, skin)


def _draw_mouth(canvas: Canvas, view: View, head: Head, skin: np.ndarray) -> None:
    mouth = head.mouth()

    def at(points: np.ndarray) -> np.ndarray:
        return view(head.on_face(points, 0.025))

    canvas.fill(at(mouth.lips()), Paint.LIPS, skin)
    inside = canvas.mask(at(mouth.inside())) & skin
    canvas.put(inside, Paint.MOUTH, skin)
    _draw_inside(canvas, view, head, mouth, inside)
    line = np.column_stack([mouth.x, mouth.base + mouth.rise])
    canvas.line(at(line), 0.018 * view.scale, Paint.LIPS_DARK, skin)
    corners = line[[0, -1]]
    for corner in at(corners):
        canvas.line(np.stack([corner, corner]), 0.028 * view.scale, Paint.LIPS_DARK, skin)


def _draw_inside(canvas: Canvas, view: View, head: Head, mouth: Mouth, inside: np.ndarray) -> None:
    """Teeth behind the upper lip and the tongue on the lower jaw, where the lips leave them free."""
    turn = np.linspace(0, 2 * np.pi, 25)[:-1]
    tongue = np.column_stack([np.cos(turn) * 0.1, np.sin(turn) * 0.075])
    low = float((mouth.base - mouth.drop)[10])
    if head.expression("jawOpen") > 0.0:
        canvas.fill(view(head.on_face(np.add(tongue, [mouth.x[10], low]), 0.0)), Paint.TONGUE, inside)
    top = mouth.base + mouth.rise + 0.02
    teeth = mouth.between(top, np.full_like(top, mouth.base[10] + 0.02 - 0.065))
    canvas.fill(view(head.on_face(teeth, 0.0)), Paint.TEETH, inside)


def _draw_eye(canvas: Canvas, view: View, head: Head, eye: Eye, skin: np.ndarray) -> None:
    def at(points: np.ndarray, lift: float = 0.012) -> np.ndarray:
        return view(head.on_face(points, lift))

    crease = eye.lid(eye.open_upper + 0.035)
    rest, upper = eye.lid(eye.open_upper), eye.lid(max(eye.upper, -eye.lower))
    canvas.fill(at(np.concatenate([rest, upper[::-1]])), Paint.SKIN_DARK, skin)
    opening = canvas.mask(at(eye.opening())) & skin if eye.upper > -eye.lower else np.zeros_like(skin)
    canvas.put(opening, Paint.SCLERA, skin)
    shade = np.concatenate([upper, (upper - [0.0, 0.028])[::-1]])
    canvas.fill(at(shade), Paint.SCLERA_DARK, opening)
    canvas.fill(at(eye.disc(eye.iris)), Paint.IRIS_DARK, opening)
    canvas.fill(at(eye.disc(eye.iris * 0.86, (0.0, -0.006))), Paint.IRIS, opening)
    canvas.fill(at(eye.disc(eye.iris * 0.5)), Paint.PUPIL, opening)
    canvas.fill(at(eye.disc(eye.iris * 0.27, (-0.02, 0.024))), Paint.GLINT, opening)
    canvas.line(at(crease[2:-1]), 0.016 * view.scale, Paint.SKIN_DARK, skin)
    lashes = 0.036 if head.identity.woman else 0.028
    canvas.line(at(upper), lashes * view.scale, Paint.LASHES, skin)
    if head.identity.woman:
        outer, tip = upper[-1], upper[-1] + [eye.sign * 0.035, 0.03]
        canvas.line(at(np.stack([upper[-3], outer, tip])), 0.024 * view.scale, Paint.LASHES, skin)
    canvas.line(at(eye.lid(-eye.lower)[2:]), 0.012 * view.scale, Paint.LASHES, skin)


def _draw_front_hair(canvas: Canvas, view: View, hair: Hair, skin: np.ndarray) -> None:
    patches = hair.front(view)
    shadow = [np.add(patch, [0.012 * view.scale, 0.045 * view.scale]) for patch in patches]
    canvas.fill_all(shadow, Paint.SKIN_DARK, skin & canvas.shown(Paint.SKIN, Paint.BLUSH))
    canvas.fill_all(patches, Paint.HAIR)
    if hair.person.hair_shape == "curly":
        _draw_curls(canvas, view, hair, behind=False)
    visible = canvas.shown(Paint.HAIR)
    if hair.person.hair_shape == "buzz":
        return
    for strand in hair.strands(view):
        canvas.line(strand, 0.014 * view.scale, Paint.HAIR_DARK, visible)
    canvas.fill(hair.gloss(view), Paint.HAIR_LIGHT, visible)


def _draw_glasses(canvas: Canvas, view: View, head: Head) -> None:
    width = 0.036 * view.scale
    x = 0.225 * head.identity.eye_distance
    radius, power = (0.165, 1.0) if head.identity.round_glasses else (0.165, 0.45)
    turn = np.linspace(0, 2 * np.pi, 33)
    cos, sin = np.cos(turn), np.sin(turn)
    shape = np.column_stack([np.sign(cos) * np.abs(cos) ** power, 0.86 * np.sign(sin) * np.abs(sin) ** power]) * radius
    z = 0.06
    for sign in (-1, 1):
        ring = np.column_stack([np.add(shape, [sign * x, EYE_Y]), np.full(33, z - 0.02)])
        arm = [
            [sign * (x + radius), EYE_Y + 0.04, z - 0.02],
            [sign * 0.5 * head.identity.head_width, EYE_Y + 0.02, -0.36],
        ]
        if view.turned([[sign * 0.5, 0.0, -0.1]])[0, 2] > -0.22:
            shown = canvas.shown(Paint.SKIN, Paint.SKIN_DARK, Paint.BLUSH, Paint.BEARD)
            canvas.line(view(arm), width, Paint.GLASSES, shown)
        canvas.line(view(ring), width, Paint.GLASSES)
    bridge = [[-(x - radius), EYE_Y + 0.035, z], [0.0, EYE_Y + 0.06, z + 0.03], [x - radius, EYE_Y + 0.035, z]]
    canvas.line(view(bridge), width, Paint.GLASSES)


def _palette(person: Identity) -> dict[Paint, Colour]:
    skin, hair = SKINS[person.skin], HAIRS[person.hair]
    background, clothes, iris = BACKGROUNDS[person.background], CLOTHES[person.clothes], EYES[person.eyes]
    shade = mixed(skin, (120, 40, 50), 0.24)
    lips = mixed(skin, (204, 46, 70), 0.62 if person.woman else 0.34)
    brow = _seen_against(mixed(hair if person.hair_shape != "bald" else (70, 50, 42), BLACK, 0.42), skin)
    return {
        Paint.BACKGROUND: background,
        Paint.BACKDROP: mixed(background, WHITE, 0.32),
        Paint.HAIR: hair,
        Paint.HAIR_LIGHT: mixed(hair, WHITE, 0.26),
        Paint.HAIR_DARK: mixed(hair, BLACK, 0.3),
        Paint.CLOTHES: clothes,
        Paint.CLOTHES_DARK: mixed(clothes, BLACK, 0.28),
        Paint.CLOTHES_LIGHT: mixed(clothes, WHITE, 0.35),
        Paint.SKIN: skin,
        Paint.SKIN_DARK: shade,
        Paint.CREASE: mixed(shade, BLACK, 0.2),
        Paint.SKIN_LIGHT: mixed(skin, WHITE, 0.4),
        Paint.BLUSH: mixed(skin, (236, 84, 84), 0.26),
        Paint.NECK: mixed(skin, shade, 0.25),
        Paint.NECK_DARK: mixed(shade, BLACK, 0.14),
        Paint.SCLERA: (252, 250, 248),
        Paint.SCLERA_DARK: (206, 208, 222),
        Paint.IRIS: iris,
        Paint.IRIS_DARK: mixed(iris, BLACK, 0.45),
        Paint.PUPIL: BLACK,
        Paint.GLINT: WHITE,
        Paint.LASHES: (44, 28, 32),
        Paint.BROW: brow,
        Paint.LIPS: lips,
        Paint.LIPS_DARK: mixed(lips, (70, 10, 24), 0.62),
        Paint.MOUTH: (92, 22, 34),
        Paint.TEETH: (250, 248, 244),
        Paint.TONGUE: (214, 92, 98),
        Paint.BEARD: mixed(mixed(hair, BLACK, 0.15), skin, 0.12),
        Paint.GLASSES: GLASSES[person.glasses or "black"],
        Paint.EARRING: (244, 206, 96),
    }


def _seen_against(colour: Colour, ground: Colour) -> Colour:
    """The colour, made as dark as it takes to differ from the ground by BROW_CONTRAST in lightness, or black."""
    darker = (mixed(colour, BLACK, share) for share in np.linspace(0, 1, 11))
    seen = (one for one in darker if abs(_lightness(one) - _lightness(ground)) >= BROW_CONTRAST)
    return next(seen, BLACK)


def _lightness(colour: Colour) -> float:
    """L of Lab, 0 to 100."""
    return float(cv2.cvtColor(np.array([[colour]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0, 0])


def _lit(picture: np.ndarray, view: View) -> np.ndarray:
    """A soft light from the upper left of the head. float32 (H, W, 3) to uint8."""
    height, width = picture.shape[:2]
    x = (np.arange(width, dtype=np.float32)[None] + 0.5 - view.origin[0]) / view.scale
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - view.origin[1]) / view.scale
    light = 1.02 - 0.05 * np.tanh(x * 0.8 + y * 0.9)
    return np.clip(picture * light[..., None] + 0.5, 0, 255).astype(np.uint8)


def _regions(points: np.ndarray) -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for region, paints in REGION_PAINTS.items():
        table[list(paints)] = region
    return cv2.LUT(points, table)


def _truth(view: View, head: Head) -> dict[str, object]:
    """Box and anchors of the face as drawn; pupils, eye corners, nose tip and mouth corners."""
    mouth = head.mouth()
    eyes = {sign: head.eye(sign) for sign in (-1, 1)}
    lids = {sign: view(head.on_face(eye.opening(), 0.012)) for sign, eye in eyes.items()}
    brows = {sign: view(head.on_face(head.brow(sign), 0.015)) for sign in (-1, 1)}
    inner, outer = view(head.on_face(mouth.inside(), 0.025)), view(head.on_face(mouth.lips(), 0.025))
    anchors = {
        "right_eye": lids[-1],
        "left_eye": lids[1],
        "right_brow": brows[-1],
        "left_brow": brows[1],
        "mouth_inner": inner,
        "mouth_outer": outer,
        "mouth_corners": inner[[0, len(mouth.x) - 1]],
        "nose_tip": view(head.on_face([[0.0, 0.02]], 0.15 * head.identity.nose_size)),
        "right_pupil": view(head.on_face((eyes[-1].centre + eyes[-1].gaze)[None], 0.012)),
        "left_pupil": view(head.on_face((eyes[1].centre + eyes[1].gaze)[None], 0.012)),
    }
    outline = view(head.skull())
    spanned = outline[:, 1] >= min(points[:, 1].min() for points in brows.values())
    face = outline[spanned]
    return {"anchors": anchors, "box": np.concatenate([face.min(axis=0), face.max(axis=0)])}
