"""What the commands share: options as the C library's getopt reads them."""

from collections.abc import Iterator, Sequence


class UsageError(Exception):
    """The command line is wrong; the text is what getopt(3) prints after the program's name."""


class Options:
    """Walks a command line as GNU getopt_long does, one option at a time.

    The standard library's getopt reads the whole line before it reports
    anything; the C programs act on each option as it comes (`-v -x` prints the
    version and never sees `-x`), and scripts rely on that. Options may follow
    operands, `--` ends them. *long* maps a long name to whether it takes a value.
    """

    def __init__(
        self, arguments: Sequence[str], short: str, long: dict[str, bool] | None = None
    ) -> None:
        self._rest = list(arguments)
        self._short = short
        self._long = long or {}
        self.operands: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (`-x` or `--name`, value or ""); UsageError where the line is wrong."""
        while self._rest:
            word = self._rest.pop(0)
            if word == "--":
                self.operands += self._rest
                return
            if word.startswith("--"):
                yield self._long_option(word)
            elif word.startswith("-") and word != "-":
                yield from self._cluster(word[1:])
            else:
                self.operands.append(word)

    def _cluster(self, letters: str) -> Iterator[tuple[str, str]]:
        while letters:
            letter, letters = letters[0], letters[1:]
            at = self._short.find(letter) if letter != ":" else -1
            if at < 0:
                raise UsageError(f"invalid option -- '{letter}'")
            if self._short[at + 1 : at + 2] != ":":
                yield f"-{letter}", ""
                continue
            if not letters and not self._rest:
                raise UsageError(f"option requires an argument -- '{letter}'")
            yield f"-{letter}", letters or self._rest.pop(0)
            return

    def _long_option(self, word: str) -> tuple[str, str]:
        name, equals, value = word[2:].partition("=")
        if name not in self._long:
            raise UsageError(f"unrecognized option '--{name}'")
        if not self._long[name]:
            if equals:
                raise UsageError(f"option '--{name}' doesn't allow an argument")
            return f"--{name}", ""
        if not equals and not self._rest:
            raise UsageError(f"option '--{name}' requires an argument")
        return f"--{name}", value if equals else self._rest.pop(0)
