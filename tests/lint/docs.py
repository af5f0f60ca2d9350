#!/usr/bin/env python3
"""The documents name files that are there: each `path` or `file.c` of a page, whether it is said
from the top, from src/ or by its name alone."""
import glob
import os
import re

import sources

PAGES = ("README.md", "docs/*.md", "clients/python/README.md", "images/kernel/README.md")
NAME = re.compile(r"`([\w.*-]+(?:/[\w.*-]+)*/?)`")
CODE = (".c", ".h", ".py", ".sh", ".S", ".mk", "/")
# Folders of the state directory, and files of a user's or a guest's.
NOT_OURS = re.compile(r"^(snapshots|scratch|tmp)/$")


def is_there(name, names):
    """`names`: of all files and folders, as they are called alone."""
    alone = name.rstrip("/")
    if "/" in alone:
        return any(glob.glob(os.path.join(sources.TOP, where, name)) for where in ("", "src"))
    return alone in names


def main():
    findings = []
    names = {part for path in sources.files("") for part in path.split("/")}
    for pattern in PAGES:
        for page in sorted(glob.glob(os.path.join(sources.TOP, pattern))):
            path = os.path.relpath(page, sources.TOP)
            for number, line in enumerate(sources.read(path).split("\n"), 1):
                for name in NAME.findall(line):
                    if not name.endswith(CODE) or NOT_OURS.match(name):
                        continue
                    if not is_there(name, names):
                        findings.append(f"{path}:{number}: `{name}` is not there")
    sources.finish(findings)


if __name__ == "__main__":
    main()
