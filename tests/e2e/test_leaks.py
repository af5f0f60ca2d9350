"""What comes and goes leaves what a daemon holds of the host as it was, to the last descriptor."""
import os
import socket

from harness import DaemonTest, wait_for
from test_trees import archive_of

# What is counted exactly shows a leak in one cycle; the soak is E2E_CYCLES=1000.
CYCLES = int(os.environ.get("E2E_CYCLES", "4"))


class LeakTest(DaemonTest):
    """Its daemon is its own: nobody else has this configuration, whose pool has one size."""

    config = {"pool_min": 1, "pool_max": 1}

    def settled(self):
        """What the daemon holds with its pool full, no sandbox and no connection."""
        def is_full():
            pools = self.client.info()["pools"]
            return all((pool["shells"], pool["building"]) == (1, 0) for pool in pools)
        wait_for(is_full, 60, "the pool is full")
        return self.daemon.holds()

    def assert_unchanged(self, before):
        try:
            wait_for(lambda: self.settled() == before, 30, "all of it given back")
        except AssertionError:
            after = self.settled()
            self.assertEqual((after - before, before - after), ({}, {}), "(more, less)")
            raise

    def cycle(self, kill=False):
        with self.client.create() as box:
            self.assertEqual(box.exec(["true"]).exit_code, 0)
            box.put("/workspace/x", b"x")
            if kill:
                os.kill(self.daemon.monitor_of(box), 9)

    def test_cycles(self):
        """Also one whose monitor is killed."""
        self.cycle()
        before = self.settled()
        for cycle in range(CYCLES):
            self.cycle(kill=cycle == CYCLES // 2)
        self.assertEqual(self.client.list(), [])
        self.assert_unchanged(before)

    def test_clients_that_vanish(self):
        """In the middle of an upload, a download, or a command: their sandbox's other work goes on,
        and their descriptors, threads and processes in the guest are given back."""
        with self.client.create() as box:
            box.put("/workspace/tree/large", os.urandom(3 << 20))
            data = archive_of(("v", b"0", bytes(3 << 20)))
            self.vanish_all(box, data)  # the first of each may start what stays: a thread pool
            before = self.settled()
            for _ in range(2):
                self.vanish_all(box, data)
            self.assert_unchanged(before)
            left = box.exec(shell="cd /workspace; ls -A half; ls -A | grep -v -e tree -e half; "
                                  "pidof sleep")
            self.assertEqual(left.stdout, b"")

    def vanish_all(self, box, data):
        top = f"/v1/sandboxes/{box.id}"
        command = b'{"shell":"echo on; sleep 4444"}'
        self.vanish("PUT", box._files({"path": "/workspace/half"}, "/tar"), data, 1 << 20)
        self.vanish("PUT", box._files({"path": "/workspace/file"}), data, 1 << 20)
        for call in "/tar", "":
            self.vanish("GET", box._files({"path": "/workspace/tree/large"}, call), receive=1000)
        self.vanish("POST", top + "/exec", command, accept="application/x-ndjson", receive=1000)

    def vanish(self, method, target, body=b"", sent=None, receive=0, accept="*/*"):
        """A client that sends so much of its body, takes so much of the reply, and goes."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.daemon.socket)
            s.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n"
                      f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:sent])
            if receive:
                s.recv(receive)
