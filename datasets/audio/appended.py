"""Detection of an audio file of another format after the end of a file, which decoders ignore.

An mp3 without a frame with ``Info`` or ``Xing`` cannot be distinguished from noise, so that it is
not detected after a file of another format.
"""

from __future__ import annotations

from pathlib import Path

from ..base import DecodeError

# Bytes at the start of a file that are too long to occur in samples by chance.
_SIGNS = {
    b"WAVEfmt ": "WAV",
    b"AIFFCOMM": "AIFF",
    b"OggS\x00\x02": "Ogg",
    b"fLaC\x00\x00\x00\x22": "FLAC",
    b"Info\x00\x00\x00\x0f": "mp3",
    b"Xing\x00\x00\x00\x0f": "mp3",
}


def check_appended(path: Path, data: bytes, own: str = "") -> None:
    """Check that no audio of another format begins in a file.

    Parameters
    ----------
    path
        Path for the error message.
    data
        The content of the file, or of its end.
    own
        The format of the file, which is allowed: WAV, AIFF, Ogg, FLAC or mp3.

    Raises
    ------
    ClipError
        If audio of another format begins in `data`.
    """
    for sign, name in _SIGNS.items():
        if name != own and sign in data:
            raise DecodeError(
                f"{path} is followed by another file, of the format {name}, in the same file; "
                "split them, or convert both and join them again"
            )
