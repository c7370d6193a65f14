#!/usr/bin/env python3
"""Writes the man page and the completions of a binary: deploy/pages.py FOLDER COMMAND...

COMMAND is the binary, or an emulator and the binary. What they say comes from its `--help all`, which
is made from the table of flags. FOLDER gets hublet.1, hublet.bash, _hublet (zsh) and hublet.fish.
"""

import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

# What may follow a flag, by the placeholder of its value.
WORDS = {
    "LEVEL": ["error", "warn", "info", "debug"],
    "POLICY": ["disconnect", "drop-newest", "drop-oldest", "latest", "replay"],
}


class Flag(NamedTuple):
    """A flag, what stands for its value, its sentence, and its variable."""

    name: str
    value: str
    text: str
    variable: str

    @property
    def short(self):
        """The sentence up to its first turn, for a list of completions."""
        return re.split(r"[:;(]|, (?!and )", self.text)[0].strip()

    def words(self):
        """The values that there are, where the sentence lists them."""
        return WORDS.get(self.value, [])

    @property
    def is_file(self):
        return self.value == "FILE"


def read(command):
    """The flags, the text before them, and the text behind them."""
    said = subprocess.run([*command, "--help", "all"], check=True, capture_output=True, text=True)
    head, _, rest = said.stdout.partition("\n  --")
    flags, last = [], ""
    lines = ("  --" + rest).split("\n")
    for at, line in enumerate(lines):
        if found := re.fullmatch(r"  --([\w-]+)(?: (.*))?", line):
            text = lines[at + 1].strip() if lines[at + 1].startswith("      ") else ""
            variable = re.search(r" \[(HUBLET_\w+)\]$", text)
            text = text.removesuffix(variable[0]) if variable else text
            flags.append(Flag(found[1], found[2] or "", text, variable[1] if variable else ""))
            last = at + (2 if text else 1)
    return flags, head.strip(), "\n".join(lines[last:]).strip()


def roff(text):
    """A text in which nothing is a command."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def man(version, flags, head, tail):
    title, _, about = head.partition("\n")
    usage, _, about = about.strip().partition("\n")
    name, _, what = title.partition(": ")
    synopsis = roff(usage.removeprefix("Usage: ").removeprefix(f"{name} "))
    out = [
        f'.TH HUBLET 1 "" "hublet {version}" "User Commands"',
        ".SH NAME",
        f"{name} \\- {roff(what)}",
        ".SH SYNOPSIS",
        f".B {name}",
        synopsis,
        ".SH DESCRIPTION",
        ".nf",
        roff(about.strip()),
        ".fi",
        ".SH OPTIONS",
    ]
    for flag in flags:
        value = f" \\fI{roff(flag.value)}\\fR" if flag.value else ""
        out += [".TP", f"\\fB\\-\\-{roff(flag.name)}\\fR{value}"]
        text = {"version": "print the version"}.get(flag.name, flag.text)
        out.append(roff(text) + "." if text else "")
        if flag.variable:
            out += [".br", f"Variable: {roff(flag.variable)}"]
    first, *more = tail.split("\n")
    out += [".SH NOTES", roff(first)]
    for paragraph in more:
        out += [".PP", roff(paragraph)]
    return "\n".join(out) + "\n"


def bash(flags):
    names = " ".join(f"--{flag.name}" for flag in flags)
    files = "|".join(f"--{flag.name}" for flag in flags if flag.is_file)
    cases = [f'    {files}) COMPREPLY=($(compgen -f -- "$word")) ; return ;;']
    for flag in flags:
        if flag.words():
            words = " ".join(flag.words())
            cases.append(f'    --{flag.name}) COMPREPLY=($(compgen -W "{words}" -- "$word")) ; return ;;')
    others = "|".join(
        f"--{flag.name}"
        for flag in flags
        if flag.value and not (flag.is_file or flag.words() or flag.value == "[all]")
    )
    cases.append(f"    {others}) return ;;")
    cases.append('    --help) COMPREPLY=($(compgen -W "all" -- "$word")) ; return ;;')
    return "\n".join([
        "# Completions of hublet for bash.",
        "_hublet() {",
        '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}',
        '    case "$before" in',
        *cases,
        "    esac",
        f'    COMPREPLY=($(compgen -W "{names}" -- "$word"))',
        "}",
        "complete -o filenames -F _hublet hublet",
        "",
    ])


def zsh(flags):
    out = ["#compdef hublet", "# Completions of hublet for zsh.", "_arguments \\"]
    for flag in flags:
        text = re.sub(r"([\[\]:'\\])", r"", flag.short) or flag.name
        if flag.is_file:
            value = ":file:_files"
        elif flag.words():
            value = f":{flag.value}:({' '.join(flag.words())})"
        elif flag.value == "[all]":
            value = "::all:(all)"
        else:
            value = f":{flag.value}: " if flag.value else ""
        often = "*" if "repeat the flag" in flag.text else ""
        out.append(f"    '{often}--{flag.name}[{text}]{value}' \\")
    return "\n".join(out).removesuffix(" \\") + "\n"


def fish(flags):
    out = ["# Completions of hublet for fish.", "complete -c hublet -f"]
    for flag in flags:
        text = re.sub(r"['\\]", "", flag.short) or flag.name
        line = f"complete -c hublet -l {flag.name} -d '{text}'"
        if flag.is_file:
            line += " -r -F"
        elif flag.words():
            line += f" -x -a '{' '.join(flag.words())}'"
        elif flag.value and flag.value != "[all]":
            line += " -x"
        out.append(line)
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, command = pathlib.Path(sys.argv[1]), sys.argv[2:]
    said = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    flags, head, tail = read(command)
    if len(flags) < 20:
        sys.exit(f"{len(flags)} flags in the help of {command}")
    folder.mkdir(parents=True, exist_ok=True)
    version = said.stdout.split()[-1]
    (folder / "hublet.1").write_text(man(version, flags, head, tail))
    (folder / "hublet.bash").write_text(bash(flags))
    (folder / "_hublet").write_text(zsh(flags))
    (folder / "hublet.fish").write_text(fish(flags))


main()
