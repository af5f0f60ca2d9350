import io
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cloche  # noqa: E402
from fake_daemon import FakeDaemon  # noqa: E402

BYTES = bytes(range(256)) * 300


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.fake = FakeDaemon()
        self.addCleanup(self.fake.close)
        self.client = cloche.Client(self.fake.socket, timeout=10)

    def assert_error(self, code, call, *arguments):
        with self.assertRaises(cloche.ClocheError) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.code, code)

    def last_request(self):
        return self.fake.requests[-1]

    def test_info(self):
        self.assertEqual(self.client.info()["templates"], [{"name": "python"}])

    def test_create_sends_only_what_is_given(self):
        sandbox = self.client.create(template="python", mem_mib=256, env=None)
        self.assertEqual(sandbox.id, "sb_0")
        self.assertEqual(sandbox.times["ready_ms"], 8.1)
        method, path, headers, body = self.last_request()
        self.assertEqual((method, path), ("POST", "/v1/sandboxes"))
        self.assertEqual(body, b'{"template": "python", "mem_mib": 256}')
        self.assertIn("Idempotency-Key", headers)

    def test_idempotency_keys(self):
        sandbox = self.client.create(idempotency_key="made-once")
        calls = (lambda **key: self.client.create(**key),
                 lambda **key: self.client.run(["echo"], **key),
                 lambda **key: sandbox.exec(["echo"], **key))
        for call in calls:
            call(idempotency_key="my-key")
            self.assertEqual(self.last_request()[2]["Idempotency-Key"], "my-key")
            self.assertNotIn(b"my-key", self.last_request()[3])
            keys = set()
            for _ in range(2):
                call()
                keys.add(self.last_request()[2]["Idempotency-Key"])
            self.assertEqual(len(keys), 2)

    def test_context_manager_deletes(self):
        with self.client.create() as sandbox:
            self.assertIn(sandbox.id, self.fake.sandboxes)
        self.assertEqual(self.fake.sandboxes, {})

    def test_context_manager_takes_a_sandbox_that_is_gone(self):
        with self.client.create():
            self.fake.sandboxes.clear()

    def test_context_manager_keeps_the_exception(self):
        with self.assertRaises(KeyError):
            with self.client.create():
                raise KeyError

    def test_list_follows_pages(self):
        for _ in range(5):
            self.client.create()
        self.assertEqual([s.id for s in self.client.list()], [f"sb_{n}" for n in range(5)])

    def test_exec(self):
        result = self.client.create().exec(["echo", "a", "b"], timeout_ms=5000)
        self.assertEqual((result.end, result.exit_code, result.stdout, result.stderr),
                         ("exited", 0, b"a b", b""))
        self.assertTrue(result.ok)
        self.assertEqual(result.times, {"first_output_ms": 4.2})

    def test_exec_shell(self):
        self.assertEqual(self.client.create().exec(shell="ls | wc").text, "ls | wc")

    def test_exec_failure_is_a_result(self):
        result = self.client.create().exec(["fail", "3"])
        self.assertEqual((result.ok, result.exit_code), (False, 3))
        result = self.client.create().exec(["die", "9"])
        self.assertEqual((result.end, result.exit_code, result.signal), ("signaled", None, 9))

    def test_exec_bytes_survive(self):
        sandbox = self.client.create()
        self.assertEqual(sandbox.exec(["cat"], stdin=BYTES).stdout, BYTES)
        self.assertEqual(sandbox.exec(["cat"], stdin="text").stdout, b"text")

    def test_exec_refuses_a_string_as_argv(self):
        with self.assertRaises(TypeError):
            self.client.create().exec("ls -l")

    def test_exec_stream(self):
        events = list(self.client.create().exec_stream(["cat"], stdin=b"\xff\x00hello"))
        self.assertEqual(events[0], ("stdout", b"\xff\x00hello"))
        self.assertEqual(events[-1][0], "end")
        self.assertEqual(events[-1][1].exit_code, 0)

    def test_exec_stream_that_is_cut_is_an_error(self):
        with self.assertRaises(cloche.ClocheError) as caught:
            list(self.client.create().exec_stream(["lost"]))
        self.assertEqual(caught.exception.code, "unreachable")

    def test_files(self):
        sandbox = self.client.create()
        for data in (BYTES, "text ü", io.BytesIO(BYTES), b""):
            sandbox.put("/workspace/a b&c.bin", data)
            expected = data.encode() if isinstance(data, str) else data
            if hasattr(expected, "getvalue"):
                expected = expected.getvalue()
            self.assertEqual(sandbox.get("/workspace/a b&c.bin"), expected)

    def test_put_streams_a_file_object(self):
        self.client.create().put("/a", io.BytesIO(BYTES), mode=0o755)
        _, path, headers, body = self.last_request()
        self.assertEqual(headers["Transfer-Encoding"], "chunked")
        self.assertIn("mode=755", path)
        self.assertEqual(body, BYTES)

    def test_get_to_tells_a_body_that_is_cut(self):
        sandbox = self.client.create()
        sandbox.put("/cut", BYTES)
        with self.assertRaises(cloche.ClocheError):
            sandbox.get("/cut")

    def test_get_a_range(self):
        sandbox = self.client.create()
        sandbox.put("/a", b"0123456789")
        self.assertEqual(sandbox.get("/a", 2, 3), b"234")
        self.assertEqual(sandbox.get("/a", length=3), b"012")
        self.assertEqual(sandbox.get("/a", 8), b"89")
        self.assertEqual(sandbox.get("/a", -4), b"6789")
        for offset, length in ((0, 0), (0, -1), (-3, 2)):
            with self.assertRaises(ValueError):
                sandbox.get("/a", offset, length)
        self.assert_error("range_not_satisfiable", sandbox.get, "/a", 10)

    def test_stat(self):
        sandbox = self.client.create()
        sandbox.put("/d/a\udcff", b"12")
        found = sandbox.stat("/d/a\udcff")
        self.assertEqual((found.path, found.name, found.type, found.size, found.mode),
                         ("/d/a\udcff", "a\udcff", "file", 2, 0o644))
        self.assertIn("path=%2Fd%2Fa%FF", self.last_request()[1])
        self.assertEqual(sandbox.stat("/d", follow=True).type, "directory")
        self.assertIn("follow=true", self.last_request()[1])
        self.assert_error("file_not_found", sandbox.stat, "/none")

    def test_list_follows_pages_of_any_names(self):
        sandbox = self.client.create()
        names = ["a", "b\udcfe", "b\udcff", "c\nd", "e"]
        for name in names:
            sandbox.put("/d/" + name, b"")
        self.assertEqual([f.path for f in sandbox.list("/d/")], ["/d/" + n for n in names])
        self.assertEqual([f.name for f in sandbox.list(b"/d")], names)
        self.assertEqual(list(sandbox.list("/none")), [])

    def test_search_says_when_there_is_more(self):
        sandbox = self.client.create()
        for name in ("a.py", "b.py", "c.txt"):
            sandbox.put("/d/" + name, b"")
        found = sandbox.search("/d", "*.py")
        self.assertEqual(([f.name for f in found], found.truncated), (["a.py", "b.py"], False))
        found = sandbox.search("/d", "*.py", limit=1)
        self.assertEqual((len(found), found.truncated), (1, True))

    def test_changes(self):
        sandbox = self.client.create()
        self.assertTrue(sandbox.mkdir("/d", mode=0o700))
        self.assertEqual(json.loads(self.last_request()[3]),
                         {"path": "/d", "mode": "0700", "parents": True})
        sandbox.put("/d/a", b"a")
        sandbox.put("/d/b", b"b")
        self.assert_error("file_exists", sandbox.rename, "/d/a", "/d/b")
        sandbox.rename("/d/a", "/d/b", overwrite=True)
        sandbox.rename("/d/b", "/d/c\udcff")
        self.assertEqual(sandbox.get("/d/c\udcff"), b"a")
        sandbox.chmod("/d/c\udcff", 0o4711)
        self.assertEqual(json.loads(self.last_request()[3])["mode"], "4711")
        sandbox.symlink("../x", "/d/link")
        self.assertEqual(sandbox.stat("/d/link").target, "../x")

    def test_remove(self):
        sandbox = self.client.create()
        sandbox.put("/d/a", b"a")
        self.assert_error("directory_not_empty", sandbox.remove, "/d")
        sandbox.remove("/d", recursive=True)
        self.assert_error("file_not_found", sandbox.remove, "/d")

    def test_extend(self):
        sandbox = self.client.create()
        self.assertEqual(sandbox.extend(60)["timeout_s"], 60)

    def test_run(self):
        result = self.client.run(["echo", "hi"], template="python", mem_mib=128,
                                 files={"/in.txt": "text", "/in.bin": BYTES},
                                 collect=["/in.bin", "/missing"])
        self.assertEqual(result.stdout, b"hi")
        self.assertEqual(result.files, {"/in.bin": BYTES})
        self.assertEqual(result.missing["/missing"].code, "file_not_found")
        self.assertEqual(result.sandbox, {"pool": "hit"})

    def test_error_of_the_daemon(self):
        with self.assertRaises(cloche.ClocheError) as caught:
            self.client.create(template="nope")
        error = caught.exception
        self.assertEqual((error.code, error.status), ("template_not_found", 404))
        self.assertEqual((error.cause, error.remedy), ("a cause", "A remedy."))
        self.assertIn("no template nope", str(error))

    def test_no_daemon(self):
        with self.assertRaises(cloche.ClocheError) as caught:
            cloche.Client(self.fake.socket + ".none").info()
        self.assertEqual((caught.exception.code, caught.exception.status), ("unreachable", 0))
        self.assertIn("cloche serve", caught.exception.remedy)


if __name__ == "__main__":
    unittest.main()
