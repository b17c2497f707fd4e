"""Tokens to text, piece by piece: whole characters only, and nothing of a stop string."""

from collections.abc import Callable, Sequence

_HALF = "\N{REPLACEMENT CHARACTER}"


class Detokeniser:
    """Text of a growing list of tokens.

    Decoding is done twice over a short window, with and without the new tokens, because a token's text
    depends on its neighbours (spaces, characters of several bytes).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._window = 0
        self._spoken = 0

    def feed(self, token: int) -> str:
        """The text that became certain, empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._new_text()
        if not text or text.endswith(_HALF):
            return ""
        self._window, self._spoken = self._spoken, len(self._tokens)
        return text

    def flush(self) -> str:
        """What is left at the end, less an incomplete character."""
        return self._new_text().rstrip(_HALF)

    def _new_text(self) -> str:
        before = self._decode(self._tokens[self._window : self._spoken])
        return self._decode(self._tokens[self._window :])[len(before) :]


class StopWatch:
    """Lets text through up to the first stop string; holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        self._held += text
        cuts = [found for stop in self._stops if (found := self._held.find(stop)) >= 0]
        if cuts:
            self.hit = True
            return self._release(min(cuts), drop_rest=True)
        return self._release(len(self._held) - self._doubtful())

    def flush(self) -> str:
        return self._release(len(self._held))

    def _doubtful(self) -> int:
        """Length of the longest end that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _release(self, length: int, *, drop_rest: bool = False) -> str:
        text, rest = self._held[:length], self._held[length:]
        self._held = "" if drop_rest else rest
        return text
