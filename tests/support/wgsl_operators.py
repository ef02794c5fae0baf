"""Operators that WGSL mixes only in parentheses, which not every compiler of it insists on.

The operands of |, & and ^ are unary expressions or more of the same operator, those of << and >>
unary expressions, and && is not mixed with ||. (WGSL, "Operator precedence and associativity".)
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_COMMENT = re.compile(r"//[^\n]*")
_TEMPLATE = re.compile(r"\b([a-z]\w*)<[^<>;={}()]*>")
_TOKEN = re.compile(r"[\w.]+|<<=|>>=|&&|\|\||<<|>>|->|[<>=!+\-*/%&|^]=|\S")
_BITS, _SHIFTS, _LOGIC = {"|", "&", "^"}, {"<<", ">>"}, {"&&", "||"}
_ARITHMETIC, _RELATIONS = {*"+-*/%"}, {"<", ">", "<=", ">=", "==", "!="}
_BINARY = _BITS | _SHIFTS | _LOGIC | _ARITHMETIC | _RELATIONS


def mixed_operators(source: str) -> Iterator[str]:
    """Yield the operators of each expression that mixes some without parentheses.

    >>> list(mixed_operators("let a = b << 8u | c;"))
    ['<< |']
    >>> list(mixed_operators("let a = (b << 8u) | c;"))
    []
    """
    text = _COMMENT.sub("", source)
    while (plain := _TEMPLATE.sub(r"\1", text)) != text:
        text = plain
    open_groups: list[list[str]] = [[]]
    before = "("
    for token in _TOKEN.findall(text):
        if token in "([":
            open_groups.append([])
        elif token in ")]":
            yield from _told(open_groups.pop())
        elif token in _BINARY and (before in ")]" or re.match(r"[\w.]", before)):
            open_groups[-1].append(token)
        elif not re.match(r"[\w.!~&*-]", token):  # ends an expression
            yield from _told(open_groups[-1])
            open_groups[-1] = []
        before = "(" if token == "return" else token


def _told(operators: list[str]) -> Iterator[str]:
    kinds = set(operators)
    of_bits, shifts = kinds & _BITS, [each for each in operators if each in _SHIFTS]
    is_mixed = (of_bits and len(kinds) > 1) or (kinds & _SHIFTS and kinds & _ARITHMETIC)
    between = sum(each in _RELATIONS | _LOGIC for each in operators)
    if is_mixed or len(shifts) > 1 + between or kinds >= _LOGIC:
        yield " ".join(operators)
