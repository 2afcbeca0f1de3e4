"""Compose the scores of the demo clips; the same seed gives the same scores.

A piece has a tempo, a bar of 3 or 4 beats, a key, a scale and a progression of chords that
all its parts follow. Each of its 1 to 4 instruments gets one role that suits it (a melody,
chords, a broken chord, a bass line, drums), its own register and its own loudness, and
plays from the beginning to the end. A pitch is a MIDI note number, 60 = middle C; a beat is
a quarter note; a scale step counts along the scale, 7 to the octave, from MIDI note 0 on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle

import numpy as np

from featreg.datasets.base import SPLITS, Split
from featreg.datasets.collections.demo import CLASSES

SEED = 2022
SCORES: Mapping[Split, int] = {"train": 160, "valid": 36, "test": 40}

# Frequency of pieces with 1, 2, 3 and 4 instruments: 2.5 of 12 on average, so that the average
# precision of random guessing is about 0.2.
ENSEMBLES = (0.2, 0.3, 0.3, 0.2)

SCALES = (
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 3, 5, 7, 8, 10),  # minor
    (0, 2, 3, 5, 7, 9, 10),  # Dorian
    (0, 2, 4, 5, 7, 9, 10),  # Mixolydian
)
# Roots as scale steps above the tonic: I V vi IV is 0 4 5 3.
PROGRESSIONS = (
    *((0, 4, 5, 3), (0, 5, 3, 4), (1, 4, 0, 0), (0, 3, 0, 4), (5, 3, 0, 4)),
    *((0, 6, 5, 4), (0, 3, 4, 3), (0, 0, 3, 4), (0, 2, 3, 4), (0, 1, 0, 6)),
)
MELODY_LENGTHS = (0.5, 0.5, 0.5, 1.0, 1.0, 1.5, 2.0)
MELODY_LEAPS = (-4, -2, -2, -1, -1, -1, 0, 1, 1, 1, 2, 2, 3)

# Onset and length in beats, repeated every 4 beats.
CHORD_RHYTHMS = (
    ((0.0, 4.0),),
    ((0.0, 2.0), (2.0, 2.0)),
    ((0.0, 0.9), (1.0, 0.9), (2.0, 0.9), (3.0, 0.9)),
    ((0.5, 0.4), (1.5, 0.4), (2.5, 0.4), (3.5, 0.4)),
    ((0.0, 1.4), (1.5, 0.4), (2.5, 1.4)),
    ((0.0, 0.4), (0.5, 0.4), (1.5, 0.9), (2.5, 0.4), (3.0, 0.9)),
)
BASS_RHYTHMS = (
    ((0.0, 1.9), (2.0, 1.9)),
    ((0.0, 0.9), (1.0, 0.9), (2.0, 0.9), (3.0, 0.9)),
    ((0.0, 1.4), (1.5, 0.4), (2.0, 1.4), (3.5, 0.4)),
    tuple((0.5 * n, 0.45) for n in range(8)),
)
# Sixteenths of a bar; the pitches are General MIDI's drum notes. No cymbals beside the
# hi-hat: the two soundfonts share theirs.
KICK, SNARE, HAT, OPEN_HAT, LOW_TOM, MID_TOM = 36, 38, 42, 46, 45, 48
BEATS: tuple[Mapping[int, str], ...] = (
    {KICK: "x.......x.x.....", SNARE: "....x.......x...", HAT: "x.x.x.x.x.x.x.x."},
    {KICK: "x...x...x...x...", SNARE: "....x.......x..x", OPEN_HAT: "..x...x...x...x."},
    {KICK: "x..x..x.x..x..x.", SNARE: "...x..x....x..x.", HAT: "x.xxx.xxx.xxx.xx"},
    {KICK: "x.........x.....", SNARE: "........x......x", HAT: "x...x..xx...x..x"},
    {KICK: "x.....x.........", LOW_TOM: "....x.....x.x...", MID_TOM: "..x.....x.....xx"},
)

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One note: from `start_s` on for `length_s` seconds, at a MIDI pitch and velocity."""

    start_s: float
    pitch: int
    length_s: float
    velocity: int


@dataclass(frozen=True, slots=True)
class Part:
    """Notes of one instrument, a class of the dataset."""

    instrument: str
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """A piece: its name, its split, its length and its parts."""

    name: str
    split: Split
    duration_s: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Properties shared by all parts of a score."""

    beats: float  # in all
    bar: int  # beats
    chord_beats: int  # a chord lasts so long
    tonic: int  # pitch class
    scale: tuple[int, ...]
    progression: tuple[int, ...]

    def pitch(self, step: int) -> int:
        """The MIDI pitch of a scale step."""
        octave, degree = divmod(step, 7)
        return self.tonic + 12 * octave + self.scale[degree]

    def steps(self, low: int, high: int) -> list[int]:
        """All scale steps from pitch `low` to pitch `high`."""
        return [step for step in range(77) if low <= self.pitch(step) <= high]

    def chord(self, beat: float) -> tuple[int, int, int]:
        """Root, third and fifth at this beat, in scale steps within an octave (0 to 6)."""
        root = self.progression[int(beat // self.chord_beats) % len(self.progression)]
        return root % 7, (root + 2) % 7, (root + 4) % 7


# (onset in beats, length in beats, pitch, accent): accents are multiplied with the velocity.
Event = tuple[float, float, int, float]
Role = Callable[[Rng, Piece, int, int], Iterator[Event]]


def melody(rng: Rng, piece: Piece, low: int, high: int) -> Iterator[Event]:
    """A walk along the scale in two alternating rhythms; on the beat, notes of the chord."""
    steps = piece.steps(low, high)
    rhythms = cycle([_fill_bar(rng, piece.bar) for _ in range(2)])
    articulation = rng.uniform(0.5, 1.0)
    at, onset = len(steps) // 2, 0.0
    while onset < piece.beats:
        for length in next(rhythms):
            at = int(np.clip(at + rng.choice(MELODY_LEAPS), 0, len(steps) - 1))
            if onset % 1 == 0:
                consonant = [n for n, step in enumerate(steps) if step % 7 in piece.chord(onset)]
                at = min(consonant, key=lambda n: abs(n - at))
            yield onset, length * articulation, piece.pitch(steps[at]), rng.uniform(0.85, 1.0)
            onset += length


def _fill_bar(rng: Rng, bar: int) -> list[float]:
    lengths: list[float] = []
    while (left := bar - sum(lengths)) > 0:
        lengths.append(min(left, float(rng.choice(MELODY_LENGTHS))))
    return lengths


def chords(rng: Rng, piece: Piece, low: int, high: int, *, strum: float = 0.0) -> Iterator[Event]:
    """Three or four voices in one rhythm, all chords about the same pitch.

    `strum` beats pass between two strings.
    """
    fitting = [r for r in CHORD_RHYTHMS if all(length <= piece.chord_beats for _, length in r)]
    rhythm = fitting[rng.integers(len(fitting))]
    voices = int(rng.integers(3, 5))
    center = rng.uniform(low + 6, high - 6)
    for onset, length in _repeat(rhythm, piece):
        chord = piece.chord(onset)
        near = [step for step in piece.steps(low, high) if step % 7 in chord]
        near.sort(key=lambda step: abs(piece.pitch(step) - center))
        for voice, step in enumerate(sorted(near[:voices])):
            yield onset + strum * voice, length, piece.pitch(step), 1.0 if onset % 2 == 0 else 0.9


def broken_chord(rng: Rng, piece: Piece, low: int, high: int) -> Iterator[Event]:
    """Arpeggio: the notes of the chord up, down, or up and down."""
    order = [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 2), (0, 1, 2, 3, 2, 1)][rng.integers(4)]
    unit = float(rng.choice([0.25, 0.5, 0.5]))
    base = int(rng.integers(low, max(low + 1, high - 19)))
    for n in range(int(piece.beats / unit)):
        onset = n * unit
        tones = [s for s in piece.steps(base, high) if s % 7 in piece.chord(onset)]
        accent = 1.0 if onset % 1 == 0 else 0.85
        yield onset, unit, piece.pitch(tones[order[n % len(order)] % len(tones)]), accent


def bass_line(rng: Rng, piece: Piece, low: int, high: int) -> Iterator[Event]:
    """Root and fifth in a rhythm, with a passing note before the chord changes."""
    rhythm = BASS_RHYTHMS[rng.integers(len(BASS_RHYTHMS))]
    walks = rng.random() < 0.5
    for n, (onset, length) in enumerate(_repeat(rhythm, piece)):
        root, _, fifth = piece.chord(onset)
        degree = fifth if n % 4 == 2 else root
        if walks and piece.chord(onset + 1)[0] != root and onset % piece.chord_beats:
            degree = (piece.chord(onset + 1)[0] + 6) % 7
        step = next(step for step in piece.steps(low, high) if step % 7 == degree)
        yield onset, length, piece.pitch(step), 1.0 if onset % 2 == 0 else 0.88


def beat(rng: Rng, piece: Piece, _low: int, _high: int) -> Iterator[Event]:
    """A drum pattern, bar for bar."""
    pattern = BEATS[rng.integers(len(BEATS))]
    for sixteenth in range(int(4 * piece.beats)):
        within_bar = sixteenth % (4 * piece.bar)
        for drum, hits in pattern.items():
            if hits[within_bar] == "x":
                quiet = 0.7 if drum in (HAT, OPEN_HAT) else 1.0
                yield sixteenth / 4, 0.25, drum, quiet * rng.uniform(0.85, 1.0)


def _repeat(rhythm: tuple[tuple[float, float], ...], piece: Piece) -> Iterator[tuple[float, float]]:
    """Onsets and lengths of a rhythm of at most 4 beats, repeated in every bar."""
    for bar in count():
        for onset, length in rhythm:
            if onset < piece.bar:
                if (start := bar * piece.bar + onset) >= piece.beats:
                    return
                yield start, min(length, piece.bar - onset)


@dataclass(frozen=True, slots=True)
class Instrument:
    """Lowest and highest pitch, and the roles of the instrument."""

    low: int
    high: int
    roles: tuple[Role, ...]


INSTRUMENTS: Mapping[str, Instrument] = {
    "bass": Instrument(28, 52, (bass_line,)),
    "brass": Instrument(50, 76, (melody, chords)),
    "drums": Instrument(KICK, MID_TOM, (beat,)),
    "flute": Instrument(65, 91, (melody,)),
    "guitar": Instrument(43, 79, (partial(chords, strum=0.04), broken_chord, melody)),
    "mallets": Instrument(55, 89, (broken_chord, melody)),
    "organ": Instrument(43, 84, (chords, melody)),
    "piano": Instrument(40, 91, (chords, broken_chord, melody)),
    "saxophone": Instrument(50, 76, (melody,)),
    "strings": Instrument(50, 84, (chords, melody)),
    "synth": Instrument(48, 88, (melody, broken_chord)),
    "voice": Instrument(48, 77, (chords, melody)),
}


def compose(seed: int = SEED) -> tuple[Score, ...]:
    """All scores, split by split; no two of them are equal."""
    splits = [split for split in SPLITS for _ in range(SCORES[split])]
    ensembles = [
        ensemble
        for number, split in enumerate(SPLITS)
        for ensemble in _deal(np.random.default_rng([seed, number]), SCORES[split])
    ]
    return tuple(
        _compose_one(np.random.default_rng([seed, len(SPLITS), n]), f"s{n:03d}", split, ensemble)
        for n, (split, ensemble) in enumerate(zip(splits, ensembles, strict=True))
    )


def _deal(rng: Rng, scores: int) -> Iterator[list[str]]:
    """Instruments of each piece, drawn without replacement: all are about equally frequent."""
    deck: list[str] = []
    for _ in range(scores):
        size = int(rng.choice([1, 2, 3, 4], p=ENSEMBLES))
        if len(deck) < size:
            deck = [str(name) for name in rng.permutation(CLASSES)]
        yield sorted(deck.pop() for _ in range(size))


def _compose_one(rng: Rng, name: str, split: Split, ensemble: list[str]) -> Score:
    duration_s = round(float(rng.uniform(5.4, 6.2)), 2)
    beat_s = 60 / float(rng.uniform(72, 160))
    bar = int(rng.choice([3, 4, 4]))
    piece = Piece(
        beats=duration_s / beat_s,
        bar=bar,
        # A chord lasts between 1 and 3 seconds.
        chord_beats=bar if bar * beat_s < 2.6 else 2,
        tonic=int(rng.integers(12)),
        scale=SCALES[rng.integers(len(SCALES))],
        progression=PROGRESSIONS[rng.integers(len(PROGRESSIONS))],
    )
    parts = tuple(_write_part(rng, piece, beat_s, instrument) for instrument in ensemble)
    return Score(name, split, duration_s, parts)


def _write_part(rng: Rng, piece: Piece, beat_s: float, name: str) -> Part:
    """Notes of one instrument, in a part of its range, with small deviations in time."""
    instrument = INSTRUMENTS[name]
    role = instrument.roles[rng.integers(len(instrument.roles))]
    narrow = int(rng.integers(0, max(1, instrument.high - instrument.low - 24)))
    loudness = rng.uniform(55, 112)
    end_s = piece.beats * beat_s
    notes = []
    for onset, length, pitch, accent in role(rng, piece, instrument.low + narrow, instrument.high):
        start_s = max(0.0, onset * beat_s + rng.normal(0, 0.006))
        length_s = min(length * beat_s, end_s - start_s)
        if length_s > 0.05:
            velocity = int(np.clip(loudness * accent + rng.normal(0, 3), 30, 120))
            notes.append(Note(round(start_s, 4), pitch, round(length_s, 4), velocity))
    return Part(name, tuple(sorted(notes)))
