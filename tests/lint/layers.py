#!/usr/bin/env python3
"""Who may include whom. Roles are processes that talk over sockets: code of one that includes a
header of another would tie what the process boundary keeps apart. Inside a role, rooms (folders)
lean one way. Each outside library is fenced into the room that uses it, so that it can be replaced,
and reviewed, in one place."""
import re

import circles
import sources

HOST = {"base", "ipc", "http", "json"}
AGENT = {"base", "guest/channel"}
DAEMON = {"base", "json"}
# Room (a folder below src/, or of the guest) -> the rooms that it may include, besides its own and
# include/cloche. Arrows go downwards only. A room that is not named here is an error.
API_COMMON = DAEMON | {"http", "daemon/server", "daemon/link", "daemon/archive",
                       "daemon/process", "daemon/machine", "daemon/sandbox"}
API = API_COMMON | {"daemon/api/common"}
ROOMS = {
    "base": set(),
    "ipc": {"base"},
    "http": {"base"},
    "json": {"base"},
    "serve": HOST,
    "priv": {"base", "ipc"},
    "vmm/common": {"base", "ipc"},
    "vmm/virtio": {"base", "vmm/common"},
    "vmm/x86": {"base", "vmm/common"},
    "vmm/machine": {"base", "vmm/common", "vmm/virtio", "vmm/x86"},
    "vmm/state": {"base", "vmm/common", "vmm/machine", "vmm/virtio", "vmm/x86"},
    "vmm": {"base", "vmm/common", "vmm/machine", "vmm/state", "vmm/virtio", "vmm/x86"},
    "cli": HOST | {"cli/commands", "cli/common", "cli/doctor"},
    "cli/client": HOST | {"cli/common"},
    "cli/common": HOST,
    "cli/terminal": HOST | {"cli/common"},
    "cli/commands": HOST | {"cli/client", "cli/common", "cli/terminal"},
    "cli/doctor": HOST | {"cli/client", "cli/common"},
    "daemon/server": {"base", "http", "json"},
    "daemon/link": DAEMON,
    "daemon/archive": {"base"},
    "daemon/process": DAEMON | {"daemon/link"},
    "daemon/machine": DAEMON | {"ipc"},
    "daemon/sandbox": DAEMON | {"daemon/machine", "daemon/process", "daemon/link"},
    "daemon/api/common": API_COMMON,
    "daemon/api/exec": API,
    "daemon/api/files": API,
    "daemon/api/host": API,
    "daemon/api/processes": API,
    "daemon/api/sandboxes": API,
    "daemon/api": API | {"daemon/api/exec", "daemon/api/files", "daemon/api/host",
                         "daemon/api/processes", "daemon/api/sandboxes"},
    "daemon": API | {"ipc", "daemon/api"},
    "guest/channel": {"base"},
    "guest/exec": AGENT,
    "guest/files": AGENT,
    "guest/trees": AGENT | {"guest/files"},
    "guest/boot": {"base", "guest/exec", "guest/files"},
    "guest": AGENT | {"guest/boot", "guest/exec", "guest/files", "guest/trees"},
}
ROOM_FILES_MAX = 25
# These see everything: the binary's entry point starts the roles, tests and benches look inside.
EVERYTHING = ("src/main.c", "tests/", "bench/")
# Headers without a room: what the build embeds or generates.
PLAIN_HEADERS = {"embed.h", "vmm_seccomp.h"}

# Header (a regular expression) -> where it may be included. A path that ends in a slash is a room
# with all rooms inside it.
FENCES = [
    (r"linux/kvm\.h", ("src/vmm/", "tests/payload/", "src/cli/doctor/")),
    (r"cjson/.*|cJSON\.h", ("src/json/", "tests/")),
    (r"uv\.h|uv/.*", ("src/daemon/", "tests/")),
    (r"archive(_entry)?\.h", ("src/daemon/archive/", "src/cli/commands/", "tests/")),
    (r"seccomp\.h", ("src/priv/", "src/vmm/seccomp_gen.c", "tests/")),
    (r"openssl/.*", ("src/proxy/", "src/keys/", "src/audit/", "tests/")),
    (r"(netlink|bpf)/.*", ("src/net/", "bpf/", "tests/")),
    (r"wslay/.*", ("src/daemon/server/websocket", "src/cli/client/client_websocket", "tests/")),
    (r"cmocka\.h", ("tests/",)),
]
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def room_of(path):
    """The folder of a file, as the table names it: below src/, or of the guest."""
    folder = path.rsplit("/", 1)[0]
    return folder[len("src/"):] if folder.startswith("src/") else folder


def check_include(path, header):
    """Why this file may not have `#include "header"`; None where it may."""
    if header in PLAIN_HEADERS or path.startswith(EVERYTHING):
        return None
    if "/" not in header:
        return f'"{header}": name the room, as in "{room_of(path)}/{header}"'
    owner = room_of(header)
    if owner == "cloche" or owner == room_of(path) or owner in ROOMS.get(room_of(path), ()):
        return None
    return f"{room_of(path)} must not include {header}"


def check_file(path):
    code = sources.without_comments(sources.read(path), strings=True)
    for found in INCLUDE.finditer(code):
        header = found.group(2)
        line = code.count("\n", 0, found.start()) + 1
        for pattern, places in FENCES:
            if re.fullmatch(pattern, header) and not path.startswith(places):
                yield f"{path}:{line}: <{header}> is fenced into {', '.join(places)}"
        why = check_include(path, header) if found.group(1) == '"' else None
        if why:
            yield f"{path}:{line}: {why}"


def check_rooms(paths):
    """Every folder is in the table, none holds more than a reader can take in."""
    count = {}
    for path in paths:
        if path.startswith(("src/", "guest/")) and path != "src/main.c" and path != "src/embed.h":
            count[room_of(path)] = count.get(room_of(path), 0) + 1
    for room, files in sorted(count.items()):
        if room not in ROOMS:
            yield f"{room}/: not in the table of tests/lint/layers.py: say what it may include"
        if files > ROOM_FILES_MAX:
            yield f"{room}/: {files} files, the most is {ROOM_FILES_MAX}; split it by idea"
    for group in circles.circles({r: dict.fromkeys(uses, "") for r, uses in ROOMS.items()}):
        yield f"rooms that may include each other: {', '.join(group)}"
    for room in sorted(set(ROOMS) - set(count)):
        yield f"{room}/: in the table of tests/lint/layers.py, but not there"


def main():
    findings = []
    paths = [p for p in sources.files(".c", ".h")
             if p.startswith(("src/", "guest/", "include/", "tests/", "bench/"))]
    for path in paths:
        findings += check_file(path)
    findings += check_rooms(paths)
    sources.finish(findings)


if __name__ == "__main__":
    main()
