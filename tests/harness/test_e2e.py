"""Faults planted for the harness of the end-to-end tests: a stub in the daemon's place dies, or
leaves something behind."""
import glob
import os
import shutil
import sys
import tempfile
import unittest

from plant import TOP

sys.path.insert(0, os.path.join(TOP, "tests/e2e"))
import harness  # noqa: E402

# Does what a daemon does to the host, and then what its fault is.
STUB = """#!/usr/bin/env python3
import glob, os, signal, struct, subprocess, sys
option = dict(zip(sys.argv[2::2], sys.argv[3::2]))
state, fault = option["--state-dir"], os.environ["FAULT"]
instance = os.getpid() << 32 | 0xc10c
for name in ("scratch", "tmp"):
    os.makedirs(f"{state}/{name}", exist_ok=True)
with open(f"{state}/journal", "wb") as f:
    f.write(struct.pack("<16xQ40x", instance))
tops = [os.path.dirname(path) for path in glob.glob("/sys/fs/cgroup/**/cgroup.procs")]
cgroup = f"{(tops or ['/sys/fs/cgroup'])[0]}/cloche-{instance:016x}"
os.mkdir(cgroup)
open(option["--socket"], "w").close()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
if fault == "process":
    subprocess.Popen(["sleep", "1111.5"], start_new_session=True)
print("now daemon: ready", flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGUSR1})
if fault != "cgroup":
    os.rmdir(cgroup)
if fault != "socket":
    os.unlink(option["--socket"])
if fault == "file":
    open(f"{state}/scratch/left", "w").close()
sys.exit(3 if fault == "exit" else 0)
"""


class HarnessTest(unittest.TestCase):
    def setUp(self):
        harness.require("root")
        folder = tempfile.TemporaryDirectory(prefix="cloche-stub-")
        self.addCleanup(folder.cleanup)
        stub = os.path.join(folder.name, "cloche")
        with open(stub, "w", encoding="utf-8") as f:
            f.write(STUB)
        os.chmod(stub, 0o755)
        self.addCleanup(setattr, harness, "BINARY", harness.BINARY)
        harness.BINARY = stub
        harness.STOP_TIMEOUT_S, usual = 1, harness.STOP_TIMEOUT_S
        self.addCleanup(setattr, harness, "STOP_TIMEOUT_S", usual)

    def daemon(self, fault):
        os.environ["FAULT"] = fault
        daemon = harness.Daemon(keep=False).start()
        self.addCleanup(lambda: [os.rmdir(path) for path in daemon.cgroups()])
        self.addCleanup(shutil.rmtree, daemon.dir, True)
        return daemon

    def assert_close_fails(self, fault, words):
        daemon = self.daemon(fault)
        with self.assertRaisesRegex(AssertionError, words):
            daemon.close()
        self.assertFalse(daemon.processes())
        self.assertNotIn(daemon, harness.Daemon.running)

    def test_what_is_whole_is_green(self):
        self.daemon("none").close()

    def test_what_is_left(self):
        self.assert_close_fails("cgroup", "left behind: cgroup /sys/fs/cgroup/.*cloche-")
        self.assert_close_fails("socket", "left behind: socket")
        self.assert_close_fails("file", "left behind: scratch/left")
        self.assert_close_fails("process", "priv and monitors gone: not within")
        self.assert_close_fails("exit", "ended with 3")

    def test_a_daemon_that_dies_in_a_test(self):
        """With exit code 0 as well, and in a test that does not look."""
        for signal in "USR1", "KILL":
            daemon = self.daemon("none")

            class Test(harness.Case):
                def test(self):
                    os.kill(daemon.process.pid, getattr(harness.signal, "SIG" + signal))
                    daemon.process.wait()

                def test_next(self):
                    pass
            result = unittest.TestResult()
            for name in "test", "test_next":
                Test(name).run(result)
            self.assertEqual([test.id().rpartition(".")[2] for test, _ in result.failures],
                             ["test"])
            self.assertIn("the daemon has ended", result.failures[0][1])

    def test_a_shared_daemon_that_leaves_something(self):
        os.environ["FAULT"] = "file"
        self.addCleanup(harness.Shared.complaints.clear)
        harness.Shared.config, harness.Shared.daemon = {}, self.daemon("file")
        harness.Shared.close()
        self.assertIn("scratch/left", harness.Shared.complaints[0])
        with self.assertRaises(AssertionError):
            harness.EndTest("test_shared_daemons_left_nothing").debug()

    def test_the_cgroups_are_those_of_the_instance(self):
        daemon = self.daemon("none")
        self.assertEqual(len(daemon.cgroups()), 1)
        self.assertEqual(daemon.holds()["cgroup", "made"], 1)
        daemon.close()
        self.assertFalse(glob.glob(f"/sys/fs/cgroup/**/{daemon.instance}", recursive=True))
