"""A checkout with nothing in it but the test runner, in which faults are planted."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RUNNER = ("run.py", "judge.py", "inventory.py", "supervise.py", "tap.py")


class Outcome:
    def __init__(self, done):
        self.status, self.text = done.returncode, done.stdout
        self.totals = re.findall(r"(\d+) passed, (\d+) failed, (\d+) skipped\n", self.text)

    def counts(self):
        """(passed, failed, skipped) of the last line."""
        return tuple(map(int, self.totals[-1])) if self.totals else None


class PlantTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cloche-plant-")
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        for name in RUNNER:
            self.plant(f"tests/{name}")
            shutil.copy(os.path.join(TOP, "tests", name), os.path.join(self.top, "tests", name))

    def plant(self, name, text="", mode=0o644):
        path = os.path.join(self.top, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def script(self, name, text):
        """A shell script as a test program."""
        self.plant(name, "#!/bin/sh\n" + text, 0o755)
        return name

    def python(self, *arguments):
        return Outcome(subprocess.run(
            [sys.executable, *arguments], cwd=self.top, text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))

    def run_kind(self, *arguments):
        return self.python("tests/run.py", *arguments)

    def assert_red(self, outcome, counts, *words):
        self.assertEqual((outcome.status, outcome.counts()), (1, counts), outcome.text)
        for word in words:
            self.assertIn(word, outcome.text)

    def assert_green(self, outcome, counts):
        self.assertEqual((outcome.status, outcome.counts()), (0, counts), outcome.text)
