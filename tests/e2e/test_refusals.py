"""Bad input: each is a clear typed error, and the daemon goes on."""
import json
import os
import subprocess
import tempfile

from harness import BINARY, DaemonTest, read_text, wait_for


class RefusalTest(DaemonTest):
    def tearDown(self):
        self.assertEqual(self.daemon.request("GET", "/v1/health")[0], 200)

    def refused(self, status, code, method, target, body=None, headers=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        got, reply, _ = self.daemon.request(method, target, body, headers)
        self.assertEqual((got, reply["error"]["code"]), (status, code), reply)
        self.assertTrue(reply["error"]["message"])
        return reply["error"]

    def test_unknown_template(self):
        error = self.refused(404, "template_not_found", "POST", "/v1/sandboxes",
                             {"template": "nope"})
        self.assertIn("base", json.dumps(error))

    def test_shapes_out_of_range(self):
        for field, value in (("mem_mib", 0), ("mem_mib", 10 ** 9), ("mem_mib", -1),
                             ("vcpus", 0), ("vcpus", 10000), ("vcpus", 1.5), ("vcpus", "1"),
                             ("disk_mib", 0), ("timeout_s", 0), ("timeout_s", 10 ** 12),
                             ("template", 7), ("env", {"A": 1}), ("env", {"": "x"}),
                             ("labels", [])):
            with self.subTest(field=field, value=value):
                error = self.refused(400, "invalid_field", "POST", "/v1/sandboxes",
                                     {field: value})
                self.assertIn(field, error["message"])

    def test_vcpus_beyond_the_host(self):
        error = self.refused(400, "invalid_field", "POST", "/v1/sandboxes",
                             {"vcpus": os.cpu_count() + 1})
        self.assertIn("vcpus", error["message"])

    def test_unknown_keys(self):
        error = self.refused(400, "unknown_field", "POST", "/v1/sandboxes", {"tmplate": "base"})
        self.assertIn("tmplate", error["message"])
        self.refused(400, "unknown_field", "POST", "/v1/run", {"argv": ["true"], "x": 1})

    def test_malformed_json(self):
        for body in ("{", '{"template":"base"} x', '{"a":1,"a":2}', "[]", "null",
                     '{"env":"\\ud800"}',
                     b'{"template":"\xff"}', '{"template":"a\\u0000b"}', "[" * 5000):
            with self.subTest(body=body[:20]):
                status, reply, _ = self.daemon.request("POST", "/v1/sandboxes", body)
                self.assertEqual(status, 400)
                self.assertIn(reply["error"]["code"], ("invalid_json", "invalid_field"))

    def test_oversized_bodies(self):
        status, reply, _ = self.daemon.request("POST", "/v1/sandboxes", b" " * (2 << 20))
        self.assertEqual((status, reply["error"]["code"]), (413, "too_large"))
        answer = self.daemon.raw(b"POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: "
                                 b"99999999999999\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer[:100])

    def test_unknown_routes_and_methods(self):
        self.refused(404, "not_found", "GET", "/v2/nothing")
        self.refused(405, "method_not_allowed", "DELETE", "/v1/info")
        self.refused(404, "sandbox_not_found", "GET", "/v1/sandboxes/sb_nothing")
        self.refused(404, "sandbox_not_found", "DELETE", "/v1/sandboxes/sb_%20%ff")
        self.refused(400, "bad_request", "DELETE", "/v1/sandboxes/..%2f..")

    def test_exec_that_says_nothing(self):
        self.refused(400, "invalid_field", "POST", "/v1/run", {})
        self.refused(400, "invalid_field", "POST", "/v1/run", {"argv": []})
        self.refused(400, "invalid_field", "POST", "/v1/run", {"argv": ["a"], "shell": "b"})
        self.refused(400, "invalid_field", "POST", "/v1/run", {"argv": ["a"], "cwd": "rel"})

    def test_ambiguous_http(self):
        head = b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\n"
        for lines in (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
                      b"Content-Length: 2\r\nContent-Length: 3\r\n", b"Content-Length: +2\r\n",
                      b"Content-Length : 2\r\n", b"Transfer-Encoding: chunked, gzip\r\n",
                      b"Host: y\r\n", b" folded: x\r\n", b"Bare: lf\n"):
            with self.subTest(lines=lines):
                answer = self.daemon.raw(head + lines + b"\r\n{}")
                self.assertRegex(answer[:12], rb"^HTTP/1\.1 (400|501)$")
                self.assertEqual(answer.count(b"HTTP/1.1 "), 1)

    def test_noise(self):
        for data in (b"\0" * 100, b"GET", b"GET / HTTP/9.9\r\n\r\n", os.urandom(4096), b"\r\n" * 9,
                     b"A" * 70000):
            self.daemon.raw(data)


class PromiseTest(DaemonTest):
    """A host whose memory is enough for two sandboxes of the default size."""

    offered_mib = 400
    config = {"reserve_mem_mib": (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") >> 20)
              - offered_mib}

    def memory(self):
        return self.daemon.request("GET", "/v1/info")[1]["memory"]

    def test_promised_memory(self):
        self.assertEqual(self.memory()["limit_mib"], self.offered_mib)
        boxes = [self.client.create() for _ in range(2)]
        error = self.assert_refused(503, "no_capacity", self.client.create)
        self.assertIn("384 of 400 MiB", error.message)
        self.assertIn("memory_overcommit", error.remedy)
        self.assertEqual(self.memory()["guests_mib"], 2 * (128 + 64))
        boxes.pop().delete()
        boxes.append(self.client.create())
        for box in boxes:
            box.delete()
        self.assertEqual(self.memory()["guests_mib"], 0)

    def test_shells_make_way(self):
        wait_for(lambda: self.memory()["shells_mib"] > 0, 60, "a shell")
        with self.client.create(template="python", mem_mib=256, disk_mib=1024) as box:
            self.assertEqual(box.exec(["true"]).exit_code, 0)
            memory = self.memory()
            self.assertEqual((memory["guests_mib"], memory["shells_mib"]), (256 + 64, 0))

    def test_all_monitors_have_a_limit(self):
        limits = [read_text(os.path.join(path, name)) for path in self.daemon.cgroups()
                  for name in ("memory.limit_in_bytes", "memory.max")]
        self.assertIn(self.offered_mib << 20, [int(text) for text in limits if text.strip()])


class StartTest(DaemonTest):
    """Starting a second one, or one that cannot."""

    def serve(self, *arguments):
        return subprocess.run([BINARY, "serve", *arguments], capture_output=True, timeout=60)

    def test_second_daemon_on_the_same_socket(self):
        with tempfile.TemporaryDirectory() as state:
            done = self.serve("--state-dir", state, "--socket", self.daemon.socket)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"already", done.stderr)
        self.assertEqual(self.daemon.request("GET", "/v1/health")[0], 200)

    def test_second_daemon_on_the_same_state(self):
        other = os.path.join(self.daemon.dir, "other.sock")
        done = self.serve("--state-dir", self.daemon.state, "--socket", other)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"already", done.stderr)
        self.assertFalse(os.path.exists(other))

    def test_bad_config(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as config, \
                tempfile.TemporaryDirectory() as state:
            config.write('{"pool_mim": 1}')
            config.flush()
            done = self.serve("--state-dir", state, "--socket", os.path.join(state, "s"),
                              "--config", config.name)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"pool_mim", done.stderr)

    def test_without_images(self):
        with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as images:
            os.chmod(images, 0o755)
            done = self.serve("--state-dir", state, "--socket", os.path.join(state, "s"),
                              "--images", images)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"vmlinux", done.stderr)
