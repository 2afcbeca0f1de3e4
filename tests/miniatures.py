"""The published layouts in miniature: real folders and label files, a few clips in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kit import tone, write

from featreg.datasets.collections import dcase2017, esc50, mtat, speech_commands, urbansound8k

# clip id: (path, tags); 35644 is one of the files that are empty as published.
MTAT_CLIPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "2": ("f/artist-album-01-song-0-29.mp3", ("guitar",)),
    "6": ("0/artist-album-02-other_song-0-29.mp3", ("guitar", "slow")),
    "10": ("b/other-album-03-third-29-58.mp3", ("classical",)),
    "11": ("c/fourth-album-01-a_song-0-29.mp3", ("guitar", "classical", "choral")),
    "22": ("c/fourth-album-01-a_song-29-58.mp3", ()),
    "35644": ("3/empty-album-01-nothing-0-29.mp3", ("guitar",)),
}
DCASE_ROWS: dict[str, tuple[tuple[str, str], ...]] = {
    "training": (
        *((f"-train{n:05d}_30.000_40.000.wav", "Train") for n in range(20)),
        ("-train00001_30.000_40.000.wav", "Air horn, truck horn"),
        ("shortshorts_0.000_1.000.wav", "Screaming"),
    ),
    "testing": tuple((f"test-{n:06d}_5.000_15.000.wav", "Air horn, truck horn") for n in range(11)),
    "evaluation": (
        ("evaluation__0.000_10.000.wav", "Bus"),
        ("evaluation__0.000_10.000.wav", "Car"),
    ),
}
SPEECH_FILES: dict[str, str] = {
    "yes/00aa_nohash_0.wav": "",
    "yes/00aa_nohash_1.wav": "",
    "no/00aa_nohash_0.wav": "",
    "no/11bb_nohash_0.wav": "validation_list.txt",
    "zero/22cc_nohash_0.wav": "testing_list.txt",
}


def write_mtat(
    root: Path, clips: Mapping[str, tuple[str, Sequence[str]]], audio: str = "mp3"
) -> None:
    """Annotations and silent places for the audio, in the official layout."""
    tags = (*mtat.TAGS, "bells")
    lines = ["\t".join(f'"{name}"' for name in ("clip_id", *tags, "mp3_path"))]
    for clip_id, (path, present) in clips.items():
        cells = (clip_id, *("01"[tag in present] for tag in tags), path)
        lines.append("\t".join(f'"{cell}"' for cell in cells))
        (root / audio / path).parent.mkdir(parents=True, exist_ok=True)
        (root / audio / path).touch()
    (root / mtat.LABEL_FILE).write_text("\n".join(lines) + "\n")


def write_dcase(root: Path, rows: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Label files and silent places for the audio, in the official layout."""
    for folder, members in rows.items():
        (root / "audio" / folder).mkdir(parents=True, exist_ok=True)
        text = ""
        for file, label in members:
            start, end = file.removesuffix(".wav").split("_")[-2:]
            text += f"{file}\t{start}\t{end}\t{label}\n"
            (root / "audio" / folder / f"Y{file}").touch()
        (root / f"groundtruth_weak_label_{folder}_set.csv").write_text(text)


def write_speech(root: Path, files: Mapping[str, str]) -> None:
    """Lists and silent places for the audio, in the official layout."""
    for name in speech_commands.LISTS:
        listed = [file for file, listed_in in files.items() if listed_in == name]
        (root / name).write_text("".join(f"{file}\n" for file in listed))
    for file in (*files, "_background_noise_/pink_noise.wav"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()


def write_urban(root: Path) -> None:
    """The index and silent places for two recordings of one source in every fold."""
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in urbansound8k.FOLDS:
        for part in (0, 1):
            name = f"{100 + fold}-3-0-{part}.wav"
            lines.append(f"{name},{100 + fold},0.0,0.2,1,{fold},3,dog_bark")
            path = root / "audio" / f"fold{fold}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (root / "metadata").mkdir()
    (root / urbansound8k.INDEX).write_text("\n".join(lines) + "\n")


def write_esc(root: Path) -> None:
    """The index and silent places for two recordings of one source in every fold."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    (root / "audio").mkdir()
    for fold in esc50.FOLDS:
        for take, (target, category) in {"A": (0, "dog"), "B": (14, "chirping_birds")}.items():
            name = f"{fold}-{100 + fold}-{take}-{target}.wav"
            lines.append(f"{name},{fold},{target},{category},{take == 'A'},{100 + fold},{take}")
            (root / "audio" / name).touch()
    (root / "meta").mkdir()
    (root / esc50.INDEX).write_text("\n".join(lines) + "\n")


def make(name: str, root: Path) -> Path:
    """The miniature of a published dataset in a new folder, with audio that can be decoded."""
    root.mkdir(parents=True)
    if name == mtat.INFO.name:
        write_mtat(root, MTAT_CLIPS)
    elif name == dcase2017.INFO.name:
        write_dcase(root, DCASE_ROWS)
    elif name == urbansound8k.INFO.name:
        write_urban(root)
    elif name == esc50.INFO.name:
        write_esc(root)
    else:
        write_speech(root, SPEECH_FILES)
    for path in root.rglob("*.[mw][pa][3v]"):
        write(path, tone(0.2, 16000), 16000)
    return root
