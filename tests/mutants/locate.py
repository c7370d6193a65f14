"""Finds pieces of Rust source by the function that they stand in, and replaces them.

A place is `file::item`: the end of the file's path, and the name of a function, constant or type in
it, behind the names around it where its own occurs twice: `queue.rs::push`, `hub/mod.rs::Hub::new`.
So a file can move, a type can get another name, and rustfmt can break a line: the place is found.
"""

import functools
import re
from typing import NamedTuple


class Missing(Exception):
    """What a place or a pattern names does not exist, or exists more than once."""


class Item(NamedTuple):
    """A function, constant or type: its name behind those around it, and where it is."""

    path: tuple[str, ...]
    start: int
    end: int
    # The brace of a body.
    body: int | None = None


# A lifetime is no literal, as no quote ends it.
LITERAL = r"""b?r(\#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])'"""
COMMENT = r"//[^\n]*|/\*.*?\*/"
LEXEME = re.compile(rf"{LITERAL}|(?P<comment>{COMMENT})|\w+|.", re.DOTALL)

HEAD = re.compile(
    r"\b(?P<kind>fn|trait|mod|struct|enum)\s+(?P<name>\w+)"
    # One among generics ends with them.
    r"|(?<![<,])(?<!, )\b(?:const|static)\s+(?P<value>\w+)\s*:"
    r"|(?P<impl>\bimpl\b)"
    r"|(?P<sign>[{}()\[\];])"
)


@functools.cache
def blanked(text, literals):
    """The text with blanks for comments, and for `literals` too; all else is where it was."""

    def blank(match):
        is_literal = match[0][-1] in "\"'#" and len(match[0]) > 1
        if match["comment"] or literals and is_literal:
            return re.sub(r"[^\n]", " ", match[0])
        return match[0]

    return LEXEME.sub(blank, text)


def type_of(head):
    """The type of an `impl`, by the text between that word and the brace."""
    head = re.split(r"\bwhere\b", head.replace("->", ""))[0]
    outside, depth = "", 0
    for char in head:
        depth += (char == "<") - (char == ">")
        outside += char if depth == 0 else " "
    return re.findall(r"\w+", re.split(r"\bfor\b", outside)[-1])[-1]


def end_of_value(code, start):
    """The end of a constant: its semicolon, but for those within brackets."""
    depth = 0
    for match in re.finditer(r"[{(\[]|[})\]]|;", code[start:]):
        if match[0] == ";" and depth == 0:
            return start + match.end()
        depth += {"{": 1, "(": 1, "[": 1, ";": 0}.get(match[0], -1)
    return len(code)


@functools.cache
def items(text):
    """The items of a file, with those inside others. An `impl` or a `mod` is but a name around."""
    code = blanked(text, literals=True)
    found = []
    # Open brackets. The bracket of a body has the name and the start of its item, and where it is.
    stack = []
    # The item that has no body yet: its name, its start and the number of brackets around it.
    head = None
    for match in HEAD.finditer(code):
        around = [name for name, _, _ in stack if name]
        if match["value"]:
            end = end_of_value(code, match.end())
            found.append(Item((*around, match["value"]), match.start(), end))
        elif not match["sign"]:
            # An `impl` in the head of a function is a type.
            head = head or (match["name"], match.start(), len(stack))
        elif match["sign"] in "{([":
            opened = (None, None, None)
            if head and match["sign"] == "{" and len(stack) == head[2]:
                name = head[0] or type_of(code[head[1] + 4 : match.start()])
                opened = (name, head[1], match.start())
                head = None
            stack.append(opened)
        elif match["sign"] == ";":
            if head and len(stack) == head[2]:
                found.append(Item((*around, head[0] or ""), head[1], match.end()))
                head = None
        elif stack:
            name, start, body = stack.pop()
            if name:
                path = tuple(name for name, _, _ in stack if name) + (name,)
                found.append(Item(path, start, match.end(), body))
    return [item for item in found if not re.match(r"(impl|mod)\b", code[item.start :])]


def file_of(root, name):
    """The one file below `root` with a path that ends with `name`.

    If other files have it too, those of the tests and of the simulation do not count.
    """
    files = [path for path in root.rglob("*.rs") if f"/{path.as_posix()}".endswith(f"/{name}")]
    if len(files) > 1:
        files = [path for path in files if not {"tests", "sim"} & set(path.parts)]
    if len(files) != 1:
        raise Missing(f"{len(files)} files are {name}")
    return files[0]


def item_of(text, name):
    """The one item with a path that ends with `name`; those of the tests do not count."""
    names = tuple(name.split("::"))
    ends = [item for item in items(text) if item.path[-len(names) :] == names]
    found = [item for item in ends if "tests" not in item.path]
    if len(found) != 1:
        raise Missing(f"{len(found)} items are {name}")
    return found[0]


def regex(pattern):
    """What finds `pattern` however it is laid out: between two lexemes there may be white space,
    and before a closing bracket a comma."""
    lexemes = [match[0] for match in LEXEME.finditer(pattern) if not match[0].isspace()]
    out = ""
    for before, lexeme in zip(["", *lexemes], lexemes):
        if lexeme in ")]}":
            out = out.removesuffix(r"\s*,") + r"\s*(?:,\s*)?"
        elif is_word(before) and is_word(lexeme):
            out += r"\s+"
        elif before:
            out += r"\s*"
        out += re.escape(lexeme)
    start = r"\b" if is_word(lexemes[0]) else ""
    return re.compile(start + out + (r"\b" if is_word(lexemes[-1]) else ""))


def is_word(lexeme):
    return re.fullmatch(r"\w+", lexeme) is not None


def span(text, name, pattern):
    """The item `name`, and where the one `pattern` in it is."""
    item = item_of(text, name)
    # A comment between two lexemes is white space.
    inside = blanked(text, literals=False)[item.start : item.end]
    matches = list(regex(pattern).finditer(inside))
    if len(matches) != 1:
        raise Missing(f"{name} has {len(matches)} times {pattern!r}")
    start, end = (item.start + at for at in matches[0].span())
    return item, start, end


def replaced(text, name, pattern, replacement):
    """The text of a file with `replacement` for the one `pattern` in its item `name`."""
    _, start, end = span(text, name, pattern)
    return text[:start] + replacement + text[end:]


def body_with(text, name, pattern, replacement):
    """The function `name`, and its body with `replacement` for the one `pattern`; no body if it is no
    function, if the pattern is in its head, or if it runs while the compiler does."""
    item, start, end = span(text, name, pattern)
    is_function = text.startswith("fn ", item.start) and item.body is not None
    if not is_function or start < item.body or text[: item.start].rstrip().endswith("const"):
        return item, None
    return item, text[item.body : start] + replacement + text[end : item.end]
