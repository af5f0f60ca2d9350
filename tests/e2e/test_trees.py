"""Whole trees in and out of a sandbox: what comes is what went, and hostile ones are refused."""
import contextlib
import io
import os
import re
import subprocess
import tarfile
import tempfile

import cloche

from harness import DaemonTest, read_text, wait_for

TIME = 1500000000
BIG = os.urandom(300 * 1024)


def make_tree(top):
    """All that a tree can have, with names of all kinds."""
    def put(name, data=b"", mode=0o644):
        path = os.path.join(os.fsencode(top), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, mode)
        os.utime(path, (TIME, TIME))

    put(b"empty file")
    put(b"big", BIG, 0o600)
    put(b"bin/run me.sh", b"#!/bin/sh\necho ran\n", 0o755)
    put("gr\u00fc\u00dfe/u\u0308 \u65e5\u672c".encode(), b"utf-8")
    put(b"bad \xff\xfe name", b"no utf-8")
    put(b"new\nline", b"x")
    put(b"/".join([b"deep"] + [b"d" * 60] * 5 + [b"leaf"]), b"leaf")
    os.makedirs(os.path.join(top, "empty dir"))
    os.symlink("../big", os.path.join(top, "bin/link"))
    os.symlink("nowhere", os.path.join(top, "dangling"))
    os.link(os.path.join(top, "big"), os.path.join(top, "bin/hard"))


def look(top):
    """path -> what it is, of everything below a local directory."""
    found, base = {}, os.fsencode(top)
    for folder, names, files in os.walk(base):
        for name in names + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            if os.path.islink(path):
                what = ("link", os.readlink(path))
            elif os.path.isdir(path):
                what = ("directory", st.st_mode & 0o7777)
            else:
                with open(path, "rb") as f:
                    what = ("file", st.st_mode & 0o7777, int(st.st_mtime), f.read())
            found[os.path.relpath(path, base)] = what
    return found


def archive_of(*members):
    """An archive with members (name, type, link name or content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(value)
                archive.addfile(member, io.BytesIO(value))
            else:
                member.linkname = value
                archive.addfile(member)
    return out.getvalue()


class TreesTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sandbox = cls.client.create(template="base", timeout_s=3600)
        folder = tempfile.TemporaryDirectory(prefix="cloche-trees-")
        cls.addClassCleanup(folder.cleanup)
        cls.dir = folder.name
        cls.tree = os.path.join(cls.dir, "tree")
        make_tree(cls.tree)
        cls.expected = look(cls.tree)

    def local(self, name):
        return os.path.join(self.dir, self.id().rpartition(".")[2] + name)

    def url(self, path, box=None):
        return (box or self.sandbox)._files({"path": path}, "/tar")

    def put_raw(self, path, data, headers=None):
        status, reply, _ = self.daemon.request("PUT", self.url(path), data, headers)
        return status, reply

    def assert_put_refused(self, path, data, status, code, words):
        got, reply = self.put_raw(path, data)
        self.assertEqual((got, reply["error"]["code"]), (status, code), reply)
        error = reply["error"]
        self.assertIn(words, error["message"] + error.get("cause", ""))
        return error

    def test_python_there_and_back(self):
        reply = self.sandbox.put_tree(self.tree, "/workspace/py")
        self.assertEqual(reply["path"], "/workspace/py")
        kinds = [what[0] for what in self.expected.values()]
        self.assertEqual((reply["files"], reply["directories"], reply["symlinks"]),
                         tuple(kinds.count(kind) for kind in ("file", "directory", "link")))
        # The hard link has no content of its own.
        total = sum(len(what[3]) for what in self.expected.values() if what[0] == "file")
        self.assertEqual(reply["bytes"], total - len(BIG))
        ran = self.sandbox.exec(shell="cd /workspace/py && ./'bin/run me.sh' && cat bad* bin/link "
                                      "| wc -c && stat -c '%u %g %h %a' big 'empty dir'")
        self.assertEqual(ran.text.split(), ["ran", str(len(BIG) + 8), "0", "0", "2", "600",
                                            "0", "0", "2", "755"], ran.stderr)
        back = self.local("back")
        counts = self.sandbox.get_tree("/workspace/py", back)
        self.assertEqual(counts["skipped"], 0)
        self.assertEqual(look(back), self.expected)

    def test_tar_and_curl(self):
        """The two command lines of the manual."""
        socket_path, target = self.daemon.socket, "http://cloche" + self.url("/workspace/curl")
        put = subprocess.run(
            ["bash", "-c", 'set -o pipefail; tar c -C "$1" . | curl -sS --fail-with-body '
             '--unix-socket "$2" -T - "$3"', "-", self.tree, socket_path, target],
            capture_output=True, timeout=120)
        self.assertEqual(put.returncode, 0, put)
        self.assertIn(b'"files":', put.stdout)
        back = self.local("back")
        os.mkdir(back)
        get = subprocess.run(
            ["bash", "-c", 'set -o pipefail; curl -sS --fail-with-body --unix-socket "$2" "$3" | '
             'tar x -C "$1"', "-", back, socket_path, target], capture_output=True, timeout=120)
        self.assertEqual(get.returncode, 0, get)
        self.assertEqual(look(back), self.expected)
        for form in ("gnu", "ustar", "pax"):
            made = subprocess.run(["tar", "c", f"--format={form}", "-C", self.tree, "bin", "big"],
                                  capture_output=True, check=True, timeout=60)
            status, reply = self.put_raw("/workspace/" + form, made.stdout)
            self.assertEqual((status, reply["files"], reply["directories"]), (200, 3, 1), reply)
        holes = self.local("holes")
        os.mkdir(holes)
        with open(holes + "/file", "wb") as f:
            f.seek(200000)
            f.write(b"behind a hole")
        made = subprocess.run(["tar", "cS", "-C", holes, "."], capture_output=True, check=True,
                              timeout=60)
        self.assertLess(len(made.stdout), 100000)
        self.assertEqual(self.put_raw("/workspace/holes", made.stdout)[0], 200)
        self.assertEqual(self.sandbox.get("/workspace/holes/file"),
                         bytes(200000) + b"behind a hole")

    def test_what_a_tree_leaves_out_is_told(self):
        made = self.sandbox.exec(shell="mkdir -p /workspace/odd/sub && cd /workspace/odd && "
                                       "mkfifo pipe sub/pipe && mknod dev c 1 3 && echo x > file "
                                       "&& ln -s / root && touch -d @5 file && chmod 4711 file")
        self.assertTrue(made.ok, made.stderr)
        status, data, headers = self.daemon.request("GET", self.url("/workspace/odd"))
        self.assertEqual((status, headers["X-Cloche-Skipped"]), (200, "3"))
        self.assertEqual(headers["Content-Type"], "application/x-tar")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            self.assertEqual(sorted(archive.getnames()), ["file", "root", "sub"])
            member = archive.getmember("file")
            self.assertEqual((member.mode, member.mtime, member.size), (0o4711, 5, 2))
            self.assertEqual(archive.getmember("root").linkname, "/")
        # A link that leads out is not made here.
        with self.assertRaises(tarfile.TarError):
            self.sandbox.get_tree("/workspace/odd", self.local("odd"))
        self.assertEqual(self.daemon.request("HEAD", self.url("/workspace/odd"))[0], 200)

    def test_one_file_and_refusals(self):
        self.sandbox.put("/workspace/one.txt", "one")
        here = self.local("here")
        self.assertEqual(self.sandbox.get_tree("/workspace/one.txt", here)["files"], 1)
        self.assertEqual(look(here)[b"one.txt"][3], b"one")
        self.assertEqual(self.sandbox.put_tree(here + "/one.txt", "/workspace/ones")["files"], 1)
        self.assertEqual(self.sandbox.get("/workspace/ones/one.txt"), b"one")
        self.assert_refused(404, "file_not_found", self.sandbox.get_tree, "/none", here)
        self.assert_refused(422, "file_refused", self.sandbox.get_tree, "/dev/null", here)
        self.assert_refused(400, "invalid_path", self.sandbox.get_tree, "/a/../b", here)
        self.assert_refused(400, "invalid_path", self.sandbox.put_tree, here, "relative")
        self.assert_refused(422, "file_refused", self.sandbox.put_tree, here, "/workspace/one.txt")
        status, reply, _ = self.daemon.request("GET", self.url("/workspace") + "&gzip=1")
        self.assertEqual((status, reply["error"]["code"]), (400, "unknown_field"))

    def test_hostile_archives(self):
        """Whatever they say, nothing outside of the target changes."""
        top, link, fil = "/workspace/hostile", tarfile.SYMTYPE, tarfile.REGTYPE
        self.sandbox.exec(shell=f"mkdir -p {top}/out && echo kept > {top}/out/victim")
        cases = [
            ("archive_refused", "/workspace/hostile/out/f", ("/workspace/hostile/out/f", fil, b"")),
            ("archive_refused", "'..'", ("../out/f", fil, b"x")),
            ("archive_refused", "a/../../out/f", ("a/../../out/f", fil, b"x")),
            ("archive_refused", "hard link", ("h", tarfile.LNKTYPE, "../out/victim")),
            ("archive_refused", "device", ("d", tarfile.CHRTYPE, "")),
            ("archive_refused", "fifo", ("p", tarfile.FIFOTYPE, "")),
            ("file_refused", "l/f", ("l", link, "../out"), ("l/f", fil, b"x")),
            ("file_refused", "l/victim", ("l", link, "/workspace/hostile/out"),
             ("l/victim", fil, b"x")),
            ("file_refused", "h", ("l", link, "../out/victim"), ("h", tarfile.LNKTYPE, "l")),
            ("file_refused", "l", ("l", link, "../out"), ("l", tarfile.DIRTYPE, "")),
            ("file_refused", "h", ("h", tarfile.LNKTYPE, "none")),
            ("archive_refused", "owner", ("x" * 90, fil, b""), ("o", "uid", "")),
        ]
        for number, (code, words, *members) in enumerate(cases):
            if members[-1][1] == "uid":
                data = archive_of(members[0]).replace(b"0000000\x000000000\x00", b"\xff" * 16, 1)
                words, code = "", "archive_refused"  # its checksum is wrong as well
            else:
                data = archive_of(("before", fil, b"x"), *members, ("behind", fil, b"x"))
            with self.subTest(members=members):
                error = self.assert_put_refused(f"{top}/in{number}", data, 422, code, words)
                self.assertTrue(error["remedy"])
        left = self.sandbox.exec(shell=f"cd {top}; ls out; cat out/victim; stat -c %h out/victim; "
                                       "ls -d in*/behind; ls -d in*/before | wc -l")
        self.assertEqual(left.text.split(), ["victim", "kept", "1", str(len(cases) - 1)])

    def test_headers_that_do_not_end(self):
        """A map of holes without end is refused before it fills the daemon's memory."""
        status, clear = (f"/proc/{self.daemon.process.pid}/{name}"
                         for name in ("status", "clear_refs"))
        data = archive_of(("before", tarfile.REGTYPE, b"x"))[:1024]
        holes = tarfile.TarInfo("holes")
        holes.size = 1 << 26
        holes.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                             "GNU.sparse.realsize": "100"}
        data += holes.tobuf(tarfile.PAX_FORMAT) + b"99999999\n"
        data += b"0\n0\n" * ((24 << 20) // 4)

        def kib(field):
            return int(re.search(field + r":\s*(\d+) kB", read_text(status)).group(1))

        with open(clear, "w", encoding="ascii") as f:
            f.write("5")  # the peak is that of now
        before = kib("VmRSS")
        error = self.assert_put_refused("/workspace/holes-without-end", data, 422,
                                        "archive_refused", '"holes"')
        self.assertLess(kib("VmHWM") - before, 32 << 10)
        self.assertIn("sparse", error["remedy"])
        self.assertIn("1 entries were unpacked", error["cause"])
        left = self.sandbox.exec(shell="ls -A /workspace/holes-without-end")
        self.assertEqual(left.text.split(), ["before"])

    def test_archives_that_are_none(self):
        for data in (b"", b"junk" * 500, b"\x1f\x8b\x08" + bytes(600)):
            self.assert_put_refused("/workspace/none", data, 422, "archive_refused", "")
        whole = archive_of(("a", tarfile.REGTYPE, b"1"), ("b", tarfile.REGTYPE, bytes(2000)))
        for size in (512, 1024, 1536, 2048, 3584):
            error = self.assert_put_refused("/workspace/cut", whole[:size], 422, "archive_refused",
                                            "entries were unpacked")
        self.assertIn("2 entries were unpacked", error["cause"])
        self.assert_put_refused("/workspace/cut", whole + whole, 422, "archive_refused",
                                "behind its end")

    def test_a_full_disk(self):
        with self.client.create(template="base") as box:
            filled = box.exec(shell="fallocate -l $(($(stat -f -c '%a*%S' /workspace) - 2097152)) "
                                    "/workspace/fill")
            self.assertTrue(filled.ok, filled.stderr)
            names = [(f"f{i}", tarfile.REGTYPE, bytes(1 << 20)) for i in range(4)]
            status, reply, _ = self.daemon.request("PUT", self.url("/workspace/full", box),
                                                   archive_of(*names))
            self.assertEqual((status, reply["error"]["code"]), (507, "disk_full"), reply)
            self.assertIn("entries were unpacked", reply["error"]["cause"])
            self.assertTrue(reply["error"]["remedy"])
            left = box.exec(shell="rm -r /workspace/full; ls -a /workspace | grep -c part")
            self.assertEqual(left.text.strip(), "0")

    def test_too_many_at_once(self):
        """Each transfer has a thread, of which there are so many and no more."""
        waiting = []
        with contextlib.ExitStack() as stack:
            for _ in range(16):
                connection = stack.enter_context(contextlib.closing(
                    cloche.client.Connection(self.daemon.socket, 60)))
                connection.putrequest("PUT", self.url("/workspace/many"))
                connection.putheader("Content-Length", "10240")
                connection.endheaders()
                waiting.append(connection)
            self.assert_refused(503, "no_capacity", self.sandbox.put_tree, self.tree,
                                "/workspace/x")
            for connection in waiting:
                connection.send(archive_of(("many", tarfile.REGTYPE, b"x")).ljust(10240, b"\0"))
            for connection in waiting:
                self.assertEqual(connection.getresponse().status, 200)

    def test_a_sandbox_that_ends(self):
        box = self.client.create(template="base")
        connection = cloche.client.Connection(self.daemon.socket, 60)
        with contextlib.closing(connection):
            connection.putrequest("PUT", self.url("/workspace/gone", box))
            connection.putheader("Content-Length", str(1 << 20))
            connection.endheaders()
            box.delete()
            self.assertEqual(connection.getresponse().status, 410)
