#!/usr/bin/env python3
"""House style that a program can judge: lengths, banned functions, notes without an issue."""
import re

import sources

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
COLUMNS_MAX = 100
# Each with what to use in its place.
BANNED = {
    "strcpy": "snprintf or memcpy with a checked size",
    "strncpy": "snprintf",
    "strcat": "struct buffer",
    "strncat": "struct buffer",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fd_read_full",
    "strtok": "a loop over a (pointer, length) span",
    "atoi": "strtoul with all its checks",
    "atol": "strtoul with all its checks",
    "atoll": "strtoull with all its checks",
    "alloca": "a buffer with a maximum",
    "system": "fork and exec in a spawn.c",
    "popen": "fork and exec in a spawn.c",
    "tmpnam": "mkstemp or memfd_create",
    "mktemp": "mkstemp or memfd_create",
}
# Tests are nobody's to attack: they may call a shell.
TESTS_MAY = {"system", "popen"}
FORK = re.compile(r"\b(v?fork)\s*\(")
CALL = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
NOTE = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")


def check_functions(path, lines):
    """A function's body opens and closes with a brace in column 0 (clang-format sees to that)."""
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line.startswith("}") and start is not None:
            length = number - start - 1
            if length > FUNCTION_LINES_MAX:
                most = FUNCTION_LINES_MAX
                yield f"{path}:{start}: function of {length} lines, the most is {most}"
            start = None


def check_c(path, text):
    code = sources.without_comments(text)
    lines = code.split("\n")
    yield from check_functions(path, lines)
    for number, line in enumerate(lines, 1):
        for found in CALL.finditer(line):
            name = found.group(1)
            if path.startswith("tests/") and name in TESTS_MAY:
                continue
            yield f"{path}:{number}: {name} is banned; use {BANNED[name]}"
        if FORK.search(line) and not path.endswith("spawn.c") and not path.startswith("tests/"):
            yield f"{path}:{number}: fork outside of a spawn.c"
    if path.endswith(".h") and "#pragma once" not in code:
        yield f"{path}:1: no #pragma once"


def check_any(path, text):
    lines = text.split("\n")
    if len(lines) - 1 > FILE_LINES_MAX:
        yield f"{path}: {len(lines) - 1} lines, the most is {FILE_LINES_MAX}; split it by idea"
    for number, line in enumerate(lines, 1):
        if NOTE.search(line) and path != "tests/lint/style.py":
            yield f"{path}:{number}: a note without an issue; write TODO(#12)"
        if len(line) > COLUMNS_MAX and path.endswith(".py"):  # C: clang-format decides
            yield f"{path}:{number}: {len(line)} columns, the most is {COLUMNS_MAX}"
        if line != line.rstrip() and not path.endswith((".patch", ".md")):
            yield f"{path}:{number}: blanks at the end of the line"
    if text and not text.endswith("\n"):
        yield f"{path}:{len(lines)}: no newline at the end of the file"


def main():
    findings = []
    for path in sources.files(".c", ".h", ".py", ".sh", ".mk", ".S"):
        text = sources.read(path)
        findings += check_any(path, text)
        if path.endswith((".c", ".h")):
            findings += check_c(path, text)
    sources.finish(findings)


if __name__ == "__main__":
    main()
