"""Table II of the paper: parameters in training and at inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featreg.train.experiments.params import count, table_two
from featreg.train.models.registry import build_encoder

# Method, features, training, inference. Derived by hand from E = 3,552,397 and
# D(d) = 256 d + 256 + 512 + 17 * 257; VGGish adds 72,141,184 and OpenL3 4,687,042.
TABLE_TWO = """
baseline     -             3623070  3623070
feature-only vggish          37905 72179089
feature-only openl3         136209  4823251
feature-only vggish+openl3  168977 76997203
Concat       vggish        3655838 75797022
Concat       openl3        3754142  8441184
Concat       vggish+openl3 3786910 80615136
FiLM         vggish        3689118 75830302
FiLM         openl3        3885726  8572768
FiLM         vggish+openl3 3951262 80779488
Con-Reg      vggish        3656094  3623070
Con-Reg      openl3        3754398  3623070
Con-Reg      vggish+openl3 3787166  3623070
Dis-Reg      vggish        3623070  3623070
Dis-Reg      openl3        3623070  3623070
Dis-Reg      vggish+openl3 3623070  3623070
"""


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    return list(table_two().itertuples())


def test_table_two(rows: list[Any]) -> None:
    expected = [line.split() for line in TABLE_TWO.split("\n") if line]
    found = [
        [row.method, row.features or "-", str(row.training), str(row.inference)] for row in rows
    ]
    assert found == expected


@pytest.mark.parametrize("features", [128, 512, 640])
def test_table_two_follows_from_its_formulas(rows: list[Any], features: int) -> None:
    def decoder(dim: int) -> int:
        return (256 * dim + 256) + 512 + 257 * 17

    encoder, linear = 3_552_397, 256 * features + 256
    name = {128: "vggish", 512: "openl3", 640: "vggish+openl3"}[features]
    training = {row.method: row.training for row in rows if row.features == name}
    assert training == {
        "feature-only": decoder(features),
        "Concat": encoder + decoder(256 + features),
        "FiLM": encoder + decoder(256) + 2 * linear,
        "Con-Reg": encoder + decoder(256) + linear,
        "Dis-Reg": encoder + decoder(256),
    }


def test_a_regularized_model_has_the_baselines_size_with_any_encoder() -> None:
    baseline, *rows = table_two(classes=50, encoder="mel_cnn").itertuples()
    for row in rows:
        if row.method in ("Con-Reg", "Dis-Reg"):
            assert row.inference == baseline.inference


def test_frozen_parameters_are_not_counted() -> None:
    encoder = build_encoder("mel_cnn", width=2)
    every = count(encoder)
    encoder.front.bn.requires_grad_(False)
    assert count(encoder) == every - 2


def test_the_documented_table_is_what_the_command_prints(rows: list[Any]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "reproduce.md").read_text()
    _, _, below = text.partition("| method | trained, with VGGish |")
    table = below.partition("\n\n")[0].splitlines()[2:]
    printed = {cells[1]: cells[2:8] for cells in ([*map(str.strip, s.split("|"))] for s in table)}
    expected: dict[str, list[str]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        found = [row for row in rows if row.method == method]
        found *= 3 // len(found)  # the baseline has no feature
        expected[method] = [f"{row.training:,}" for row in found]
        expected[method] += [f"{row.inference:,}" for row in found]
    assert printed == expected
