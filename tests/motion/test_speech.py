"""A mouth from sound: it follows loudness, closes in silence, and its lips tell dark from bright sounds."""

import numpy as np
import torch

from ap3d.ffmpeg import Audio
from ap3d.motion import Motion
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.speech import speaking

RATE = 16_000


def mouth(samples: np.ndarray, *names: str, fps: float = 25.0) -> list[torch.Tensor]:
    motion = speaking(Audio(samples.astype(np.float32), RATE), fps, 0)
    return [motion.expression[:, ARKIT_NAMES.index(n)] for n in names]


def vowel(seconds: float, formants: tuple[float, ...]) -> np.ndarray:
    """Harmonics of 120 Hz, strong near the formants and falling off above."""
    t = np.arange(int(seconds * RATE)) / RATE
    out = np.zeros_like(t)
    for k in range(1, 40):
        f = 120.0 * k
        out += sum(np.exp(-(((f - p) / 150) ** 2)) / (1 + i) for i, p in enumerate(formants)) * np.sin(
            2 * np.pi * f * t
        )
    return 0.3 * out / np.abs(out).max()


def test_the_jaw_follows_the_loudness_and_rests_in_silence() -> None:
    voice = vowel(6.0, (700, 1100))
    t = np.arange(len(voice)) / RATE
    envelope = np.clip(np.sin(2 * np.pi * 1.5 * t), 0, 1) ** 2
    (jaw,) = mouth(voice * envelope, "jawOpen")
    frames = envelope[((np.arange(len(jaw)) + 0.5) * RATE / 25).astype(int)]
    level = np.clip(1 + 20 * np.log10(frames + 1e-5) / 35, 0, 1)
    assert np.corrcoef(jaw.numpy(), level)[0, 1] > 0.9
    assert float(jaw[frames < 1e-6].min()) < 0.02 and float(jaw.max()) > 0.3


def test_lips_tell_vowels_and_hisses_apart() -> None:
    noise = np.random.default_rng(0).normal(size=2 * RATE)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / RATE) < 4500] = 0
    hiss = 0.1 * np.fft.irfft(spectrum)
    shapes = {}
    for name, sound in (
        ("oo", vowel(2, (300, 700))),
        ("aa", vowel(2, (750, 1150))),
        ("ee", vowel(2, (300, 2400))),
        ("ss", hiss),
    ):
        shapes[name] = [float(c.mean()) for c in mouth(sound, "jawOpen", "mouthPucker", "mouthStretchLeft")]
    jaw, pucker, stretch = ({k: v[i] for k, v in shapes.items()} for i in range(3))
    assert jaw["aa"] == max(jaw.values()) and jaw["ss"] == min(jaw.values())
    assert pucker["oo"] == max(pucker.values()) and stretch["oo"] < min(stretch["ee"], stretch["ss"])


def test_silence_blinks_and_says_nothing_and_the_note_says_that_it_is_simple() -> None:
    motion = speaking(Audio(np.zeros(4 * RATE, np.float32), RATE), 30.0, 0)
    assert isinstance(motion, Motion) and len(motion) == 120 and float(motion.expression.abs().max()) == 0
    assert float(motion.eyelids.max()) > 0.9 and any("simple" in n for n in motion.notes)
