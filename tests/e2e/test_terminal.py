"""Terminals: `cloche shell` in a real one, and the WebSocket behind it."""
import base64
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import time

from harness import BINARY, DaemonTest, require, run_cli, wait_for

# On a KVM that interprets the guest's kernel a shell takes seconds on a busy machine.
PATIENCE_S = 90
PROMPT = rb"/workspace # "
SCROLLBACK_BYTES = 1 << 20


class Shell:
    """`cloche shell` in a terminal of its own."""

    def __init__(self, daemon, *arguments, rows=24, cols=80, term="xterm-256color"):
        self.master, self.slave = pty.openpty()
        self.seen = b""
        self.resize(rows, cols)
        self.modes = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [BINARY, "shell", *arguments], stdin=self.slave, stdout=self.slave, stderr=self.slave,
            env={**os.environ, "CLOCHE_SOCKET": daemon.socket, "TERM": term},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows, cols):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, keys):
        os.write(self.master, keys)

    def shown(self, pattern, patience_s):
        """Waits until the terminal shows it, and forgets what is before its end; or None."""
        end = time.monotonic() + patience_s
        while True:
            found = re.search(pattern, self.seen, re.DOTALL)
            if found:
                self.seen = self.seen[found.end():]
                return found
            left = end - time.monotonic()
            if left < 0 or not self.look(left):
                return None

    def expect(self, pattern):
        found = self.shown(pattern, PATIENCE_S)
        if not found:
            raise AssertionError(f"{pattern} not shown; shown: {self.seen[-2000:]}")
        return found

    def prompt(self):
        """Waits until the shell reads: what is typed before that is echoed by the terminal, too."""
        self.expect(PROMPT)

    def run(self, command, pattern):
        """Types a command at the prompt and waits for its output and the next prompt."""
        self.type(command.encode() + b"\r")
        found = self.expect(pattern)
        self.prompt()
        return found

    def begin(self, command):
        """Types a command at the prompt; by its echo's end the shell has left the line editor."""
        self.type(command.encode() + b"\r")
        self.expect(re.escape(command.encode()) + rb"\r\n")

    def press(self, key, pattern):
        """Presses a key until it shows: what comes before the command has started is lost."""
        for _ in range(PATIENCE_S // 3):
            self.type(key)
            if self.shown(pattern, 3):
                return
        raise AssertionError(f"{key} does nothing")

    def exit_code(self):
        """Waits for the end, reading on: who does not read the terminal stops the program."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"it goes on; shown: {self.seen[-2000:]}")
            self.look(0.05)
        while self.look(0):
            pass
        return self.process.returncode

    def look(self, wait_s):
        """Takes what is shown; false where there is nothing."""
        if not select.select([self.master], [], [], wait_s)[0]:
            return False
        self.seen += os.read(self.master, 65536)
        return True


class Peer:
    """A WebSocket client with nothing between it and the daemon."""

    def __init__(self, daemon, target):
        self.received = b""
        self.text = []
        self.output = b""
        self.closed = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(daemon.socket)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.received:
            part = self.socket.recv(65536)
            if not part:
                break
            self.received += part
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])

    def close(self):
        self.socket.close()

    def send(self, data, opcode=2):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(
            ">H", len(data))
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def tell(self, **message):
        self.send(json.dumps(message).encode(), opcode=1)

    def _take(self, size):
        while len(self.received) < size:
            part = self.socket.recv(65536)
            if not part:
                raise AssertionError(f"the daemon hung up; {self.text} {self.output[-300:]}")
            self.received += part
        taken, self.received = self.received[:size], self.received[size:]
        return taken

    def step(self):
        """Takes one frame."""
        first, size = self._take(2)
        if size == 126:
            size = struct.unpack(">H", self._take(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._take(8))[0]
        payload = self._take(size)
        if first == 0x82:
            self.output += payload
        elif first == 0x81:
            self.text.append(json.loads(payload))
        elif first == 0x88:
            self.closed = struct.unpack(">H", payload[:2])[0]

    def message(self, kind):
        """The next text message, which must be of that type."""
        while not self.text:
            self.step()
        message = self.text.pop(0)
        if message["type"] != kind:
            raise AssertionError(f"{message}, not {kind}")
        return message

    def expect(self, text):
        while text not in self.output:
            self.step()
        self.output = self.output.partition(text)[2]


class TerminalTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.box = cls.client.create(timeout_s=3600)

    def shell(self, *arguments, **options):
        shell = Shell(self.daemon, *arguments, **options)
        self.addCleanup(shell.close)
        return shell

    def peer(self, query=""):
        peer = Peer(self.daemon, f"/v1/sandboxes/{self.box.id}/pty{query}")
        self.addCleanup(peer.close)
        return peer

    def attached_pid(self, shell):
        return shell.expect(rb"process (\d+) of ").group(1).decode()

    def assert_modes_restored(self, shell):
        self.assertEqual(termios.tcgetattr(shell.slave), shell.modes)

    def test_a_shell(self):
        shell = self.shell(self.box.id, rows=31, cols=97)
        shell.expect(rb"~ \. detaches")
        shell.prompt()
        raw = termios.tcgetattr(shell.slave)
        self.assertFalse(raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG))
        shell.run("stty size", rb"\r\n31 97\r\n")
        shell.resize(40, 120)
        wait_for(lambda: shell.run("stty size", rb"\r\n(\d+ \d+)\r\n").group(1) == b"40 120",
                 PATIENCE_S, "the new size")
        shell.run("echo $((6 * 7)) $TERM $PWD", rb"\r\n42 xterm-256color /workspace\r\n")
        shell.run(r"printf '\033[1;31mred\033[0m\a\n'", rb"\r\n\x1b\[1;31mred\x1b\[0m\x07\r\n")
        # Ctrl-C is the guest's: it ends the sleep, not us; Ctrl-Z stops a job, fg goes on with it.
        shell.begin("sleep 1000")
        shell.press(b"\x03", PROMPT)
        shell.begin("sh -c 'while sleep 1; do echo tick; done'")
        shell.press(b"\x1a", rb"Stopped")
        shell.prompt()
        shell.begin("fg")
        shell.expect(rb"\r\ntick\r\n")  # before that Ctrl-C would end the shell's fg, not the job
        shell.press(b"\x03", PROMPT)
        shell.type(b"exit 7\r")
        self.assertEqual(shell.exit_code(), 7)
        self.assert_modes_restored(shell)

    def test_a_command(self):
        shell = self.shell(self.box.id, "--user", "nobody", "--cwd", "/tmp", "--", "sh", "-c",
                           "test -t 0 && echo on a terminal, $(id -un), $PWD, $1; kill -9 $$", "x",
                           "two words")
        shell.expect(rb"on a terminal, nobody, /tmp, two words\r\n")
        self.assertEqual(shell.exit_code(), 128 + 9)
        self.assert_modes_restored(shell)

    def test_end_of_input(self):
        shell = self.shell(self.box.id, "--", "sh", "-c", "echo ready; cat; echo after; exit 3")
        shell.expect(rb"ready\r\n")
        shell.type(b"line\r")
        shell.expect(rb"line\r\nline\r\n")
        shell.type(b"\x04")
        shell.expect(rb"after\r\n")
        self.assertEqual(shell.exit_code(), 3)

    def test_detach_and_attach(self):
        shell = self.shell(self.box.id, "--", "sh", "-c",
                           "echo before; read line; echo got $line; while read line; do "
                           "echo again $line $(stty size); done")
        pid = self.attached_pid(shell)
        shell.expect(rb"before\r\n")
        shell.type(b"\r~.")
        self.assertEqual(shell.exit_code(), 0)
        self.assertIn(f"--attach {pid}".encode(), shell.seen)
        self.assert_modes_restored(shell)
        listed = self.daemon.request(
            "GET", f"/v1/sandboxes/{self.box.id}/processes/{pid}")[1]
        self.assertEqual((listed["state"], listed["terminal"]), ("running", True))

        # The scrollback, then the live stream; a second client sees, and may type, the same.
        first = self.shell(self.box.id, "--attach", pid, rows=20, cols=70)
        first.expect(rb"before\r\n.*got\r\n")
        second = self.shell(self.box.id, "--attach", pid, rows=21, cols=71)
        second.expect(rb"before\r\n.*got\r\n")
        first.type(b"one\r")
        for shell in first, second:
            shell.expect(rb"again one 21 71\r\n")
        second.type(b"two\r")
        for shell in first, second:
            shell.expect(rb"again two 21 71\r\n")
        second.process.terminate()
        self.assertEqual(second.exit_code(), 128 + signal.SIGTERM)
        self.assert_modes_restored(second)
        first.type(b"three\r")
        first.expect(rb"again three ")
        first.type(b"\x04")
        self.assertEqual(first.exit_code(), 0)

        # What it wrote is there when it has ended, too.
        late = self.shell(self.box.id, "--attach", pid)
        late.expect(rb"before\r\n.*again three ")
        self.assertEqual(late.exit_code(), 0)

    def test_scrollback_is_bounded(self):
        """The newest bytes are kept, and how many were not is told."""
        peer = self.peer("?arg=sh&arg=-c&arg=stty%20-opost;seq%20200000%7Ccat;read%20x")
        pid = peer.message("start")["pid"]
        peer.close()
        size = sum(len(f"{i}\n") for i in range(1, 200001))
        path = f"/v1/sandboxes/{self.box.id}/processes/{pid}"
        wait_for(lambda: self.daemon.request("GET", path)[1]["output"]["end"] == size, PATIENCE_S,
                 "all output")
        again = self.peer(f"?pid={pid}")
        again.message("start")
        self.assertGreaterEqual(again.message("missed")["bytes"], size - SCROLLBACK_BYTES)
        again.expect(b"\n199999\n200000\n")
        again.send(b"\n")
        self.assertEqual(again.message("end")["exit_code"], 0)

    def test_no_terminal_here(self):
        done = run_cli("shell", self.box.id, socket_path=self.daemon.socket)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"not a terminal", done.stderr)
        self.assertIn(b"cloche exec", done.stderr)
        for arguments in (["shell"], ["shell", "x", "--attach", "1", "--", "sh"]):
            self.assertEqual(run_cli(*arguments, socket_path=self.daemon.socket).returncode, 2)

    def test_failures_leave_the_terminal_as_it_was(self):
        for arguments, text in (
                (["sb_none"], rb"sb_none"),
                ([self.box.id, "--", "/no/such/program"], rb"/no/such/program"),
                ([self.box.id, "--cwd", "/no/such/place"], rb"/no/such/place"),
                ([self.box.id, "--attach", "999999"], rb"no process 999999")):
            with self.subTest(arguments):
                shell = self.shell(*arguments)
                self.assertEqual(shell.exit_code(), 125)
                self.assertRegex(shell.seen, text)
                self.assert_modes_restored(shell)

    def test_a_client_that_vanishes(self):
        shell = self.shell(self.box.id, "--", "sh", "-c", "echo ready; read line; echo got $line")
        pid = self.attached_pid(shell)
        shell.expect(rb"ready\r\n")
        shell.process.kill()
        shell.process.wait()
        again = self.shell(self.box.id, "--attach", pid)
        again.expect(rb"ready\r\n")
        again.type(b"word\r")
        again.expect(rb"got word\r\n")
        self.assertEqual(again.exit_code(), 0)

    def test_the_end_of_the_sandbox(self):
        with self.client.create() as box:
            shell = self.shell(box.id)
            shell.prompt()
        self.assertEqual(shell.exit_code(), 125)
        self.assertIn(b"the sandbox ended", shell.seen)
        self.assert_modes_restored(shell)

    def test_messages(self):
        peer = self.peer("?rows=5&cols=6&term=dumb&arg=sh")
        self.assertEqual(peer.status, 101)
        self.assertEqual(peer.message("start")["command"], "sh")
        peer.expect(b"# ")
        peer.tell(type="resize", rows=9)
        self.assertEqual(peer.message("error")["error"]["code"], "invalid_field")
        peer.send(b"[1]", opcode=1)
        self.assertEqual(peer.message("error")["error"]["code"], "invalid_json")
        peer.send(b"echo $TERM $(stty size)\n")
        peer.expect(b"\r\ndumb 5 6\r\n")
        peer.tell(type="resize", rows=7, cols=8)
        wait_for(lambda: self.stty(peer) == b"7 8", PATIENCE_S, "the new size")
        peer.send(b"exit 4\n")
        end = peer.message("end")
        self.assertEqual((end["end"], end["exit_code"], end["signal"]), ("exited", 4, None))
        self.assertIn("user_ms", end["usage"])
        while peer.closed is None:
            peer.step()
        self.assertEqual(peer.closed, 1000)

    def stty(self, peer):
        peer.output = b""
        peer.send(b"stty size\n")
        while not re.search(rb"\r\n(\d+ \d+)\r\n", peer.output):
            peer.step()
        return re.search(rb"\r\n(\d+ \d+)\r\n", peer.output).group(1)

    def test_refusals(self):
        base = f"/v1/sandboxes/{self.box.id}/pty"
        status, reply, headers = self.daemon.request("GET", base)
        self.assertEqual((status, reply["error"]["code"]), (426, "upgrade_required"))
        self.assertEqual(headers["Upgrade"], "websocket")
        for query, expected in (("?rows=0", 400), ("?nonsense=1", 400), ("?pid=999999", 404),
                                ("?arg=/no/such/program", 422), ("?user=nosuchuser", 422)):
            with self.subTest(query):
                self.assertEqual(self.peer(query).status, expected)
        process = self.daemon.request(
            "POST", f"/v1/sandboxes/{self.box.id}/exec",
            json.dumps({"argv": ["sleep", "1000"], "background": True}))[1]
        self.assertEqual(self.peer(f"?pid={process['pid']}").status, 409)

    def test_much_at_once(self):
        """A paste far beyond every buffer arrives whole, and so does what comes back."""
        peer = self.peer("?arg=sh&arg=-c&arg="
                         "stty%20raw%20-echo;echo%20ready;head%20-c%20300000%7Cwc%20-c")
        peer.message("start")
        peer.expect(b"ready\n")
        for _ in range(300):
            peer.send(b"x" * 1000)
        peer.expect(b"300000\n")
        self.assertEqual(peer.message("end")["exit_code"], 0)

    def test_in_tmux(self):
        require("tmux")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        tmux = ["tmux", "-S", os.path.join(folder, "tmux"), "-f", "/dev/null"]

        def shows(pattern):
            screen = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, check=True)
            return re.search(pattern, screen.stdout.decode(), re.MULTILINE)

        def keys(*names):
            subprocess.run([*tmux, "send-keys", *names], check=True)

        subprocess.run([*tmux, "new-session", "-d", "-x", "90", "-y", "30",
                        f"CLOCHE_SOCKET={self.daemon.socket} {BINARY} shell {self.box.id};"
                        "echo left with $?; trap '' INT; exec sleep 1000"], check=True)
        self.addCleanup(subprocess.run, [*tmux, "kill-server"], check=True)
        wait_for(lambda: shows(r"# ?$"), PATIENCE_S, "the prompt")
        keys("echo $((6 * 7)) $(stty size)", "Enter")
        wait_for(lambda: shows(r"^42 30 90$"), PATIENCE_S, "42 and the size")
        subprocess.run([*tmux, "resize-window", "-x", "70", "-y", "20"], check=True)
        wait_for(lambda: [keys("clear; stty size", "Enter"), time.sleep(2),
                          shows(r"^20 70$")][2], PATIENCE_S, "the new size")
        keys("clear; sleep 1000", "Enter")
        wait_for(lambda: [keys("C-c"), keys("exit 5", "Enter"), time.sleep(3),
                          shows(r"^left with 5$")][3], PATIENCE_S, "the exit code")
