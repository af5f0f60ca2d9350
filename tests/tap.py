#!/usr/bin/env python3
"""Runs the unittest modules of a folder and reports in TAP, for tests/run.py.

    python3 tests/tap.py DIR [NAME...]      NAME picks tests whose id contains it
"""
import os
import sys
import time
import unittest


class TapResult(unittest.TestResult):
    """Prints one TAP line as each test ends; what failed follows as comment lines."""

    def __init__(self):
        super().__init__()
        self.number = 0
        self.start = 0.0

    def startTest(self, test):
        super().startTest(test)
        self.start = time.monotonic()

    def line(self, ok, test, note=""):
        self.number += 1
        seconds = time.monotonic() - self.start if self.start else 0.0
        print(f"{'ok' if ok else 'not ok'} {self.number} - {test.id()} [{seconds:.1f} s]{note}",
              flush=True)

    def trouble(self, test, err):
        for text in self._exc_info_to_string(err, test).splitlines():
            print(f"# {text}")
        self.line(False, test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.line(True, test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line(True, test, f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.trouble(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self.trouble(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.trouble(subtest, err)


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def main():
    folder, names = sys.argv[1], sys.argv[2:]
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:0] = [os.path.abspath(folder), os.path.join(top, "clients", "python")]
    loaded = unittest.defaultTestLoader.discover(folder, top_level_dir=folder)
    tests = [t for t in flatten(loaded) if not names or any(n in t.id() for n in names)]
    print(f"1..{len(tests)}", flush=True)
    result = TapResult()
    unittest.TestSuite(tests).run(result)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
