"""Crashes of every process with guests running, and damaged snapshots: the rest goes on, and
nothing is left behind."""
import os
import signal
import threading
import time

import cloche

from harness import Case, DaemonTest, kvm_kind, read_text, require, wait_for


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


class CrashTest(Case):
    """Each test has a daemon of its own, since it ends that."""

    def setUp(self):
        require("root", "kvm")
        self.daemon = self.own_daemon().start()

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
        self.assertNotEqual(self.daemon.wait_end(), 0)
        # Its cgroups could not be removed by anybody: the next start does that.
        self.daemon.start()
        self.daemon.client.create().delete()

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

    def test_stop_with_a_command_running(self):
        command = Command(self.daemon.client.create())
        self.daemon.stop()
        self.assertEqual(command.end(), "sandbox_gone")


class CorruptSnapshotTest(Case):
    """A snapshot that was damaged on disk is refused by name, and the daemon goes on."""

    def test_flipped_byte(self):
        require("root", "kvm")
        self.own_daemon().start().close()  # so that there is a snapshot in the store
        daemon = self.own_daemon(config={"warm": []})
        daemon.store = None  # what it has in the end is for nobody
        name = "base-1-128-64"
        with open(os.path.join(daemon.state, "snapshots", name, "mem"), "r+b") as f:
            f.seek(0x1000000)
            byte = f.read(1)
            f.seek(0x1000000)
            f.write(bytes([byte[0] ^ 1]))
        daemon.start()
        with self.assertRaises(cloche.ClocheError) as caught:
            daemon.client.create()
        error = caught.exception
        self.assertEqual((error.status, error.code), (500, "template_corrupt"))
        self.assertIn(name, caught.exception.message)
        self.assertTrue(caught.exception.remedy)
        self.assertEqual(daemon.request("GET", "/v1/health")[0], 200)


class GuestEndTest(DaemonTest):
    """A guest or its monitor ends: its sandbox does, with a reason, and nothing else."""

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
        other = self.client.create()
        box = self.client.create()
        command = Command(box)
        os.kill(self.daemon.monitor_of(box), signal.SIGKILL)
        self.assertEqual(command.end(), "sandbox_gone")
        self.assertIn("killed", self.reason(box).cause.lower())
        self.assertEqual(other.exec(["echo", "on"]).stdout, b"on\n")

    @kvm_kind
    def test_guest_that_reboots(self):
        box = self.client.create()
        result = box.exec(["busybox", "reboot", "-f"])
        self.assertEqual((result.end, result.exit_code), ("sandbox_gone", None))
        self.assertIn("guest_shutdown", self.reason(box).message)

    @kvm_kind
    def test_guest_that_rings_the_doorbell(self):
        """root in the guest can reach the monitor's doorbell: all it gets from that is its end."""
        box = self.client.create()
        for value in ("2", "3", "4", "0xffffffff"):
            self.assertEqual(box.exec(["devmem", "0xd0000000", "32", value]).exit_code, 0)
        result = box.exec(["devmem", "0xd0000000", "32", "0x105"])
        self.assertEqual((result.end, result.exit_code), ("sandbox_gone", None))
        self.assertIn("guest_failed", self.reason(box).message)


@kvm_kind
class RestoreTest(DaemonTest):
    """Two restores of one snapshot share nothing that must be unique, and have the host's time."""

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


@kvm_kind
class WallTest(DaemonTest):
    """Caps that hold outside of the guest."""

    def test_timeout_can_be_extended(self):
        for seconds in (2, 8, 32):  # more where the machine was too slow to ask in time
            box = self.client.create(timeout_s=seconds)
            created = time.monotonic()
            try:
                box.extend(300)
                break
            except cloche.ClocheError as error:
                self.assertEqual(error.code, "sandbox_gone")
        time.sleep(max(0.0, created + seconds + 0.5 - time.monotonic()))
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


@kvm_kind
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
