import io
import os
import sys
import tarfile
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cloche.tree  # noqa: E402
from fake_daemon import FakeDaemon  # noqa: E402


class TreeTest(unittest.TestCase):
    def setUp(self):
        self.fake = FakeDaemon()
        self.addCleanup(self.fake.close)
        self.sandbox = cloche.Client(self.fake.socket, timeout=10).create()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        self.tree = os.path.join(self.dir, "tree")
        os.makedirs(os.path.join(self.tree, "sub dir/empty"))
        with open(os.path.join(os.fsencode(self.tree), b"\xff name"), "wb") as f:
            f.write(bytes(300000))
        os.symlink("\udcff name", os.path.join(self.tree, "link"))
        os.mkfifo(os.path.join(self.tree, "fifo"))

    def keep(self, *members):
        """Lets the fake have an archive of these (name, type, link)."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, kind, link in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.mode = kind, link, 0o6755
                archive.addfile(member)
        self.fake.sandboxes[self.sandbox.id]["tree"] = out.getvalue()

    def test_there_and_back(self):
        self.assertEqual(self.sandbox.put_tree(self.tree, "/x")["path"], "/x")
        with tarfile.open(fileobj=io.BytesIO(self.fake.sandboxes[self.sandbox.id]["tree"])) as sent:
            self.assertEqual(sorted(sent.getnames()), [".", "./link", "./sub dir",
                                                       "./sub dir/empty", "./\udcff name"])
            self.assertEqual({(m.uid, m.gid, m.uname) for m in sent}, {(0, 0, "")})
        back = os.path.join(self.dir, "new/back")
        self.assertEqual(self.sandbox.get_tree("/x", back), {
            "files": 1, "directories": 3, "symlinks": 1, "bytes": 300000, "skipped": 3})
        self.assertEqual(sorted(os.listdir(back)), ["link", "sub dir", "\udcff name"])
        self.assertEqual(os.path.getsize(os.path.join(back, "link")), 300000)

    def test_one_file(self):
        self.sandbox.put_tree(os.path.join(self.tree, "link"), "/x")
        with tarfile.open(fileobj=io.BytesIO(self.fake.sandboxes[self.sandbox.id]["tree"])) as sent:
            self.assertEqual(sent.getnames(), ["\udcff name"])

    def test_what_cannot_be_read_is_no_success(self):
        with self.assertRaises(FileNotFoundError):
            self.sandbox.put_tree(os.path.join(self.dir, "none"), "/x")
        self.assertNotIn("tree", self.fake.sandboxes[self.sandbox.id])

    def test_a_refusal_is_the_daemons(self):
        self.fake.sandboxes.clear()
        with self.assertRaises(cloche.ClocheError) as caught:
            self.sandbox.put_tree(self.tree, "/x")
        self.assertEqual(caught.exception.code, "sandbox_gone")

    def test_a_reply_that_is_cut(self):
        self.keep(("f", tarfile.REGTYPE, ""))
        with self.assertRaises(cloche.ClocheError) as caught:
            self.sandbox.get_tree("/cut", os.path.join(self.dir, "cut"))
        self.assertEqual(caught.exception.code, "unreachable")

    HOSTILE = (("../f", tarfile.REGTYPE, ""), ("l", tarfile.SYMTYPE, "../.."),
               ("l", tarfile.SYMTYPE, "/etc"), ("d", tarfile.CHRTYPE, ""),
               ("p", tarfile.FIFOTYPE, ""), ("h", tarfile.LNKTYPE, "../tree/link"))

    def test_hostile(self):
        for member in self.HOSTILE:
            self.keep(member)
            with self.subTest(member), self.assertRaises(tarfile.TarError):
                self.sandbox.get_tree("/x", os.path.join(self.dir, "hostile"))
        self.assertFalse(os.path.exists(os.path.join(self.dir, "f")))

    def test_the_filter_for_an_older_python(self):
        top = os.path.join(self.dir, "older")
        os.mkdir(top)
        os.symlink("..", os.path.join(top, "up"))

        def judge(name, kind, link, mode=0o6755):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode, member.uid = kind, link, mode, 12345
            return cloche.tree.data_filter(member, top)
        for member in self.HOSTILE + (("up/f", tarfile.REGTYPE, ""), ("/f", tarfile.REGTYPE, "")):
            with self.subTest(member), self.assertRaises(tarfile.TarError):
                judge(*member)
        fine = judge("a/b", tarfile.REGTYPE, "")
        self.assertEqual((fine.mode, fine.uid), (0o755, os.getuid()))
        for mode, kept in ((0o600, 0o600), (0o666, 0o644), (0o077, 0o644), (0o700, 0o700)):
            self.assertEqual(judge("a/b", tarfile.REGTYPE, "", mode).mode, kept)
        self.assertEqual(judge("a/l", tarfile.SYMTYPE, "../c").linkname, "../c")
