"""Real inputs for the networks of `strangers`: rendered text, crops of photographs, synthesized sounds, files.

Everything is made from a seed and from what installed packages ship, so that a run needs no data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float32]
Random = np.random.Generator
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
FACES = ("Sans", "Serif", "SansMono", "Sans-Bold", "Serif-Italic")
RATE = 16_000
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
"""First three formants in Hz of a, i, u, e, o (Peterson and Barney 1952, men)."""
KINDS = ("py", "json", "md", "js", "css", "html", "c", "h", "png", "so", "txt", "ttf", "svg", "toml", "pyi")


@cache
def words() -> tuple[str, ...]:
    """Words of the docstrings that the course ships."""
    from eightbit.course.datasets import docstring_split

    passages = docstring_split(64, 64).calibration
    return tuple(w for p in passages for w in p.passage.split() if w.isascii() and 2 < len(w) < 14)


def font(rng: Random, size: int) -> Any:
    """One of matplotlib's fonts."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVu{rng.choice(FACES)}.ttf", size)


def line(rng: Random, height: int, width: int) -> Floats:
    """A line of text as (1, 3, height, width) in [-1, 1]: dark on light or light on dark, with noise."""
    dark, light = rng.integers(0, 90, 3), rng.integers(160, 256, 3)
    ink, paper = (dark, light) if rng.random() < 0.75 else (light, dark)
    face, some = font(rng, 32), rng.choice(words(), 8)
    fitting = [text for n in range(1, 9) if face.getlength(text := " ".join(some[:n])) + 20 <= width]
    text = fitting[-1] if fitting else some[0][:8]
    picture = Image.new("RGB", (min(width, int(face.getlength(text)) + 20), height), tuple(map(int, paper)))
    ImageDraw.Draw(picture).text((10, 4), text, tuple(map(int, ink)), face)
    pixels = np.zeros((height, width, 3), np.float32)
    pixels[:, : picture.width] = (
        np.asarray(picture) + rng.normal(0, 4, (height, picture.width, 3))
    ) / 127.5 - 1
    return pixels.clip(-1, 1).transpose(2, 0, 1)[None].astype(np.float32)


def page(rng: Random, side: int) -> Image.Image:
    """A page with lines of text, large and small."""
    paper = tuple(map(int, rng.integers(200, 256, 3)))
    picture, top = Image.new("RGB", (side, side), paper), 16
    while top < side - 50:
        size = int(rng.integers(14, 34))
        text = " ".join(rng.choice(words(), rng.integers(1, 5)))
        ink = tuple(map(int, rng.integers(0, 100, 3)))
        ImageDraw.Draw(picture).text((int(rng.integers(8, side // 4)), top), text, ink, font(rng, size))
        top += size + int(rng.integers(8, 40))
    return picture


def normalized(picture: Image.Image) -> Floats:
    """A picture as (1, 3, H, W), with ImageNet's mean and deviation taken out."""
    pixels = (np.asarray(picture, np.float32) / 255 - IMAGENET[0]) / IMAGENET[1]
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


def portrait(rng: Random) -> Floats:
    """A crop of a photograph, most of them with a face, as (1, 128, 128, 3) in [-1, 1]."""
    from skimage import data

    pictures = (data.astronaut,) * 4 + (data.coffee, data.rocket)
    picture = Image.fromarray(pictures[rng.integers(len(pictures))]())
    side = int(rng.integers(180, min(picture.size) + 1))
    left = int(rng.integers(0, min(picture.width - side, 200) + 1))
    top = int(rng.integers(0, min(picture.height - side, 60) + 1))
    crop = picture.crop((left, top, left + side, top + side)).rotate(float(rng.normal(0, 8)))
    pixels = np.asarray(crop.resize((128, 128)), np.float32) * rng.uniform(0.5, 1.1)
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    return np.ascontiguousarray((pixels / 127.5 - 1).clip(-1, 1)[None], np.float32)


def photograph(rng: Random) -> Floats:
    """The same as (1, 3, 320, 320) in [0, 1]."""
    pixels = np.asarray((portrait(rng)[0] + 1) * 127.5, np.uint8)
    large = Image.fromarray(pixels).resize((320, 320), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(large, np.float32).transpose(2, 0, 1)[None] / 255)


def music(rng: Random, count: int = 43_844, rate: int = 22_050) -> Floats:
    """Notes of plucked strings over each other, (1, count, 1)."""
    t, sound = np.arange(count) / rate, rng.normal(0, 1e-3, count)
    for _ in range(rng.integers(3, 10)):
        start, pitch = rng.uniform(0, 1.6), 440 * 2 ** ((rng.integers(40, 84) - 69) / 12)
        since = (t - start).clip(0)
        tone = sum(
            np.sin(2 * np.pi * k * pitch * since) / k**1.3 for k in range(1, 8) if k * pitch < rate / 2
        )
        sound += rng.uniform(0.05, 0.3) * tone * np.exp(-since * rng.uniform(1, 5)) * (t > start)
    return sound.astype(np.float32).clip(-1, 1).reshape(1, count, 1)


def speech(rng: Random, frames: int = 60) -> Floats:
    """Vowels by formants, hissed consonants and pauses: frames of 512 samples behind the 64 before, (frames, 576)."""
    pieces: list[NDArray[np.float64]] = []
    while sum(map(len, pieces)) < 512 * frames:
        length = int(rng.uniform(0.08, 0.3) * RATE)
        pieces += [_vowel(rng, length), rng.normal(0, 0.03, int(rng.uniform(0.02, 0.08) * RATE))]
        if rng.random() < 0.25:
            pieces.append(np.zeros(int(rng.uniform(0.2, 0.6) * RATE)))
    sound = np.concatenate(pieces)[: 512 * frames] * rng.uniform(0.3, 1.0)
    sound = np.concatenate([np.zeros(64), sound + rng.normal(0, 0.003, sound.size)])
    return np.stack([sound[512 * i : 512 * i + 576] for i in range(frames)]).astype(np.float32)


def _vowel(rng: Random, length: int) -> NDArray[np.float64]:
    """Pulses of the glottis through three resonances."""
    from scipy.signal import lfilter

    pitch = rng.uniform(90, 220) * np.linspace(1, rng.uniform(0.8, 1.2), length)
    sound = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0) + rng.normal(0, 0.005, length)
    for formant in VOWELS[rng.integers(len(VOWELS))]:
        radius, angle = np.exp(-np.pi * 90 / RATE), 2 * np.pi * formant / RATE
        sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
    return np.asarray(0.3 * sound / np.abs(sound).max() * np.hanning(length) ** 0.3)


def files(rng: Random) -> Iterator[NDArray[np.int32]]:
    """The first and the last 1,024 bytes of files that packages ship, stripped and filled up with 256: (1, 2048)."""
    from matplotlib import get_data_path

    root = Path(get_data_path()).parents[1]
    found = [p for kind in KINDS for p in sorted(root.glob(f"[a-p]*/**/*.{kind}"))[:400:20]]
    for index in rng.permutation(len(found)):
        content = found[index].read_bytes()
        first, last = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
        tokens = np.full((1, 2048), 256, np.int32)
        tokens[0, : len(first)] = list(first)
        tokens[0, 2048 - len(last) :] = list(last)
        yield tokens
