"""Random augmentation of whole batches, drawn anew for each sample, as `falconet.data.augmentation` sets it.

All randomness comes from the generator that is passed, and only what is switched on draws from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from falconet.data.augmentation import ImageAugmentation, SeriesAugmentation, TextAugmentation

_CROP_RATIO = 4 / 3
"""Largest ratio of a crop's sides, each as a fraction of the image's."""

_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = 1 / 0.3
"""Random erasing: range of the area, and largest ratio of the sides (Zhong et al. 2020, section 4)."""

_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""Matrix from RGB to YIQ: luma, which is gray, and the two components of color of NTSC."""

UNCHANGED = (1.0, 1.0, 1.0, 0.0)
"""Brightness, contrast and saturation factors, and turn of the hue as a fraction of the circle, that change nothing."""

_STRENGTHS = 31
_WAVES = 3
_SLOWEST = 0.1
"""Time warp: number of sine waves that add up to it, and smallest local speed of time, where 1 is unwarped."""


def augment_images(
    images: Float32[Tensor, "batch channels height width"], config: ImageAugmentation, generator: torch.Generator
) -> Float32[Tensor, "batch channels height width"]:
    """Augment images of 1 or 3 channels with values in 0..1, which stay in that range.

    In order: all geometry in one interpolation, where what comes in from outside repeats the border; brightness,
    contrast, saturation and hue; TrivialAugment; random erasing. Mixing is left to `mix_samples`.
    """
    if config.moves:
        maps = _draw_maps(len(images), config, generator)
        if config.resamples:
            images = warp(images, maps, draw_elastic(images.shape, config, generator) if config.elastic else None)
        else:
            images = _move_pixels(images, maps)
    if config.recolors:
        ranges = torch.tensor([config.brightness, config.contrast, config.saturation, config.hue])
        images = recolor(images, torch.tensor(UNCHANGED) + ranges * _draw_uniform((len(images), 4), generator))
    if config.trivial:
        images = _apply_trivial(images, generator)
    if config.erase:
        images = erase(images, config.erase, generator)
    return images


def mix_samples(
    images: Float32[Tensor, "batch channels height width"],
    labels: Int64[Tensor, " batch"],
    num_classes: int,
    config: ImageAugmentation,
    generator: torch.Generator,
) -> tuple[Float32[Tensor, "batch channels height width"], Float32[Tensor, "batch classes"]]:
    """Mix each image with another of the batch, and their labels, as soft labels, with the same weights.

    Mixup blends whole images (Zhang et al. 2018, equation 1); CutMix pastes a rectangle (Yun et al. 2019, equations 1
    and 2), whose center may lie anywhere, so that the labels follow the area that was pasted.
    """
    targets = F.one_hot(labels, num_classes).float()
    if not config.mixes:
        return images, targets
    partner = torch.randperm(len(labels), generator=generator)
    paste = not config.mixup or (config.cutmix > 0 and bool(torch.rand((), generator=generator) < 0.5))
    mix = _draw_beta(len(labels), config.cutmix if paste else config.mixup, generator)
    if paste:
        sides = torch.sqrt(1 - mix)[:, None].expand(-1, 2)
        corner = torch.rand(len(labels), 2, generator=generator) - sides / 2
        inside = _mark_boxes(corner, sides, images.shape[-2:])
        images = torch.lerp(images, images[partner], inside)
        mix = 1 - inside.mean(dim=(1, 2, 3))
    else:
        images = torch.lerp(images[partner], images, mix[:, None, None, None])
    return images, torch.lerp(targets[partner], targets, mix[:, None])


def augment_series(
    series: Float32[Tensor, "batch channels steps"], config: SeriesAugmentation, generator: torch.Generator
) -> Float32[Tensor, "batch channels steps"]:
    """Augment normalized series; NaN stands after each one's end and stays there.

    In order: time is warped within each series' own length; noise is added; one piece is set to 0, the mean.
    """
    missing = series.isnan()
    x = series.masked_fill(missing, 0)
    numbers = torch.arange(1, series.shape[2] + 1)
    lengths = (numbers * ~missing.all(dim=1)).amax(dim=1)
    if config.time_warp:
        x = _warp_time(x, lengths, config.time_warp, generator)
    if config.jitter:
        x = x + config.jitter * _measure_std(x, missing) * torch.randn(x.shape, generator=generator)
    if config.mask:
        width, start = torch.rand(2, len(series), generator=generator)
        width = config.mask * width * lengths
        offset = numbers - 0.5 - (start * (lengths - width))[:, None]
        x = x.masked_fill(((offset >= 0) & (offset < width[:, None]))[:, None], 0)
    return x.masked_fill(missing, torch.nan)


def augment_tokens(
    tokens: Int64[Tensor, "batch length"], config: TextAugmentation, generator: torch.Generator
) -> Int64[Tensor, "batch length"]:
    """Edit texts: in order, some tokens are left out, some change places, some are masked; padding stays behind."""
    if config.delete:
        tokens = _delete_tokens(tokens, config.delete, generator)
    if config.swap:
        tokens = _swap_tokens(tokens, config.swap, generator)
    return mask_tokens(tokens, config, generator) if config.mask else tokens


def _delete_tokens(
    tokens: Int64[Tensor, "batch length"], probability: float, generator: torch.Generator
) -> Int64[Tensor, "batch length"]:
    """Leave each token out with this probability, but never all of a text; what follows moves up, 0 fills the end."""
    draws = torch.rand(tokens.shape, generator=generator).masked_fill(tokens == 0, -1)
    stays = (tokens != 0) & ((draws >= probability) | (draws == draws.amax(dim=1, keepdim=True)))
    order = torch.argsort((~stays).to(torch.uint8), dim=1, stable=True)
    return tokens.masked_fill(~stays, 0).gather(1, order)


def _swap_tokens(
    tokens: Int64[Tensor, "batch length"], probability: float, generator: torch.Generator
) -> Int64[Tensor, "batch length"]:
    """Choose each token with this probability, and deal the chosen ones of a text out again over their places."""
    chosen = (torch.rand(tokens.shape, generator=generator) < probability) & (tokens != 0)
    draws = torch.rand(tokens.shape, generator=generator)
    # Those that are not chosen stand after the others in both orders, alike.
    places = torch.arange(tokens.shape[1]).expand(tokens.shape)
    last = tokens.shape[1] + places.float()
    order, dealt = (torch.argsort(torch.where(chosen, keys, last), dim=1) for keys in (places.float(), draws))
    return torch.empty_like(tokens).scatter_(1, order, tokens.gather(1, dealt))


def mask_tokens(
    tokens: Int64[Tensor, "batch length"], config: TextAugmentation, generator: torch.Generator
) -> Int64[Tensor, "batch length"]:
    """Replace tokens by token 1, the mask, at random; token 0, padding, stays."""
    chosen = torch.rand(tokens.shape, generator=generator) < config.mask
    return tokens.masked_fill(chosen & (tokens != 0), 1)


def _draw_maps(batch: int, config: ImageAugmentation, generator: torch.Generator) -> Float32[Tensor, "batch 2 3"]:
    """Draw maps from output to input coordinates, both in -1..1, as `warp` takes them: an affine one within a crop.

    What a rotated crop shows at its corners is what lies there in the image, not a border.
    """
    maps = make_affine(_draw_uniform((6, batch), generator), config)
    if config.crop < 1 or config.flip_horizontal or config.flip_vertical:
        area = 1 - (1 - config.crop) * torch.rand(batch, generator=generator)
        sides = draw_sides(area, _CROP_RATIO, generator)
        center = (1 - sides) * _draw_uniform((batch, 2), generator)
        mirrored = torch.rand(batch, 2, generator=generator)
        flips = mirrored < torch.tensor([config.flip_horizontal, config.flip_vertical])
        maps = maps * torch.where(flips, -sides, sides)[:, :, None]
        maps[:, :, 2] += center
    return maps


def make_affine(draws: Float32[Tensor, "6 batch"], config: ImageAugmentation) -> Float32[Tensor, "batch 2 3"]:
    """Return the maps for draws from -1..1: rotation, after shear, after scaling, plus a shift.

    The draws are those of the angle, the slant, the two scales and the two shifts, horizontal ones first.
    """
    rotate, shear, scale_x, scale_y, shift_x, shift_y = draws
    angle = rotate * math.radians(config.rotate)
    slant = torch.tan(shear * math.radians(config.shear))
    width, height = 1 + scale_x * config.scale, 1 + scale_y * config.scale
    cos, sin = torch.cos(angle), torch.sin(angle)
    # In -1..1, a shift by this fraction of a side is twice as many units.
    first = torch.stack([cos * width, (cos * slant - sin) * height, 2 * config.shift * shift_x], dim=1)
    second = torch.stack([sin * width, (sin * slant + cos) * height, 2 * config.shift * shift_y], dim=1)
    return torch.stack([first, second], dim=1)


def warp(
    images: Float32[Tensor, "batch channels height width"],
    maps: Float32[Tensor, "batch 2 3"],
    displacement: Float32[Tensor, "batch 2 height width"] | None = None,
) -> Float32[Tensor, "batch channels height width"]:
    """Return what each map, plus a displacement in its units, finds in its image; outside, the border is repeated.

    The maps are those of a square: rotation and slant are meant in pixels, whatever the shape.
    """
    height, width = images.shape[-2:]
    maps = maps * torch.tensor([[1, height / width, 1], [width / height, 1, 1]])
    # An outer sum of what rows and columns add takes an eighth of the time of torch's affine_grid.
    along = maps[:, :, :1] * _pixel_centers(width)
    down = maps[:, :, 1:2] * _pixel_centers(height) + maps[:, :, 2:]
    grid = down[:, :, :, None] + along[:, :, None, :]
    if displacement is not None:
        grid += displacement
    places = grid.permute(0, 2, 3, 1)
    found = F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)
    # The weights of four neighbors add up to 1 but for rounding.
    return found.clamp_(0, 1)


def _move_pixels(
    images: Float32[Tensor, "batch channels height width"], maps: Float32[Tensor, "batch 2 3"]
) -> Float32[Tensor, "batch channels height width"]:
    """Do what `warp` does for maps that mirror and shift alone, but by whole pixels, the nearest number of them.

    A fraction of a pixel would blur what is trained on, and nothing of what is evaluated.
    """
    columns, rows = (_find_sources(maps[:, axis, axis], maps[:, axis, 2], images.shape[3 - axis]) for axis in range(2))
    batch = torch.arange(len(images))[:, None, None]
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _find_sources(
    direction: Float32[Tensor, " batch"], shift: Float32[Tensor, " batch"], side: int
) -> Int64[Tensor, "batch side"]:
    """Return where each pixel of a side comes from; `direction` is -1 where that side is mirrored."""
    places = torch.arange(side)
    mirrored = torch.where(direction[:, None] < 0, places.flip(0), places)
    return (mirrored + (shift[:, None] * side / 2).round().long()).clamp(0, side - 1)


def draw_elastic(
    shape: torch.Size, config: ImageAugmentation, generator: torch.Generator
) -> Float32[Tensor, "batch 2 height width"]:
    """Draw smooth displacements in units of -1..1 (Simard, Steinkraus and Platt 2003).

    Gaussian noise on control points, one standard deviation of the smoothing apart, takes the place of noise in every
    pixel: the correlation is the same to 1 part in 10,000, for two small products instead of a wide blur.
    """
    batch, _, height, width = shape
    rows, columns = (_smoothing_weights(side, config.smoothness) for side in (height, width))
    noise = torch.randn(batch, 2, rows.shape[1], columns.shape[1], generator=generator)
    return (rows * (2 * config.elastic)) @ (noise @ columns.T)


def _smoothing_weights(side: int, smoothness: float) -> Float32[Tensor, "side points"]:
    """Return Gaussian weights of control points for each pixel of a side, each row of unit norm.

    Products with independent noise of unit variance then have exactly unit variance, up to the border too.
    """
    reach = 3
    points = torch.arange(-reach, math.ceil(1 / smoothness) + reach + 1)
    distance = (_pixel_centers(side)[:, None] + 1) / (2 * smoothness) - points
    return F.normalize(torch.exp(-0.5 * distance**2), dim=1)


def recolor(
    images: Float32[Tensor, "batch channels height width"], factors: Float32[Tensor, "batch 4"]
) -> Float32[Tensor, "batch channels height width"]:
    """Change brightness, then contrast, saturation and hue, as UNCHANGED lists them, by one matrix an image.

    Of gray images, which have but one channel, the first two.
    """
    brightness, contrast, saturation, hue = factors.unbind(dim=1)
    channels = images.shape[1]
    means = images.mean(dim=(2, 3))
    gray = means[:, 0] if channels == 1 else means @ torch.tensor(_YIQ[0])
    matrix = torch.ones(len(images), 1, 1) if channels == 1 else _turn_colors(saturation, hue)
    matrix = matrix * (brightness * contrast)[:, None, None]
    offset = ((1 - contrast) * brightness * gray)[:, None, None]
    return torch.baddbmm(offset, matrix, images.flatten(2)).view(images.shape).clamp_(0, 1)


def _turn_colors(saturation: Float32[Tensor, " batch"], hue: Float32[Tensor, " batch"]) -> Float32[Tensor, "batch 3 3"]:
    """Return matrices that keep luma and scale and turn the plane of colors of YIQ; hue is in turns, red to green."""
    to_yiq = torch.tensor(_YIQ)
    from_yiq = torch.linalg.inv(to_yiq)
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    gray = from_yiq[:, :1] @ to_yiq[:1]
    kept = from_yiq[:, 1:] @ to_yiq[1:]
    turned = from_yiq[:, 1:] @ quarter @ to_yiq[1:]
    angle = 2 * torch.pi * hue
    parts = torch.stack([torch.ones_like(angle), saturation * torch.cos(angle), saturation * torch.sin(angle)], dim=1)
    return torch.einsum("bk,kij->bij", parts, torch.stack([gray, kept, turned]))


def erase(
    images: Float32[Tensor, "batch channels height width"], probability: float, generator: torch.Generator
) -> Float32[Tensor, "batch channels height width"]:
    """Fill a rectangle of some images with the mean of their channels."""
    low, high = _ERASED_AREA
    area = low + (high - low) * torch.rand(len(images), generator=generator)
    sides = draw_sides(area, _ERASED_RATIO, generator)
    corner = (1 - sides) * torch.rand(len(images), 2, generator=generator)
    chosen = torch.rand(len(images), 1, generator=generator) < probability
    inside = _mark_boxes(corner, sides * chosen, images.shape[-2:])
    return torch.lerp(images, images.mean(dim=(2, 3), keepdim=True), inside)


def draw_sides(area: Float32[Tensor, " batch"], ratio: float, generator: torch.Generator) -> Float32[Tensor, "batch 2"]:
    """Draw width and height, as fractions of an image's, of rectangles of given areas.

    Their ratio is log-uniform in 1 / ratio to ratio, or narrower where a side would leave the image.
    """
    limit = torch.log(area).neg().clamp(0, math.log(ratio))
    stretch = torch.exp(limit * _draw_uniform((len(area),), generator) / 2)
    return torch.sqrt(area)[:, None] * torch.stack([stretch, 1 / stretch], dim=1)


def _mark_boxes(
    corner: Float32[Tensor, "batch 2"], sides: Float32[Tensor, "batch 2"], size: torch.Size
) -> Float32[Tensor, "batch 1 height width"]:
    """Mark by 1 the pixels whose centers lie in a rectangle, and others by 0.

    Its corner and sides are fractions of the image's, horizontal ones first.
    """
    height, width = size
    offset_x = (_pixel_centers(width) + 1) / 2 - corner[:, :1]
    offset_y = (_pixel_centers(height) + 1) / 2 - corner[:, 1:]
    across = (offset_x >= 0) & (offset_x < sides[:, :1])
    down = (offset_y >= 0) & (offset_y < sides[:, 1:])
    return (down.float()[:, :, None] * across.float()[:, None, :])[:, None]


def _pixel_centers(side: int) -> Float32[Tensor, " side"]:
    """Return the centers of the pixels of a side that runs from -1 to 1."""
    return (torch.arange(side) * 2 + 1) / side - 1


def _draw_uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from -1..1."""
    return torch.empty(shape).uniform_(-1, 1, generator=generator)


def _draw_beta(batch: int, alpha: float, generator: torch.Generator) -> Float32[Tensor, " batch"]:
    """Draw from the Beta distribution with both parameters `alpha`."""
    # Torch's own takes no generator; NumPy's is seeded from it.
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, batch).astype(np.float32))


def _apply_trivial(
    images: Float32[Tensor, "batch channels height width"], generator: torch.Generator
) -> Float32[Tensor, "batch channels height width"]:
    """Apply to each image one of OPERATIONS at one strength (Müller and Hutter 2021, algorithm 1)."""
    batch = len(images)
    operations = torch.randint(len(OPERATIONS), (batch,), generator=generator)
    signs = 2 * torch.randint(2, (batch,), generator=generator) - 1
    strengths = signs * torch.randint(_STRENGTHS, (batch,), generator=generator) / (_STRENGTHS - 1)
    result = images.clone()
    for number, operate in enumerate(OPERATIONS):
        (chosen,) = torch.where(operations == number)
        if len(chosen):
            result[chosen] = operate(images[chosen], strengths[chosen])
    return result


def _keep(images: Tensor, _: Tensor) -> Tensor:
    return images


def _shear(images: Tensor, strength: Tensor, axis: int) -> Tensor:
    maps = torch.eye(2, 3).repeat(len(images), 1, 1)
    maps[:, axis, 1 - axis] = 0.99 * strength
    return warp(images, maps)


def _translate(images: Tensor, strength: Tensor, axis: int) -> Tensor:
    side = images.shape[3 - axis]
    maps = torch.eye(2, 3).repeat(len(images), 1, 1)
    # The paper's 32 pixels would push a small image out of view.
    maps[:, axis, 2] = 2 * min(32 / side, 0.45) * strength
    return warp(images, maps)


def _rotate(images: Tensor, strength: Tensor) -> Tensor:
    draws = F.pad(strength[None], (0, 0, 0, 5))
    return warp(images, make_affine(draws, ImageAugmentation(rotate=135)))


def _change_color(images: Tensor, strength: Tensor, which: int) -> Tensor:
    factors = torch.tensor(UNCHANGED).repeat(len(images), 1)
    factors[:, which] += 0.99 * strength
    return recolor(images, factors)


def _sharpen(images: Tensor, strength: Tensor) -> Tensor:
    """Move pixels away from, or toward, the weighted mean of their 3x3 neighborhood; the rim has none."""
    if min(images.shape[-2:]) < 3:
        return images
    inner = images[..., 1:-1, 1:-1]
    # Ten times as fast as a convolution, which is not made for single channels.
    columns = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    smooth = (columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:] + 4 * inner) / 13
    result = images.clone()
    result[..., 1:-1, 1:-1] += 0.99 * strength[:, None, None, None] * (inner - smooth)
    return result.clamp_(0, 1)


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Clear up to 6 of the 8 bits of each value, the lowest first."""
    step = 2 ** torch.round(6 * strength.abs())[:, None, None, None]
    return torch.floor(torch.round(images * 255) / step) * step / 255


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Invert values from a threshold on, which falls from 1 to 0."""
    threshold = 1 - strength.abs()[:, None, None, None]
    return torch.where(images >= threshold, 1 - images, images)


def _stretch_contrast(images: Tensor, _: Tensor) -> Tensor:
    """Let each channel fill 0..1, unless it has one value only."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low), images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Make the histogram of each channel, of 256 values, as even as Pillow's `ImageOps.equalize` does."""
    values = torch.round(images * 255).long().flatten(2)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.long)
    counts.scatter_add_(2, values, torch.ones_like(values))
    brightest = counts.gather(2, values.amax(dim=2, keepdim=True))
    step = (values.shape[2] - brightest) // 255
    darker = counts.cumsum(dim=2) - counts
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255) / 255
    return torch.where(step[..., None] > 0, table.gather(2, values).view(images.shape), images)


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _keep,
    partial(_shear, axis=0),
    partial(_shear, axis=1),
    partial(_translate, axis=0),
    partial(_translate, axis=1),
    _rotate,
    partial(_change_color, which=0),
    partial(_change_color, which=1),
    partial(_change_color, which=2),
    _sharpen,
    posterize,
    solarize,
    _stretch_contrast,
    equalize,
)
"""Operations of TrivialAugment Wide; each takes a strength in -1..1, of which some use the absolute value alone."""


def _warp_time(
    x: Float32[Tensor, "batch channels steps"],
    lengths: Int64[Tensor, " batch"],
    displacement: float,
    generator: torch.Generator,
) -> Float32[Tensor, "batch channels steps"]:
    """Read each series at times that run unevenly from its first step to its last (Um et al. 2017).

    Times are displaced by sine waves that vanish at both ends, with stds that fall as 1 / order. Where time would
    come near to turning back, all of that series' displacement is reduced.
    """
    last = (lengths - 1).clamp(min=1)[:, None]
    time = (torch.arange(x.shape[2]) / last).clamp(max=1)
    order = torch.arange(1, _WAVES + 1)
    std = math.sqrt(2 / sum(1 / k**2 for k in range(1, _WAVES + 1))) / order
    waves = displacement * std * torch.randn(len(x), _WAVES, generator=generator)
    phase = torch.pi * order[:, None] * time[:, None]
    moved = (waves[:, :, None] * torch.sin(phase)).sum(dim=1)
    backward = -((waves * torch.pi * order)[:, :, None] * torch.cos(phase)).sum(dim=1)
    steepest = backward.amax(dim=1, keepdim=True).clamp(min=1 - _SLOWEST)
    return _read_between(x, (time + moved * (1 - _SLOWEST) / steepest) * last)


def _read_between(
    x: Float32[Tensor, "batch channels steps"], places: Float32[Tensor, "batch steps"]
) -> Float32[Tensor, "batch channels steps"]:
    """Return the values at places between steps, linearly interpolated."""
    places = places.clamp(0, x.shape[2] - 1)[:, None].expand(x.shape)
    left = places.long()
    right = (left + 1).clamp(max=x.shape[2] - 1)
    return torch.lerp(x.gather(2, left), x.gather(2, right), places - left)


def _measure_std(
    x: Float32[Tensor, "batch channels steps"], missing: Bool[Tensor, "batch channels steps"]
) -> Float32[Tensor, "batch channels 1"]:
    """Return the standard deviation over each series' own steps; `x` is 0 where one is missing."""
    count = (~missing).sum(dim=2, keepdim=True).clamp(min=1)
    centered = (x - x.sum(dim=2, keepdim=True) / count).masked_fill(missing, 0)
    return torch.sqrt((centered**2).sum(dim=2, keepdim=True) / count)
