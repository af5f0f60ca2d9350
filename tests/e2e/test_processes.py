"""Commands beyond one request and reply: in the background, followed, replayed, fed, signaled,
limited; and what bad input gets."""
import os

import cloche

from harness import DaemonTest, kvm_kind, require


class ProcessTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sandbox = cls.client.create(template="base", timeout_s=3600)

    def start_ready(self, script, **options):
        """Starts a script that says `ready` first, and waits for that."""
        process = self.sandbox.start(shell=script, **options)
        self.addCleanup(self.forget, process)
        for kind, data, _ in process.output():
            self.assertEqual((kind, data), ("stdout", b"ready\n"))
            break
        return process

    @staticmethod
    def forget(process):
        try:
            process.remove()
        except cloche.ClocheError as error:
            if error.code != "process_not_found":
                raise

    def test_background_goes_on_without_its_client(self):
        process = self.sandbox.start(shell="mkfifo /tmp/on; echo one; cat /tmp/on; exit 3")
        self.assertEqual(process.described["state"], "running")
        self.assertIn(process.pid, [p.pid for p in self.sandbox.processes()])
        self.assertIsNone(process.wait(timeout=0))
        self.assertTrue(self.sandbox.exec(shell="while ! [ -p /tmp/on ]; do :; done; "
                                                "echo two >/tmp/on").ok)
        result = process.wait(timeout=60)
        self.assertEqual((result.end, result.exit_code), ("exited", 3))
        self.assertEqual((result.usage["stdout_bytes"], result.usage["stderr_bytes"]), (8, 0))
        self.assertEqual(b"".join(d for k, d, _ in process.output() if k == "stdout"),
                         b"one\ntwo\n")
        self.assertEqual(process.remove()["exit_code"], 3)
        self.assert_refused(404, "process_not_found", process.refresh)

    def test_replay_after_a_lost_connection(self):
        process = self.start_ready("echo ready; for i in 1 2 3; do sleep 1; echo $i; done")
        stream = process.output()
        kind, data, offset = next(stream)
        stream.close()  # the connection is gone; the command is not
        rest, ends = b"", []
        for kind, piece, _ in process.output(offset + len(data)):
            if kind == "stdout":
                rest += piece
            else:
                ends.append(kind)
        self.assertEqual((rest, ends), (b"1\n2\n3\n", ["end"]))
        self.assertEqual([k for k, _, _ in process.output(3, follow=False)], ["stdout", "end"])

    def test_what_was_missed_is_told(self):
        process = self.sandbox.start(shell="yes | head -c 3000000; echo; echo last >&2")
        self.addCleanup(self.forget, process)
        self.assertTrue(process.wait(300).ok)
        pieces = list(process.output(0))
        self.assertEqual(pieces[0][0], "missed")
        missed = pieces[0][1]
        self.assertEqual(pieces[0][2], 0)
        kept = sum(len(d) for k, d, _ in pieces if k in ("stdout", "stderr"))
        self.assertEqual(missed + kept, 3000000 + 1 + 5)
        self.assertEqual(pieces[1][2], missed)
        self.assertEqual(pieces[-2][:2], ("stderr", b"last\n"))

    def test_stdin_in_pieces_and_its_end(self):
        process = self.sandbox.start(["cat"], stdin=b"zero ", stdin_open=True)
        self.addCleanup(self.forget, process)
        data = os.urandom(300_000)
        self.assertEqual(process.write(b"one "), 4)
        self.assertEqual(process.write(data, close=True), len(data))
        out = b"".join(d for k, d, _ in process.output() if k == "stdout")
        self.assertEqual(out, b"zero one " + data)
        self.assertEqual(process.wait().usage["stdin_bytes"], 9 + len(data))
        self.assert_refused(409, "conflict", process.write, b"more")

    def test_stdin_of_a_command_in_the_foreground(self):
        stream = self.sandbox.exec_stream(shell="echo ready; cat", timeout_ms=60000)
        self.assertEqual(next(stream), ("stdout", b"ready\n"))
        process = [p for p in self.sandbox.processes() if not p.described["background"]][0]
        self.assert_refused(409, "conflict", process.write, b"x")  # its stdin was never open
        self.assertEqual(next(stream)[1].exit_code, 0)

    def test_any_signal(self):
        process = self.start_ready("trap 'echo usr1' USR1; trap 'echo rt; exit 5' 36; echo ready;"
                                   "while :; do sleep 0.1; done")
        process.signal("USR1")
        follow = process.output(6)
        self.assertEqual(next(follow)[:2], ("stdout", b"usr1\n"))
        process.signal(36)
        self.assertEqual(process.wait(60).exit_code, 5)
        self.assert_refused(409, "conflict", process.signal, "TERM")

        process = self.start_ready("echo ready; sleep 1234")
        process.signal("SIGTERM")
        result = process.wait(60)
        self.assertEqual((result.end, result.signal, result.exit_code), ("signaled", 15, None))

    def test_removal_reaches_every_descendant(self):
        process = self.start_ready("setsid sh -c 'sleep 4444 & sleep 4444' >/dev/null 2>&1 &"
                                   "(sleep 4444 & ) ; echo ready; sleep 4444")
        described = process.remove()
        self.assertEqual((described["end"], described["signal"]), ("signaled", 9))
        self.assertEqual(self.sandbox.exec(["pidof", "sleep"]).exit_code, 1)

    def test_time_out_reaches_every_descendant(self):
        result = self.sandbox.exec(shell="setsid sleep 4445 & (sleep 4445 &); sleep 4445",
                                   timeout_ms=4000)
        self.assertEqual((result.end, result.exit_code, result.signal), ("timeout", None, None))
        self.assertEqual(self.sandbox.exec(["pidof", "sleep"]).exit_code, 1)

    def test_exit_leaves_no_descendant(self):
        result = self.sandbox.exec(shell="setsid sleep 4446 >/dev/null 2>&1 & echo ok")
        self.assertEqual((result.exit_code, result.stdout), (0, b"ok\n"))
        self.assertEqual(self.sandbox.exec(["pidof", "sleep"]).exit_code, 1)

    def test_the_sandbox_goes(self):
        sandbox = self.client.create()
        process = sandbox.start(shell="echo out; sleep 1234")
        follow = process.output()
        self.assertEqual(next(follow)[:2], ("stdout", b"out\n"))
        sandbox.delete()
        kind, result, _ = next(follow)
        self.assertEqual((kind, result.end, result.exit_code), ("end", "sandbox_gone", None))
        self.assert_refused(410, "sandbox_gone", process.refresh)

    def test_the_daemon_goes(self):
        """Nothing of a lost daemon looks like an exit."""
        daemon = self.own_daemon().start()
        stream = daemon.client.create().exec_stream(shell="echo ready; sleep 1234")
        self.assertEqual(next(stream), ("stdout", b"ready\n"))
        daemon.kill()
        with self.assertRaises(cloche.ClocheError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code, "unreachable")

    def test_umask_and_limits(self):
        result = self.sandbox.exec(shell="umask; ulimit -n; ulimit -f; ulimit -t", umask="027",
                                   limits={"open_files": 99, "file_mib": 1, "cpu_s": 50})
        self.assertEqual(result.stdout.split(), [b"0027", b"99", b"2048", b"50"])
        result = self.sandbox.exec(shell="head -c 3000000 /dev/zero >/tmp/large",
                                   limits={"file_mib": 1})
        self.assertNotEqual(result.exit_code, 0)
        self.assertEqual(self.sandbox.exec(["stat", "-c", "%s", "/tmp/large"]).stdout,
                         b"1048576\n")

    def test_memory_limit_is_a_typed_end(self):
        for script in ("exec tail /dev/zero", "tail /dev/zero; exit $?"):
            result = self.sandbox.exec(shell=script, limits={"memory_mib": 4})
            self.assertEqual((result.end, result.exit_code), ("oom", None), result)
        self.assertTrue(self.sandbox.exec(["true"]).ok)

    def test_process_limit(self):
        result = self.sandbox.exec(shell="for i in 1 2 3 4 5 6; do sleep 1234 & done; echo done",
                                   limits={"processes": 4})
        self.assertIn(b"fork", result.stderr)
        self.assertTrue(self.sandbox.exec(shell="sleep 0 & sleep 0 & wait").ok)


class BadInputTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sandbox = cls.client.create(template="base", timeout_s=3600)

    def test_binary_stdin(self):
        data = bytes(range(256)) * 64
        result = self.sandbox.exec(["cat"], stdin=data)
        self.assertEqual(result.stdout, data)

    def test_nul_in_argv(self):
        error = self.assert_refused(400, "invalid_json", self.sandbox.exec, ["echo", "a\0b"])
        self.assertIn("NUL", error.message + error.cause + error.remedy)

    def test_ten_thousand_arguments(self):
        result = self.sandbox.exec(["sh", "-c", "echo $#", "sh"] + ["x"] * 10000)
        self.assertEqual(result.stdout, b"10000\n")
        error = self.assert_refused(400, "invalid_field", self.sandbox.exec, ["x"] * 20000)
        self.assertIn("argv", error.message)
        self.assert_refused(413, "too_large", self.sandbox.exec, ["echo"] + ["y" * 100000] * 12)

    def test_cwd_and_user(self):
        for options, word in (({"cwd": "/no/such"}, "cwd /no/such"), ({"user": "nemo"}, "nemo"),
                              ({"cwd": "/etc/passwd"}, "cwd")):
            error = self.assert_refused(422, "command_not_started", self.sandbox.exec, ["true"],
                                        **options)
            self.assertIn(word, error.cause)
            self.assertTrue(error.remedy)

    def test_bytes_that_are_no_utf8_in_the_body(self):
        status, reply, _ = self.daemon.request(
            "POST", f"/v1/sandboxes/{self.sandbox.id}/exec", b'{"shell":"echo \xff"}')
        self.assertEqual((status, reply["error"]["code"]), (400, "invalid_json"))

    @kvm_kind
    def test_guest_out_of_memory(self):
        """All of the guest's memory: two minutes where its kernel is interpreted, and the limit of
        a command (above) is the same test there."""
        require("hwkvm")
        with self.client.create(timeout_s=900) as sandbox:
            result = sandbox.exec(["tail", "/dev/zero"])  # one endless line
            self.assertEqual((result.end, result.exit_code), ("oom", None))
            self.assertTrue(sandbox.exec(["true"]).ok)
