"""What C decoders print by themselves is kept out of a command's output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_decoder_messages() -> Iterator[None]:
    """Discard what C libraries write to standard error; Python's own messages still arrive.

    Decoders such as mpg123 print notes on odd files there. What matters of them is in the
    error that the decoder returns.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    before = sys.stderr
    try:
        shared = before.fileno() == 2
    except (AttributeError, OSError, ValueError):  # none, closed, or in memory
        shared = False
    if shared:
        before.flush()
        sys.stderr = open(  # noqa: SIM115  # closed below
            os.dup(kept), "w", 1, encoding=before.encoding, errors=before.errors
        )
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if shared:
            sys.stderr.close()
            sys.stderr = before
