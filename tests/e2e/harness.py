"""A real daemon for end-to-end tests, and the check that nothing of it is left afterwards.

Environment: CLOCHE_BIN (build/release/cloche), CLOCHE_IMAGES (build/images), E2E_STATE (where
snapshots are kept from run to run, so that templates boot once: build/e2e-state).
"""
import contextlib
import glob
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import zlib

import cloche

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("CLOCHE_BIN", os.path.join(TOP, "build/release/cloche"))
IMAGES = os.environ.get("CLOCHE_IMAGES", os.path.join(TOP, "build/images"))
KEPT_STATE = os.environ.get("E2E_STATE", os.path.join(TOP, "build/e2e-state"))

READY_TIMEOUT_S = 300  # a boot on a KVM that interprets, on a busy machine
STOP_TIMEOUT_S = 60
# Uids tell a test daemon's monitors from those of any other on this host: not the default ones, and
# others for another folder of kept snapshots (which belong to the uid that made them).
UID_COUNT = 2000
UID_BASE = 2010000000 + UID_COUNT * 10 * (zlib.crc32(os.path.realpath(KEPT_STATE).encode()) % 5000)
CONFIG = {"default_template": "base", "warm": ["base"], "pool_min": 1, "pool_max": 2,
          "default_mem_mib": 128, "default_disk_mib": 64}

# Behind a shell's & a signal may come ignored, and so would all that is started from here have it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def require(*features):
    """Skips the calling test where the machine lacks one of these; the runner checks the claim."""
    have = {"root": os.geteuid() == 0, "kvm": os.access("/dev/kvm", os.R_OK | os.W_OK),
            "cpus2": (os.cpu_count() or 1) >= 2, "tmux": shutil.which("tmux") is not None}
    for feature in features:
        if not have[feature]:
            raise unittest.SkipTest(f"needs {feature}")


def wait_for(condition, timeout_s, what):
    """Polls until `condition()` is true and returns its value."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(0.02)


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


class Daemon:
    """`cloche serve` with its own socket. With `state` None its snapshots are the kept ones."""

    started = 0

    def __init__(self, state=None, config=None, images=None, arguments=()):
        # The kept state directory belongs to one uid, and its lock keeps daemons on it apart.
        Daemon.started += state is not None
        self.uid_base = UID_BASE + (Daemon.started * UID_COUNT if state else 0)
        self.dir = tempfile.mkdtemp(prefix="cloche-e2e-")
        self.state = state or KEPT_STATE
        self.socket = os.path.join(self.dir, "cloche.sock")
        self.log_path = os.path.join(self.dir, "log")
        config_path = os.path.join(self.dir, "config.json")
        with open(config_path, "w", encoding="utf-8") as f:
            json.dump({**CONFIG, **(config or {})}, f)
        self.command = [BINARY, "serve", "--state-dir", self.state, "--socket", self.socket,
                        "--images", images or IMAGES, "--config", config_path, "--uid-base",
                        str(self.uid_base), "--log-level", "debug", *arguments]
        self.process = None
        self.relatives = set()  # (pid, start time) of the daemon and all that it ever started
        self.client = cloche.Client(self.socket, timeout=READY_TIMEOUT_S)

    def start(self, wait=True):
        with open(self.log_path, "wb") as log:  # of this run: "ready" must be its own
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        if wait:
            self.wait_ready()
        return self

    def log(self):
        return read_text(self.log_path)

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended: {self.process.returncode}\n{self.log()}")
            return re.search(r" daemon: ready$", self.log(), re.MULTILINE)
        try:
            wait_for(ready, READY_TIMEOUT_S, "ready")
        except AssertionError:
            print("\n".join("# " + line for line in self.log().splitlines()[-30:]))
            raise

    def kill(self):
        """As a crash: no clean-up of its own. Waits until priv has noticed."""
        self.note_relatives()
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not self.processes(), STOP_TIMEOUT_S, "priv and monitors gone")

    def stop(self):
        """A graceful stop; then nothing may be left."""
        if self.process is None or self.process.poll() is not None:
            return
        self.note_relatives()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the daemon did not stop\n{self.log()[-3000:]}") from None
        wait_for(lambda: not self.processes(), 10, "processes gone")
        if code != 0:
            raise AssertionError(f"the daemon ended with {code}\n{self.log()[-3000:]}")

    def close(self):
        """Stops, checks that nothing is left, and removes the daemon's folder."""
        try:
            self.stop()
            left = self.leftovers()
            if left:
                raise AssertionError("left behind: " + "; ".join(left))
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.dir, ignore_errors=True)

    def processes(self, uid_from=0):
        """Pids that are still there of the daemon, what it started, and the monitors' uids."""
        found = []
        self.note_relatives()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
            uid = re.search(r"^Uid:\s+(\d+)", read_text(f"/proc/{pid}/status"), re.MULTILINE)
            if not fields or not uid or fields[0] == "Z":
                continue
            related = (int(pid), fields[19]) in self.relatives
            offset = int(uid.group(1)) - self.uid_base
            if uid_from <= offset < UID_COUNT or (related and not uid_from):
                found.append(int(pid))
        return found

    def note_relatives(self):
        """Remembers the daemon's descendants: one that loses its parent has no other mark."""
        queue = [self.process.pid] if self.process else []
        for pid in queue:  # grows while it is walked
            fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if fields:
                self.relatives.add((pid, fields[19]))
            for task in glob.glob(f"/proc/{pid}/task/*/children"):
                queue += [int(child) for child in read_text(task).split()]

    def monitors(self):
        """Pids of the guests' monitors: each has a uid of its own, above the daemon's."""
        return self.processes(uid_from=1)

    def monitor_of(self, box):
        """The pid of that sandbox's monitor."""
        return int(re.search(rf"sandbox {box.id} runs, pid (\d+)", self.log()).group(1))

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cgroups(self):
        instance = re.search(r"ready as (cloche-\w+)", self.log())
        if not instance:
            return []
        return glob.glob(f"/sys/fs/cgroup/**/{instance.group(1)}*", recursive=True)

    def leftovers(self):
        """What a daemon that has ended still has on the host, in words."""
        left = [f"process {pid}: {read_text(f'/proc/{pid}/cmdline')}" for pid in self.processes()]
        left += [f"cgroup {path}" for path in self.cgroups()]
        left += [f"mount {line}" for line in read_text("/proc/self/mountinfo").splitlines()
                 if self.state in line or self.dir in line]
        if os.path.exists(self.socket):
            left.append("socket")
        for name in ("scratch", "tmp"):
            folder = os.path.join(self.state, name)
            if os.path.isdir(folder):
                left += [f"{name}/{entry}" for entry in os.listdir(folder)]
        return left

    def cli(self, *arguments, **options):
        """Runs a command of the binary against this daemon."""
        return run_cli(*arguments, socket_path=self.socket, **options)

    def request(self, method, target, body=None, headers=None):
        """One HTTP request as it is: (status, JSON or bytes, headers)."""
        connection = cloche.client.Connection(self.socket, READY_TIMEOUT_S)
        try:
            connection.request(method, target, body=body, headers=headers or {})
            reply = connection.getresponse()
            raw = reply.read()
            is_json = reply.headers.get("Content-Type", "").startswith("application/json")
            return reply.status, json.loads(raw) if is_json else raw, reply.headers
        finally:
            connection.close()

    def raw(self, data, timeout_s=30):
        """Sends bytes and returns all that comes until the daemon closes or falls silent."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(timeout_s)
            s.connect(self.socket)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            parts = []
            with contextlib.suppress(ConnectionResetError, http.client.HTTPException):
                while True:
                    part = s.recv(65536)
                    if not part:
                        break
                    parts.append(part)
            return b"".join(parts)


def run_cli(*arguments, socket_path, input=b"", timeout=READY_TIMEOUT_S, env=None):
    return subprocess.run([BINARY, *arguments], input=input, capture_output=True, timeout=timeout,
                          env={**os.environ, "CLOCHE_SOCKET": socket_path, **(env or {})})


class DaemonTest(unittest.TestCase):
    """Tests that share one daemon, which is started once for the class."""

    daemon = None
    config = None

    @classmethod
    def setUpClass(cls):
        require("root", "kvm")
        cls.daemon = Daemon(config=cls.config)
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.start()
        cls.client = cls.daemon.client

    def assert_refused(self, status, code, call, *arguments, **options):
        """`call` raises the typed error; its text names what to do."""
        with self.assertRaises(cloche.ClocheError) as caught:
            call(*arguments, **options)
        error = caught.exception
        self.assertEqual((error.status, error.code), (status, code), str(error))
        self.assertTrue(error.message)
        return error
