"""`python -m lib_hellomeme`: the embedded host from a command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from lib_hellomeme.errors import HelloMemeError, SettingsError
from lib_hellomeme.face.pictures import read_picture
from lib_hellomeme.face.track import FaceTrack
from lib_hellomeme.recipes import published
from lib_hellomeme.recipes.reenact import Portrait, read_portrait, read_recorded
from lib_hellomeme.settings import OPTION_FIELDS, Settings, grouped_options
from lib_hellomeme.standalone import (
    benchmark,
    benchmark_memory,
    benchmark_preview,
    benchmark_reference,
    benchmark_track,
    download_command,
    evaluate,
    track_command,
    track_editing,
    track_making,
    train,
    webui_config,
)
from lib_hellomeme.standalone.demo import run_demo
from lib_hellomeme.standalone.drawing import Drawing
from lib_hellomeme.standalone.host import DEFAULT_MODELS, PRECISIONS, EmbeddedHost
from lib_hellomeme.standalone.option_arguments import add_options
from lib_hellomeme.standalone.pictures import check_picture_path, save_picture
from lib_hellomeme.standalone.samplers import SAMPLERS


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 after one line about what is wrong, 130 after an interrupt."""
    try:
        chosen = _chosen(arguments)
        chosen.run(chosen)
    except HelloMemeError as error:
        print(f"hellomeme: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hellomeme: interrupted", file=sys.stderr)
        return 130
    return 0


def _chosen(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was given, and the defaults for the rest, with --published the published ones."""
    chosen = _parser().parse_args(arguments)
    if getattr(chosen, "published", False):
        chosen = _parser(_published_defaults(chosen)).parse_args(arguments)
        chosen.prompt = published.with_words(chosen.prompt, published.words_of(chosen.generation))
    return chosen


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the list of options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"hellomeme: {message}; see {self.prog} --help\n")


def _parser(defaults: Mapping[str, Any] | None = None) -> argparse.ArgumentParser:
    """`defaults` are those of `reenact` where they are not the usual ones."""
    parser = _Parser("python -m lib_hellomeme", description="Portraits that follow a driving face.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    reenact = commands.add_parser(
        "reenact", help="draw a portrait with the pose and expression of another picture or of a track"
    )
    reenact.set_defaults(run=_reenact)
    _add_files(reenact)
    _add_drawing(reenact)
    _add_settings(reenact)
    reenact.set_defaults(**(defaults or {}))
    demo = commands.add_parser("demo", help="drawn people follow a photo, and one acts in a video")
    demo.set_defaults(run=lambda chosen: run_demo(chosen.out))
    demo.add_argument("--out", default="outputs", metavar="DIR", help="where the pictures go (%(default)s)")
    for name, module, help in (
        ("track", track_command, "find the face in a video: a file to look at, to edit and to drive with"),
        ("edit-track", track_editing, "change the head and the expression in tracks, smooth and join them"),
        ("make-track", track_making, "make a track of a face that moves by itself, without a video"),
        ("download", download_command, "get published weight files"),
        ("train", train, "train the networks of the drawn world, stage by stage"),
        ("evaluate", evaluate, "measure pose, expression and identity of what the drawn world's weights draw"),
        ("write-yaml", webui_config, "write what A1111 needs to load a narrow checkpoint"),
        ("benchmark", benchmark, "time a sampling step with HelloMeme against the plain one"),
        ("benchmark-memory", benchmark_memory, "measure what HelloMeme adds to the peak memory of a drawing"),
        ("benchmark-preview", benchmark_preview, "time tracking a video with its preview, and a second time"),
        ("benchmark-reference", benchmark_reference, "time a sampling step with reference banks against the plain one"),
        ("benchmark-track", benchmark_track, "time tracking a video against bare decoding and FaceMesh"),
    ):
        command = commands.add_parser(name, help=help)
        command.set_defaults(run=module.run)
        module.add_arguments(command)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--reference", required=True, metavar="PICTURE", help="the portrait")
    add("--driving", required=True, metavar="FILE", help="where pose and expression come from: a picture or a track")
    add("--frame", type=int, default=0, metavar="N", help="which of a driving track's frames, from 0 (%(default)s)")
    add(
        "--neutral",
        default="absolute",
        metavar="absolute|first|auto|N",
        help="take a driving track's pose and expression as they are (absolute), or their difference from its first "
        "frame, its calmest (auto) or another one (%(default)s)",
    )
    add("--out", required=True, metavar="PICTURE", help="where the result goes: .png, .jpg or .webp")
    add("--checkpoint", metavar="FILE", help="an SD1.5 checkpoint in one file")
    add("--models", metavar="DIR", default=DEFAULT_MODELS, help="folder of the HelloMeme weight files (%(default)s)")
    add("--lora", metavar="FILE:WEIGHT", type=_lora, action="append", default=[], help="may be given several times")
    add("--device", help="cuda, mps or cpu (the best there is)")
    add("--precision", choices=PRECISIONS, help="of the UNet (float16 on CUDA, otherwise float32)")


def _published_defaults(chosen: argparse.Namespace) -> dict[str, Any]:
    """What --published changes. x1 is published too, but needs a file that not everybody has."""
    sampler, schedule = published.sampler_of(chosen.generation)
    return {
        **({"reference_pass": "x1"} if chosen.original else {}),
        **published.OPTIONS,
        "steps": published.STEPS,
        "cfg": published.CFG,
        "sampler": sampler if sampler in SAMPLERS else f"{sampler} {schedule}",
        "size": (published.SIDE, published.SIDE),
    }


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    description = "As in a webui, save that weights in prompts, (like this:1.2), are read as plain text."
    add = parser.add_argument_group("drawing", description).add_argument
    default = Drawing()
    add(
        "--published",
        action="store_true",
        help="what the published application draws with, unless it is given too: 25 steps, CFG 1.5, its sampler and "
        "its words behind the prompt, the expression by PD-FGC, and with --original the reference pass x1",
    )
    add("--prompt", default=default.prompt, metavar="TEXT")
    add("--negative-prompt", default=default.negative_prompt, metavar="TEXT")
    add("--steps", type=int, default=default.steps, metavar="N", help="(%(default)s)")
    add("--cfg", type=float, default=default.cfg, metavar="SCALE", help="guidance (%(default)s)")
    add("--seed", type=int, default=default.seed, metavar="N", help="(%(default)s)")
    add("--sampler", default=default.sampler, metavar="NAME", help=f"{', '.join(SAMPLERS)} (%(default)s)")
    size = default.width, default.height
    add("--size", type=_size, default=size, metavar="WxH", help="px ({}x{})".format(*size))


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """One argument for every option of `Settings`."""
    for group, names in grouped_options().items():
        shown = parser.add_argument_group(group.lower() or "following the face")
        add_options(shown.add_argument, [name for name in names if name != "enabled"])


def _reenact(chosen: argparse.Namespace) -> None:
    settings = Settings(enabled=True, **{name: getattr(chosen, name) for name in OPTION_FIELDS if name != "enabled"})
    width, height = chosen.size
    given = {entry.name: getattr(chosen, entry.name) for entry in fields(Drawing) if hasattr(chosen, entry.name)}
    drawing = Drawing(**given, width=width, height=height)
    check_picture_path(chosen.out)
    portrait = _read_portrait(chosen, settings)
    host = EmbeddedHost(chosen.checkpoint, chosen.models, chosen.lora, chosen.device, chosen.precision)
    drawn = host.follow(portrait, settings, drawing)
    for warning in drawn.warnings:
        print(f"hellomeme: {warning}", file=sys.stderr)
    save_picture(drawn.picture, chosen.out)
    print(chosen.out)


def _read_portrait(chosen: argparse.Namespace, settings: Settings) -> Portrait:
    """With the driving picture, or a frame of the driving track."""
    reference, models = read_picture(chosen.reference), Path(chosen.models)
    if Path(chosen.driving).suffix.lower() == ".json":
        track = FaceTrack.load(chosen.driving)
        return read_recorded(settings, reference, track, chosen.frame, chosen.neutral, models)
    if (chosen.frame, chosen.neutral) != (0, "absolute"):
        raise SettingsError(f"--frame and --neutral are for tracks, and {chosen.driving} is none: leave them out.")
    return read_portrait(settings, reference, read_picture(chosen.driving), models)


def _lora(text: str) -> tuple[str, float]:
    """FILE or FILE:WEIGHT; a drive's colon, as in C:\\lora.safetensors, is part of the file."""
    file, colon, weight = text.rpartition(":")
    try:
        return (file, float(weight)) if colon and file else (text, 1.0)
    except ValueError:
        return text, 1.0


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give it like 512x768") from None
    return width, height
