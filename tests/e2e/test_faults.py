"""Crashes of every process with guests running, damaged snapshots, and many cycles: the rest goes
on, and nothing is left behind."""
import os
import shutil
import signal
import tempfile
import threading
import time
import unittest

import cloche

from harness import KEPT_STATE, Daemon, DaemonTest, read_text, require, wait_for

CYCLES = int(os.environ.get("E2E_CYCLES", "12"))  # the full count: E2E_CYCLES=1000


class Command:
    """A command that runs for long; back when it has said so."""

    def __init__(self, box):
        self.started = threading.Event()
        self.result = None
        self.thread = threading.Thread(target=self.run, args=(box,))
        self.thread.start()
        assert self.started.wait(60), "the command did not start"

    def run(self, box):
        for kind, data in box.exec_stream(shell="echo go; sleep 1000"):
            if kind == "end":
                self.result = data
            self.started.set()

    def end(self):
        self.thread.join(20)
        return self.result and self.result.end


def pid_of_priv(daemon):
    """priv is the daemon's only child."""
    children = read_text(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").split()
    return int(children[0])


class CrashTest(unittest.TestCase):
    """Each test has a daemon of its own, since each ends one."""

    def setUp(self):
        require("root", "kvm")
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def test_daemon_killed(self):
        box = self.daemon.client.create()
        box.exec(["true"])
        self.assertTrue(self.daemon.monitors())
        self.daemon.kill()
        self.assertEqual(self.daemon.leftovers(), [])
        # The same state directory and socket serve again at once.
        self.daemon.start()
        self.daemon.client.create().delete()

    def test_priv_killed(self):
        self.daemon.client.create()
        os.kill(pid_of_priv(self.daemon), signal.SIGKILL)
        self.assertNotEqual(self.daemon.process.wait(10), 0)
        wait_for(lambda: not self.daemon.processes(), 10, "monitors gone with priv")
        # Its cgroups could not be removed by anybody: the next start does that.
        self.daemon.start()
        self.daemon.client.create().delete()

    def reason(self, box):
        """Why the sandbox ended, once the daemon has learned it from the monitor's end."""
        def known():
            with self.assertRaises(cloche.ClocheError) as caught:
                box.exec(["true"])
            error = caught.exception
            self.assertEqual((error.status, error.code), (410, "sandbox_gone"))
            return "is ending" not in error.message and error
        return wait_for(known, 10, "the reason of the sandbox's end")

    def test_monitor_killed(self):
        other = self.daemon.client.create()
        box = self.daemon.client.create()
        command = Command(box)
        os.kill(self.daemon.monitor_of(box), signal.SIGKILL)
        self.assertEqual(command.end(), "sandbox_gone")
        self.assertIn("killed", self.reason(box).cause.lower())
        self.assertEqual(other.exec(["echo", "on"]).stdout, b"on\n")

    def create_that_hangs(self):
        """A create that got a shell which does not run: the shells, and what waits for the end."""
        client, outcome = self.daemon.client, []
        shells = self.daemon.monitors()
        for pid in shells:
            os.kill(pid, signal.SIGSTOP)

        def create():
            try:
                outcome.append(client.create())
            except cloche.ClocheError as error:
                outcome.append(error)

        def join():
            creator.join(60)
            return outcome[0]
        creator = threading.Thread(target=create)
        creator.start()
        wait_for(lambda: [box.described["state"] for box in client.list()] == ["starting"], 10,
                 "a shell taken")
        return shells, join

    def test_shell_that_dies_at_its_start(self):
        """The pool believes it alive: whoever gets it never notices."""
        shells, join = self.create_that_hangs()
        for pid in shells:
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(join().exec(["echo", "on"]).stdout, b"on\n")

    def test_stop_during_a_create(self):
        _, join = self.create_that_hangs()
        self.daemon.stop()
        self.assertEqual(join().code, "shutting_down")

    def test_guest_that_reboots(self):
        box = self.daemon.client.create()
        result = box.exec(["busybox", "reboot", "-f"])
        self.assertEqual((result.end, result.exit_code), ("sandbox_gone", None))
        self.assertIn("guest_shutdown", self.reason(box).message)

    def test_guest_that_rings_the_doorbell(self):
        """root in the guest can reach the monitor's doorbell: all it gets from that is its end."""
        box = self.daemon.client.create()
        for value in ("2", "3", "4", "0xffffffff"):
            self.assertEqual(box.exec(["devmem", "0xd0000000", "32", value]).exit_code, 0)
        result = box.exec(["devmem", "0xd0000000", "32", "0x105"])
        self.assertEqual((result.end, result.exit_code), ("sandbox_gone", None))
        self.assertIn("guest_failed", self.reason(box).message)

    def test_stop_with_a_command_running(self):
        command = Command(self.daemon.client.create())
        self.daemon.stop()
        self.assertEqual(command.end(), "sandbox_gone")


class CorruptSnapshotTest(unittest.TestCase):
    """A snapshot that was damaged on disk is refused by name, and the daemon goes on."""

    def test_flipped_byte(self):
        require("root", "kvm")
        warmed = Daemon().start()  # so that there is one to copy
        warmed.close()
        state = tempfile.mkdtemp(prefix="cloche-e2e-state-")
        self.addCleanup(shutil.rmtree, state, True)
        os.chmod(state, 0o700)
        name = [n for n in os.listdir(os.path.join(KEPT_STATE, "snapshots"))
                if n.startswith("base-")][0]
        daemon = Daemon(state=state, config={"warm": []})
        self.addCleanup(daemon.close)
        daemon.start()
        target = os.path.join(state, "snapshots", name)
        shutil.copytree(os.path.join(KEPT_STATE, "snapshots", name), target)
        os.chown(target, daemon.uid_base, daemon.uid_base)
        for file in os.listdir(target):
            os.chown(os.path.join(target, file), daemon.uid_base, daemon.uid_base)
        with open(os.path.join(target, "mem"), "r+b") as f:
            f.seek(0x1000000)
            byte = f.read(1)
            f.seek(0x1000000)
            f.write(bytes([byte[0] ^ 1]))
        with self.assertRaises(cloche.ClocheError) as caught:
            daemon.client.create()
        error = caught.exception
        self.assertEqual((error.status, error.code), (500, "template_corrupt"))
        self.assertIn(name, caught.exception.message)
        self.assertTrue(caught.exception.remedy)
        self.assertEqual(daemon.request("GET", "/v1/health")[0], 200)


class CycleTest(DaemonTest):
    def test_cycles_leave_nothing(self):
        """Also not of a monitor that is killed among them, and of the daemon behind them."""
        self.client.create().delete()
        fds = self.daemon.fd_count()
        for cycle in range(CYCLES):
            with self.client.create() as box:
                self.assertEqual(box.exec(["true"]).exit_code, 0)
                if cycle == CYCLES // 2:
                    os.kill(self.daemon.monitor_of(box), signal.SIGKILL)
        wait_for(lambda: self.daemon.fd_count() <= fds + 4, 10, "descriptors closed")
        self.assertEqual(self.client.list(), [])
        self.daemon.kill()
        self.assertEqual(self.daemon.leftovers(), [])


class RestoreTest(DaemonTest):
    """Two restores of one snapshot share nothing that must be unique."""

    def test_nothing_is_shared(self):
        script = ("cd /proc/sys/kernel/random; cat /etc/machine-id uuid boot_id;"
                  "head -c 16 /dev/urandom | sha1sum; hostname; head -c 64 /dev/hwrng | sha1sum")
        boxes = [self.client.create() for _ in range(2)]
        outputs = [box.exec(shell=script).stdout.decode().splitlines() for box in boxes]
        for first, second in zip(*outputs):
            self.assertNotEqual(first, second)
        self.assertEqual(len(outputs[0]), len(outputs[1]))
        self.assertGreaterEqual(len(outputs[0]), 6)

    def test_clock(self):
        box = self.client.create()
        before = time.time()
        seen = float(box.exec(["date", "+%s"]).stdout)
        self.assertLess(before - 2, seen)
        self.assertLess(seen, time.time() + 2)


class WallTest(DaemonTest):
    """Caps that hold outside of the guest."""

    def test_disk(self):
        box = self.client.create()
        result = box.exec(shell="fallocate -l 100M /workspace/a; echo $?; rm -f /workspace/a")
        self.assertIn(b"No space left", result.stderr)
        self.assertNotEqual(result.stdout.splitlines()[0], b"0")
        # All but a megabyte, so that the upload that does not fit is a short one.
        fill = "fallocate -l $((($4 - 1024) * 1024)) /tmp/fill"
        self.assertEqual(box.exec(shell=f"set -- $(df -k /tmp | tail -1); {fill}").exit_code, 0)
        self.assert_refused(507, "disk_full", box.put, "/workspace/big", bytes(3 << 20))
        self.assertEqual(box.exec(["ls", "/workspace"]).stdout, b"")

    def test_wall_clock(self):
        box = self.client.create(timeout_s=1)

        def gone():
            try:
                box.exec(["true"])
            except cloche.ClocheError as e:
                return e
            return None

        error = wait_for(gone, 20, "the sandbox's timeout")
        self.assertEqual(error.code, "sandbox_gone")
        self.assertIn("timeout", error.message)

    def test_timeout_can_be_extended(self):
        box = self.client.create(timeout_s=1)
        box.extend(300)
        self.assertEqual(box.exec(["echo", "alive"]).stdout, b"alive\n")

    def test_caps_are_set_on_the_monitor(self):
        with self.client.create() as box:
            limits = read_text(f"/proc/{self.daemon.monitor_of(box)}/limits")
            bytes_max = str(box.described["disk_mib"] << 20)
            self.assertRegex(limits, rf"Max file size +{bytes_max} +{bytes_max} ")
            pids = self.daemon.monitors()
            self.assertTrue(pids)
            for pid in pids:
                status = read_text(f"/proc/{pid}/status")
                self.assertIn("NoNewPrivs:\t1", status)
                self.assertIn("Seccomp:\t2", status)
                self.assertIn("CapEff:\t0000000000000000", status)
                self.assertIn("cloche-", read_text(f"/proc/{pid}/cgroup"))


class CapacityTest(DaemonTest):
    config = {"max_sandboxes": 2}

    def test_one_too_many(self):
        boxes = [self.client.create() for _ in range(2)]
        status, reply, headers = self.daemon.request("POST", "/v1/sandboxes", "{}")
        self.assertEqual((status, reply["error"]["code"]), (503, "no_capacity"))
        self.assertIsNotNone(headers["Retry-After"])
        boxes[0].delete()
        self.client.create().delete()
        self.assertEqual(boxes[1].exec(["echo", "still"]).stdout, b"still\n")


class VcpuTest(DaemonTest):
    config = {"max_vcpus": 2, "boot_timeout_s": 300}

    def test_two_vcpus(self):
        """Booted, then restored: both of them run."""
        for _ in range(2):
            with self.client.create(vcpus=2) as box:
                done = box.exec(shell="nproc; taskset 1 echo first; taskset 2 echo second")
                self.assertEqual(done.stdout, b"2\nfirst\nsecond\n", done.stderr)
                pool = box.described["pool"]
        self.assertNotEqual(pool, "boot")


if __name__ == "__main__":
    unittest.main()
