"""How training recordings are changed before each mini-batch: a list by name, as ``flip,roll:5,drop:0.1``.

All work on frames (T, N, C, H, W) of event counts, or of pixels (T = 1), in the order of the list. What is random about
a recording are numbers drawn beforehand (`AUGMENTATIONS` says how many), so that it depends neither on the others
beside it nor on who else trains. Importing this needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from netx_export.text import UserError, unknown

if TYPE_CHECKING:
    import torch

NONE = "none"
POLICIES = ("cifar10", "imagenet", "svhn")
"""Of AutoAugment, as torchvision has them."""
PIXEL_MAX = 15
"""Of the still images that are read here; AutoAugment's operations know pixels up to 255."""


class AugmentationError(UserError):
    """An augmentation that there is not, or not for such data. One clear line."""


class Step(NamedTuple):
    """One entry of a list: its name in `AUGMENTATIONS`, and how much of it."""

    name: str
    amount: Any = None

    def __str__(self) -> str:
        amount = f"{self.amount:g}" if isinstance(self.amount, float) else self.amount
        return self.name if amount is None else f"{self.name}:{amount}"


@dataclass(frozen=True)
class Augmentation:
    """A way to change recordings.

    Parameters
    ----------
    form : str
        How it is written.
    what : str
    chances : int
        Random numbers from -1 to 1 that it takes for a recording.
    apply : callable
        ``apply(frames, chances, amount)``: frames (T, N, C, H, W) changed by chances (`chances`, N).
    amount : callable, optional
        Its amount from text; raises ValueError. Without it, it takes none.
    data : str, optional
        Of "events" or "images" only.
    """

    form: str
    what: str
    chances: int
    apply: Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]
    amount: Callable[[str], Any] | None = None
    data: str | None = None


# ------------------------------------------------------------------------------------------------ of any frames


def geometric(frames: torch.Tensor, chances: torch.Tensor, amount: None = None) -> torch.Tensor:
    """Move every sample a little: up to 1.5 px, 10 degrees, 10 % zoom and shear, nearest pixel; a row along itself.

    Parameters
    ----------
    frames : torch.Tensor
        (T, N, C, H, W).
    chances : torch.Tensor
        (5, N), from -1 to 1: turn, zoom, shear, down, right (`draw`).
    amount : None
    """
    import torch  # not above: settings need none

    t, n, channels, height, width = frames.shape
    turn, zoom, shear, down, right = chances.view(5, n, 1, 1)
    if height == 1:  # there is nowhere else to go
        turn, down = torch.zeros_like(turn), torch.zeros_like(down)
    y = torch.arange(height).view(1, -1, 1) - (height - 1) / 2 - 1.5 * down
    x = torch.arange(width).view(1, 1, -1) - (width - 1) / 2 - 1.5 * right
    cos, sin = torch.cos(turn * math.radians(10)), torch.sin(turn * math.radians(10))
    size = 1 + 0.1 * zoom
    source_x = ((cos * x + sin * y) / size + 0.1 * shear * y + (width - 1) / 2).round().long()
    source_y = ((cos * y - sin * x) / size + (height - 1) / 2).round().long()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    index = source_y.clamp(0, height - 1) * width + source_x.clamp(0, width - 1)
    index = index.view(1, n, 1, -1).expand(t, n, channels, -1)
    moved = frames.flatten(3).gather(3, index) * inside.view(1, n, 1, -1)
    return moved.view(frames.shape)


def flip(frames: torch.Tensor, chances: torch.Tensor, amount: None = None) -> torch.Tensor:
    """Turn half of the samples round from left to right; chances (1, N)."""
    import torch

    return torch.where((chances[0] < 0).view(1, -1, 1, 1, 1), frames.flip(-1), frames)


def roll(frames: torch.Tensor, chances: torch.Tensor, amount: int) -> torch.Tensor:
    """Shift every sample by whole pixels, up to `amount` each way; what leaves comes in again; chances (2, N)."""
    import torch

    shifts = ((chances + 1) / 2 * (2 * amount + 1)).long().clamp(max=2 * amount) - amount
    samples = zip(frames.unbind(1), shifts.T.tolist(), strict=True)
    return torch.stack([sample.roll(shift, (-2, -1)) for sample, shift in samples], 1)


def cutout(frames: torch.Tensor, chances: torch.Tensor, amount: int) -> torch.Tensor:
    """Blank a square, `amount` pixels a side, in all frames of a sample; its middle is any pixel; chances (2, N)."""
    import torch

    inside = []
    for size, chance in zip(frames.shape[-2:], chances, strict=True):
        start = ((chance + 1) / 2 * size).long().clamp(max=size - 1).view(-1, 1) - amount // 2
        at = torch.arange(size)
        inside.append((at >= start) & (at < start + amount))
    square = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    return frames.masked_fill(square.view(1, len(square), 1, *square.shape[1:]), 0)


# ------------------------------------------------------------------------------------------------ of events


def drop(frames: torch.Tensor, chances: torch.Tensor, amount: float) -> torch.Tensor:
    """Lose each event with probability `amount`; chances (1, N)."""
    kept = frames.clone()
    for sample, (chance,) in zip(kept.unbind(1), chances.T.tolist(), strict=True):
        fired = sample > 0
        sample[fired] = _some(sample[fired], 1 - amount, chance)
    return kept


def time(frames: torch.Tensor, chances: torch.Tensor, amount: float) -> torch.Tensor:
    """Shift every sample in time, by up to the share `amount` of it; what leaves is lost; chances (2, N).

    By less than a frame too: events are taken to lie evenly in their frames, so that each goes on into the next frame
    with the probability that is left over.
    """
    import torch

    steps, moved = len(frames), torch.zeros_like(frames)
    for sample, out, (shift, chance) in zip(frames.unbind(1), moved.unbind(1), chances.T.tolist(), strict=True):
        whole = math.floor(shift * amount * steps)
        further, fired = torch.zeros_like(sample), sample > 0
        further[fired] = _some(sample[fired], shift * amount * steps - whole, chance)
        for part, by in ((sample - further, whole), (further, whole + 1)):
            start, end = max(by, 0), min(steps + by, steps)
            if start < end:
                out[start:end] += part[start - by : end - by]
    return moved


def _some(counts: torch.Tensor, probability: float, chance: float) -> torch.Tensor:
    """How many of each of these counts there are where each one is with a probability; by a chance from -1 to 1."""
    import torch

    generator = torch.Generator().manual_seed(_seed(chance))
    return torch.binomial(counts, torch.full_like(counts, probability), generator=generator)


def _seed(chance: float) -> int:
    """The seed of a recording's own source of chance."""
    return int((chance + 1) * (1 << 23))


# ------------------------------------------------------------------------------------------------ of still images


def autoaugment(frames: torch.Tensor, chances: torch.Tensor, amount: str) -> torch.Tensor:
    """Two operations of a policy found for a data set, by torchvision, on pixels scaled to 0..255; chances (1, N)."""
    import torch

    policy, images = _policy(amount), []
    with torch.random.fork_rng(devices=[]):  # torchvision knows the global source of chance only
        for image, chance in zip(frames[0], chances[0].tolist(), strict=True):
            torch.default_generator.manual_seed(_seed(chance))
            top = max(PIXEL_MAX, float(image.max()))
            changed = policy((image * (255 / top)).round().to(torch.uint8))
            images.append((changed.to(frames.dtype) * (top / 255)).round())
    return torch.stack(images).unsqueeze(0)


def _policy(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    try:
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy
    except ImportError as error:
        raise AugmentationError(
            f"augment: autoaugment needs torchvision (pip install torchvision, of the version that goes with your "
            f"torch): {error}"
        ) from None
    policy: Callable[[torch.Tensor], torch.Tensor] = AutoAugment(AutoAugmentPolicy(name))
    return policy


# ------------------------------------------------------------------------------------------------ lists


def _pixels(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10**6:
        raise ValueError("pixels, a whole number from 1 on")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise ValueError("a number between 0 and 1")
    return value


def _policy_name(text: str) -> str:
    if text not in POLICIES:
        raise ValueError(f"one of {', '.join(POLICIES)}")
    return text


AUGMENTATIONS = {
    "geometric": Augmentation("geometric", "small shifts, turns, zooms and shears", 5, geometric),
    "flip": Augmentation("flip", "half of them from left to right", 1, flip),
    "roll": Augmentation("roll:PIXELS", "shifted by up to so many pixels, round the edges", 2, roll, _pixels),
    "cutout": Augmentation("cutout:PIXELS", "a square of this side blank", 2, cutout, _pixels),
    "drop": Augmentation("drop:P", "each event lost with this probability", 1, drop, _share, "events"),
    "time": Augmentation("time:SHARE", "shifted in time by up to this share of it", 2, time, _share, "events"),
    "autoaugment": Augmentation(
        "autoaugment:POLICY", f"AutoAugment's policy {', '.join(POLICIES)}", 1, autoaugment, _policy_name, "images"
    ),
}
"""All of them, by name; a setting is a list of them.

Sources: flips and shifts of up to 5 pixels are those of the paper of MTT on CIFAR10-DVS and N-Caltech101; cutout is
DeVries and Taylor's (arXiv 1708.04552), AutoAugment that of Cubuk et al. (CVPR 2019), both on the paper's still images;
drop is the first of EventDrop's three (Gu et al., IJCAI 2021). ``geometric`` and ``time`` are ours."""


def parse(given: bool | str | Sequence[str]) -> tuple[Step, ...]:
    """A list of augmentations, as the setting has it.

    Parameters
    ----------
    given : str, sequence of str, or bool
        ``name`` or ``name:amount``, with commas between; "none" or False for none, True for ``geometric``.

    Returns
    -------
    tuple of Step
        In the order given.

    Raises
    ------
    AugmentationError
        One that is unknown, named twice, or whose amount cannot be.

    Examples
    --------
    >>> parse("flip,roll:5")
    (Step(name='flip', amount=None), Step(name='roll', amount=5))
    """
    if isinstance(given, bool):
        return (Step("geometric"),) if given else ()
    words = given.split(",") if isinstance(given, str) else [*given]
    if words in ([NONE], []):
        return ()
    steps = tuple(_step(str(word).strip()) for word in words)
    twice = [step.name for i, step in enumerate(steps) if step.name in {each.name for each in steps[:i]}]
    if twice:
        raise AugmentationError(f"{twice[0]} is named twice; give each at most once")
    return steps


def _step(word: str) -> Step:
    name, colon, amount = word.partition(":")
    if name not in AUGMENTATIONS:
        if name == NONE:
            raise AugmentationError(f"{NONE} stands alone, or not at all")
        forms = [each.form for each in AUGMENTATIONS.values()]
        raise AugmentationError(unknown("augmentation", name, [*AUGMENTATIONS, NONE]) + f"; written {', '.join(forms)}")
    entry = AUGMENTATIONS[name]
    if entry.amount is None:
        if colon:
            raise AugmentationError(f"{name} takes no amount (got {word!r})")
        return Step(name)
    try:
        return Step(name, entry.amount(amount))
    except ValueError as error:
        raise AugmentationError(f"{entry.form} must be {error} (got {word!r})") from None


def written(steps: Sequence[Step]) -> str:
    """The list as text, which `parse` reads again."""
    return ",".join(map(str, steps)) or NONE


def check(steps: Sequence[Step], static: bool, channels: int, name: str) -> None:
    """Refuse augmentations that are not for such data, or that need a package that is missing.

    Parameters
    ----------
    steps : sequence of Step
    static : bool
        Whether the data are still images.
    channels : int
        Of a frame.
    name : str
        Of the data set.

    Raises
    ------
    AugmentationError
    """
    for step in steps:
        data = AUGMENTATIONS[step.name].data
        if data is not None and (data == "images") != static:
            has = "still images" if static else "events"
            raise AugmentationError(f"augment: {step} is for {data}, and {name} has {has}: leave it out")
        if step.name == "autoaugment":
            _policy(step.amount)
            if channels not in (1, 3):
                raise AugmentationError(
                    f"augment: {step} is for grey or coloured images, and {name} has {channels} channels: leave it out"
                )


def chances(steps: Sequence[Step]) -> int:
    """Random numbers that a recording takes."""
    return sum(AUGMENTATIONS[step.name].chances for step in steps)


def draw(count: int, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Random numbers from -1 to 1, so many for each of so many samples, (count, samples)."""
    import torch

    return torch.cat([torch.rand(1, samples, generator=generator) * 2 - 1 for _ in range(count)])


def augment(frames: torch.Tensor, drawn: torch.Tensor, steps: Sequence[Step]) -> torch.Tensor:
    """Change frames by a list of augmentations, one after the other.

    Parameters
    ----------
    frames : torch.Tensor
        (T, N, C, H, W), counts as floats.
    drawn : torch.Tensor
        (`chances`, N), from `draw`.
    steps : sequence of Step

    Returns
    -------
    torch.Tensor
        Of the same shape.
    """
    start = 0
    for step in steps:
        entry = AUGMENTATIONS[step.name]
        frames = entry.apply(frames, drawn[start : start + entry.chances], step.amount)
        start += entry.chances
    return frames
