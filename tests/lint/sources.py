"""What the checks of this folder share: which files there are, and C code without its comments."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIPPED = {".git", "build", "__pycache__", "corpus"}
TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def files(*suffixes):
    """Paths, relative to the top, of all files with one of these suffixes, sorted."""
    found = []
    for folder, names, leaves in os.walk(TOP):
        names[:] = [n for n in names if n not in SKIPPED]
        for leaf in leaves:
            if leaf.endswith(suffixes):
                found.append(os.path.relpath(os.path.join(folder, leaf), TOP))
    return sorted(found)


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as f:
        return f.read()


def without_comments(text, strings=False):
    """C code with comments blanked (and the insides of literals, unless `strings`): same lines."""
    def blank(found):
        token = found.group(0)
        if token[0] in "\"'":
            return token if strings else token[0] + token[0]
        return " " + "\n" * token.count("\n")
    return TOKEN.sub(blank, text)


def finish(findings):
    """Prints the findings and ends: 1 when there are any."""
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)
