"""Sound to a mouth: loudness opens the jaw, the balance of spectral bands shapes the lips.

No speech is recognised. Vowels differ by formants (rounded ones keep their energy below 500 Hz, spread ones have it
about 2 kHz, open ones about 700 Hz) and hissing sounds lie above 4 kHz, which is enough for lips that seem to talk.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ap3d.ffmpeg import Audio
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.procedural import with_blinks
from ap3d.motion.schema import Motion
from ap3d.motion.timing import smoothed

NOTE = "the mouth follows loudness and spectral bands only: a simple guess, no speech is recognised"
_WINDOW_SECONDS = 0.04
_QUIET_DECIBELS = -35.0  # under the loud parts: the mouth is closed there
_SMOOTHING_SECONDS = 0.03
_BANDS = {"round": (80, 500), "open": (500, 1200), "spread": (1600, 3200), "hiss": (4000, 8000)}  # Hz
_TILT = {"round": 0.35, "open": 1.0, "spread": 2.2, "hiss": 3.0}  # speech falls off towards high bands


def speaking(audio: Audio, fps: float, seed: int) -> Motion:
    """A motion as long as the sound: jaw and lips, blinks, a head that sways with the loudness.

    Args:
        audio: mono sound.
        fps: frames per second of the motion.
        seed: of the blinks.
    """
    count = max(round(audio.seconds * fps), 1)
    spectrum, frequencies = _spectra(audio, count, fps)
    loud = _loudness(spectrum)
    share = _shares(spectrum, frequencies)
    expression = torch.zeros(count, len(ARKIT_NAMES))

    def add(action: str, strength: Tensor) -> None:
        expression[:, ARKIT_NAMES.index(action)] = strength.clamp(0, 1)

    voiced = loud * (1 - share["hiss"])
    add("jawOpen", voiced * (0.22 + 0.55 * share["open"]) + 0.08 * loud)
    add("mouthPucker", 0.75 * voiced * share["round"].square())
    add("mouthFunnel", 0.5 * voiced * share["round"] * share["open"] * 2)
    for side in ("Left", "Right"):
        add(f"mouthStretch{side}", 0.55 * loud * torch.maximum(share["spread"], 0.7 * share["hiss"]))
        add(f"mouthUpperUp{side}", 0.25 * loud * (share["spread"] + share["hiss"]))
        add(f"mouthLowerDown{side}", 0.3 * loud * (share["open"] + share["hiss"]))
    still = Motion.still(count, fps, "arkit52", ARKIT_NAMES)
    head = _sway(loud, fps)
    mouth = smoothed(still.with_tensors({"expression": expression}), _SMOOTHING_SECONDS)
    motion = mouth.with_tensors({"neck": 0.4 * head, "head": 0.6 * head})
    return with_blinks(motion, seed).with_notes(NOTE)


def _spectra(audio: Audio, count: int, fps: float) -> tuple[Tensor, Tensor]:
    """Power ``[T, F]`` in windows round the frames' middles, and the frequencies ``[F]`` in Hz."""
    width = int(_WINDOW_SECONDS * audio.rate)
    padded = torch.from_numpy(np.pad(audio.samples, (width // 2, width + math.ceil(audio.rate / fps))))
    starts = ((torch.arange(count) + 0.5) * (audio.rate / fps)).long()
    windows = padded[starts[:, None] + torch.arange(width)] * torch.hann_window(width)
    return torch.fft.rfft(windows).abs().square(), torch.fft.rfftfreq(width, 1 / audio.rate)


def _loudness(power: Tensor) -> Tensor:
    """0 (silence) to 1 (the loud parts of this sound), ``[T]``, linear in decibels."""
    level = 10 * torch.log10(power.sum(1) / power.shape[1] + 1e-10)
    top = torch.quantile(level, 0.95) if len(level) > 1 else level[0]
    if float(top) < -60:  # nothing but silence
        return torch.zeros(len(level))
    return (1 - (level - top) / _QUIET_DECIBELS).clamp(0, 1)


def _shares(power: Tensor, frequencies: Tensor) -> dict[str, Tensor]:
    """How much of each frame's sound lies in each band, ``[T]`` each, together 1."""
    energy = {}
    for name, (low, high) in _BANDS.items():
        inside = (frequencies >= low) & (frequencies < high)
        energy[name] = _TILT[name] * power[:, inside].sum(1).sqrt()
    total = torch.stack(list(energy.values())).sum(0).clamp_min(1e-9)
    return {name: value / total for name, value in energy.items()}


def _sway(loud: Tensor, fps: float) -> Tensor:
    """Turns of the head ``[T, 3]`` in radians: slow swings, and a slight nod on what is loud."""
    times = torch.arange(len(loud)) / fps
    slow = loud[:, None].clone()
    if len(loud) > 2:
        width = max(int(0.25 * fps) | 1, 1)
        slow = torch.nn.functional.avg_pool1d(loud[None, None], width, 1, width // 2, count_include_pad=False)[0].T
    swing = lambda seconds: torch.sin(2 * math.pi * times / seconds)  # noqa: E731
    return torch.stack([0.07 * slow[:, 0] + 0.02 * swing(3.1), 0.08 * swing(5.3), 0.03 * swing(4.1)], 1)
