"""The command line: exit codes, streams, copies, and a daemon of its own for one run."""
import fcntl
import glob
import os
import signal
import subprocess
import tempfile

import snapshots
from harness import (BINARY, IMAGES, READY_TIMEOUT_S, Case, DaemonTest, read_text, require, run_cli,
                     wait_for)

BYTES = bytes(range(256)) * 1024
# The shape that the other tests have booted already.
RUN = [BINARY, "run", "--template", "base", "--mem", "128", "--disk", "64", "--"]


class CliTest(DaemonTest):
    def run_command(self, *words, **options):
        return self.daemon.cli("run", "--template", "base", "--", *words, **options)

    def test_exit_code_and_streams(self):
        done = self.run_command("sh", "-c", "echo out; echo err >&2; exit 5")
        self.assertEqual((done.returncode, done.stdout), (5, b"out\n"))
        self.assertIn(b"err\n", done.stderr)

    def test_signal_and_timeout(self):
        self.assertEqual(self.run_command("sh", "-c", "kill -15 $$").returncode, 128 + 15)
        done = self.daemon.cli("run", "--template", "base", "--timeout", "2", "--", "sleep", "99")
        self.assertEqual(done.returncode, 124)

    def test_own_failures(self):
        done = self.daemon.cli("run", "--template", "nope", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"nope", done.stderr)
        self.assertEqual(self.run_command("/no/such/program").returncode, 125)
        self.assertEqual(self.daemon.cli("run", "--nonsense").returncode, 2)
        self.assertEqual(self.daemon.cli("exec", "sb_none", "--", "true").returncode, 125)
        wait_for(lambda: not self.client.list(), 30, "no sandbox left")

    def test_no_daemon(self):
        done = run_cli("ps", socket_path=self.daemon.socket + ".none")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"cloche serve", done.stderr)

    def test_stdin_files_collect(self):
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "in.bin")
            with open(source, "wb") as f:
                f.write(BYTES)
            done = self.daemon.cli(
                "run", "--template", "base", "--file", source, "--env", "A=b",
                "--collect", f"out.bin:{folder}/back", "--", "sh", "-c",
                "cat; echo $A; cp in.bin out.bin", input=b"from stdin\n")
            self.assertEqual((done.returncode, done.stdout), (0, b"from stdin\nb\n"), done.stderr)
            with open(os.path.join(folder, "back"), "rb") as f:
                self.assertEqual(f.read(), BYTES)

    def test_collect_of_nothing_fails(self):
        done = self.daemon.cli("run", "--template", "base", "--collect", "none", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"/workspace/none", done.stderr)

    def test_ps_exec_cp_rm(self):
        sandbox = self.client.create(labels={"who": "me"})
        listed = self.daemon.cli("ps")
        self.assertIn(sandbox.id.encode(), listed.stdout)
        self.assertIn(b"who=me", listed.stdout)
        self.assertIn(sandbox.id.encode(), self.daemon.cli("ps", "--quiet").stdout.split())

        self.assertEqual(self.daemon.cli("cp", "-", f"{sandbox.id}:/tmp/a", input=BYTES).returncode,
                         0)
        self.assertEqual(self.daemon.cli("cp", f"{sandbox.id}:/tmp/a", "-").stdout, BYTES)
        with tempfile.TemporaryDirectory() as folder:
            done = self.daemon.cli("cp", f"{sandbox.id}:/tmp/a", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(os.path.join(folder, "a"), "rb") as f:
                self.assertEqual(f.read(), BYTES)
            self.assertEqual(os.listdir(folder), ["a"])
        self.assertEqual(self.daemon.cli("cp", f"{sandbox.id}:/none", "/dev/null").returncode, 125)

        done = self.daemon.cli("exec", sandbox.id, "--", "sh", "-c", "exit 9")
        self.assertEqual(done.returncode, 9)
        self.assertEqual(self.daemon.cli("rm", sandbox.id).returncode, 0)
        self.assertEqual(self.daemon.cli("rm", sandbox.id).returncode, 125)

    def test_create(self):
        done = self.daemon.cli("create", "--template", "base", "--timeout", "77")
        self.assertEqual(done.returncode, 0, done.stderr)
        box = done.stdout.decode().strip()
        self.assertEqual(self.client.get(box).described["timeout_s"], 77)
        self.assertEqual(self.daemon.cli("exec", box, "--", "echo", "hi").stdout, b"hi\n")
        self.assertEqual(self.daemon.cli("rm", box).stdout, done.stdout)
        done = self.daemon.cli("create", "--template", "nope")
        self.assertEqual((done.returncode, done.stdout), (125, b""))
        self.assertIn(b"nope", done.stderr)
        self.assertEqual(self.daemon.cli("create", "extra").returncode, 2)

    def test_exec_passes_input_on_as_it_comes(self):
        with self.client.create() as sandbox:
            process = subprocess.Popen(
                [BINARY, "exec", "--socket", self.daemon.socket, sandbox.id, "--", "sh", "-c",
                 "while read -r line; do echo got $line; done; echo end"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for word in (b"one", b"two"):
                process.stdin.write(word + b"\n")
                process.stdin.flush()
                self.assertEqual(process.stdout.readline(), b"got " + word + b"\n")
            process.stdin.close()
            self.assertEqual(process.stdout.read(), b"end\n")
            self.assertEqual(process.wait(10), 0)
            process.stdout.close()
            done = self.daemon.cli("exec", sandbox.id, "--", "cat", input=BYTES)
            self.assertEqual((done.returncode, done.stdout), (0, BYTES))
            # A command that does not read its input is none the worse for it.
            done = self.daemon.cli("exec", sandbox.id, "--", "echo", "x", input=BYTES)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"x\n", b""))

    def test_background(self):
        with self.client.create() as sandbox:
            done = self.daemon.cli("exec", sandbox.id, "--background", "--stdin", "--", "sh", "-c",
                                   "echo ready; cat; exit 3")
            pid = done.stdout.decode().strip()
            self.assertRegex(pid, r"^\d+$", done.stderr)
            listed = self.daemon.cli("ps", sandbox.id).stdout
            self.assertIn(b"running", listed)
            self.assertIn(b"echo ready", listed)
            self.assertEqual(self.daemon.cli("input", sandbox.id, pid, "--keep-open",
                                             input=b"first\n").returncode, 0)
            self.assertEqual(self.daemon.cli("input", sandbox.id, pid, input=b"last\n").returncode,
                             0)
            done = self.daemon.cli("logs", sandbox.id, pid, "--follow")
            self.assertEqual((done.returncode, done.stdout), (0, b"ready\nfirst\nlast\n"))
            self.assertEqual(self.daemon.cli("logs", sandbox.id, pid, "--from", "12").stdout,
                             b"last\n")
            self.assertEqual(self.daemon.cli("kill", sandbox.id, pid).returncode, 0)
            self.assertEqual(self.daemon.cli("ps", sandbox.id, "--quiet").stdout, b"")
            done = self.daemon.cli("logs", sandbox.id, pid)
            self.assertEqual(done.returncode, 125)
            self.assertIn(b"no process " + pid.encode(), done.stderr)

    def test_kill_with_a_signal(self):
        with self.client.create() as sandbox:
            process = sandbox.start(["sleep", "1234"])
            done = self.daemon.cli("kill", sandbox.id, str(process.pid), "--signal", "HUP")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(process.wait(60).signal, signal.SIGHUP)
            done = self.daemon.cli("kill", sandbox.id, str(process.pid), "--signal", "NOPE")
            self.assertEqual(done.returncode, 125)
            self.assertIn(b"NOPE", done.stderr)

    def test_session(self):
        with self.client.create() as sandbox:
            self.assertEqual(self.daemon.cli("exec", sandbox.id, "--session", "a", "--",
                                             "cd /tmp; X=1").returncode, 0)
            done = self.daemon.cli("exec", sandbox.id, "--session", "a", "--",
                                   "pwd; echo $X; (exit 4)")
            self.assertEqual((done.returncode, done.stdout), (4, b"/tmp\n1\n"))
            self.assertRegex(self.daemon.cli("ps", sandbox.id).stdout, rb"session .*\(a\)\n")

    def test_interrupt_kills_the_command(self):
        with self.client.create() as sandbox:
            process = subprocess.Popen(
                [BINARY, "exec", "--socket", self.daemon.socket, sandbox.id, "--", "sh", "-c",
                 "echo started; sleep 1234"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            self.assertEqual(process.stdout.readline(), b"started\n")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(10), 130)
            process.stdout.close()
            wait_for(lambda: sandbox.exec(["pidof", "sleep"]).exit_code == 1, 60, "sleep killed")

    def test_closed_pipe(self):
        process = subprocess.Popen(
            [BINARY, "run", "--socket", self.daemon.socket, "--template", "base", "--", "yes"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"y\n")
        process.stdout.close()
        self.assertEqual(process.wait(60), 128 + signal.SIGPIPE)
        wait_for(lambda: not self.client.list(), 30, "its sandbox gone")

    def test_info_and_doctor(self):
        done = self.daemon.cli("info")
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"host.kvm", done.stdout)
        done = self.daemon.cli("doctor", "--images", IMAGES)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, rb"(?m)^ok    kvm +(hardware|software)")


DEFAULT_UID = 2000000000  # `cloche serve --help`


class OwnDaemonTest(Case):
    """`cloche run` where nobody listens: it brings its own daemon, and takes it away again."""

    def setUp(self):
        require("root", "kvm")
        folder = tempfile.TemporaryDirectory(prefix="cloche-own-")
        self.addCleanup(folder.cleanup)
        self.state = os.path.join(folder.name, "state")
        self.environment = {**os.environ, "CLOCHE_SOCKET": os.path.join(folder.name, "none.sock"),
                            "CLOCHE_STATE_DIR": self.state}
        store = snapshots.Store(BINARY, IMAGES)
        given = store.give(self.state, DEFAULT_UID, {"base"})
        self.addCleanup(store.take, self.state, given)

    def run_command(self, *words):
        return subprocess.Popen([*RUN, *words], env=self.environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE)

    def daemon_log(self):
        """Of the daemon that was made on our state directory, while its folder is there."""
        logs = map(read_text, glob.glob("/tmp/cloche-run-*/log"))
        return "".join(log for log in logs if f"state in {self.state}" in log)

    def assert_nothing_left(self):
        self.assertEqual(self.daemon_log(), "")
        with open(self.state + "/lock", "rb") as lock:  # both of the daemon's processes hold it
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in ("scratch", "tmp"):
            self.assertEqual(os.listdir(os.path.join(self.state, name)), [])

    def test_run(self):
        with self.run_command("echo", "hello") as process:
            self.assertEqual(process.communicate(timeout=300), (b"hello\n", None))
        self.assertEqual(process.returncode, 0)
        self.assert_nothing_left()

    def test_interrupt(self):
        with self.run_command("sleep", "99") as process:
            wait_for(lambda: "daemon: ready" in self.daemon_log(), READY_TIMEOUT_S, "its daemon")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(60), 130)
        self.assert_nothing_left()
