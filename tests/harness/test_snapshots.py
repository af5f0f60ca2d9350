"""The store of snapshots: what was booted comes back as it was, and nothing piles up."""
import glob
import os
import subprocess
import sys
import tempfile
import unittest

from plant import TOP

sys.path.insert(0, os.path.join(TOP, "tests/e2e"))
import snapshots  # noqa: E402


class StoreTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cloche-store-")
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        usual = dict(os.environ)
        self.addCleanup(os.environ.update, usual)
        self.addCleanup(os.environ.clear)
        os.environ["E2E_STORE"] = self.store_dir = os.path.join(self.top, "store")
        self.write("images/vmlinux", b"kernel")
        self.write("images/base/rootfs.erofs", b"root")

    def write(self, name, data, hole=0):
        path = os.path.join(self.top, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
            f.truncate(len(data) + hole)
        return path

    def store(self, binary=b"binary"):
        snapshots.key_of.cache_clear()
        return snapshots.Store(self.write("cloche", binary), os.path.join(self.top, "images"))

    def boot(self, state, shape, manifest):
        folder = f"{state}/snapshots/{shape}"
        self.write(f"{folder}/manifest", manifest)
        self.write(f"{folder}/mem", b"memory" * 1000, hole=100 << 20)
        return os.path.join(self.top, state)

    def give(self, store, state, templates=("base",)):
        state = os.path.join(self.top, state)
        return state, store.give(state, os.geteuid(), templates)

    def test_there_and_back(self):
        given = {}
        self.store().take(self.boot("one", "base-1-128-64", b"m1"), given)
        self.assertEqual(given, {"base-1-128-64": b"m1"})
        state, given = self.give(self.store(), "two")
        self.assertEqual(given, {"base-1-128-64": b"m1"})
        mem = os.path.join(state, "snapshots/base-1-128-64/mem")
        with open(mem, "rb") as f:
            self.assertEqual(f.read(6000), b"memory" * 1000)
        self.assertEqual(os.path.getsize(mem), 6000 + (100 << 20))
        self.assertLess(os.stat(mem).st_blocks * 512, 1 << 20)  # its hole is one
        self.assertEqual(os.stat(state).st_mode & 0o777, 0o700)

    def test_another_template_is_not_given(self):
        self.store().take(self.boot("one", "python-1-256-1024", b"m1"), {})
        self.assertEqual(self.give(self.store(), "two")[1], {})

    def test_another_build_has_nothing(self):
        self.store().take(self.boot("one", "base-1-128-64", b"m1"), {})
        self.assertEqual(self.give(self.store(b"another binary"), "two")[1], {})
        self.write("images/base/rootfs.erofs", b"another root")
        self.assertEqual(self.give(self.store(), "three")[1], {})

    def test_what_was_booted_anew_replaces_it(self):
        store = self.store()
        store.take(self.boot("one", "base-1-128-64", b"m1"), {})
        state, given = self.give(store, "two")
        self.boot("two", "base-1-128-64", b"m2")
        store.take(state, given)
        self.assertEqual(self.give(store, "three")[1], {"base-1-128-64": b"m2"})

    def test_what_was_given_is_not_written_again(self):
        store = self.store()
        store.take(self.boot("one", "base-1-128-64", b"m1"), {})
        tar = glob.glob(store.dir + "/*")
        os.utime(tar[0], (1, 1))
        store.take(*self.give(store, "two"))
        self.assertEqual((glob.glob(store.dir + "/*"), os.path.getmtime(tar[0])), (tar, 1))

    def test_one_that_was_cut_is_dropped(self):
        for size in 0, 2000, 4608:
            store = self.store()
            store.take(self.boot("one", "base-1-128-64", b"m1"), {})
            os.truncate(os.path.join(store.dir, "base-1-128-64.tar"), size)
            self.assertEqual(self.give(store, f"state{size}")[1], {})
            self.assertEqual(os.listdir(store.dir), [])

    def test_old_ones_go(self):
        for number in range(snapshots.KEYS_KEPT + 3):
            os.utime(self.store(b"%d" % number).dir, (number, number))
        kept = self.store(b"now").dir
        left = glob.glob(self.store_dir + "/*")
        self.assertEqual(len(left), snapshots.KEYS_KEPT)
        self.assertIn(kept, left)

    def test_another_hosts_store_is_taken_over(self):
        self.write("store/k1/old.tar", b"old")
        self.write("store/back/k1/new.tar", b"new")
        self.write("store/back/k2/new.tar", b"new")
        subprocess.run(["python3", os.path.join(TOP, "tests/e2e/snapshots.py"), self.store_dir,
                        os.path.join(self.store_dir, "back")], check=True)
        found = sorted(os.path.relpath(path, self.store_dir)
                       for path in glob.glob(self.store_dir + "/k?/*"))
        self.assertEqual(found, ["k1/new.tar", "k1/old.tar", "k2/new.tar"])
