"""A real daemon for end-to-end tests, and the check that nothing of it is left afterwards.

Environment: CLOCHE_BIN (build/release/cloche), CLOCHE_IMAGES (build/images), and that of
snapshots.py, which keeps snapshots from run to run.
"""
import collections
import contextlib
import fcntl
import functools
import glob
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

import cloche

import snapshots

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("CLOCHE_BIN", os.path.join(TOP, "build/release/cloche"))
IMAGES = os.environ.get("CLOCHE_IMAGES", os.path.join(TOP, "build/images"))

READY_TIMEOUT_S = 300  # a boot on a KVM that interprets, on a busy machine
STOP_TIMEOUT_S = 60
# Uids tell a daemon's monitors from those of any other on this host: not the default ones, others
# for another checkout, for each run of it, and for each daemon of that which may run at a time.
UID_COUNT, UIDS_PER_RUN, RUNS_PER_CHECKOUT = 2000, 10, 8
UID_BASE = 2010000000
JOURNAL_INSTANCE_AT = 16  # bytes into it, see src/priv/journal.h
CONFIG = {"default_template": "base", "warm": ["base"], "pool_min": 1, "pool_max": 2,
          "default_mem_mib": 128, "default_disk_mib": 64}

# Behind a shell's & a signal may come ignored, and so would all that is started from here have it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def require(*features):
    """Skips the calling test where the machine lacks one of these; the runner checks the claim."""
    have = {"root": os.geteuid() == 0, "kvm": os.access("/dev/kvm", os.R_OK | os.W_OK),
            "cpus2": (os.cpu_count() or 1) >= 2,
            "hwkvm": bool(re.search(r"\b(vmx|svm)\b", read_text("/proc/cpuinfo"))),
            "tmux": shutil.which("tmux") is not None}
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


@functools.cache
def first_uid():
    """Of this run's own range. The lock on it goes with this process."""
    checkout = zlib.crc32(TOP.encode()) % 600
    for run in range(checkout * RUNS_PER_CHECKOUT, (checkout + 1) * RUNS_PER_CHECKOUT):
        path = os.path.join(tempfile.gettempdir(), f"cloche-e2e-{run}.lock")
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return UID_BASE + run * UIDS_PER_RUN * UID_COUNT
        os.close(lock)
    raise RuntimeError(f"{RUNS_PER_CHECKOUT} runs of this checkout's tests are under way")


def templates_of(config):
    return {config["default_template"], *config["warm"]}


class Daemon:
    """`cloche serve` with its own state directory and socket. With `keep` its snapshots come from
    the store, and go there."""

    started = 0
    running = []  # all that were started, and not ended by whom they belong to

    def __init__(self, config=None, images=IMAGES, arguments=(), keep=True):
        config = {**CONFIG, **(config or {})}
        Daemon.started += 1
        self.uid_base = first_uid() + Daemon.started % UIDS_PER_RUN * UID_COUNT
        self.dir = tempfile.mkdtemp(prefix="cloche-e2e-")
        self.state = os.path.join(self.dir, "state")
        self.socket = os.path.join(self.dir, "cloche.sock")
        self.log_path = os.path.join(self.dir, "log")
        self.store = snapshots.Store(BINARY, images) if keep else None
        for daemon in Daemon.running if keep else ():
            daemon.keep_snapshots()  # what it has booted is not booted again here
        self.given = keep and self.store.give(self.state, self.uid_base, templates_of(config))
        config_path = os.path.join(self.dir, "config.json")
        with open(config_path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        self.command = [BINARY, "serve", "--state-dir", self.state, "--socket", self.socket,
                        "--images", images, "--config", config_path, "--uid-base",
                        str(self.uid_base), "--log-level", "debug", *arguments]
        self.process = None
        self.instance = None
        self.relatives = set()  # (pid, start time) of the daemon and all that it ever started
        self.client = cloche.Client(self.socket, timeout=READY_TIMEOUT_S)

    def start(self, wait=True):
        with open(self.log_path, "wb") as log:  # of this run: "ready" must be its own
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        Daemon.running.append(self)
        if wait:
            self.wait_ready()
        return self

    def check(self):
        """A daemon that has ended by itself has failed, with whatever exit code."""
        if self in Daemon.running and self.process.poll() is not None:
            Daemon.running.remove(self)
            raise AssertionError(f"the daemon has ended: {self.process.returncode}\n"
                                 f"{self.log()[-3000:]}")

    def wait_end(self, timeout_s=STOP_TIMEOUT_S):
        """Of a daemon that has been given reason to end; returns its exit code."""
        self.note_relatives()
        code = self.process.wait(timeout_s)
        if self in Daemon.running:
            Daemon.running.remove(self)
        wait_for(lambda: not self.processes(), STOP_TIMEOUT_S, "priv and monitors gone")
        return code

    def log(self):
        return read_text(self.log_path)

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended: {self.process.returncode}\n{self.log()}")
            return re.search(r" daemon: ready$", self.log(), re.MULTILINE)
        try:
            wait_for(ready, READY_TIMEOUT_S, "ready")
            self.instance = self.read_instance()
            if not self.cgroups():
                raise AssertionError(f"no cgroups are called {self.instance}")
        except AssertionError:
            print("\n".join("# " + line for line in self.log().splitlines()[-30:]))
            raise

    def kill(self):
        """As a crash: no clean-up of its own. Waits until priv has noticed."""
        self.check()
        self.note_relatives()
        self.process.kill()
        self.wait_end()

    def stop(self):
        """A graceful stop; then nothing may be left."""
        self.check()
        if self not in Daemon.running:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.wait_end()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait_end()
            raise AssertionError(f"the daemon did not stop\n{self.log()[-3000:]}") from None
        if code != 0:
            raise AssertionError(f"the daemon ended with {code}\n{self.log()[-3000:]}")

    def close(self):
        """Stops, checks that nothing is left, and removes the daemon's folder."""
        try:
            self.stop()
            left = self.leftovers()
            if left:
                raise AssertionError("left behind: " + "; ".join(left))
            self.keep_snapshots()
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.dir, ignore_errors=True)

    def keep_snapshots(self):
        if self.store is not None:
            self.store.take(self.state, self.given)

    def delete_all(self):
        for box in self.client.list():
            try:
                box.delete()
            except cloche.ClocheError as error:
                if error.status not in (404, 410):
                    raise

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

    def holds(self):
        """What this instance has of the host: how many of each kind, of its processes, their
        descriptors and threads, and its cgroups."""
        found = collections.Counter()
        for pid in self.processes():
            who = read_text(f"/proc/{pid}/comm").strip()
            found[who, "process"] += 1
            found[who, "thread"] += len(os.listdir(f"/proc/{pid}/task"))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    link = os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix(self.dir)
                    found[who, re.sub(r"\d+", "N", link)] += 1
        for top in self.cgroups():
            found["cgroup", "made"] += sum(1 for _ in os.walk(top))
            for path in glob.glob(top + "/**/cgroup.procs", recursive=True):
                found["cgroup", "process"] += len(read_text(path).split())
        for name in ("scratch", "tmp"):
            found[name, "file"] += len(os.listdir(os.path.join(self.state, name)))
        return found

    def cgroups(self):
        """Those of this instance, whose number priv has in its journal."""
        if self.instance is None:
            return []  # it never got as far as making one
        return glob.glob(f"/sys/fs/cgroup/**/{self.instance}", recursive=True)

    def read_instance(self):
        """The name of its cgroups."""
        with open(os.path.join(self.state, "journal"), "rb") as f:
            f.seek(JOURNAL_INSTANCE_AT)
            return f"cloche-{struct.unpack('<Q', f.read(8))[0]:016x}"

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


class Shared:
    """One daemon for each configuration; one at a time, since tap.py runs those with the same one
    after the other."""

    config, daemon = None, None
    complaints = []  # of daemons behind whose last test something was left

    @classmethod
    def get(cls, config):
        if cls.daemon is None or cls.config != config or cls.daemon not in Daemon.running:
            cls.close()
            cls.config, cls.daemon = config, Daemon(config)
            cls.daemon.start()
        return cls.daemon

    @classmethod
    def close(cls):
        daemon, cls.daemon = cls.daemon, None
        if daemon is not None:
            try:
                daemon.close()
            except AssertionError as error:
                cls.complaints.append(f"{cls.config}: {error}")


class Case(unittest.TestCase):
    """Behind each test all daemons are looked at, behind all of its own clean-ups."""

    def run(self, result=None):
        self.addCleanup(self.check_daemons)
        return super().run(result)

    @staticmethod
    def check_daemons():
        for daemon in list(Daemon.running):
            daemon.check()

    def own_daemon(self, *arguments, **options):
        """A daemon that is this test's alone; not started."""
        daemon = Daemon(*arguments, **options)
        self.addCleanup(daemon.close)
        return daemon


class DaemonTest(Case):
    """Tests of a class that has the shared daemon of its configuration."""

    daemon = None
    config = None

    @classmethod
    def setUpClass(cls):
        require("root", "kvm")
        cls.daemon = Shared.get(cls.config)
        cls.addClassCleanup(cls.daemon.delete_all)
        cls.client = cls.daemon.client

    def assert_refused(self, status, code, call, *arguments, **options):
        """`call` raises the typed error; its text names what to do."""
        with self.assertRaises(cloche.ClocheError) as caught:
            call(*arguments, **options)
        error = caught.exception
        self.assertEqual((error.status, error.code), (status, code), str(error))
        self.assertTrue(error.message)
        return error


class EndTest(Case):
    """Behind all other tests."""

    def test_shared_daemons_left_nothing(self):
        Shared.close()
        self.assertEqual(Shared.complaints, [])
        self.assertEqual(Daemon.running, [])

    def test_no_class_goes_without_the_look_at_its_daemons(self):
        for name, module in list(sys.modules.items()):
            for cls in vars(module).values() if name.startswith("test_") else ():
                if isinstance(cls, type) and issubclass(cls, unittest.TestCase):
                    self.assertTrue(issubclass(cls, Case), f"{name}.{cls.__name__}")


LAST = (EndTest,)  # see tap.py


def kvm_kind(item):
    """Marks a test, or a class of them, that depends on the kind of KVM: `make test` runs these on
    emulated SVM as well (tests/svm), `make test-svm` all."""
    item.kvm_kind = True
    return item
