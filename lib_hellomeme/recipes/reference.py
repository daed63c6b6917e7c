"""Reference units: a picture's features read while sampling, as ControlNet's reference preprocessors made known.

Facts (gates, modes, formulas) after sd-webui-controlnet 56cec5b; see tests/goldens/README.md for how it computes.

1. Write pass: the UNet sees the reference at the noise level of the step. Each self-attention layer leaves its input,
   each gated block the statistics of its output.
2. Read: self-attention looks at [its own tokens; the reference's]; blocks take the reference's statistics.
3. Uncond rows go by that only by 1 − fidelity.

The weight of a unit opens gates: a place takes part where weight > gate, first the widest layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.sampling.banks import Aboard, Features, Noise, Writer, Writing, joined
from lib_hellomeme.sampling.fidelity import row_shares
from lib_hellomeme.sampling.noising import seeded_noise
from lib_hellomeme.taps.adain import Style, adain, record_statistics
from lib_hellomeme.taps.attention import Look, read, record_tokens
from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.taps.masks import keep_touched
from lib_hellomeme.unet.port import BLOCKS, SELF_ATTENTION, AnyTap, AttentionTap, Call, Parts, Port, Tap

Kind = Literal["reference_only", "reference_adain", "reference_adain+attn"]
Mode = Literal["Balanced", "My prompt is more important", "ControlNet is more important"]

WIDEST_FIRST = (4, 5, 6, 7, 8, 9, 2, 3, 10, 11, 12, 0, 1, 13, 14, 15)  # self-attention layers
ATTENTION_GATES: Mapping[str, float] = {SELF_ATTENTION[k]: rank / 16 for rank, k in enumerate(WIDEST_FIRST)}
BLOCK_GATES: Mapping[str, float] = (
    {BLOCKS[12]: 0.0}  # the middle block
    | {BLOCKS[k]: 2 * (1 - rank / 6) for rank, k in enumerate((4, 5, 7, 8, 10, 11))}  # input blocks
    | {BLOCKS[13 + k]: 2 * k / 8 for k in range(8)}  # output blocks
)


@dataclass(frozen=True)
class Unit:
    """One reference.

    latents (1, 4, h, w): scaled; of any size, save that token merging wants the picture's. weight opens gates, in
    [0, 2]; strength in [0, 1] moves everything that the unit does towards nothing. It acts while start <= progress <
    end, or to the last step where end is 1. look (1, 1, H, W): where in the reference to look; apply (1, 1, H, W):
    where in the picture to go by it; both in [0, 1], of any size. `writing` with its defaults is what
    sd-webui-controlnet does; its other values are faster. Raises SettingsError for an unknown kind or mode and for an
    empty mask.
    """

    latents: Tensor
    kind: Kind = "reference_only"
    weight: float = 1.0
    fidelity: float = 0.5
    mode: Mode = "Balanced"
    start: float = 0.0
    end: float = 1.0
    strength: float = 1.0
    look: Tensor | None = None
    apply: Tensor | None = None
    writing: Writing = field(default_factory=Writing)

    def __post_init__(self) -> None:
        for value, known in ((self.kind, get_args(Kind)), (self.mode, get_args(Mode))):
            if value not in known:
                raise SettingsError(f"Reference unit: {value!r} is not one of {', '.join(known)}.")
        if any(mask is not None and not (mask >= 0.5).any() for mask in (self.look, self.apply)):
            raise SettingsError("A mask of a reference unit is empty: draw one, or leave it out.")

    @property
    def sites(self) -> list[str]:
        """Where the unit writes and is read."""
        attention = [site for site, gate in ATTENTION_GATES.items() if self.weight > gate]
        blocks = [site for site, gate in BLOCK_GATES.items() if self.weight > gate]
        return (attention if self.kind != "reference_adain" else []) + (blocks if self.kind != "reference_only" else [])

    @property
    def fidelity_in_effect(self) -> float:
        return {"My prompt is more important": 0.0, "ControlNet is more important": 1.0}.get(self.mode, self.fidelity)

    @property
    def alone(self) -> bool:
        """Whether the unit is looked at by itself, not together with the others."""
        return self.apply is not None or self.strength < 1

    def acts(self, call: Call) -> bool:
        return self.start <= call.progress and (call.progress < self.end or self.end == 1)

    def write_taps(self, bank: Bank) -> list[AnyTap]:
        def keep(tokens: Tensor, call: Call) -> Tensor:
            return tokens if self.look is None else keep_touched(tokens, self.look, *self.latents.shape[-2:])

        return [
            record_tokens(site, bank, keep) if site in ATTENTION_GATES else record_statistics(site, bank, self.look)
            for site in self.sites
        ]


class ReferenceUnits:
    """The taps of one sampling. Attach them with `port.attach(r.taps(), describe, r.begin)`.

    alphas_cumprod: of the checkpoint's schedule, (1000,). seeds: of each picture of the batch; they decide the noise,
    which depends on nothing else but the unit's place, the row's kind and the timestep. noise: for each unit, to be
    used instead of seeds.

    Units applied everywhere at full strength are looked at together: their tokens compete in one attention, their
    fidelities, means and variances are averaged where they meet. Each other unit changes the result by itself.
    """

    def __init__(
        self,
        port: Port,
        units: Sequence[Unit],
        alphas_cumprod: Tensor,
        seeds: Sequence[int] = (0,),
        noise: Sequence[Noise] | None = None,
    ) -> None:
        noise = noise or [_noise_of(unit, place, seeds) for place, unit in enumerate(units)]
        self.units = [
            (unit, Writer(port, unit.latents, unit.write_taps, unit.writing, own, alphas_cumprod))
            for unit, own in zip(units, noise, strict=True)
            if unit.sites and unit.strength
        ]
        self._aboard: Aboard | None = None
        self._wanted: dict[str, list[_Wanted]] = {}
        self._looks: dict[str, list[Look]] = {}
        self._styles: dict[str, list[Style]] = {}

    def taps(self) -> list[AnyTap]:
        sites = {site for unit, _ in self.units for site in unit.sites}
        attention = [site for site in SELF_ATTENTION if site in sites]
        blocks = [site for site in BLOCKS if site in sites]
        return [
            *(AttentionTap(site, partial(self._record_tokens, site), riding=True) for site in attention),
            *(Tap(site, partial(self._record_hidden, site), riding=True) for site in blocks),
            *(read(site, partial(self._looks_at, site)) for site in attention),
            *(adain(site, partial(self._styles_at, site)) for site in blocks),
        ]

    def begin(self, call: Call) -> Call | None:
        """Write what the rows of this call read, or let it ride."""
        self._aboard = Aboard(call)
        self._wanted, self._looks, self._styles = {}, {}, {}
        acting = [(unit, writer) for unit, writer in self.units if unit.acts(call)]
        together = [(unit, writer) for unit, writer in acting if not unit.alone]
        for group in ([together] if together else []) + [[each] for each in acting if each[0].alone]:
            self._add(group, call, self._aboard)
        return self._aboard.riders()

    def _record_tokens(self, site: str, x: Tensor, parts: Parts, call: Call) -> Parts:
        assert self._aboard is not None
        self._aboard.record(site, x)
        return parts

    def _record_hidden(self, site: str, hidden: Tensor, call: Call) -> Tensor:
        assert self._aboard is not None
        self._aboard.record(site, hidden)
        return hidden

    def _looks_at(self, site: str, call: Call) -> list[Look]:
        """Made when the UNet has got there, and so has what rides, and once for all who ask."""
        if site not in self._looks:
            self._looks[site] = [
                Look(joined([features.at(site) for features in each.features]), each.share, each.where)
                for each in self._wanted.get(site, ())
            ]
        return self._looks[site]

    def _styles_at(self, site: str, call: Call) -> list[Style]:
        if site not in self._styles:
            self._styles[site] = [
                Style(_mean([features.at(site) for features in each.features]), each.share, each.where)
                for each in self._wanted.get(site, ())
            ]
        return self._styles[site]

    def _add(self, group: Sequence[tuple[Unit, Writer]], call: Call, aboard: Aboard) -> None:
        """What shall be read at each site of units that are looked at together."""
        least = min(unit.fidelity_in_effect for unit, _ in group)
        needed = [share > 0 for share in row_shares(call.rows, least)]
        if not any(needed):
            return
        written = [(unit, writer.features(call, needed, aboard)) for unit, writer in group]
        strength, where = group[0][0].strength, group[0][0].apply
        for site in dict.fromkeys(site for unit, _ in group for site in unit.sites):
            here = [(unit, features) for unit, features in written if site in unit.sites]
            fidelity = sum(unit.fidelity_in_effect for unit, _ in here) / len(here)
            share = tuple(strength * value for value in row_shares(call.rows, fidelity))
            self._wanted.setdefault(site, []).append(_Wanted([features for _, features in here], share, where))


class _Wanted(NamedTuple):
    """What rows read at a site: features that are looked at together, how far each row goes by them, and where."""

    features: list[Features]
    share: tuple[float, ...]
    where: Tensor | None


def _noise_of(unit: Unit, place: int, seeds: Sequence[int]) -> Noise:
    def noise(call: Call, row: int) -> Tensor:
        uncond = call.rows.uncond[row] if unit.writing.context is None else None
        key = (seeds[call.rows.picture[row]], place, uncond, float(call.timestep[row]))
        return seeded_noise(unit.latents.shape, *key)

    return noise


def _mean(statistics: Sequence[Tensor]) -> Tensor:
    """The average of several references' statistics (n or 1, 2, C, 1, 1)."""
    return torch.stack(torch.broadcast_tensors(*statistics)).mean(0)
