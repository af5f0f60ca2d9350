#!/usr/bin/env python3
"""Runs test commands, prints a line per test and counts.

    tests/run.py [--results DIR] [--jobs N] [--limit S] [--all GLOB] KIND COMMAND...
    tests/run.py --results DIR --totals KIND...

A COMMAND is one argument with words in it. When it prints TAP (judge.py) its tests count one by
one; a test of the plan that never reported counts as failed. Any other command is one test: exit 0
passes, 77 is a skip. No command, and no test, is a failure; so is a process that is left behind.

A program of C tests is compared with its source: the tests in there, and nothing else, must report.
With --all, each source that matches must have its program among the commands.

Each test has --limit seconds; one that takes longer is killed and named, and the rest is run.

A skip must name what is missing ("needs kvm", in the skip's reason or in a line before it), and is
taken only when this machine really lacks it: a skip that hides a failure is a failure.
"""
import argparse
import concurrent.futures
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import inventory
from judge import Counts, Judge, read_text, report

SUPERVISE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervise.py")
LIMIT_S = 300
ENVIRONMENT = {
    "CMOCKA_MESSAGE_OUTPUT": "TAP",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


class Watchdog:
    """Ends a process that has not been patted for `limit_s` seconds."""

    def __init__(self, process, limit_s):
        self.process, self.limit_s = process, limit_s
        self.is_late = False
        self.done = threading.Event()
        self.pat()
        threading.Thread(target=self.watch, daemon=True).start()

    def pat(self):
        self.end = time.monotonic() + self.limit_s

    def watch(self):
        while not self.done.wait(max(0.0, self.end - time.monotonic()) + 0.01):
            if time.monotonic() >= self.end:
                self.is_late = True
                self.process.terminate()
                return


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


def test_environment(first):
    """Ours, without what make tells its children."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return {**ENVIRONMENT, **ours, **({"TEST_FIRST": str(first)} if first else {})}


def run_once(judge, first, limit_s):
    """Runs the command, from test `first` on; returns from which one to run it again, or None."""
    judge.begin(first)
    start = time.monotonic()
    report_fd, their_fd = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-SE", SUPERVISE, str(their_fd), *judge.words], pass_fds=(their_fd,),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=test_environment(first), process_group=0)
    os.close(their_fd)
    watchdog = Watchdog(process, limit_s)
    with open(report_fd, "rb") as report_pipe:
        for line in process.stdout:
            if judge.take_line(line.rstrip("\n")):
                watchdog.pat()
        process.wait()
        watchdog.done.set()
        told = json.loads(report_pipe.read() or b'{"status": 127, "leaked": []}')
    return judge.finish(told["status"], time.monotonic() - start, told["leaked"],
                        limit_s if watchdog.is_late else None)


def is_older(program, source):
    return os.path.exists(program) and os.path.getmtime(program) < os.path.getmtime(source)


def run_command(args, words):
    source = inventory.source_of(words[0])
    judge = Judge(args.kind, words, inventory.rows(source) if source else None)
    if source and is_older(words[0], source):
        judge.fail(judge.name, "older than its source, which did not compile")
        return judge.counts
    first = 0
    while first is not None:
        first = run_once(judge, first, args.limit)
    judge.print_tail()
    return judge.counts


def run_kind(args):
    total = Counts()
    start = time.monotonic()
    commands = [shlex.split(text) for text in args.commands]
    for source in inventory.not_run(args.all, commands) if args.all else ():
        total.failed += 1
        report("FAILED", f"{args.kind} {source}", "no command runs it")
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for counts in pool.map(lambda words: run_command(args, words), commands):
            total.add(counts)
    if total.passed + total.failed + total.skipped == 0:
        total.failed += 1
        report("FAILED", args.kind, "no tests")
    seconds = time.monotonic() - start
    if args.results:
        os.makedirs(args.results, exist_ok=True)
        with open(os.path.join(args.results, args.kind), "w", encoding="utf-8") as f:
            f.write(f"{total.passed} {total.failed} {total.skipped} {seconds:.0f}\n")
    print(f"{args.kind}: {total}", flush=True)
    return 1 if total.failed else 0


def print_totals(args):
    total = Counts()
    for kind in [args.kind] + args.commands:
        numbers = read_text(os.path.join(args.results, kind)).split()
        # A kind that left no counts did not get as far as running: that is a failure.
        ran = len(numbers) == 4
        counts = Counts(*map(int, numbers[:3])) if ran else Counts(failed=1)
        print(f"{kind:<8} {counts}{f', {numbers[3]} s' if ran else '  (did not run to its end)'}")
        total.add(counts)
    print(total)
    with open(os.path.join(args.results, "totals"), "w", encoding="utf-8") as f:
        f.write(f"{total}\n")
    return 1 if total.failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", help="folder for the counts of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    parser.add_argument("--limit", type=int, default=LIMIT_S, help="seconds for each test")
    parser.add_argument("--all", help="sources that must each have a command")
    parser.add_argument("--totals", action="store_true", help="print the totals of these kinds")
    parser.add_argument("kind")
    parser.add_argument("commands", nargs="*")
    args = parser.parse_args()
    if args.totals and not args.results:
        parser.error("--totals needs --results DIR")
    reset_signals()
    try:
        return print_totals(args) if args.totals else run_kind(args)
    except KeyboardInterrupt:
        os._exit(130)  # the supervisors end with us, and take along what they run


if __name__ == "__main__":
    sys.exit(main())
