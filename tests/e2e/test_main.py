"""The main job: create, exec, files, delete; with the Python client, with curl, and in one call."""
import hashlib
import io
import json
import os
import subprocess

import cloche

from harness import DaemonTest, kvm_kind, wait_for

BYTES = bytes(range(256)) * 2048  # 512 KiB of every byte


@kvm_kind
class SandboxTest(DaemonTest):
    """One sandbox for all of these: making one is not what they test."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sandbox = cls.client.create(template="base")

    def test_create_says_what_it_made(self):
        described = self.sandbox.described
        self.assertRegex(self.sandbox.id, r"^sb_[0-9a-z]+$")
        self.assertEqual((described["state"], described["template"]), ("running", "base"))
        self.assertIn(described["pool"], ("hit", "cold", "boot"))
        times = described["times"]
        self.assertLess(0, times["restore_ms"])
        self.assertLess(times["restore_ms"], times["first_instruction_ms"])
        self.assertLess(times["first_instruction_ms"], times["ready_ms"])

    def test_exec(self):
        result = self.sandbox.exec(["sh", "-c", "echo out; echo err >&2; exit 3"])
        self.assertEqual((result.end, result.exit_code, result.signal), ("exited", 3, None))
        self.assertEqual((result.stdout, result.stderr), (b"out\n", b"err\n"))
        self.assertFalse(result.truncated)
        self.assertLess(0, result.usage["wall_ms"])
        self.assertLess(0, result.times["first_output_ms"])

    def test_exec_shell_env_cwd(self):
        result = self.sandbox.exec(shell="echo $A; pwd", env={"A": "b c"}, cwd="/tmp")
        self.assertEqual(result.stdout, b"b c\n/tmp\n")

    def test_exec_stdin_and_bytes(self):
        self.assertEqual(self.sandbox.exec(["cat"], stdin=BYTES).stdout, BYTES)

    def test_exec_signal(self):
        result = self.sandbox.exec(shell="kill -9 $$")
        self.assertEqual((result.end, result.exit_code, result.signal), ("signaled", None, 9))

    def test_exec_output_limit(self):
        result = self.sandbox.exec(["yes"], max_output_bytes=10000, timeout_ms=60000)
        self.assertEqual(result.end, "output_limit")
        self.assertTrue(result.truncated)
        self.assertLessEqual(len(result.stdout), 10000)

    def test_exec_stream_comes_as_it_is_made(self):
        """The command goes on when its first words have come."""
        stream = self.sandbox.exec_stream(shell="mkfifo /tmp/gate; echo one; cat /tmp/gate")
        self.assertEqual(next(stream), ("stdout", b"one\n"))
        self.assertTrue(self.sandbox.exec(shell="echo two >/tmp/gate").ok)
        self.assertEqual(next(stream), ("stdout", b"two\n"))
        self.assertEqual(next(stream)[1].exit_code, 0)

    def test_exec_command_that_is_not_there(self):
        self.assert_refused(422, "command_not_started", self.sandbox.exec, ["/no/such"])

    def test_files(self):
        for data in (b"", b"x", BYTES):
            reply = self.sandbox.put("/workspace/deep/er/a b.bin", data)
            self.assertEqual(reply["size"], len(data))
            self.assertEqual(reply["sha256"], hashlib.sha256(data).hexdigest())
            self.assertEqual(self.sandbox.get("/workspace/deep/er/a b.bin"), data)

    def test_file_of_unknown_length(self):
        self.sandbox.put("/tmp/chunked", io.BytesIO(BYTES), mode=0o700)
        self.assertEqual(self.sandbox.get("/tmp/chunked"), BYTES)
        self.assertEqual(self.sandbox.exec(shell="stat -c %a /tmp/chunked").stdout, b"700\n")

    def test_file_that_is_not_there(self):
        self.assert_refused(404, "file_not_found", self.sandbox.get, "/no/such/file")

    def test_file_that_is_a_directory(self):
        self.assert_refused(422, "file_refused", self.sandbox.get, "/workspace")

    def test_get_patch_list(self):
        described = self.sandbox.extend(500)
        self.assertEqual(described["timeout_s"], 500)
        self.assertEqual(self.sandbox.refresh()["expires_at"], described["expires_at"])
        self.assertIn(self.sandbox.id, [s.id for s in self.client.list()])


class LifeTest(DaemonTest):
    def test_create_exec_delete(self):
        with self.client.create(labels={"team": "blue"}) as sandbox:
            self.assertEqual([s.id for s in self.client.list(label="team=blue")], [sandbox.id])
            self.assertEqual(self.client.list(label="team=red"), [])
            self.assertTrue(sandbox.exec(["true"]).ok)
        self.assert_refused(410, "sandbox_gone", sandbox.exec, ["true"])
        self.assert_refused(410, "sandbox_gone", sandbox.get, "/etc/passwd")
        self.assertNotIn(sandbox.id, [s.id for s in self.client.list()])

    def test_delete_ends_a_running_exec(self):
        sandbox = self.client.create()
        stream = sandbox.exec_stream(shell="echo started; sleep 1234")
        self.assertEqual(next(stream), ("stdout", b"started\n"))
        self.client.get(sandbox.id).delete()
        end = list(stream)[-1]
        self.assertEqual((end[0], end[1].end, end[1].exit_code), ("end", "sandbox_gone", None))

    def test_timeout_ends_the_sandbox(self):
        sandbox = self.client.create(timeout_s=2)
        result = sandbox.exec(["sleep", "1234"])
        self.assertEqual((result.end, result.exit_code), ("sandbox_gone", None))
        error = self.assert_refused(410, "sandbox_gone", sandbox.exec, ["true"])
        self.assertIn("timeout", error.message)

    def test_run(self):
        result = self.client.run(["sh", "-c", "sort <in.txt >out.txt; echo done; exit 4"],
                                 template="base", files={"/workspace/in.txt": "b\na\n"},
                                 collect=["/workspace/out.txt", "/workspace/none"])
        self.assertEqual((result.end, result.exit_code, result.stdout), ("exited", 4, b"done\n"))
        self.assertEqual(result.files, {"/workspace/out.txt": b"a\nb\n"})
        self.assertEqual(result.missing["/workspace/none"].code, "file_not_found")
        self.assertIn("ready_ms", result.sandbox["times"])
        wait_for(lambda: not self.client.list(), 30, "its sandbox gone")

    def test_curl(self):
        def curl(*arguments):
            done = subprocess.run(
                ["curl", "-sS", "--fail-with-body", "--unix-socket", self.daemon.socket,
                 *arguments], capture_output=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return done.stdout
        base = "http://cloche/v1/sandboxes"
        made = json.loads(curl(base, "--json", '{"template":"base"}'))
        url = f"{base}/{made['id']}"
        curl("-T", os.path.abspath(__file__), f"{url}/files?path=/workspace/me.py")
        ran = json.loads(curl(f"{url}/exec", "--json", '{"argv":["md5sum","me.py"]}'))
        with open(__file__, "rb") as f:
            self.assertEqual(ran["stdout"].split()[0], hashlib.md5(f.read()).hexdigest())
        with open(__file__, "rb") as f:
            self.assertEqual(curl(f"{url}/files?path=/workspace/me.py"), f.read())
        curl("-X", "DELETE", url)


@kvm_kind
class PythonTemplateTest(DaemonTest):
    config = {"default_template": "python", "warm": ["python"], "default_mem_mib": 256,
              "default_disk_mib": 1024}

    def test_the_example(self):
        examples = os.path.join(os.path.dirname(__file__), "..", "..", "examples")
        files = {}
        for name in ("analyse.py", "sales.csv"):
            with open(os.path.join(examples, name), encoding="utf-8") as f:
                files["/workspace/" + name] = f.read()
        result = self.client.run(["python3", "analyse.py", "sales.csv", "report.json"],
                                 files=files, collect=["/workspace/report.json"])
        self.assertEqual(result.exit_code, 0, result.stderr)
        self.assertIn("400 sales", result.text)
        report = json.loads(result.files["/workspace/report.json"])
        self.assertEqual(report["sales"], 400)
