"""Files of a sandbox: what they are, lists and searches, changes, ranges; and input that is bad."""
import contextlib
import http.client
import json
import socket

import cloche

from harness import DaemonTest, kvm_kind, wait_for

# One command makes it all: each costs tenths of a second where the guest's kernel is interpreted.
TREE = r"""
set -e
mkdir -p /workspace/t/a/b/c /workspace/t/empty /workspace/keep
cd /workspace/t
echo 12345 > x.py; echo 1 > a/y.py; echo 2 > a/b/c/z.py; echo 3 > a/b/c/z.txt
chmod 4750 x.py; touch -d '1969-12-31 23:59:58' x.py
ln -s /workspace/keep a/out; ln -s ../a a/loop; echo kept > /workspace/keep/file
mkfifo fifo; printf bad > "$(printf 'bad\377')"; printf nl > "$(printf 'new\nline')"
mkdir many; cd many; seq 10000 10029 | sed s/^/n/ | xargs touch
"""


class FilesTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sandbox = cls.client.create(template="base", timeout_s=3600)
        made = cls.sandbox.exec(shell=TREE)
        assert made.ok, made.stderr

    def url(self, call="", **query):
        return self.sandbox._files(query, call)

    def test_stat(self):
        found = self.sandbox.stat("/workspace/t/x.py")
        self.assertEqual((found.path, found.type, found.size, found.mode, found.uid, found.gid),
                         ("/workspace/t/x.py", "file", 6, 0o4750, 0, 0))
        self.assertEqual(found.mtime, "1969-12-31T23:59:58.000000000Z")
        self.assertEqual(self.sandbox.stat("/workspace/t/fifo").type, "fifo")
        self.assertEqual(self.sandbox.stat("/dev/null").type, "char_device")
        self.assertEqual(self.sandbox.stat("/dev/vda").type, "block_device")
        self.assertEqual(self.sandbox.stat("/").type, "directory")
        link = self.sandbox.stat("/workspace/t/a/out")
        self.assertEqual((link.type, link.target), ("symlink", "/workspace/keep"))
        self.assertEqual(self.sandbox.stat("/workspace/t/a/out", follow=True).type, "directory")
        self.assert_refused(404, "file_not_found", self.sandbox.stat, "/workspace/none")

    def test_list(self):
        found = list(self.sandbox.list("/workspace/t"))
        self.assertEqual([f.name for f in found], ["a", "bad\udcff", "empty", "fifo", "many",
                                                   "new\nline", "x.py"])
        self.assertEqual(list(self.sandbox.list("/workspace/t/empty/")), [])
        self.assertEqual([f.name for f in self.sandbox.list("/workspace/t/many")],
                         [f"n{i}" for i in range(10000, 10030)])
        status, page, _ = self.daemon.request("GET", self.url("/list", path="/workspace/t/many",
                                                              limit=3, after="n10010"))
        self.assertEqual((status, [e["name"] for e in page["entries"]], page["next"]),
                         (200, ["n10011", "n10012", "n10013"], "n10013"))
        self.assert_refused(422, "file_refused", list, self.sandbox.list("/workspace/t/x.py"))
        self.assert_refused(404, "file_not_found", list, self.sandbox.list("/workspace/none"))

    def test_search(self):
        def found(pattern, **options):
            return sorted(f.path.removeprefix("/workspace/t/")
                          for f in self.sandbox.search("/workspace/t", pattern, **options))
        self.assertEqual(found("**/*.py"), ["a/b/c/z.py", "a/y.py", "x.py"])
        self.assertEqual(found("*/*.py"), ["a/y.py"])
        self.assertEqual(found("many/n100[0-1]?"), [f"many/n{i}" for i in range(10000, 10020)])
        self.assertEqual(found("bad?"), ["bad\udcff"])
        limited = self.sandbox.search("/workspace/t", "many/*", limit=20)
        self.assertEqual((len(limited), limited.truncated), (20, True))
        self.assertFalse(self.sandbox.search("/workspace/t", "many/*", limit=30).truncated)
        # Neither links nor other file systems are entered, but one may start there.
        self.assertEqual(found("a/out/*") + found("a/loop/*"), [])
        self.assertEqual(list(self.sandbox.search("/", "proc/version")), [])
        self.assertEqual([f.path for f in self.sandbox.search("/proc", "versio?")],
                         ["/proc/version"])

    def test_changes(self):
        box, top = self.sandbox, "/workspace/changes"
        self.assertTrue(box.mkdir(top + "/a/b", mode=0o2770))
        self.assertFalse(box.mkdir(top + "/a/b"))
        self.assertEqual(box.stat(top + "/a/b").mode, 0o2770)
        box.put(top + "/one", "1")
        box.put(top + "/two", "22")
        self.assert_refused(409, "file_exists", box.mkdir, top + "/one")
        self.assert_refused(404, "file_not_found", box.mkdir, top + "/x/y", parents=False)
        self.assert_refused(409, "file_exists", box.rename, top + "/one", top + "/two")
        box.rename(top + "/one", top + "/two", overwrite=True)
        self.assertEqual(box.get(top + "/two"), b"1")
        self.assert_refused(404, "file_not_found", box.rename, top + "/one", top + "/x")
        error = self.assert_refused(422, "file_refused", box.rename, top + "/a", top + "/a/b/c")
        self.assertIn("Invalid argument", error.cause)
        box.rename(top + "/a", top + "/moved")
        box.chmod(top + "/two", 0o711)
        self.assertEqual(box.stat(top + "/two").mode, 0o711)
        self.assert_refused(404, "file_not_found", box.chmod, top + "/none", 0o600)
        box.symlink("two", top + "/link")
        self.assertEqual(box.get(top + "/link"), b"1")
        self.assert_refused(409, "file_exists", box.symlink, "x", top + "/link")

    def test_remove(self):
        box, top = self.sandbox, "/workspace/remove"
        made = box.exec(shell=f"mkdir -p {top}/a/b {top}/m && cd {top} && ln -s /workspace/keep a/l"
                              " && touch a/f a/b/g && ln -s /workspace/keep link && "
                              "mount -t tmpfs none m && touch m/x")
        self.assertEqual((made.exit_code, made.stderr), (0, b""))
        box.mkdir(top + "/deep")
        for _ in range(20):  # deeper than a path can be long
            box.mkdir(top + "/n")
            box.rename(top + "/deep", top + "/n/" + 250 * "d")
            box.rename(top + "/n", top + "/deep")
        self.assert_refused(404, "file_not_found", box.remove, top + "/none")
        error = self.assert_refused(409, "directory_not_empty", box.remove, top)
        self.assertIn("recursive", error.remedy)
        box.remove(top + "/link", recursive=True)
        error = self.assert_refused(422, "file_refused", box.remove, top, recursive=True)
        self.assertIn(top + "/m", error.cause)
        for path in ("/", "/proc"):
            self.assert_refused(422, "file_refused", box.remove, path, recursive=True)
        self.assertTrue(box.exec(shell=f"ls {top}/m/x && umount {top}/m").ok)
        box.remove(top, recursive=True)
        self.assert_refused(404, "file_not_found", box.stat, top)
        self.assertEqual(box.get("/workspace/keep/file"), b"kept\n")

    def test_names_of_any_bytes(self):
        box = self.sandbox
        for name in ("new\nline", "bad\udcff"):
            path = "/workspace/t/" + name
            self.assertEqual(box.stat(path).path, path)
            self.assertEqual(box.get(path), name[:3].replace("new", "nl").encode())
        moved = "/workspace/moved\udcfe"
        box.put("/workspace/\udcfd", "x")
        box.rename("/workspace/\udcfd", moved)
        self.assertEqual(box.get(moved), b"x")
        box.remove(moved)
        self.assert_refused(404, "file_not_found", box.stat, moved)

    def test_ranges(self):
        box, path = self.sandbox, "/workspace/range"
        data = bytes(range(256)) * 1200  # more than the channel's window
        box.put(path, data)
        for offset, length in ((0, 10), (1000, 270000), (307190, None), (-7, None), (5, 10 ** 9)):
            end = None if length is None else offset + length
            self.assertEqual(box.get(path, offset, length), data[offset:end])
        self.assert_refused(416, "range_not_satisfiable", box.get, path, len(data))
        for asked, status, content_range in (
                ("bytes=0-4", 206, f"bytes 0-4/{len(data)}"),
                ("bytes=999999-", 416, f"bytes */{len(data)}"),
                ("bytes=0-1,5-6", 200, None), ("bytes=5-1", 200, None), ("rows=1-2", 200, None)):
            got, body, headers = self.daemon.request("GET", self.url(path=path), None,
                                                     {"Range": asked})
            self.assertEqual((got, headers.get("Content-Range")), (status, content_range))
            self.assertEqual(len(body), {206: 5, 200: len(data), 416: 1}[status])
        # The kernel tells no size of its files: they come whole.
        status, body, headers = self.daemon.request("GET", self.url(path="/proc/version"), None,
                                                    {"Range": "bytes=2-4"})
        self.assertEqual((status, body[:13]), (200, b"Linux version"))


class WatchTest(DaemonTest):
    def test_watch(self):
        box = self.client.create()
        box.mkdir("/workspace/t/a")
        events = box.watch("/workspace/t", recursive=True)

        def until(kind, path):
            """Reads events up to that one."""
            for event in events:
                if (event["type"], event.get("path")) == (kind, path):
                    return event

        with contextlib.closing(events):
            self.assertEqual(next(events), {"type": "watching"})
            box.put("/workspace/t/a/x", "1")
            self.assertFalse(until("moved", "/workspace/t/a/x")["directory"])  # from its .part
            done = box.exec(shell="cd /workspace/t && mkdir -p n/m && echo 1 >n/m/y && mv a b && "
                                  "rm b/x && ln n/m/y z")
            self.assertTrue(done.ok, done.stderr)
            self.assertEqual(until("created", "/workspace/t/n"), {
                "type": "created", "path": "/workspace/t/n", "directory": True})
            until("created", "/workspace/t/n/m/y")
            self.assertEqual(until("moved", "/workspace/t/b")["from"], "/workspace/t/a")
            until("deleted", "/workspace/t/b/x")
            until("created", "/workspace/t/z")
            box.remove("/workspace/t", recursive=True)
            until("deleted", "/workspace/t/z")
            for event in events:  # the end comes with the directory's
                self.assertEqual(event["type"], "deleted")
        self.assert_refused(404, "file_not_found", lambda: next(box.watch("/workspace/t")))

    def test_end_of_the_sandbox_is_no_end_of_the_watch(self):
        box = self.client.create()
        events = box.watch("/workspace")
        self.assertEqual(next(events), {"type": "watching"})
        box.delete()
        with self.assertRaises(cloche.ClocheError):
            list(events)


class BadInputTest(DaemonTest):
    def test_refusals(self):
        box = self.client.create()
        files = f"/v1/sandboxes/{box.id}/files"
        for method, call, body, code in (  # all that there are: tests/role/api
                ("GET", "/stat?path=/a%00b", None, "bad_request"),
                ("GET", "/search?path=/&pattern=/etc/*", None, "invalid_field"),
                ("DELETE", "?path=/a/../b&recursive=true", None, "invalid_path"),
                ("POST", "/rename", {"from": "/a", "to": "/b/../c"}, "invalid_path"),
                ("POST", "/mkdir", {"path": "/" + "x" * 5000}, "invalid_field")):
            with self.subTest(call=call, body=body):
                status, reply, _ = self.daemon.request(method, files + call,
                                                       None if body is None else json.dumps(body))
                self.assertEqual((status, reply["error"]["code"]), (400, code), reply)
        self.assert_refused(400, "invalid_path", box.mkdir, "/workspace/" + "x" * 300)
        self.assertTrue(box.exec(["true"]).ok)

    @kvm_kind
    def test_a_full_disk(self):
        """The guest is told, so is who uploads, and the old file stays."""
        box = self.client.create()
        box.put("/workspace/file", "old")
        # All but a megabyte, so that the upload that does not fit is a short one.
        fill = ("fallocate -l 100M /workspace/a; echo $?; rm -f /workspace/a; "
                "set -- $(df -k /workspace | tail -1); fallocate -l $((($4 - 1024) * 1024)) /tmp/f")
        result = box.exec(shell=fill)
        self.assertEqual((result.stdout, result.exit_code), (b"1\n", 0), result.stderr)
        self.assertIn(b"No space left", result.stderr)
        self.assert_refused(507, "disk_full", box.put, "/workspace/file", bytes(3 << 20))
        self.assertEqual([f.name for f in box.list("/workspace")], ["file"])
        self.assertEqual(box.get("/workspace/file"), b"old")

    def test_a_client_that_vanishes_leaves_nothing(self):
        box = self.client.create()
        box.put("/workspace/file", "old")
        head = (f"PUT {box._files({'path': '/workspace/file'})} HTTP/1.1\r\nHost: x\r\n"
                "Content-Length: 1000000\r\n\r\n")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(self.daemon.socket)
            s.sendall(head.encode() + b"half of it")
            wait_for(lambda: len(list(box.list("/workspace"))) == 2, 30, "its temporary file")
        wait_for(lambda: [f.name for f in box.list("/workspace")] == ["file"], 30, "that one gone")
        self.assertEqual(box.get("/workspace/file"), b"old")

    def test_a_file_that_shrinks_is_no_short_success(self):
        """The guest can send but a window ahead of a client that does not read."""
        box = self.client.create()
        box.exec(shell="fallocate -l 20M /workspace/big")
        connection, response = self.client._open("GET", box._files({"path": "/workspace/big"}))
        with contextlib.closing(connection):
            self.assertEqual(response.length, 20 << 20)
            self.assertTrue(box.exec(shell="truncate -s 100 /workspace/big").ok)
            size = 0
            with contextlib.suppress(OSError, http.client.HTTPException):
                while piece := response.read(65536):
                    size += len(piece)
            self.assertLess(size, 20 << 20)
            self.assertNotEqual(response.length, 0)


class ChangesTest(DaemonTest):
    def test_changes_of_an_exec(self):
        box = self.client.create(timeout_s=900)
        box.put("/workspace/kept", "1")
        box.put("/workspace/changed", "1")
        box.put("/workspace/gone", "1")
        box.put("/tmp/t", "1")
        script = ("cd /workspace && echo 2 >changed && rm gone && mkdir -p new && echo 1 >new/a "
                  "&& echo x >>/etc/passwd && rm /etc/group && echo 2 >/tmp/t && cat kept")
        wanted = {"/workspace/changed": "modified", "/workspace/gone": "deleted",
                  "/workspace/new": "created", "/workspace/new/a": "created",
                  "/etc/passwd": "modified", "/etc/group": "deleted", "/tmp/t": "modified"}
        result = box.exec(shell=script, changes=True)
        self.assertTrue(result.ok, result.stderr)
        self.assertEqual((result.changes, result.changes_truncated), (wanted, False))
        *_, (kind, result) = box.exec_stream(shell="echo 3 >/workspace/new/a; echo out",
                                             changes=True, session="s")
        self.assertEqual((kind, result.changes), ("end", {"/workspace/new/a": "modified"}))
        self.assertEqual(box.exec(["true"], changes=True).changes, {})
        self.assertIsNone(box.exec(["true"]).changes)
        error = self.assert_refused(400, "invalid_field", box.start, ["true"], changes=True)
        self.assertIn("changes", error.message)
        self.assert_refused(422, "command_not_started", box.exec, ["/no/such"], changes=True)
        stream = box.exec_stream(shell="echo ready; reboot -f; sleep 60", changes=True)
        *_, (_, result) = stream
        self.assertEqual((result.end, result.changes), ("sandbox_gone", None))
