"""Render the demo clips: ``python tools/demo/render_clips.py``.

Requires FluidSynth 2 on the path and two soundfonts: in Debian the packages ``fluidsynth``,
``fluid-soundfont-gm`` and ``musescore-general-soundfont-small``. Each part of a score is
rendered separately without effects, convolved with the impulse response of the clip's room
(exponentially decaying noise), equalized (by a tilt of the spectrum) and scaled to its level;
colored noise is added to the mix. The same fonts give the same clips, up to the Vorbis encoder.
"""

from __future__ import annotations

import argparse
import csv
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from compose_scores import SEED, Part, Score, compose

from featreg.datasets.base import FeatregError
from featreg.datasets.collections.demo import CLASSES, COLUMNS, INDEX, default_root

Signal = npt.NDArray[np.float64]  # (samples, channels)
Rng = np.random.Generator

TICKS = 480  # a quarter note in the MIDI files, which lasts half a second there
DRUM_CHANNEL = 9

# Level in dB, relative to the mix, below which a part counts as inaudible.
AUDIBLE_DB = 18.0

# Rate in Hz, channels and frequency of each format.
FORMATS = ((22_050, 1), (22_050, 2), (44_100, 1), (44_100, 2))
FORMAT_ODDS = (0.76, 0.08, 0.12, 0.04)

# The lowest quality of Vorbis in libsndfile: the whole dataset must stay below 8 MB.
COMPRESSION = 1.0


@dataclass(frozen=True, slots=True)
class Preset:
    """An instrument of a soundfont."""

    bank: int
    program: int


@dataclass(frozen=True, slots=True)
class Font:
    """A soundfont: its name, its file, and its presets for each class, one of which plays."""

    name: str
    path: Path
    presets: Mapping[str, tuple[Preset, ...]]


def _programs(*programs: int) -> tuple[Preset, ...]:
    return tuple(Preset(0, program) for program in programs)


# Banks and programs of General MIDI, and the files that Debian installs.
SEEN = Font(
    "fluid-r3",
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    {
        "bass": _programs(32, 33, 34),  # acoustic, fingered, picked
        "brass": _programs(56, 57, 61),  # trumpet, trombone, section
        "drums": _programs(0, 16, 32),  # standard, power, jazz kit
        "flute": _programs(73, 75),  # flute, pan flute
        "guitar": _programs(25, 26, 27),  # steel, jazz, clean electric
        "mallets": _programs(8, 11, 12),  # celesta, vibraphone, marimba
        "organ": _programs(16, 19),  # drawbar, church
        "piano": _programs(0, 1, 3),  # grand, bright, honky-tonk
        "saxophone": _programs(65, 66),  # alto, tenor
        "strings": _programs(40, 48),  # violin, section
        "synth": _programs(80, 81),  # square, sawtooth
        "voice": _programs(52, 54),  # choir aahs, synth voice
    },
)
# No sample in common with the above: other members of the family where MuseScore General
# kept Fluid's samples, the same presets where its samples are new (piano, synth).
UNSEEN = Font(
    "musescore-general",
    Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"),
    {
        "bass": _programs(35, 36),  # fretless, slap
        "brass": _programs(59, 60),  # muted trumpet, horns
        "drums": _programs(25),  # TR-808
        "flute": _programs(72, 74),  # piccolo, recorder
        "guitar": _programs(24),  # nylon
        "mallets": _programs(9, 13),  # glockenspiel, xylophone
        "organ": _programs(17, 18),  # percussive, rock
        "piano": (Preset(0, 0), Preset(8, 0)),  # grand, mellow
        "saxophone": _programs(64, 67),  # soprano, baritone
        "strings": _programs(41, 42),  # viola, cello
        "synth": _programs(80, 81),  # square, sawtooth
        "voice": _programs(53, 85),  # oohs, solo vox
    },
)


def midi_file(part: Part, preset: Preset, pan: int, duration_s: float) -> bytes:
    """A standard MIDI file (format 0) of one part that ends after `duration_s`.

    `pan` is 0 (left) to 127 (right).
    """
    channel = DRUM_CHANNEL if part.instrument == "drums" else 0
    setup = (
        bytes([0xB0 | channel, 0, preset.bank]),
        bytes([0xC0 | channel, preset.program]),
        bytes([0xB0 | channel, 10, pan]),
    )
    messages = [(0, message) for message in setup]
    for note in part.notes:
        on = bytes([0x90 | channel, note.pitch, note.velocity])
        off = bytes([0x80 | channel, note.pitch, 0])
        messages.append((_ticks(note.start_s), on))
        messages.append((_ticks(note.start_s + note.length_s), off))
    # A note that ends when another of its pitch begins must end first: 0x80 sorts before 0x90.
    messages[len(setup) :] = sorted(messages[len(setup) :])
    messages.append((_ticks(duration_s), b"\xff\x2f\x00"))
    track = b"".join(_variable_length(delta) + message for delta, message in _deltas(messages))
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def _ticks(seconds: float) -> int:
    return round(seconds * 2 * TICKS)


def _deltas(messages: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    now = 0
    for ticks, message in messages:
        yield ticks - now, message
        now = ticks


def _variable_length(number: int) -> bytes:
    """Variable-length quantity: seven bits per byte, most significant first."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def play(midi: bytes, font: Path, rate: int, samples: int) -> Signal:
    """Render a MIDI file with FluidSynth, without effects; shape (samples, 2), at `rate` Hz.

    Raises
    ------
    FeatregError
        If FluidSynth or the soundfont is missing, or FluidSynth fails.
    """
    if not font.is_file():
        raise FeatregError(f"no soundfont {font}: install it, or name its file with an option")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "part.mid"), Path(folder, "part.wav")
        source.write_bytes(midi)
        command = ["fluidsynth", "-niq", "-R", "0", "-C", "0", "-g", "0.5", "-r", str(rate)]
        # Only the samples that are played are read from the font.
        command += ["-o", "synth.dynamic-sample-loading=1", "-T", "wav", "-O", "float"]
        command += ["-F", str(target), str(font), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise FeatregError("fluidsynth is not installed (Debian package fluidsynth)") from None
        if done.returncode or not target.is_file():
            raise FeatregError(f"fluidsynth could not play {font}: {done.stderr.strip()}")
        sound, _ = soundfile.read(target, frames=samples, dtype="float64", fill_value=0.0)
    return np.asarray(sound)


def perform(score: Score, font: Font) -> tuple[Signal, int]:
    """One clip of a score, shape (samples, channels), and its rate in Hz.

    Raises
    ------
    FeatregError
        If FluidSynth fails, or a part is inaudible in the mix.
    """
    rng = np.random.default_rng([SEED, *score.name.encode(), *font.name.encode()])
    rate, channels = FORMATS[rng.choice(len(FORMATS), p=FORMAT_ODDS)]
    samples = round(score.duration_s * rate)
    stems = []
    for part in score.parts:
        presets = font.presets[part.instrument]
        preset = presets[rng.integers(len(presets))]
        midi = midi_file(part, preset, int(rng.integers(24, 104)), score.duration_s)
        # Mono is the left channel: the sum of two would cancel parts of a stereo sample.
        stems.append(play(midi, font.path, rate, samples)[:, :channels])
    wet = _produce(rng, np.stack(stems), rate)
    wet *= np.array([_gain(stem, rng.uniform(-8, 0)) for stem in wet])[:, None, None]
    mix = wet.sum(axis=0)
    for part, stem in zip(score.parts, wet, strict=True):
        if _level_db(mix) - _level_db(stem) > AUDIBLE_DB:
            raise FeatregError(f"{score.name}: {part.instrument} cannot be heard in {font.name}")
    noise = _noise(rng, samples, channels, rng.uniform(1.0, 2.0))
    mix += noise * _gain(noise, _level_db(mix) - rng.uniform(12, 40))
    return mix * 10 ** (rng.uniform(-14, -3) / 20) / np.abs(mix).max(), rate


def _produce(rng: Rng, stems: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float64]:
    """Apply one room and one equalizer to all stems, shape (parts, samples, channels)."""
    samples, channels = stems.shape[1:]
    decay_s = rng.uniform(0.15, 1.2)  # until the room's answer is 60 dB weaker
    time_s = np.arange(round(decay_s * rate)) / rate
    room = _noise(rng, len(time_s), channels, 1.0) * 10 ** (-3 * time_s / decay_s)[:, None]
    room *= 10 ** (rng.uniform(-20, -3) / 20) / np.sqrt((room**2).sum(axis=0))
    room[0] += 1.0
    size = samples + len(room)
    frequency = np.fft.rfftfreq(size, 1 / rate)
    tilt_db = rng.uniform(-2, 2) * np.log2(np.clip(frequency, 60, 8000) / 700)  # per octave
    answer = np.fft.rfft(room, size, axis=0) * 10 ** (tilt_db / 20)[:, None]
    return np.fft.irfft(np.fft.rfft(stems, size, axis=1) * answer, size, axis=1)[:, :samples]


def _noise(rng: Rng, samples: int, channels: int, slope: float) -> Signal:
    """Noise of unit variance whose power falls as frequency ** -slope: 0 white, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal((samples, channels)), axis=0)
    spectrum *= np.maximum(np.arange(len(spectrum)), 1)[:, None] ** (-slope / 2)
    noise = np.fft.irfft(spectrum, samples, axis=0)
    return np.asarray(noise / noise.std())


def _level_db(signal: Signal) -> float:
    """Level of the whole signal in dB re full scale; silence is at -200."""
    return float(10 * np.log10(np.mean(signal**2) + 1e-20))


def _gain(signal: Signal, level_db: float) -> float:
    """Factor that scales a signal to this level."""
    return float(10 ** ((level_db - _level_db(signal)) / 20))


def clip_name(score: Score, font: Font) -> str:
    """The clip's id; its file has the same name."""
    return f"{score.name}-{font.name}"


def render(folder: Path, seen: Font, unseen: Font) -> None:
    """Write all clips and their index; the test scores once with each font."""
    jobs = [(score, seen) for score in compose()]
    jobs += [(score, unseen) for score, _ in jobs if score.split == "test"]

    def write(job: tuple[Score, Font]) -> None:
        signal, rate = perform(*job)
        path = folder / f"{clip_name(*job)}.ogg"
        soundfile.write(path, signal, rate, "VORBIS", compression_level=COMPRESSION)

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, jobs))
    with (folder / INDEX).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for score, font in jobs:
            name = clip_name(score, font)
            playing = {part.instrument for part in score.parts}
            label = [int(instrument in playing) for instrument in CLASSES]
            table.writerow([f"{name}.ogg", name, score.split, font.name, score.name, *label])


def main() -> None:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(
        description="Render the demo clips.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = partial(parser.add_argument, type=Path)
    add("--fluid", default=SEEN.path, help="the soundfont Fluid (R3) GM")
    add("--musescore", default=UNSEEN.path, help="the soundfont MuseScore General")
    add("--folder", default=default_root(), help="where the clips go")
    chosen = parser.parse_args()
    render(chosen.folder, replace(SEEN, path=chosen.fluid), replace(UNSEEN, path=chosen.musescore))


if __name__ == "__main__":
    main()
