"""Requests that come again, and requests whose time is over: nothing is made twice or stays."""
import contextlib
import json
import socket
import threading
import time
import uuid

from harness import READY_TIMEOUT_S, DaemonTest, wait_for

BOX = {"template": "base"}
# Seconds that a command gets until its deadline; more where the guest was too slow to begin.
PATIENCE = (4, 16, 64)


class RetryTest(DaemonTest):
    config = {"max_sandboxes": 20}

    def setUp(self):
        self.key = str(uuid.uuid4())
        self.addCleanup(self.daemon.delete_all)

    def post(self, target, body, **headers):
        """(status, JSON, whether it is a replay)"""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        status, reply, got = self.daemon.request("POST", target, json.dumps(body), lines)
        return status, reply, got.get("Idempotency-Replayed") == "true"

    def make(self, body=None, **headers):
        return self.post("/v1/sandboxes", body or BOX, **headers)

    def live(self):
        return [sandbox.id for sandbox in self.client.list()]

    @contextlib.contextmanager
    def vanishing(self, target, body):
        """A client that goes at the end of the block, without its reply."""
        data = json.dumps(body).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(self.daemon.socket)
            s.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {self.key}\r\n"
                      f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
            yield

    def ask_until_done(self, target, body):
        """Asks again for as long as the first request runs."""
        def ask():
            status, reply, replayed = self.post(target, body, Idempotency_Key=self.key)
            busy = status == 409 and "running" in reply["error"]["message"]
            return None if busy else (status, reply, replayed)
        return wait_for(ask, READY_TIMEOUT_S, "an answer")

    def test_one_key_is_one_sandbox(self):
        first = self.make(Idempotency_Key=self.key)
        again = self.make(Idempotency_Key=self.key)
        self.assertEqual((first[0], first[2], again[0], again[2]), (201, False, 201, True))
        self.assertEqual(first[1], again[1])
        self.assertEqual(self.live(), [first[1]["id"]])
        other = self.make(Idempotency_Key=str(uuid.uuid4()))
        self.assertNotEqual(other[1]["id"], first[1]["id"])
        self.assertEqual(len(self.live()), 2)

    def test_another_body_is_refused(self):
        self.make(Idempotency_Key=self.key)
        status, reply, _ = self.make({**BOX, "timeout_s": 77}, Idempotency_Key=self.key)
        self.assertEqual((status, reply["error"]["code"]), (422, "idempotency_mismatch"))
        self.assertIn("new key", reply["error"]["remedy"])
        self.assertEqual(len(self.live()), 1)

    def test_errors_are_not_kept(self):
        for _ in range(2):
            status, reply, replayed = self.make({"template": "nope"}, Idempotency_Key=self.key)
            self.assertEqual((status, replayed), (404, False))
        self.assertEqual(self.make(Idempotency_Key=self.key)[0], 201)

    def test_bad_headers(self):
        for headers in ({"Idempotency_Key": "a b"}, {"Idempotency_Key": "x" * 65},
                        {"Request_Timeout": "1s"}, {"Request_Timeout": "0"},
                        {"Request_Timeout": "604801"}):
            status, reply, _ = self.make(**headers)
            self.assertEqual((status, reply["error"]["code"]), (400, "invalid_field"))
            self.assertIn(next(iter(headers)).replace("_", "-"), reply["error"]["message"])
        self.assertEqual(self.live(), [])

    def test_many_at_once_are_one(self):
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(
            self.make(Idempotency_Key=self.key))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made = [reply["id"] for status, reply, replayed in answers if status == 201]
        self.assertEqual(len(answers), 6)
        self.assertEqual(sum(1 for s, _, replayed in answers if s == 201 and not replayed), 1)
        self.assertTrue(all(s in (201, 409) for s, _, _ in answers), answers)
        self.assertEqual(set(made), set(self.live()))
        self.assertEqual(len(self.live()), 1)

    def test_exec_has_its_effect_once(self):
        sandbox = self.client.create(template="base")
        for _ in range(3):
            result = sandbox.exec(shell="echo x >>/tmp/log; wc -l </tmp/log",
                                  idempotency_key=self.key)
            self.assertEqual(result.stdout.strip(), b"1")
        process = sandbox.start(shell="echo y >>/tmp/log; sleep 1234", idempotency_key="bg-1")
        again = sandbox.start(shell="echo y >>/tmp/log; sleep 1234", idempotency_key="bg-1")
        self.assertEqual(process.pid, again.pid)
        self.assertEqual(len(sandbox.processes()), 1)
        self.assertEqual(sandbox.get("/tmp/log").count(b"x"), 1)

    def test_run_once(self):
        first = self.client.run(shell="cat /proc/sys/kernel/random/uuid", idempotency_key=self.key,
                                template="base")
        again = self.client.run(shell="cat /proc/sys/kernel/random/uuid", idempotency_key=self.key,
                                template="base")
        self.assertEqual((first.stdout, first.sandbox), (again.stdout, again.sandbox))

    def test_client_that_vanishes_during_create(self):
        """At every moment of it: the retry's sandbox lives, and no other does."""
        for seconds in (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.5):
            with self.subTest(seconds=seconds):
                self.key = str(uuid.uuid4())
                with self.vanishing("/v1/sandboxes", BOX):
                    time.sleep(seconds)
                status, reply, _ = self.ask_until_done("/v1/sandboxes", BOX)
                self.assertEqual(status, 201, reply)
                self.assertTrue(self.client.get(reply["id"]).exec(["true"]).ok)
                wait_for(lambda: self.live() == [reply["id"]], 60, "no other sandbox")
                self.client.get(reply["id"]).delete()

    def test_client_that_vanishes_during_exec(self):
        sandbox = self.client.create(template="base")
        body = {"shell": "echo x >>/tmp/log; sleep 4321"}
        sandbox.exec(["touch", "/tmp/log"])
        target = f"/v1/sandboxes/{sandbox.id}/exec"
        with self.vanishing(target, body):
            wait_for(lambda: sandbox.get("/tmp/log"), READY_TIMEOUT_S, "its effect")
            status, reply, _ = self.post(target, body, Idempotency_Key=self.key)
            self.assertEqual(status, 409)
            self.assertIn("running", reply["error"]["message"])
        status, reply, _ = self.ask_until_done(target, body)
        self.assertEqual((status, reply["error"]["code"]), (409, "conflict"))
        self.assertIn("broken off", reply["error"]["cause"])
        wait_for(lambda: not sandbox.processes(), 60, "the command gone")
        self.assertEqual(sandbox.get("/tmp/log"), b"x\n")


class DeadlineTest(DaemonTest):
    def request(self, method, target, body, seconds, **headers):
        return self.daemon.request(method, target, json.dumps(body),
                                   {"Request-Timeout": str(seconds), **headers})

    def expect_late(self, status, reply):
        self.assertEqual((status, reply["error"]["code"]), (504, "deadline_exceeded"))

    def test_exec_is_killed_in_the_guest(self):
        with self.client.create(template="base") as sandbox:
            sandbox.put("/tmp/up", b"")
            for seconds in PATIENCE:
                status, reply, _ = self.request(
                    "POST", f"/v1/sandboxes/{sandbox.id}/exec",
                    {"shell": "setsid sleep 4447 & (sleep 4447 &); echo up >/tmp/up; sleep 4447"},
                    seconds)
                self.expect_late(status, reply)
                if sandbox.get("/tmp/up"):
                    break
            self.assertEqual(sandbox.get("/tmp/up"), b"up\n")
            wait_for(lambda: not sandbox.processes(), 60, "the command gone")
            self.assertEqual(sandbox.exec(["pidof", "sleep"]).exit_code, 1)

    def test_stream_ends_with_the_reason(self):
        with self.client.create(template="base") as sandbox:
            for seconds in PATIENCE:
                status, raw, _ = self.request(
                    "POST", f"/v1/sandboxes/{sandbox.id}/exec",
                    {"shell": "echo out; sleep 4448"}, seconds, Accept="application/x-ndjson")
                records = raw if status != 200 else [json.loads(r) for r in raw.splitlines()]
                if len(records) == 3:
                    break
            self.assertEqual(status, 200)
            self.assertEqual([r["type"] for r in records], ["start", "stdout", "error"])
            self.assertEqual(records[-1]["error"]["code"], "deadline_exceeded")
            wait_for(lambda: not sandbox.processes(), 60, "the command gone")
            self.assertEqual(sandbox.exec(["pidof", "sleep"]).exit_code, 1)

    def test_create_leaves_nothing(self):
        """A millisecond is rarely enough; where it was, it is tried again."""
        for _ in range(50):
            status, reply, _ = self.request("POST", "/v1/sandboxes", BOX, 0.001)
            if status != 201:
                break
            self.client.get(reply["id"]).delete()
        self.expect_late(status, reply)
        wait_for(lambda: not self.client.list(), 60, "the sandbox gone")

    def test_run_leaves_nothing(self):
        status, reply, _ = self.request("POST", "/v1/run",
                                        {"template": "base", "shell": "sleep 4449"}, 2.5)
        self.expect_late(status, reply)
        wait_for(lambda: not self.client.list(), 60, "the sandbox gone")

    def test_enough_time(self):
        status, reply, _ = self.request("POST", "/v1/run", {"template": "base", "shell": "echo 1"},
                                        READY_TIMEOUT_S)
        self.assertEqual((status, reply["stdout"]), (200, "1\n"))
