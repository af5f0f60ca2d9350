"""Commands one after the other in one shell."""
import cloche

from harness import DaemonTest


class SessionTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sandbox = cls.client.create(template="base", timeout_s=3600)

    def run_in(self, name, text, **options):
        return self.sandbox.exec(shell=text, session=name, **options)

    def test_what_persists(self):
        first = self.run_in("keep", "cd /tmp; export A=\"it's\"; f() { echo f $1; }; B=2;"
                                    "umask 027")
        self.assertEqual((first.end, first.exit_code, first.cwd), ("exited", 0, "/tmp"))
        second = self.run_in("keep", "echo $A $B; f x; umask; sh -c 'echo $A'; false")
        self.assertEqual((second.exit_code, second.stdout),
                         (1, b"it's 2\nf x\n0027\nit's\n"))
        other = self.run_in("other", "pwd; echo [$A]", cwd="/etc", env={"A": "mine"})
        self.assertEqual(other.stdout, b"/etc\n[mine]\n")

    def test_outputs_are_each_commands_own(self):
        result = self.run_in("own", "printf out; printf err >&2")
        self.assertEqual((result.stdout, result.stderr), (b"out", b"err"))
        result = self.run_in("own", "cat; echo end")
        self.assertEqual((result.stdout, result.stderr), (b"end\n", b""))

    def test_a_command_that_is_no_shell_text(self):
        result = self.run_in("broken", "if then '")
        self.assertEqual((result.end, result.exit_code), ("exited", 2))
        self.assertTrue(self.run_in("broken", "true").ok)

    def test_a_time_out_spares_the_shell(self):
        self.assertTrue(self.run_in("late", "X=kept").ok)
        result = self.run_in("late", "setsid sleep 4447 & sleep 4447", timeout_ms=2000)
        self.assertEqual((result.end, result.exit_code, result.session_ended),
                         ("timeout", None, False))
        self.assertEqual(self.run_in("late", "echo $X; pidof sleep").stdout, b"kept\n")

    def test_the_shells_own_loop_ends_the_session(self):
        result = self.run_in("loop", "while :; do :; done", timeout_ms=1000)
        self.assertEqual((result.end, result.session_ended), ("timeout", True))
        self.assertTrue(self.run_in("loop", "true").ok)

    def test_exit(self):
        result = self.run_in("exit", "echo bye; exit 7")
        self.assertEqual((result.stdout, result.exit_code, result.session_ended),
                         (b"bye\n", 7, True))
        self.assertEqual(self.run_in("exit", "pwd").stdout, b"/workspace\n")

    def test_streaming_and_busy(self):
        stream = self.sandbox.exec_stream(shell="mkfifo /tmp/gate; echo one; cat /tmp/gate",
                                          session="live")
        self.assertEqual(next(stream), ("stdout", b"one\n"))
        self.assert_refused(409, "conflict", self.run_in, "live", "true")
        self.assertTrue(self.sandbox.exec(shell="echo two >/tmp/gate").ok)
        self.assertEqual([kind for kind, _ in stream], ["stdout", "end"])

    def test_its_shell_is_a_process(self):
        self.assertTrue(self.run_in("listed", "true").ok)
        shell = [p for p in self.sandbox.processes() if p.described.get("session") == "listed"][0]
        shell.remove()
        with self.assertRaises(cloche.ClocheError):
            shell.refresh()
        self.assertEqual(self.run_in("listed", "echo again").stdout, b"again\n")
