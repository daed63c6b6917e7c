"""What both webuis share around a sampling, and which one this is.

A host is a module, `a1111` or `forge`, with the functions of `Host`. `modules.*` is imported inside functions: nothing
here may be needed before the webui itself has started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from lib_hellomeme.errors import HelloMemeError, HostError
from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.unet.port import AnyTap, Call, LeftAloneError
from lib_hellomeme.webui.step import Step, followed_steps


class Host(Protocol):
    """What differs between the webuis. `p` is the webui's StableDiffusionProcessing."""

    def check(self, p: Any) -> None:
        """Raises HostError where p's model cannot be served."""
        ...

    def refuse_references(self, p: Any) -> None:
        """Raises HostError where another extension reads references at the same layers."""
        ...

    def port(self, p: Any) -> LdmPort | ForgePort:
        """The sites of the UNet that p samples with now."""
        ...

    def port_of(self, p: Any, unet: nn.Module) -> LdmPort | ForgePort:
        """The same sites of another UNet of the same structure, for bare passes."""
        ...

    def first_stage(self, p: Any) -> nn.Module:
        """The webui's VAE."""
        ...

    def text_model(self, p: Any, tensors: Mapping[str, Tensor], file: str) -> Callable[[Any], Tensor]:
        """What the webui makes of a list of prompts, (n, tokens, width), but by another text encoder: the tensors of a
        file of this name, by LDM's names."""
        ...

    def reserve(self, p: Any, size: int) -> None:
        """Let p's next sampling leave `size` bytes of the GPU's memory alone."""
        ...

    def encode(self, p: Any, picture: np.ndarray) -> Tensor:
        """RGB uint8 (H, W, 3), sides multiples of 8, to scaled latents (1, 4, H / 8, W / 8): the posterior's mean."""
        ...

    def alphas_cumprod(self, p: Any) -> Tensor:
        """Of the checkpoint's schedule, (1000,)."""
        ...

    def empty_prompt(self, p: Any) -> Tensor:
        """The context (1, tokens, width) of a prompt without words."""
        ...

    def describe(self, step: Step, sample: Tensor, timestep: Tensor, context: Tensor, options: Any) -> Call | None:
        """What the rows of this call are. Raises HostError where that cannot be known."""
        ...


def host_of(p: Any) -> Host:
    """The host of a generation. Raises HostError for a webui that is neither A1111 nor Forge."""
    if not hasattr(p.sd_model, "forge_objects"):
        from lib_hellomeme.webui import a1111

        return a1111
    from lib_hellomeme.webui import forge

    return forge


ORDER = ("HelloMeme references", "HelloMeme")  # of our scripts' taps: AdaIN comes before control is added


def within_sampling(sampler: Any, who: str, attached: Callable[[], AbstractContextManager[Any]], mark: Any) -> None:
    """Enter `attached()` for as long as this sampler of the webui samples, however that ends.

    It is for one sampling: img2img keeps its sampler for all pictures of a batch count, and asks again before each.
    Each of our scripts (`who`, one of ORDER) may ask; asking again before replaces what the same one asked. `mark` is
    kept for `marked`.
    """
    original = sampler.launch_sampling
    asked = getattr(original, "asked", None)
    if asked is None:
        asked = {}

        def launch_sampling(*args: Any, **kwargs: Any) -> Any:
            with ExitStack() as stack:
                for name in sorted(asked, key=ORDER.index):
                    stack.enter_context(asked.pop(name)[0]())
                return original(*args, **kwargs)

        launch_sampling.asked = asked  # type: ignore[attr-defined]
        sampler.launch_sampling = launch_sampling
    asked[who] = attached, mark


def marked(sampler: Any, who: str) -> Any:
    """The mark of this script's `within_sampling` for this sampler's next sampling, None where there is none.

    Raises HostError for a webui whose samplers we do not know.
    """
    if not hasattr(sampler, "launch_sampling"):
        raise HostError("This webui is not supported: use AUTOMATIC1111 1.10 or Forge.")
    return getattr(sampler.launch_sampling, "asked", {}).get(who, (None, None))[1]


class Recipe(Protocol):
    """The taps of one sampling, and what is made ready before each call."""

    def taps(self) -> Sequence[AnyTap]: ...

    def begin(self, call: Call) -> Call | None: ...


@contextmanager
def taps_attached(
    p: Any, host: Host, recipe: Recipe, refuse: Callable[[HelloMemeError], None]
) -> Iterator[Callable[[], bool]]:
    """The recipe's taps in p's UNet. An error of ours silences them for the rest of the sampling instead of ending it,
    and is told to `refuse`.

    Yields a function that says whether p still samples with that UNet: a refiner may have taken over.
    """
    refused = False

    def describe(sample: Tensor, timestep: Tensor, context: Tensor, options: Any) -> Call | None:
        nonlocal refused
        if refused:
            return None
        try:
            return host.describe(step, sample, timestep, context, options)
        except HelloMemeError as error:
            refused = True
            refuse(error)
            return None

    def begin(call: Call) -> Call | None:
        nonlocal refused
        try:
            return recipe.begin(call)
        except HelloMemeError as error:
            refused = True
            refuse(error)
            raise LeftAloneError from error

    port = host.port(p)
    with followed_steps(p) as step, port.attach(recipe.taps(), describe, begin):
        yield lambda: host.port(p).unet is port.unet
