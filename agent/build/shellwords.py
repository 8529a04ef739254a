"""Words, quotes and ${variables} of a Dockerfile, as Docker Engine reads them.  Pure.

The rules are those of moby's shell lexer: ${x:-y}, ${x-y}, ${x:+y}, ${x+y}, ${x:?y}, ${x?y},
${x#p}, ${x##p}, ${x%p}, ${x%%p}, ${x/p/r}, ${x//p/r}; single quotes keep all, double quotes
expand.  Nesting, result size and pattern work are bounded (security case 78).
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.build import patterns

_MAX_DEPTH = 32
_MAX_RESULT = 1 << 20  # characters of one expanded word
_SPECIAL = frozenset("@*#?-$!0")
_WORD_MODIFIERS = frozenset("+-?#%")


class WordError(ValueError):
    """What is wrong with a word, in docker's words."""


class Words:
    """Collects the words of a line: unquoted white space separates them."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._current: list[str] = []
        self._in_word = False

    def add(self, text: str) -> None:
        """Unquoted text."""
        for char in text:
            if char.isspace():
                self._close()
            else:
                self.add_raw(char)

    def add_raw(self, text: str) -> None:
        """Quoted or escaped text: white space stays, and even nothing makes a word."""
        self._current.append(text)
        self._in_word = True

    def _close(self) -> None:
        if self._in_word:
            self.found.append("".join(self._current))
            self._current.clear()
            self._in_word = False

    def done(self) -> list[str]:
        self._close()
        return self.found


class Lexer:
    """Expands words.  `raw`: quotes and escapes stay as written; `keep_unset`: so do unset names;
    `quotes` False: quotes are ordinary characters (heredocs)."""

    def __init__(
        self,
        escape: str = "\\",
        *,
        raw: bool = False,
        keep_unset: bool = False,
        quotes: bool = True,
    ) -> None:
        self._quotes = "'\"" if quotes else ""
        self._escape = escape
        self._raw = raw
        self._keep_unset = keep_unset

    def word(self, text: str, values: Mapping[str, str]) -> str:
        """One word, expanded.  Raises WordError."""
        return self._run(text, values)[0]

    def words(self, text: str, values: Mapping[str, str]) -> list[str]:
        """Expanded and split at unquoted white space.  Raises WordError."""
        return self._run(text, values)[1]

    def _run(self, text: str, values: Mapping[str, str]) -> tuple[str, list[str]]:
        scanner = _Scanner(text, values, self._escape, raw=self._raw, keep_unset=self._keep_unset)
        scanner.quotes = self._quotes
        try:
            found, words = scanner.until("")
        except WordError as error:
            raise WordError(f'failed to process "{text[:200]}": {error}') from error
        return found, words


class _Scanner:
    def __init__(
        self, text: str, values: Mapping[str, str], escape: str, *, raw: bool, keep_unset: bool
    ) -> None:
        self._text = text
        self._at = 0
        self._values = values
        self._escape = escape
        self._raw = raw
        self._keep_unset = keep_unset
        self._depth = 0
        self._made = 0
        self.quotes = "'\""

    # ------------------------------------------------------------------------------- characters

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _next(self) -> str:
        char = self._peek()
        self._at += 1 if char else 0
        return char

    def _count(self, text: str) -> str:
        self._made += len(text)
        if self._made > _MAX_RESULT:
            raise WordError("the result is too long")
        return text

    # ------------------------------------------------------------------------------------ words

    def until(self, stop: str, *, raw_escapes: bool = False) -> tuple[str, list[str]]:
        """Up to an unquoted `stop`, which is passed over; "" = to the end."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise WordError("nested too deep")
        result: list[str] = []
        words = Words()
        while char := self._peek():
            if stop and char == stop:
                self._next()
                self._depth -= 1
                return "".join(result), words.done()
            result.append(self._piece(char, words, raw_escapes=raw_escapes))
        if stop:
            raise WordError(f"unexpected end of statement while looking for matching {stop}")
        self._depth -= 1
        return "".join(result), words.done()

    def _piece(self, char: str, words: Words, *, raw_escapes: bool) -> str:
        if char == "$":
            found = self._dollar()
            words.add(found)
            return found
        if char in self.quotes:
            found = self._single() if char == "'" else self._double()
            words.add_raw(found)
            return found
        self._next()
        if char != self._escape:
            words.add(char)
            return self._count(char)
        kept = char if self._raw or raw_escapes else ""
        escaped = self._next()
        if kept or escaped:
            words.add_raw(kept + escaped)
        return self._count(kept + escaped)

    def _single(self) -> str:
        start = self._at
        end = self._text.find("'", start + 1)
        if end < 0:
            raise WordError("unexpected end of statement while looking for matching single-quote")
        self._at = end + 1
        inner = self._text[start : end + 1] if self._raw else self._text[start + 1 : end]
        return self._count(inner)

    def _double(self) -> str:
        result = [self._next() if self._raw else self._next()[:0]]
        while char := self._peek():
            if char == '"':
                self._next()
                return "".join([*result, char if self._raw else ""])
            if char == "$":
                result.append(self._dollar())
                continue
            self._next()
            if char == self._escape:
                char = self._escaped_in_double(char)
            result.append(self._count(char))
        raise WordError("unexpected end of statement while looking for matching double-quote")

    def _escaped_in_double(self, escape: str) -> str:
        following = self._peek()
        if not following:
            return escape if self._raw else ""
        if following not in ('"', "$", self._escape):
            return escape  # the backslash stays, the next character is ordinary
        self._next()
        return escape + following if self._raw else following

    # -------------------------------------------------------------------------------- variables

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return self._count("$")
            if name not in self._values and self._keep_unset:
                return self._count(f"${name}")
            return self._count(self._values.get(name, ""))
        start = self._at - 1
        self._next()
        if not self._peek():
            raise WordError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise WordError("syntax error: bad substitution")
        return self._count(self._braced(self._name(), start))

    def _name(self) -> str:
        start = self._at
        char = self._peek()
        if char.isascii() and char.isdigit():
            while self._peek().isascii() and self._peek().isdigit():
                self._at += 1
        elif char in _SPECIAL and char:
            self._at += 1
        else:
            while (char := self._peek()) and (char == "_" or (char.isascii() and char.isalnum())):
                self._at += 1
        return self._text[start : self._at]

    def _braced(self, name: str, start: int) -> str:
        kind = self._next()
        if not kind:
            raise WordError("syntax error: missing '}'")
        if kind == "}":
            if name not in self._values and self._keep_unset:
                return self._text[start : self._at]
            return self._values.get(name, "")
        if kind == "/":
            return self._replaced(name, start)
        nothing_is_unset = kind == ":"
        shown = kind
        if nothing_is_unset:
            kind = self._next()
            shown += kind
        if kind not in _WORD_MODIFIERS or not kind or (nothing_is_unset and kind in "#%"):
            raise WordError(f"unsupported modifier ({shown}) in substitution")
        word = self._operand(raw=kind in "#%")
        if name not in self._values and self._keep_unset:
            return self._text[start : self._at]
        return self._modified(name, kind, word, nothing_is_unset=nothing_is_unset)

    def _operand(self, *, raw: bool) -> str:
        try:
            return self.until("}", raw_escapes=raw)[0]
        except WordError as error:
            if "looking for matching }" in str(error):
                raise WordError("syntax error: missing '}'") from error
            raise

    def _modified(self, name: str, kind: str, word: str, *, nothing_is_unset: bool) -> str:
        value = self._values.get(name)
        there = value is not None and not (nothing_is_unset and not value)
        found = value or ""
        if kind == "-":
            return found if there else word
        if kind == "+":
            return word if there else ""
        if kind == "?":
            if there:
                return found
            why = "empty" if value is not None else "unset"
            raise WordError(f"{name}: {word or f'is not allowed to be {why}'}")
        greedy = word.startswith(kind)
        pattern = word[1:] if greedy else word
        try:
            trim = patterns.trim_prefix if kind == "#" else patterns.trim_suffix
            return trim(pattern, found, greedy=greedy)
        except patterns.PatternError as error:
            raise WordError(str(error)) from error

    def _replaced(self, name: str, start: int) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        try:
            pattern = self.until("/", raw_escapes=True)[0]
            replacement = self.until("}")[0]
        except WordError as error:
            if "looking for matching" in str(error):
                raise WordError("syntax error: missing '/' or '}' in ${}") from error
            raise
        if name not in self._values and self._keep_unset:
            return self._text[start : self._at]
        value = self._values.get(name, "")
        try:
            return patterns.replace(pattern, value, replacement, everywhere=everywhere)
        except patterns.PatternError as error:
            raise WordError(str(error)) from error
