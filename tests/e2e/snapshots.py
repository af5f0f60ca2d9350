#!/usr/bin/env python3
"""Where the snapshots of test templates are kept from run to run, so that each boots once.

    tests/e2e/snapshots.py STORE FOLDER     takes over what another host's store has in FOLDER

A store is STORE/KEY/SHAPE.tar, sparse. KEY is a hash of all that goes into a snapshot: the guest's
kernel and images, the agent, the monitor, this CPU and host kernel. The daemon has the last word:
what does not fit after all it boots anew, and that replaces what was here.

Environment: E2E_STORE; else `e2e-snapshots` where kernel and images are cached.
"""
import functools
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys

KEYS_KEPT = 6  # of as many builds: those used longest ago go


def cache_dir():
    """As in images/lib.sh."""
    usual = "/var/cache/cloche" if os.geteuid() == 0 else os.path.expanduser("~/.cache/cloche")
    return os.environ.get("CLOCHE_CACHE") or usual


def store_dir():
    return os.environ.get("E2E_STORE") or os.path.join(cache_dir(), "e2e-snapshots")


def cpu():
    """Model and features of the first processor; its clock speed changes."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        first = f.read().partition("\n\n")[0]
    return re.findall(r"^(?:flags|model name|stepping)\s.*$", first, re.MULTILINE)


@functools.cache
def key_of(binary, images):
    digest = hashlib.sha256()
    # What the binary carries of a guest; all of it, where that is not beside it.
    parts = [os.path.join(os.path.dirname(os.path.realpath(binary)), name)
             for name in ("initramfs.cpio", "vmm.stripped")]
    for path in parts if all(map(os.path.exists, parts)) else [binary]:
        with open(path, "rb") as f:
            digest.update(f.read())
    for path in [os.path.join(images, "vmlinux")] + sorted(glob.glob(images + "/*/*")):
        st = os.stat(path)
        digest.update(f"{path.rpartition('/')[2]} {st.st_size} {st.st_mtime_ns}\n".encode())
    digest.update("\n".join([*cpu(), os.uname().release]).encode())
    return digest.hexdigest()[:16]


def manifest_of(folder):
    with open(os.path.join(folder, "manifest"), "rb") as f:
        return f.read()


def is_whole(path):
    """Has an archive its end, two blocks of zeroes?"""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        f.seek(max(0, size - 1024))
        return size % 512 == 0 and f.read() == bytes(1024)


class Store:
    def __init__(self, binary, images):
        self.dir = os.path.join(store_dir(), key_of(binary, images))
        os.makedirs(self.dir, exist_ok=True)
        os.utime(self.dir)
        prune(store_dir())

    def give(self, state, uid, templates):
        """Unpacks these templates' into a new state directory, and returns what take() needs."""
        os.makedirs(state, mode=0o700, exist_ok=True)
        folder = os.path.join(state, "snapshots")
        os.makedirs(folder, mode=0o700)
        for path in glob.glob(self.dir + "/*.tar"):
            if not is_whole(path):
                os.unlink(path)  # it is booted anew
            elif os.path.basename(path).partition("-")[0] in templates:
                subprocess.run(["tar", "-xSf", path, "-C", folder, "--no-same-owner"], check=True)
        for top, _, files in os.walk(folder):
            for name in [".", *files]:
                os.chown(os.path.join(top, name), uid, uid)
        return {name: manifest_of(os.path.join(folder, name)) for name in os.listdir(folder)}

    def take(self, state, given):
        """Keeps what a daemon has made beside what it was given, or has made by now; adds it to
        that."""
        for folder in glob.glob(os.path.join(state, "snapshots", "*")):
            name = os.path.basename(folder)
            if given.get(name) == manifest_of(folder):
                continue
            made = os.path.join(self.dir, f".new-{os.getpid()}")
            subprocess.run(["tar", "-cSf", made, "-C", os.path.dirname(folder), name], check=True)
            with open(made, "rb") as f:
                os.fsync(f)  # a machine that goes down leaves no name without its content
            os.replace(made, os.path.join(self.dir, name + ".tar"))
            given[name] = manifest_of(folder)


def prune(store):
    keys = sorted(glob.glob(store + "/*/"), key=os.path.getmtime)
    for key in keys[:-KEYS_KEPT]:
        shutil.rmtree(key, ignore_errors=True)


def main():
    store, folder = sys.argv[1:]
    for path in glob.glob(folder + "/*/*.tar"):
        key = os.path.join(store, os.path.basename(os.path.dirname(path)))
        os.makedirs(key, exist_ok=True)
        os.replace(path, os.path.join(key, os.path.basename(path)))
    for path in glob.glob(folder + "/*/"):
        key = os.path.join(store, os.path.basename(os.path.dirname(path)))
        if os.path.isdir(key):
            os.utime(key)
    prune(store)


if __name__ == "__main__":
    main()
