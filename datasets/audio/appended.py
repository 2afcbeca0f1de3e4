"""An audio file of another format behind the end of one, which decoders pass over in silence.

Nothing tells an mp3 from noise that has no frame with ``Info`` or ``Xing`` before its sound, so
such an mp3 behind a file of another format is not found.
"""

from __future__ import annotations

from pathlib import Path

from ..base import ClipError

# What stands in the beginning of a file, long enough that chance does not write it into samples.
_SIGNS = {
    b"WAVEfmt ": "WAV",
    b"AIFFCOMM": "AIFF",
    b"OggS\x00\x02": "Ogg",
    b"fLaC\x00\x00\x00\x22": "FLAC",
    b"Info\x00\x00\x00\x0f": "mp3",
    b"Xing\x00\x00\x00\x0f": "mp3",
}


def check_appended(path: Path, data: bytes, own: str = "") -> None:
    """Refuse a file in which audio of another format begins.

    Parameters
    ----------
    path
        Named in the error.
    data
        The file, or what follows its end.
    own
        The format that is not looked for: WAV, AIFF, Ogg, FLAC or mp3.

    Raises
    ------
    ClipError
        If there is any.
    """
    for sign, name in _SIGNS.items():
        if name != own and sign in data:
            raise ClipError(
                "decode",
                f"{path} is followed by another file, of the format {name}, in the same file; "
                "split them, or convert both and join them again",
            )
