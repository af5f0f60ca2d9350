#!/usr/bin/env python3
"""Runs test programs, prints a line per test and counts.

    tests/run.py [--results DIR] [--jobs N] KIND COMMAND...
    tests/run.py --results DIR --totals KIND...

A COMMAND is one argument with words in it. When it prints TAP (a plan "1..N" and lines "ok" or
"not ok") its tests count one by one; a test of the plan that never reported counts as failed. Any
other command is one test: exit 0 passes, 77 is a skip.

A skip must name what is missing ("needs kvm", in the skip's reason or in a line before it), and is
taken only when this machine really lacks it: a skip that hides a failure is a failure.
"""
import argparse
import concurrent.futures
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

TIMEOUT_S = int(os.environ.get("TEST_TIMEOUT_S", "1800"))
TAIL_LINES = 60
COLOURS = {"ok": "32", "FAILED": "31", "skip": "33"}
ENVIRONMENT = {
    "CMOCKA_MESSAGE_OUTPUT": "TAP",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
# What a skip may name, and how to find out whether this machine has it.
FEATURES = {
    "kvm": lambda: os.access("/dev/kvm", os.R_OK | os.W_OK),
    "root": lambda: os.geteuid() == 0,
    "cgroup1": lambda: os.path.isdir("/sys/fs/cgroup/memory"),
    "cgroup2": lambda: "memory" in read_text("/sys/fs/cgroup/cgroup.controllers").split(),
    "qemu": lambda: shutil.which("qemu-system-x86_64") is not None,
    "cpus2": lambda: (os.cpu_count() or 1) >= 2,
    "tmux": lambda: shutil.which("tmux") is not None,
    "hwkvm": lambda: bool(re.search(r"\b(vmx|svm)\b", read_text("/proc/cpuinfo"))),
}
TAP_LINE = re.compile(r"(not )?ok\s+\d+\s*(?:-\s*)?(.*)$")
print_lock = threading.Lock()


def read_text(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


class Counts:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def report(result, name, note=""):
    text = f"{result:<7}"
    if sys.stdout.isatty():
        text = f"\033[{COLOURS[result]}m{text}\033[0m"
    with print_lock:
        print(f"{text} {name}{'  (' + note + ')' if note else ''}", flush=True)


class Command:
    """One test command while it runs: reads its output and counts."""

    def __init__(self, kind, words):
        self.words = words
        self.name = f"{kind} {self.short_name()}"
        self.counts = Counts()
        self.plan = None
        self.output = []
        self.needs = None

    def short_name(self):
        """The last path among the words says best what is tested (a program, a folder, a goal)."""
        paths = [w for w in self.words if "/" in w and "=" not in w]
        return re.sub(r"^(build/\w+/)?tests/", "", (paths or self.words)[-1])

    def take_skip(self, name, reason):
        found = re.search(r"needs (\w+)", reason) or re.search(r"needs (\w+)", self.needs or "")
        feature = found.group(1) if found else None
        if feature in FEATURES and not FEATURES[feature]():
            self.counts.skipped += 1
            report("skip", name, f"needs {feature}")
            return
        self.counts.failed += 1
        if feature in FEATURES:
            report("FAILED", name, f"was skipped for {feature}, which this machine has")
        else:
            report("FAILED", name, f"was skipped without a known reason: {reason or 'none'}")

    def take_line(self, line):
        self.output.append(line)
        del self.output[:-4 * TAIL_LINES]
        if re.match(r"1\.\.\d+", line):
            self.plan = (self.plan or 0) + int(line[3:].split()[0])
            return
        if "needs " in line and not TAP_LINE.match(line):
            self.needs = line
        found = TAP_LINE.match(line)
        if not found or self.plan is None:
            return
        name, _, reason = found.group(2).partition("# SKIP")
        if "# SKIP" in line:
            # cmocka puts the test's name behind the directive, others the reason.
            self.take_skip(f"{self.name}: {name.strip() or reason.strip()}", reason)
        elif found.group(1):
            self.counts.failed += 1
            report("FAILED", f"{self.name}: {name.strip()}")
        else:
            self.counts.passed += 1
            report("ok", f"{self.name}: {name.strip()}")
        self.needs = None

    def finish(self, status, seconds):
        if self.plan is None:
            note = f"{seconds:.1f} s"
            if status == 0:
                self.counts.passed += 1
                report("ok", self.name, note)
            elif status == 77:
                self.take_skip(self.name, "")
            else:
                self.counts.failed += 1
                report("FAILED", self.name, f"{describe(status)}, {note}")
        else:
            counts = self.counts
            missing = self.plan - counts.passed - counts.failed - counts.skipped
            if missing > 0:
                counts.failed += missing
                report("FAILED", self.name, f"{missing} tests did not report; {describe(status)}")
            elif status != 0 and counts.failed == 0:
                counts.failed += 1
                report("FAILED", self.name, f"all tests passed, but {describe(status)}")
        if self.counts.failed:
            with print_lock:
                print(f"---- {shlex.join(self.words)}, end of its output:")
                print("\n".join(self.output[-TAIL_LINES:]))
                print("----", flush=True)


def describe(status):
    if status == -signal.SIGKILL:
        return f"killed (the limit is {TIMEOUT_S} s)"
    return f"signal {-status}" if status < 0 else f"exit {status}"


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def reset_signals():
    """make starts us by posix_spawn(3), with which glibc leaves its two internal signals ignored,
    and no libc call takes that back; tests that look at a process's signals would see it."""
    syscall_rt_sigaction, mask_bytes = 13, 8
    default = ctypes.create_string_buffer(32)
    for number in (32, 33):
        ctypes.CDLL(None).syscall(syscall_rt_sigaction, number, default, None, mask_bytes)
    # A shell starts what it puts into the background with these ignored; tests send them.
    for number, usual in ((signal.SIGINT, signal.default_int_handler),
                          (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


def test_environment():
    """Ours, without what make tells its children."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return {**ENVIRONMENT, **ours}


def run_command(kind, text):
    command = Command(kind, shlex.split(text))
    start = time.monotonic()
    try:
        process = subprocess.Popen(command.words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace",
                                   env=test_environment(), process_group=0)
    except OSError as error:
        command.output.append(str(error))
        command.finish(127, 0)
        return command.counts
    watchdog = threading.Timer(TIMEOUT_S, kill_group, [process])
    watchdog.start()
    try:
        for line in process.stdout:
            command.take_line(line.rstrip("\n"))
        status = process.wait()
    finally:
        watchdog.cancel()
        kill_group(process)
    command.finish(status, time.monotonic() - start)
    return command.counts


def run_kind(args):
    total = Counts()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for counts in pool.map(lambda text: run_command(args.kind, text), args.commands):
            total.add(counts)
    if args.results:
        os.makedirs(args.results, exist_ok=True)
        with open(os.path.join(args.results, args.kind), "w", encoding="utf-8") as f:
            f.write(f"{total.passed} {total.failed} {total.skipped}\n")
    print(f"{args.kind}: {total}", flush=True)
    return 1 if total.failed else 0


def print_totals(args):
    total = Counts()
    for kind in [args.kind] + args.commands:
        numbers = read_text(os.path.join(args.results, kind)).split()
        # A kind that left no counts did not get as far as running: that is a failure.
        counts = Counts(*map(int, numbers)) if len(numbers) == 3 else Counts(failed=1)
        note = "" if len(numbers) == 3 else "  (did not run to its end)"
        print(f"{kind:<8} {counts}{note}")
        total.add(counts)
    print(total)
    with open(os.path.join(args.results, "totals"), "w", encoding="utf-8") as f:
        f.write(f"{total}\n")
    return 1 if total.failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", help="folder for the counts of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    parser.add_argument("--totals", action="store_true", help="print the totals of these kinds")
    parser.add_argument("kind")
    parser.add_argument("commands", nargs="*")
    args = parser.parse_args()
    if args.totals and not args.results:
        parser.error("--totals needs --results DIR")
    reset_signals()
    return print_totals(args) if args.totals else run_kind(args)


if __name__ == "__main__":
    sys.exit(main())
