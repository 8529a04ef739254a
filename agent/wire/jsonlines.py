"""A stream of JSON documents, one after the other (pull progress, events, stats).

Docker ends each document with CR LF or LF, but promises neither, and a proxy may cut the stream
anywhere; so the decoder splits by JSON syntax where lines are not enough.
"""

from __future__ import annotations

import json
from typing import Final

MAX_DOCUMENT: Final = 16 * 1024 * 1024
_SPACE: Final = b" \t\r\n"


class JsonLinesError(ValueError):
    """The bytes are no sequence of JSON documents."""


def encode(document: object) -> bytes:
    """One line, CR LF at its end as Docker Engine's progress streams have."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\r\n"


class JsonLinesDecoder:
    """Bytes in, decoded documents out, whatever way the bytes are cut.

    A document comes out once its line is complete, or at `finish()`. Several documents on one line
    are all found.
    """

    def __init__(self, *, limit: int = MAX_DOCUMENT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[object]:
        """Raises JsonLinesError for broken JSON and for a line beyond the limit."""
        self._buffer += data
        end = self._buffer.rfind(b"\n")
        if end < 0:
            if len(self._buffer) > self._limit:
                raise JsonLinesError("JSON line too long")
            return []
        complete = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        documents: list[object] = []
        for line in complete.split(b"\n"):
            documents += self._line(line)
        return documents

    def finish(self) -> list[object]:
        """What is left after the last line break. Raises JsonLinesError when it is cut off."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return self._line(rest)

    def _line(self, line: bytes) -> list[object]:
        if len(line) > self._limit:
            raise JsonLinesError("JSON line too long")
        documents: list[object] = []
        try:
            text = line.strip(_SPACE).decode()
            while text:
                document, end = self._decoder.raw_decode(text)
                documents.append(document)
                text = text[end:].lstrip()
        except (ValueError, RecursionError) as error:
            raise JsonLinesError(f"malformed JSON line: {error}") from error
        return documents
