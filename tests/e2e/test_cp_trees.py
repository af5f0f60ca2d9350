"""`cloche cp` of directories both ways, and against a daemon that passes on a hostile archive."""
import io
import os
import socketserver
import tarfile
import tempfile
import threading

from harness import Case, DaemonTest, run_cli
from test_trees import look, make_tree


class CopyTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sandbox = cls.client.create(template="base")
        folder = tempfile.TemporaryDirectory(prefix="cloche-cp-")
        cls.addClassCleanup(folder.cleanup)
        cls.dir = folder.name
        cls.tree = os.path.join(cls.dir, "tree")
        make_tree(cls.tree)
        cls.expected = look(cls.tree)

    def cp(self, source, target):
        done = self.daemon.cli("cp", source, target)
        self.assertEqual((done.returncode, done.stdout), (0, b""), done.stderr)
        return done.stderr

    def names(self, path):
        return [file.name for file in self.sandbox.list(path)]

    def test_there_and_back(self):
        box, here = self.sandbox.id, os.path.join(self.dir, "back")
        self.assertEqual(self.cp(self.tree, f"{box}:/workspace/copy"), b"")
        self.assertEqual(self.cp(f"{box}:/workspace/copy", here), b"")
        self.assertEqual(look(here), self.expected)
        owner = self.sandbox.stat("/workspace/copy/big")
        self.assertEqual((owner.uid, owner.gid), (0, 0))
        # A directory that is there, and a slash at the end, keep the source's name.
        self.cp(f"{box}:/workspace/copy/bin/", here)
        self.assertEqual(sorted(os.listdir(os.path.join(here, "bin"))),
                         ["hard", "link", "run me.sh"])
        self.cp(f"{box}:/workspace/copy/bin", here + "/empty dir")
        self.assertEqual(os.listdir(here + "/empty dir"), ["bin"])
        self.cp(self.tree + "/bin/", f"{box}:/workspace/slash/")
        self.assertEqual(self.names("/workspace/slash"), ["bin"])
        self.cp(self.tree + "/bin/.", f"{box}:/workspace/dot/")
        self.assertEqual(self.names("/workspace/dot"), ["hard", "link", "run me.sh"])
        # A single file still goes as one, and is added to what is there.
        self.cp(self.tree + "/big", f"{box}:/workspace/dot/")
        self.assertEqual(len(self.names("/workspace/dot")), 4)

    def test_what_is_left_out_and_what_fails(self):
        box = self.sandbox.id
        odd = os.path.join(self.dir, "odd")
        os.mkdir(odd)
        os.mkfifo(odd + "/fifo")
        self.assertIn(b"left out: 1 ", self.cp(odd, f"{box}:/workspace/odd"))
        made = self.sandbox.exec(shell="mkdir /tmp/odd; cd /tmp/odd; mkfifo a b; echo x > f; "
                                       "chmod 6777 f; ln -s /etc out")
        self.assertTrue(made.ok)
        self.assertIn(b"left out: 2 ", self.cp(f"{box}:/tmp/odd", odd))
        there = os.lstat(odd + "/odd/f")
        self.assertEqual(there.st_mode & 0o7022, 0)  # no special bits; the umask counts
        self.assertEqual(os.readlink(odd + "/odd/out"), "/etc")
        for source, target, code in ((f"{box}:/none", odd, 125), (odd, f"{box}:/dev/null", 125),
                                     (odd, "sb_none:/x", 125), (odd, f"{box}:x", 2),
                                     (f"{box}:/tmp/odd", odd + "/no/parent", 125),
                                     (f"{box}:/tmp/odd", "-", 125)):
            done = self.daemon.cli("cp", source, target)
            self.assertEqual(done.returncode, code, (source, target, done.stderr))
            self.assertTrue(done.stderr)
        self.assertEqual(self.daemon.cli("cp", "--help").returncode, 0)


def member(name, kind=tarfile.REGTYPE, link="", data=b"", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    return info, data


class Hostile(socketserver.StreamRequestHandler):
    """What a daemon would answer for a directory, with any archive as its content."""

    def handle(self):
        line = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        body = b'{"type":"directory"}' if b"/stat" in line else self.server.archive
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                         b"X-Cloche-Skipped: 0\r\nConnection: close\r\n\r\n%x\r\n%s\r\n"
                         % (len(body), body))
        if b"/stat" in line or not self.server.is_cut:
            self.wfile.write(b"0\r\n\r\n")


class HostileTest(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cloche-hostile-")
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        self.socket = os.path.join(self.dir, "sock")
        self.server = socketserver.ThreadingUnixStreamServer(self.socket, Hostile)
        self.server.is_cut = False
        self.addCleanup(self.server.server_close)
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        os.mkdir(os.path.join(self.dir, "out"))
        with open(os.path.join(self.dir, "out/victim"), "w", encoding="utf-8") as f:
            f.write("victim")

    def get(self, number, *members):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for info, data in members:
                archive.addfile(info, io.BytesIO(data))
        self.server.archive = out.getvalue()
        target = os.path.join(self.dir, f"in{number}")
        return target, run_cli("cp", "sb_x:/d", target, socket_path=self.socket)

    def test_nothing_leaves_the_directory(self):
        link = tarfile.SYMTYPE
        outside = os.path.join(self.dir, "out")
        for number, members in enumerate((
                [member("../out/f", data=b"x")],
                [member(outside + "/f", data=b"x")],
                [member("a/../../out/f", data=b"x")],
                [member("l", link, "../out"), member("l/f", data=b"x")],
                [member("l", link, outside), member("l/victim", data=b"x")],
                [member("l", link, "../out"), member("l/d", tarfile.DIRTYPE)],
                [member("h", tarfile.LNKTYPE, outside + "/victim")],
                [member("dev", tarfile.CHRTYPE)],
                [member("fifo", tarfile.FIFOTYPE)])):
            with self.subTest(number=number):
                _, done = self.get(number, *members)
                self.assertEqual(done.returncode, 125, done.stderr)
                self.assertEqual(os.listdir(outside), ["victim"])
                with open(outside + "/victim", encoding="utf-8") as f:
                    self.assertEqual(f.read(), "victim")
                self.assertEqual(os.stat(outside + "/victim").st_nlink, 1)

    def test_links_are_replaced_and_not_followed(self):
        target, done = self.get("same", member("l", tarfile.SYMTYPE, "../out/victim"),
                                member("l", data=b"new"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(os.path.islink(target + "/l"))
        with open(os.path.join(self.dir, "out/victim"), encoding="utf-8") as f:
            self.assertEqual(f.read(), "victim")

    def test_special_bits_are_dropped_and_owners_are_ours(self):
        info, data = member("suid", data=b"x", mode=0o6755)
        info.uid, info.gid = 12345, 54321
        target, done = self.get("bits", (info, data), member("d", tarfile.DIRTYPE, mode=0o1777))
        self.assertEqual(done.returncode, 0, done.stderr)
        st = os.stat(target + "/suid")
        self.assertEqual((st.st_mode & 0o7000, st.st_uid), (0, os.geteuid()))
        self.assertEqual(os.stat(target + "/d").st_mode & 0o7000, 0)

    def test_a_reply_that_is_cut_is_an_error(self):
        self.server.is_cut = True
        _, done = self.get("cut", member("f", data=b"x"))
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"closed the connection", done.stderr)
        self.assertEqual(os.listdir(os.path.join(self.dir, "out")), ["victim"])
