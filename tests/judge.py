"""Reads what a test command prints and counts; nothing that it leaves out can look like a pass.

TAP is a plan "1..N" and a line "ok K - NAME" or "not ok K - NAME" for each K of it, once. What is
more: a line "# begins NAME" says which test runs, so that one that ends the program has its name.
"""
import os
import re
import shlex
import shutil
import signal
import sys
import threading

TAIL_LINES = 60
COLOURS = {"ok": "32", "FAILED": "31", "skip": "33"}
PLAN = re.compile(r"1\.\.(\d+)\s*$")
RESULT = re.compile(r"(not )?ok\s+(\d+)\b\s*(?:-\s*)?(.*)$")
BEGINS = re.compile(r"# begins (.*)$")
print_lock = threading.Lock()


def read_text(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


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


def describe(status):
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"


class Judge:
    """Of one command. Where its tests are known by name (`rows`, in their order) a program that
    ends in the middle of them is begun again behind the one that did it: see finish()."""

    def __init__(self, kind, words, rows=None):
        self.words = words
        self.name = f"{kind} {self.short_name()}"
        self.rows = rows
        self.counts = Counts()
        self.output = []
        self.shows_tail = False
        self.begin(0)

    def begin(self, first):
        """A run of the command from its test number `first` on, counted from 0."""
        self.first = first
        self.plan = None
        self.seen = set()
        self.needs = None
        self.begun = None
        self.said = []  # since the last result
        self.failed_before = self.counts.failed

    def short_name(self):
        """The last path among the words says best what is tested (a program, a folder, a goal)."""
        paths = [w for w in self.words if "/" in w and "=" not in w]
        return re.sub(r"^(build/\w+/)?tests/", "", (paths or self.words)[-1])

    def fail(self, name, note="", told=()):
        """`told` is what the test has said of it; without that the end of all output is shown."""
        self.counts.failed += 1
        self.shows_tail |= not told
        report("FAILED", name, note)
        with print_lock:
            for line in told[-TAIL_LINES:]:
                print("    " + line, flush=True)

    def take_line(self, line):
        """True when it was a test's result."""
        for kept in self.output, self.said:
            kept.append(line)
            del kept[:-4 * TAIL_LINES]
        if found := PLAN.match(line):
            self.take_plan(int(found.group(1)))
        elif found := RESULT.match(line):
            return self.take_result(bool(found.group(1)), int(found.group(2)), found.group(3))
        elif found := BEGINS.match(line):
            self.begun = found.group(1)
        elif "needs " in line:
            self.needs = line
        return False

    def take_plan(self, plan):
        if self.plan is not None:
            self.fail(self.name, f"a second plan, 1..{plan}")
            return
        self.plan = plan
        if plan == 0:
            self.fail(self.name, "a plan of no tests")
        if self.rows is not None and plan != len(self.rows) - self.first:
            self.fail(self.name, f"a plan of {plan} tests, where its source has "
                                 f"{len(self.rows) - self.first}")

    def take_result(self, failed, number, text):
        if self.plan is None:
            self.fail(self.name, f"a result before the plan: {text}")
            return False
        if number in self.seen or not 1 <= number <= self.plan:
            self.fail(self.name, f"number {number} of 1..{self.plan}, again or out of it: {text}")
            return False
        self.seen.add(number)
        name, _, reason = text.partition("# SKIP")
        is_skip = "# SKIP" in text
        name = name.strip() or reason.strip()  # cmocka puts the name behind the directive
        self.check_row(number, name)
        if is_skip:
            self.take_skip(f"{self.name}: {name}", reason)
        elif failed:
            # cmocka says what was wrong behind the result, tap.py before it.
            self.fail(f"{self.name}: {name}", told=self.said if self.begun else ())
        else:
            self.counts.passed += 1
            report("ok", f"{self.name}: {name}")
        self.needs = self.begun = None
        self.said = []
        return True

    def check_row(self, number, name):
        at = self.first + number - 1
        if self.rows is not None and at < len(self.rows) and name.split()[:1] != [self.rows[at]]:
            self.fail(self.name, f"number {number} is {name}, and {self.rows[at]} in the source")

    def take_skip(self, name, reason):
        found = re.search(r"needs (\w+)", reason) or re.search(r"needs (\w+)", self.needs or "")
        feature = found.group(1) if found else None
        if feature in FEATURES and not FEATURES[feature]():
            self.counts.skipped += 1
            report("skip", name, f"needs {feature}")
        elif feature in FEATURES:
            self.fail(name, f"was skipped for {feature}, which this machine has")
        else:
            self.fail(name, f"was skipped without a known reason: {reason or 'none'}")

    def running(self):
        """The test that runs, or that ended the program, as well as it is known."""
        at = self.first + len(self.seen)
        row = self.rows[at] if self.rows is not None and at < len(self.rows) else None
        return f"{self.name}: {self.begun or row or f'the test behind {len(self.seen)} others'}"

    def finish(self, status, seconds, leaked=(), late_s=None):
        """The command has ended, or was killed after `late_s` seconds without a result. Returns
        from which test on it is to be run again, or None."""
        how = describe(status) if late_s is None else f"no result within {late_s} s: killed"
        again = None
        for process in leaked:
            self.fail(self.name, f"left a process behind: {process}")
        if self.plan is not None:
            again = self.finish_plan(status, how, late_s)
        elif self.rows is not None:
            self.fail(self.name, f"no plan; {how}")
        elif status == 0:
            self.counts.passed += 1
            report("ok", self.name, f"{seconds:.1f} s")
        elif status == 77:
            self.take_skip(self.name, "")
        else:
            self.fail(self.name, f"{how}, {seconds:.1f} s")
        return again

    def finish_plan(self, status, how, late_s):
        missing = self.plan - len(self.seen)
        if missing == 0:
            if late_s is not None:
                self.fail(self.name, "all tests have reported, but it did not end: killed")
            elif status != 0 and self.counts.failed == self.failed_before:
                self.fail(self.name, f"all tests passed, but {how}")
            return None
        self.fail(self.running(), how)
        if missing == 1:
            return None
        if self.rows is not None:
            return self.first + len(self.seen) + 1
        self.counts.failed += missing - 1
        report("FAILED", self.name, f"{missing - 1} more did not report")
        return None

    def print_tail(self):
        if self.shows_tail:
            with print_lock:
                print(f"---- {shlex.join(self.words)}, end of its output:")
                print("\n".join(self.output[-TAIL_LINES:]))
                print("----", flush=True)
