"""Mutants of the scripts: each has one small change of a kind that people make by mistake."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.scripts.lua_code import Token, conditions, line, tokens

# What replaces what: a bound off by one, a sign, an end of a list, the other of two.
SWAPS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "~=",
    "~=": "==",
    "+": "-",
    "*": "/",
    "/": "*",
    "%": "*",
    "and": "or",
    "or": "and",
    "true": "false",
    "false": "true",
    "max": "min",
    "min": "max",
    "ceil": "floor",
    "floor": "ceil",
    "'LPUSH'": "'RPUSH'",
    "'RPUSH'": "'LPUSH'",
    "'LPOP'": "'RPOP'",
    "'ZPOPMIN'": "'ZPOPMAX'",
    "'ZRANGE'": "'ZREVRANGE'",
    "'ZREVRANGE'": "'ZRANGE'",
    "'ZRANK'": "'ZREVRANK'",
    "'NX'": "'XX'",
    "'('": "''",
    "'-inf'": "'+inf'",
    "'+inf'": "'-inf'",
}
KINDS = {
    **dict.fromkeys(["<", "<=", ">", ">=", "==", "~="], "comparison"),
    **dict.fromkeys(["+", "*", "/", "%"], "sign"),
    **dict.fromkeys(["and", "or", "true", "false"], "logic"),
}


@dataclass(frozen=True)
class Mutant:
    """A broken script: the change, its place, and the text."""

    script: str
    kind: str
    line: int
    change: str
    """the line with the old and the new code: `if {a < b => a <= b} then`"""
    text: bytes

    @property
    def key(self) -> str:
        """Return a name of the mutant that does not depend on the lines above it."""
        return f"{self.script}: {self.change}"

    def __str__(self) -> str:
        return f"{self.script}:{self.line} {self.kind}: {self.change}"


def mutants(script: str, text: str) -> list[Mutant]:
    """Return every mutant of a script, once each; the texts of errors are not part of the contract and stay."""
    found: dict[str, Mutant] = {}
    for kind, start, end, replacement in _replacements(text):
        broken = text[:start] + replacement + text[end:]
        first, last = text.rfind("\n", 0, start) + 1, (text + "\n").index("\n", end)
        was, new = text[start:end].strip(), replacement.strip() or "nothing"
        change = " ".join(f"{text[first:start]}{{{was} => {new}}}{text[end:last]}".split())
        if broken != text:
            found.setdefault(broken, Mutant(script, kind, line(text, start), change, _bounded(broken)))
    return list(found.values())


def _bounded(text: str) -> bytes:
    """Bound every loop, because a server cannot end a script that has written something."""
    turns = "turns = turns + 1; if turns > 100000 then error('endless') end"
    return re.sub(r"\bwhile\b(.*?)\bdo\b", rf"local turns = 0; while\1do {turns}; ", text).encode()


def sample(every: list[Mutant], count: int) -> list[Mutant]:
    """Choose some mutants, always the same ones, of as many kinds as possible."""
    turn: dict[str, int] = {}

    def place(mutant: Mutant) -> tuple[int, str]:
        turn[mutant.kind] = turn.get(mutant.kind, -1) + 1
        return turn[mutant.kind], _digest(mutant)

    return sorted(sorted(every, key=_digest), key=place)[:count]


def _digest(mutant: Mutant) -> str:
    return hashlib.sha1(mutant.key.encode()).hexdigest()


def _replacements(text: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield kind, start, end and replacement."""
    code = [token for token in tokens(text) if not _in_error_message(text, token)]
    for i, token in enumerate(code):
        before = code[i - 1] if i else token
        following = code[i + 1] if i + 1 < len(code) else token
        if token.kind == "number":
            yield "number", token.at, token.end, str(int(token.text) + 1)
            if int(token.text) > 1:
                yield "number", token.at, token.end, str(int(token.text) - 1)
        elif token.kind == "string" and re.fullmatch(r"'(-?[1-9]\d{0,4}|0)'", token.text):  # numbers in commands
            yield "number", token.at, token.end, f"'{int(token.text[1:-1]) + 1}'"
        elif token.text == "-":
            unary = (
                before.kind in {"symbol", "string"} and before.text not in {")", "]", "}"}
            ) or before.text == "return"
            yield "sign", token.at, token.end, "" if unary else "+"
        elif token.text == "not":
            yield "logic", token.at, token.end, ""
        elif token.text == "break":
            yield "left out", token.at, token.end, ""
        elif token.text in {"max", "min"} and before.text != ".":
            continue
        elif token.text in SWAPS:
            if token.text == "%" and following.text == "s":
                continue
            yield KINDS.get(token.text, "the other one"), token.at, token.end, SWAPS[token.text]
    for head, then in conditions(code):
        yield "condition", head.end, then.at, " true "
        yield "condition", head.end, then.at, " false "
    yield from _removable_lines(text)


def _in_error_message(text: str, token: Token) -> bool:
    """Return whether a token is only part of an error's message: after `error_reply`, or on the line below it."""
    before = text[text.rfind("\n", 0, token.at) + 1 : token.at].lstrip()
    return "redis.error_reply" in before or before.startswith("..") or (not before and token.text == "..")


def _removable_lines(text: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield the lines that are a single command, or an assignment to an existing variable."""
    at = 0
    for row in text.split("\n"):
        words = row.strip()
        opens = words.count("(") != words.count(")")
        if at > text.index("\n\n") and not opens:
            is_command = words.startswith(("call(", "redis.pcall("))
            is_assignment = " = " in words and not words.startswith(("local ", "for ", "if ", "elseif ", "--", "{"))
            if (is_command or is_assignment) and not words.endswith(("{", ",")):
                yield "left out", at, at + len(row), ""
        at += len(row) + 1
