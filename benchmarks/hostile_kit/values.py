"""Kind 7: samples that are not finite, out of bounds, silent, cancelled, or hardly there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from .cases import REFUSED, RIGHT, TRACEBACK, WRONG, Case, Kit, Result
from .commands import call, failures, stored
from .signals import Array, differs, error, mono, sweep, write

_RATE = 16000


def _at(value: float, place: float) -> Callable[[Array], Array]:
    def put(signal: Array) -> Array:
        changed = signal.copy()
        changed[int(place * (len(signal) - 1))] = value
        return changed

    return put


def _opposite(signal: Array) -> Array:
    return np.hstack([signal[:, :1], -signal[:, :1]])


# Name: how the signal is changed, how it is coded, and what must come of it: it is refused, it
# is accepted as it is, or either; ``scaled`` is either, and accepted it may have another gain;
# ``over`` is accepted, unchanged or clipped to [-1, 1].
VARIANTS: dict[str, tuple[Callable[[Array], Array], str, str]] = {
    **{
        f"{value}-at-{place}-{subtype.lower()}": (_at(value, place), subtype, "refuse")
        for value in (np.nan, np.inf, -np.inf)
        for place in (0.0, 0.5, 1.0)
        for subtype in ("FLOAT", "DOUBLE")
    },
    **{
        f"{value:g}-at-{place}": (_at(value, place), "FLOAT", "refuse")
        for value in (2e37, -2e37, 3e38, 1e30)
        for place in (0.0, 0.5)
    },
    **{
        f"{value:g}-at-{place}": (_at(value, place), "FLOAT", "scaled")
        for value in (1e10, 1e6, 1000.0)
        for place in (0.0, 0.5)
    },
    "1e39-double": (_at(1e39, 0.5), "DOUBLE", "refuse"),
    "1e300-double": (_at(1e300, 0.5), "DOUBLE", "refuse"),
    "all-nan": (lambda x: x * np.nan, "FLOAT", "refuse"),
    "noise-1e30": (lambda x: x * 1e30, "FLOAT", "refuse"),
    "subnormal": (lambda x: x * 1e-40, "FLOAT", "either"),
    "faint": (lambda x: x * 1e-12, "FLOAT", "either"),
    "integers-16": (lambda x: x * 30_000, "FLOAT", "scaled"),
    "integers-16-faint": (lambda x: x * 300, "FLOAT", "scaled"),
    "integers-24": (lambda x: x * 2**23, "FLOAT", "scaled"),
    "integers-32": (lambda x: x * 2**31, "DOUBLE", "scaled"),
    "integers-8": (lambda x: x * 127, "FLOAT", "scaled"),
    "over-1.001": (lambda x: x / np.abs(x).max() * 1.001, "FLOAT", "over"),
    "over-1.05": (lambda x: x / np.abs(x).max() * 1.05, "FLOAT", "over"),
    "over-1.5": (lambda x: x / np.abs(x).max() * 1.5, "FLOAT", "over"),
    "over-4": (lambda x: x / np.abs(x).max() * 4, "FLOAT", "over"),
    "full-scale": (lambda x: np.sign(x) * 0.99996, "PCM_16", "accept"),
    "silence": (lambda x: x * 0, "PCM_16", "refuse"),
    "silence-float": (lambda x: -x * 0, "FLOAT", "refuse"),
    "opposite-float": (_opposite, "FLOAT", "refuse"),
    "opposite-16": (_opposite, "PCM_16", "refuse"),
    "opposite-24": (_opposite, "PCM_24", "refuse"),
    "opposite-faint": (lambda x: _opposite(x * 0.01), "PCM_16", "refuse"),
    "opposite-nearly": (lambda x: _opposite(x) + np.hstack([x, x]) * 0.1, "PCM_16", "accept"),
    "one-channel-silent": (lambda x: np.hstack([x, x * 0]), "PCM_16", "accept"),
    "direct-current": (lambda x: x * 0 + 0.25, "PCM_16", "accept"),
    "one-impulse": (lambda x: _at(0.5, 0.5)(x * 0), "PCM_16", "accept"),
    "one-sample": (lambda x: x[9:10], "PCM_16", "refuse"),
    "24-ms": (lambda x: x[: round(0.024 * _RATE)], "PCM_16", "refuse"),
    "26-ms": (lambda x: x[: round(0.026 * _RATE)], "PCM_16", "accept"),
}


def cases(kit: Kit) -> Iterator[Case]:
    """Each variant in a dataset of two clips, the other of which must not suffer."""
    for number, (name, (change, subtype, must)) in enumerate(VARIANTS.items()):
        if kit.quick and number % 6:
            continue
        case = partial(_extract, change, subtype, must, kit.seed + number)
        yield Case(name, case, limit_s=90)


def _extract(
    change: Callable[[Array], Array], subtype: str, must: str, seed: int, folder: Path
) -> Result:
    signal = change(sweep(0.7, _RATE, 1, seed))
    good = sweep(0.5, _RATE, 1, seed + 1)
    odd = write(folder / "odd.wav", signal, _RATE, subtype=subtype)
    write(folder / "good.wav", good, _RATE, subtype="PCM_16")
    lines = ["path,labels,split", "odd.wav,a,train", "good.wav,a,train"]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    work = folder / "work"
    done = call("prep", "extract", "--dataset", folder / "list.csv", "--allow-missing",
                "--features", "audio", "--work", work)  # fmt: skip
    found, failed = stored(work), failures(work)
    if "Traceback" in done.out + done.err:
        return Result(TRACEBACK, done.last)
    if "good.wav" not in found or differs(found["good.wav"][:, 0], mono(good), 1e-3):
        return Result(WRONG, f"the good clip beside it is not there or not right: {done.last}")
    if ("odd.wav" in found) == ("odd.wav" in failed):
        return Result(WRONG, "neither in a shard nor in failures.csv, or in both")
    if (done.status != 0) != bool(failed):
        return Result(WRONG, f"exit status {done.status} with {len(failed)} failed clips")
    if done.status == 0:
        verified = call("prep", "verify", work)
        if verified.status:
            return Result(WRONG, f"extracted with exit status 0, but verify: {verified.last}")
    if reason := failed.get("odd.wav"):
        if must == "accept" or (must == "over" and np.abs(signal).max() < 1.1):
            return Result(WRONG, f"refused: {reason}")
        return Result(REFUSED if str(odd) in reason else WRONG, reason)
    if must == "refuse":
        return Result(WRONG, "accepted, expected a refusal")
    why = _why(found["odd.wav"][:, 0], mono(signal), must)
    return Result(WRONG if why else RIGHT, why)


def _why(found: Array, truth: Array, must: str) -> str:
    if len(found) != len(truth):
        return f"{len(found)} samples instead of {len(truth)}"
    if not np.isfinite(found).all():
        return "what is stored is not finite"
    if must == "scaled":
        peak = np.abs(truth).max()
        found, truth = found / max(float(np.abs(found).max()), 1e-9), truth / peak
    if must == "over" and np.abs(found).max() <= 1:
        truth = np.clip(truth, -1, 1)
    off = error(found, truth)
    quantum = 1 / 32768 / max(float(np.sqrt(np.mean(truth**2))), 1e-12)
    return "" if off <= max(0.05, quantum) else f"relative error {off:.3g}"
