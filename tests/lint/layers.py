#!/usr/bin/env python3
"""Who may include whom. Roles are processes that talk over sockets: code of one that includes a
header of another would tie what the process boundary keeps apart. Each outside library is fenced
into the component that uses it, so that it can be replaced, and reviewed, in one place."""
import re

import sources

LIBRARIES = {"base", "ipc", "http", "json"}
# What the library components themselves may include, besides their own and include/cloche.
LIBRARY_USES = {
    "base": set(),
    "ipc": {"base"},
    "http": {"base"},
    "json": {"base"},
}
# The binary's entry point starts the roles, so it sees their headers.
EVERYTHING = ("src/main.c", "tests/", "bench/")
GUEST_USES = {"base", "guest"}
# Headers without a component: what the build embeds or generates.
PLAIN_HEADERS = {"embed.h", "vmm_seccomp.h"}

# Header (a regular expression) -> where it may be included.
FENCES = [
    (r"linux/kvm\.h", ("src/vmm/", "tests/payload/", "src/cli/doctor", "src/daemon/host")),
    (r"cjson/.*|cJSON\.h", ("src/json/", "tests/")),
    (r"uv\.h|uv/.*", ("src/daemon/", "tests/")),
    (r"archive(_entry)?\.h", ("src/daemon/tar_", "src/cli/", "tests/")),
    (r"seccomp\.h", ("src/priv/", "src/daemon/", "src/vmm/seccomp_gen.c", "tests/")),
    (r"openssl/.*", ("src/proxy/", "src/audit/", "tests/")),
    (r"(netlink|bpf)/.*", ("src/priv/", "bpf/", "tests/")),
    (r"wslay/.*", ("src/daemon/websocket", "src/cli/socket", "tests/")),
    (r"cmocka\.h", ("tests/",)),
]
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def component_of(path):
    parts = path.split("/")
    if parts[0] == "src":
        return parts[1] if len(parts) > 2 else "main"
    return parts[0]


def allowed_of(component):
    if component in LIBRARY_USES:
        return LIBRARY_USES[component] | {component}
    if component == "guest":
        return GUEST_USES
    return LIBRARIES | {component}


def check_file(path):
    component = component_of(path)
    code = sources.without_comments(sources.read(path), strings=True)
    for found in INCLUDE.finditer(code):
        header = found.group(2)
        line = code.count("\n", 0, found.start()) + 1
        for pattern, places in FENCES:
            if re.fullmatch(pattern, header) and not path.startswith(places):
                yield f"{path}:{line}: <{header}> is fenced into {', '.join(places)}"
        if found.group(1) != '"' or path.startswith(EVERYTHING):
            continue
        if "/" not in header:
            if component not in ("guest", "main") and header not in PLAIN_HEADERS:
                yield f'{path}:{line}: "{header}": name the component, as in "{component}/{header}"'
            continue
        owner = header.split("/")[0]
        if owner not in allowed_of(component) | {"cloche"} and component != "main":
            yield f"{path}:{line}: {component} must not include {header}"


def main():
    findings = []
    for path in sources.files(".c", ".h"):
        if path.startswith(("src/", "guest/", "include/", "tests/", "bench/")):
            findings += check_file(path)
    sources.finish(findings)


if __name__ == "__main__":
    main()
