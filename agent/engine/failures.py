"""The exit code of something that could not be started, by its message."""

from __future__ import annotations

import errno
import os
from typing import Final

NOT_EXECUTABLE: Final = 126
NOT_FOUND_COMMAND: Final = 127
FAILED: Final = 128
_NO_COMMAND: Final = ("executable file not found", "no such file or directory")


def failure_code(message: str) -> int:
    """126, 127 or 128, as moby's translateContainerdStartErr."""
    text = message.lower()
    if any(words in text for words in _NO_COMMAND):
        return NOT_FOUND_COMMAND
    if os.strerror(errno.EACCES).lower() in text or "is a directory" in text:
        return NOT_EXECUTABLE
    if os.strerror(errno.ENOTDIR).lower() in text:
        return NOT_FOUND_COMMAND
    return FAILED
