"""Suffixes of the audio files that folders are searched for; a named file may have any suffix."""

from __future__ import annotations

# Containers and codecs that libsndfile or PyAV decode.
AUDIO_SUFFIXES = frozenset(
    {
        *(".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".avi", ".avr", ".caf"),
        *(".flac", ".htk", ".ircam", ".m4a", ".m4b", ".mat4", ".mat5", ".mka", ".mkv", ".mov"),
        *(".mp2", ".mp3", ".mp4", ".mpc", ".nist", ".oga", ".ogg", ".opus", ".paf", ".pvf"),
        *(".rf64", ".sd2", ".sds", ".sf", ".snd", ".sph", ".svx", ".tta", ".voc", ".w64", ".wav"),
        *(".wave", ".webm", ".wma", ".wv", ".xi"),
    }
)
