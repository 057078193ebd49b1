"""Tokens of the scripts' Lua, from which mutants are made and branches are marked."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<comment>--[^\n]*)|(?P<string>'(?:\\.|[^'\\])*')|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<symbol>\.\.\.?|==|~=|<=|>=|.)"
)


@dataclass(frozen=True)
class Token:
    """A token: its kind, its text and its place in the script."""

    kind: str
    text: str
    at: int

    @property
    def end(self) -> int:
        return self.at + len(self.text)


def tokens(text: str) -> list[Token]:
    """Return the tokens of a script's body, without blanks and comments."""
    start = text.index("\n\n")
    found = [Token(match.lastgroup or "", match[0], match.start()) for match in _TOKEN.finditer(text, start)]
    return [token for token in found if token.kind not in {"space", "comment"}]


def line(text: str, at: int) -> int:
    """Return the line number of a place."""
    return text.count("\n", 0, at) + 1


def conditions(code: list[Token]) -> list[tuple[Token, Token]]:
    """Return each condition of an `if` or `elseif`: the word before it and the `then` after it."""
    heads = [i for i, token in enumerate(code) if token.text in {"if", "elseif"} and token.kind == "name"]
    return [(code[i], next(token for token in code[i:] if token.text == "then")) for i in heads]


RECORD = "branches reached"


def marked(text: str) -> tuple[str, dict[str, str]]:
    """Return the script with a mark at each branch, and what each mark stands for.

    A mark writes its name into a hash. There is one for each outcome of each condition, the body of each loop and
    function, and each right-hand side of an `and` or `or`.
    """
    code = tokens(text)
    inserts: list[tuple[int, str]] = []
    points: dict[str, str] = {}

    def point(token: Token, what: str) -> str:
        name = f"{token.at}{what[0]}"
        points[name] = f"line {line(text, token.at)}: {what} of {token.text}"
        return name

    for head, then in conditions(code):
        true, false = point(head, "true outcome"), point(head, "false outcome")
        inserts.append((head.end, f" reach__('{true}', '{false}',"))
        inserts.append((then.at, ") "))
    for i, token in enumerate(code):
        if token.kind != "name":
            continue
        if token.text == "do":
            inserts.append((token.end, f" reach__('{point(token, 'body')}', '', true)"))
        elif token.text == "function":
            closing = next(later for later in code[i:] if later.text == ")")
            inserts.append((closing.end, f" reach__('{point(token, 'body')}', '', true)"))
        elif token.text in {"and", "or"}:
            # `a and b` becomes `a and true and b`, `a or b` becomes `a or false or b`: the mark is reached when b is.
            value = "true" if token.text == "and" else "false"
            name = point(token, "right side")
            inserts.append((token.end, f" reach__('{name}', '{name}', {value}) {token.text}"))
    start = text.index("\n\n")
    inserts.append(
        (
            start + 1,
            "local function reach__(yes, no, value)\n"
            f"  redis.call('HSET', '{RECORD}', value and yes or no, 1)\n"
            "  return value\n"
            "end\n",
        )
    )
    for at, insert in sorted(inserts, reverse=True):
        text = text[:at] + insert + text[at:]
    return text, points
