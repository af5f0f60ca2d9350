#!/usr/bin/env python3
"""Runs one test command, and sees to it that nothing of it is left; for tests/run.py.

    tests/supervise.py REPORT_FD COMMAND [ARG...]

Whatever the command starts and leaves behind, in whatever session or group, becomes a child of this
process. What still lives a while after the command's end was leaked: it is killed, and named in the
report, a line of JSON on REPORT_FD: {"status": N, "leaked": ["PID COMMAND LINE", ...]}.

SIGTERM ends the command and all of that; so does the end of who started this.
"""
import ctypes
import glob
import json
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
END_GRACE_S = 5  # for what is ending by itself: one that was killed, a helper at its last line
STOP_GRACE_S = 10  # for a command's own clean-up when it is told to end
PAUSE_S = 0.02


class Stopped(Exception):
    pass


def read_bytes(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def children(pid):
    return [int(child) for path in glob.glob(f"/proc/{pid}/task/*/children")
            for child in read_bytes(path).split()]


def descendants():
    found = children("self")
    for pid in found:  # grows while it is walked
        found += children(pid)
    return found


def is_alive(pid):
    fields = read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return bool(fields) and fields[0] not in (b"Z", b"X")


def reap():
    """Takes the ends of all children that have ended; true while there are others."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False


def describe(pid):
    words = read_bytes(f"/proc/{pid}/cmdline").replace(b"\0", b" ").strip()
    return f"{pid} {words.decode(errors='replace') or read_bytes(f'/proc/{pid}/comm').decode()}"


def find_leaked():
    """Those that the command has left, once they have had time to end by themselves."""
    end = time.monotonic() + END_GRACE_S
    while reap() and time.monotonic() < end:
        time.sleep(PAUSE_S)
    return [describe(pid) for pid in descendants() if is_alive(pid)]


def kill_all():
    """Again and again, since one may start another as it is looked for."""
    while reap():
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(PAUSE_S)


def stop(process):
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    kill_all()


def on_term(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


def main():
    report_fd, words = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report_fd, False)
    libc = ctypes.CDLL(None)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("cannot become a subreaper")
    signal.signal(signal.SIGTERM, on_term)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        process = subprocess.Popen(words, start_new_session=True)
    except OSError as error:
        print(error, flush=True)
        os.write(report_fd, json.dumps({"status": 127, "leaked": []}).encode())
        return
    try:
        status, leaked = process.wait(), find_leaked()
    except Stopped:
        stop(process)
        status, leaked = -signal.SIGKILL, []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kill_all()
    os.write(report_fd, json.dumps({"status": status, "leaked": leaked}).encode())


if __name__ == "__main__":
    main()
