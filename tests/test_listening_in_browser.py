"""The page of ``train errors`` in a browser, at the widths of a phone and of a desktop."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening import listed_by_hand
from synthetic import RATE
from toy_runs import noise

from featreg.train.report.listening_page import write_listening_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), "")
WIDTHS = (390, 1280)

FRAMES = """<!doctype html><body><pre></pre><script>
const facts = async (frame) => {
  const page = frame.contentDocument, audio = [...page.querySelectorAll("audio")];
  await Promise.all(audio.map((each) => each.readyState || each.error || new Promise((done) => {
    each.addEventListener("loadedmetadata", done); each.addEventListener("error", done); })));
  const right = [...page.querySelectorAll("body *")].map((e) => e.getBoundingClientRect().right);
  const columns = new Set([...page.querySelectorAll(".card")].map((e) => e.offsetLeft));
  return { width: page.documentElement.clientWidth, content: page.documentElement.scrollWidth,
           right: Math.max(...right), columns: columns.size,
           durations: audio.map((each) => each.error ? -1 : each.duration),
           images: [...page.images].map((each) => each.naturalWidth) };
};
addEventListener("load", async () => {
  const found = await Promise.all([...document.querySelectorAll("iframe")].map(facts));
  document.querySelector("pre").textContent = JSON.stringify(found);
});
</script>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("limit", [0, 1e7], ids=["files", "embedded"])
def test_clips_can_be_heard_and_nothing_is_cut_off(limit: float, tmp_path: Path) -> None:
    lengths_s = [0.01, 0.5, 2.0, 1.5]
    samples = [(noise(length) * 32767).astype(np.int16) for length in lengths_s]
    found = listed_by_hand(
        [f"folder{k}/{'long-name_' * 12}.wav" for k in range(4)],
        samples,
        ("a" * 70, "speech, male", "x/y"),
    )
    write_listening_page(tmp_path / "a page.html", found, limit)
    frames = "".join(
        f'<iframe src="a page.html" style="width:{width}px;height:800px;border:0"></iframe>'
        for width in WIDTHS
    )
    (tmp_path / "frames.html").write_text(FRAMES + frames)
    phone, desktop = facts = facts_of(tmp_path / "frames.html", tmp_path / "profile")
    assert (phone["columns"], desktop["columns"]) == (1, 3)
    for each, width in zip(facts, WIDTHS, strict=True):
        assert width - 20 <= each["width"] <= width  # without the scroll bar
        assert each["content"] == each["width"]
        assert each["right"] <= each["width"]
        assert each["durations"] == pytest.approx([len(s) / RATE for s in samples])
        assert min(each["images"]) > 0


def facts_of(page: Path, profile: Path) -> list[dict[str, Any]]:
    """What the script of a page has found out, in JSON."""
    options = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --dump-dom"
    arguments = (f"--user-data-dir={profile}", "--virtual-time-budget=60000")
    size = "--window-size=1400,1000"
    shown = subprocess.run(
        [BROWSER, *options.split(), *arguments, size, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    found = re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)
    assert found is not None, shown
    facts: list[dict[str, Any]] = json.loads(unescape(found[1]))
    return facts
