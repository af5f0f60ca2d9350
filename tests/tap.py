#!/usr/bin/env python3
"""Runs the unittest modules of a folder and reports in TAP, for tests/run.py.

    python3 tests/tap.py [--limit S] [--marked NAME] DIR [WORD...]

WORD picks tests whose id contains it, --marked those whose class or method has such an attribute.

Each test has --limit seconds, or what its class or method says in `limit_s`; then it fails, and the
others run. The last test of every run is the folder itself: each test that its files define is
there to be run, some are, and all classes could clean up. Classes with the same `config` run one
after the other; a module's `LAST` has classes that run at the end, whatever was picked.
"""
import argparse
import itertools
import os
import signal
import sys
import time
import unittest

import inventory

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT_S = 120


class LateTest(BaseException):
    """Not an Exception: a test must not take it for something that it waits for."""


class LateClass(Exception):
    """In a class's set-up, where unittest lets nothing else but an Exception be a failure."""


class Limit:
    """Interrupts what runs too long, and what then cleans up behind it, each time anew."""

    def __init__(self, usual_s):
        self.usual_s = usual_s
        self.what, self.error = "", LateClass
        signal.signal(signal.SIGALRM, self.ring)

    def ring(self, *_):
        raise self.error(f"{self.what} takes longer than its {self.seconds:g} s")

    def begin(self, what, item, error):
        self.what, self.error = what, error
        self.seconds = getattr(item, "limit_s", None) or self.usual_s
        signal.setitimer(signal.ITIMER_REAL, self.seconds, self.seconds)

    @staticmethod
    def end():
        signal.setitimer(signal.ITIMER_REAL, 0)


class TapResult(unittest.TestResult):
    """One TAP line as each test ends; what failed is told before it, in comment lines."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.number = 0
        self.reported = set()
        self.class_failed, self.class_skip = False, None

    def line(self, ok, name, note=""):
        self.number += 1
        print(f"{'ok' if ok else 'not ok'} {self.number} - {name}{note}", flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.start = time.monotonic()
        self.is_failed, self.skip = False, None
        print(f"# begins {test.id()}", flush=True)
        method = getattr(test, test._testMethodName)
        self.limit.begin(test.id(), method if hasattr(method, "limit_s") else test, LateTest)

    def stopTest(self, test):
        self.limit.begin(f"{test.id()}'s class", type(test), LateClass)
        super().stopTest(test)
        self.reported.add(test.id())
        note = f" # SKIP {self.skip}" if self.skip and not self.is_failed else ""
        seconds = time.monotonic() - self.start
        self.line(not self.is_failed, f"{test.id()} [{seconds:.1f} s]", note)

    def trouble(self, test, err):
        for text in self._exc_info_to_string(err, test).splitlines():
            print(f"# {text}")
        if isinstance(test, unittest.TestCase):
            self.is_failed = True
        else:  # the set-up or clean-up of a class or module
            self.class_failed = True

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if isinstance(test, unittest.TestCase):
            self.skip = reason
        else:
            self.class_skip = reason

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.trouble(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self.trouble(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            print(f"# in {subtest.id()}:")
            self.trouble(test, err)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.is_failed = True

    def run_class(self, cls, tests):
        """False when its clean-up has failed; where its set-up has, all its tests have."""
        self.class_failed, self.class_skip = False, None
        self.limit.begin(f"{cls.__name__}'s set-up", cls, LateClass)
        unittest.TestSuite(tests).run(self)
        self.limit.end()
        lost = [test for test in tests if test.id() not in self.reported]
        for test in lost:
            note = f" # SKIP {self.class_skip}" if self.class_skip else " (its class's set-up)"
            self.line(self.class_skip is not None, test.id(), note)
        return not self.class_failed or bool(lost)


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def defined_at(test):
    """(module, "Class.method") of where a test's code stands, which may be a base class."""
    method = getattr(type(test), test._testMethodName, None)
    return getattr(method, "__module__", ""), getattr(method, "__qualname__", "")


def find_faults(folder, tests, picked):
    """What is wrong with a folder's tests, in words."""
    defined = list(inventory.python_tests(folder))
    loaded = {defined_at(test) for test in tests}
    for one in sorted(set(defined)):
        if defined.count(one) > 1:
            yield f"{'.'.join(one)} is defined twice, and run once"
        if one not in loaded:
            yield f"{'.'.join(one)} is defined, and not found by unittest"
    if not picked:
        yield "no tests to run"


def is_picked(test, args):
    method = getattr(test, test._testMethodName)
    marked = not args.marked or hasattr(method, args.marked) or hasattr(test, args.marked)
    return marked and (not args.words or any(word in test.id() for word in args.words))


def in_order(tests, last):
    """[(class, its tests)]: those of one configuration together, and `last` behind all others."""
    def key(group):
        cls = type(group[0])
        return cls in last, repr(getattr(cls, "config", None))
    groups = [list(group) for _, group in itertools.groupby(tests, type)]
    return [(type(group[0]), group) for group in sorted(groups, key=key)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for each test")
    parser.add_argument("--marked", help="only tests that have this attribute")
    parser.add_argument("folder")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    folder = os.path.abspath(args.folder)
    sys.path[:0] = [folder, os.path.join(TOP, "clients", "python")]
    load = unittest.defaultTestLoader
    tests = list(flatten(load.discover(args.folder, top_level_dir=args.folder)))
    own = [module for module in list(sys.modules.values())
           if os.path.dirname(getattr(module, "__file__", None) or "") == folder]
    last = {cls for module in own for cls in getattr(module, "LAST", ())}
    at_end = [test for cls in last for test in load.loadTestsFromTestCase(cls)]
    picked = [test for test in tests if is_picked(test, args)]
    faults = list(find_faults(args.folder, tests + at_end, picked))
    if picked:
        picked += at_end
    print(f"1..{len(picked) + 1}", flush=True)
    result = TapResult(Limit(args.limit))
    for cls, group in in_order(picked, last):
        if not result.run_class(cls, group):
            faults.append(f"{cls.__name__} could not clean up (above)")
    for fault in faults:
        print(f"# {fault}")
    result.line(not faults, args.folder)
    return 0 if result.wasSuccessful() and not faults else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a test that failed may have left a thread that waits for ever
