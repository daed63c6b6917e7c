"""HelloMeme: knitted attention over a reference portrait, control from a driving face.

Zhang et al., "HelloMeme: Integrating Spatial Knitting Attentions to Embed High-Level and Fidelity-Rich Conditions in
Diffusion Models", arXiv 2410.22901, and the published code, github.com/HelloVision/HelloMeme.

1. One write pass over the reference at timestep 0: uncond rows see zero latents, cond rows the reference's.
2. At each step control is added to the features, then the reference layers read what the write pass left.

In both passes uncond rows take the control of nobody: a condition image of -1, no expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib_hellomeme.errors import HostError
from lib_hellomeme.face.condition import condition_input
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.networks.expression import ArkitExpression, Expression, ExpressionKind, PdfgcExpression
from lib_hellomeme.taps.bank import Bank, record, write
from lib_hellomeme.taps.residual import add_residual
from lib_hellomeme.unet.port import Call, Port, Rows, Tap

Control = Mapping[str, Tensor]  # site -> features (1 + frames, C, h, w): of nobody, then of the face in each frame
ControlNetwork = Callable[[Tensor, Expression], dict[str, Tensor]]

KEPT_PASSES = 4  # write passes remembered within a sampling: split batches, alternating prompts


@torch.inference_mode()
def control_features(
    network: ControlNetwork,
    faces: Sequence[FaceFrame],
    device: torch.device,
    dtype: torch.dtype,
    kind: ExpressionKind = "arkit",
    nobody: np.ndarray | None = None,
) -> Control:
    """What a control network makes of nobody and of each of these faces, at the size of the faces' pictures.

    `nobody` is nobody's PD-FGC embedding (548,), None for zeros. A face without an embedding has nobody's.
    """
    images = [condition_input(face.rotation, face.translation, face.width, face.height) for face in faces]
    drawn = [torch.from_numpy(image) for image in images]
    condition = torch.stack([torch.full_like(drawn[0], -1.0), *drawn])  # (1 + frames, 3, H, W)
    if kind == "pdfgc":
        embedding = with_nobody([face.pd_fgc for face in faces], np.zeros(548) if nobody is None else nobody)
        expression = PdfgcExpression(embedding.to(device))
    else:
        coefficients = with_nobody([face.coefficients for face in faces], np.zeros(51))
        parts = with_nobody([face.face_parts for face in faces], np.zeros((3, 1024)))
        expression = ArkitExpression(coefficients.to(device), parts.to(device))
    return network(condition.to(device, dtype), expression)


def with_nobody(values: Sequence[np.ndarray | None], nobody: np.ndarray) -> Tensor:
    """Nobody's value, then each face's or nobody's: (1 + frames, ...) in float32."""
    rows = [nobody, *(nobody if value is None else value for value in values)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


@dataclass(frozen=True)
class Source:
    """Where the write pass takes its UNet and its prompts from, where these are not the drawing's own.

    `unet` gives another UNet's port for as long as its context lasts: one write pass. `context` gives the prompts
    (n, tokens, width) that the write pass reads in place of a call's.
    """

    unet: Callable[[], AbstractContextManager[Port]] | None = None
    context: Callable[[Call], Tensor] | None = None


OWN = Source()


@dataclass(frozen=True)
class Written:
    """What one write pass left: for each of its rows the layers' share of the reference, by site."""

    rows: Rows
    context: Tensor  # (rows, tokens, width)
    prepared: dict[str, Any]


class Reenactment:
    """The taps of one sampling. Attach them with `port.attach(r.taps(), describe, r.begin)`.

    layers: the reference layers by site. reference (1, 4, h, w): the portrait's latents (the posterior's mean, scaled).
    control: of the driving face. write_control: of the reference's own face, where the generation wants it in the write
    pass (v5c). The networks act while start <= progress < end, or to the last step where end is 1. source: what the
    write pass runs on.

    Raises HostError for a UNet that takes more than latents or is of another width, and in a call of another size
    than the reference's.
    """

    def __init__(
        self,
        port: Port,
        layers: Mapping[str, Any],
        reference: Tensor,
        control: Control,
        write_control: Control | None,
        weight: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        source: Source = OWN,
    ) -> None:
        if port.in_channels != reference.shape[1]:
            raise HostError("Inpainting checkpoints are not supported yet: choose a plain SD1.5 checkpoint.")
        for site, residual in control.items():
            if residual.shape[1] != port.channels(site):
                raise HostError(
                    f"The networks belong to a UNet with {residual.shape[1]} channels at {site}, the checkpoint's has "
                    f"{port.channels(site)}: choose networks and checkpoint that belong together."
                )
        self.port = port
        self.layers = layers
        self.reference = reference
        self.control = control
        self.write_control = write_control
        self.weight = weight
        self.start = start
        self.end = end
        self.source = source
        self._written: list[Written] = []
        self._prepared: dict[str, Any] = {}

    def taps(self) -> list[Tap]:
        """Control first, then the reference layers, as published."""
        control = [
            add_residual(site, self._while_acting(control_at(residual))) for site, residual in self.control.items()
        ]
        return control + [self._read_at(site) for site in (self.layers if self.weight else ())]

    def begin(self, call: Call) -> None:
        """Make ready what the rows of this call read, by a write pass where there has been none for them."""
        if not (self._acts(call) and self.weight):
            return
        if call.sample.shape[-2:] != self.reference.shape[-2:]:
            raise HostError(
                f"The picture is drawn in pieces or resized while sampling ({_size(call.sample)}, the reference is "
                f"{_size(self.reference)}): switch off tiled diffusion and similar extensions."
            )
        context = self.source.context
        self._prepared = self._prepared_for(replace(call, context=context(call)) if context else call)

    def _acts(self, call: Call) -> bool:
        return self.start <= call.progress and (call.progress < self.end or self.end == 1)

    def _while_acting(self, residual: Callable[[Call], Tensor]) -> Callable[[Call], Tensor | None]:
        return lambda call: residual(call) if self._acts(call) else None

    def _read_at(self, site: str) -> Tap:
        layer = self.layers[site]

        def read(hidden: Tensor, call: Call) -> Tensor:
            if not self._acts(call):
                return hidden
            return torch.add(hidden, layer.read(hidden, self._prepared[site]), alpha=self.weight)

        return Tap(site, read)

    def _prepared_for(self, call: Call) -> dict[str, Any]:
        """By site, of a call with the prompts of the write pass."""
        for written in self._written:
            index = _equal_rows(call.rows, call.context, written.rows, written.context)
            if None not in index:
                break
        else:
            written = self._write(call)
            self._written = [written, *self._written[: KEPT_PASSES - 1]]
            index = _equal_rows(call.rows, call.context, written.rows, written.context)
        shared = len(index) // len(written.rows)
        if index == [row for row in range(len(written.rows)) for _ in range(shared)]:
            return written.prepared  # the layers share each row by themselves
        chosen = torch.tensor(index, device=call.sample.device)
        return {site: prepared.rows(chosen) for site, prepared in written.prepared.items()}

    def _write(self, call: Call) -> Written:
        """The write pass, over the distinct rows of a call."""
        index = _equal_rows(call.rows, call.context, call.rows, call.context)
        first = [row for row, equal in enumerate(index) if row == equal]
        rows = Rows(tuple(call.rows.uncond[row] for row in first))
        context = call.context[first]
        reference = self.reference.to(call.sample)
        latents = torch.cat([torch.zeros_like(reference) if uncond else reference for uncond in rows.uncond])
        write_call = Call(latents, torch.zeros_like(call.timestep[: len(rows)]), context, rows)
        bank = self._bank_of(write_call)
        return Written(rows, context, {site: layer.prepare(bank.pop(site)) for site, layer in self.layers.items()})

    def _bank_of(self, call: Call) -> Bank:
        """What this pass leaves at the sites of the layers. Nothing of another UNet outlives it."""
        bank: Bank = {}
        control = [add_residual(site, control_at(residual)) for site, residual in (self.write_control or {}).items()]
        with self.source.unet() if self.source.unet else nullcontext(self.port) as port:
            write(port, call, bank, [record(site, bank) for site in self.layers], control)
        return bank


def control_at(control: Tensor) -> Callable[[Call], Tensor]:
    """What control (1 + frames, C, h, w) adds to the rows of a call (n, C, h, w)."""
    return lambda call: of_rows(control, call.rows)


def of_rows(control: Tensor, rows: Rows) -> Tensor:
    """control (1 + frames, C, h, w) for each row of a batch (n, C, h, w): nobody's where uncond, else the frame's."""
    index = [0 if uncond else 1 + frame for uncond, frame in zip(rows.uncond, rows.frame, strict=True)]
    return control if index == list(range(len(control))) else control[index]


def _equal_rows(rows: Rows, context: Tensor, other: Rows, other_context: Tensor) -> list[int | None]:
    """For each row the first among the others of the same kind and with the same prompt, None where there is none."""
    if context.shape[1:] != other_context.shape[1:]:
        return [None] * len(rows)
    kind, other_kind = (torch.tensor(one.uncond, device=context.device) for one in (rows, other))
    equal = (context[:, None] == other_context[None]).flatten(2).all(-1) & (kind[:, None] == other_kind[None])  # (n, k)
    return [row.index(True) if True in row else None for row in equal.tolist()]


def _size(latents: Tensor) -> str:
    return f"{latents.shape[-1] * 8} x {latents.shape[-2] * 8}"
