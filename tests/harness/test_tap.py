"""Faults planted for tests/tap.py: each must be red by its name, and the other tests must run."""
import re

from plant import PlantTest

HEAD = "import time, unittest\n\n\nclass XTest(unittest.TestCase):\n"
GOOD = "    def test_good(self):\n        pass\n"


class TapTest(PlantTest):
    def tap(self, body, *arguments, name="test_x", head=HEAD):
        """(outcome, the lines of TAP) of a class with these methods, and the good one."""
        self.plant(f"folder/{name}.py", head + body + GOOD)
        outcome = self.python("tests/tap.py", *arguments)
        return outcome, re.findall(r"^(?:not )?ok .*$", outcome.text, re.MULTILINE)

    def assert_lines(self, got, status, *patterns):
        outcome, lines = got
        self.assertEqual((outcome.status, len(lines)), (status, len(patterns)), outcome.text)
        self.assertIn(f"1..{len(patterns)}\n", outcome.text)
        for number, (line, pattern) in enumerate(zip(lines, patterns), 1):
            self.assertRegex(line, pattern)
            self.assertIn(f"ok {number} - ", line)

    def test_what_is_whole_is_green(self):
        self.assert_lines(self.tap("", "folder"), 0, "^ok .*test_good", "^ok .*folder")

    def test_no_test_of_that_name(self):
        self.assert_lines(self.tap("", "folder", "nothing"), 1, "^not ok .*folder")

    def test_marks(self):
        body = "    def test_marked(self):\n        pass\n    test_marked.hard = True\n"
        self.assert_lines(self.tap(body, "--marked", "hard", "folder"), 0, "test_marked", "folder")
        self.assert_lines(self.tap("", "--marked", "hard", "folder"), 1, "^not ok .*folder")

    def test_the_last(self):
        """A helper's class that looks at what all others left, even where it was not asked for."""
        self.plant("folder/helper.py", HEAD.replace("XTest", "EndTest")
                   + "    def test_end(self):\n        self.fail()\nLAST = (EndTest,)\n")
        body = "    def test_other(self):\n        import helper\n"
        got = self.tap(body, "folder", "test_good", head="import helper\n" + HEAD)
        self.assert_lines(got, 1, "^ok .*test_good", "^not ok .*test_end", "^ok .*folder")

    def test_a_failure(self):
        self.assert_lines(self.tap("    def test_bad(self):\n        self.fail()\n", "folder"), 1,
                          "^not ok .*test_bad", "^ok .*test_good", "^ok .*folder")

    def test_subtests_are_one_test(self):
        body = ("    def test_bad(self):\n        for n in range(4):\n"
                "            with self.subTest(n=n):\n                self.assertEqual(n % 2, 0)\n")
        self.assert_lines(self.tap(body, "folder"), 1, "^not ok .*test_bad", "test_good", "^ok")

    def test_a_test_that_hangs(self):
        body = "    def test_bad(self):\n        time.sleep(99)\n"
        got = self.tap(body, "--limit", "0.5", "folder")
        self.assert_lines(got, 1, "^not ok .*test_bad", "^ok .*test_good", "^ok .*folder")
        self.assertIn("test_bad takes longer than its 0.5 s", got[0].text)

    def test_a_thread_that_hangs(self):
        body = ("    def test_bad(self):\n        import threading\n"
                "        threading.Thread(target=time.sleep, args=(99,)).start()\n"
                "        self.fail()\n")
        self.assert_lines(self.tap(body, "folder"), 1, "^not ok .*test_bad", "^ok", "^ok")

    def test_a_limit_of_its_own(self):
        body = "    def test_bad(self):\n        time.sleep(99)\n    test_bad.limit_s = 0.5\n"
        self.assert_lines(self.tap(body, "folder"), 1, "^not ok .*test_bad", "^ok", "^ok")

    def test_a_test_that_hangs_where_it_expects_errors(self):
        body = ("    def test_bad(self):\n        try:\n            time.sleep(99)\n"
                "        except Exception:\n            pass\n")
        self.assert_lines(self.tap(body, "--limit", "0.5", "folder"), 1, "^not ok .*test_bad",
                          "^ok", "^ok")

    def test_a_clean_up_that_hangs(self):
        body = ("    def test_bad(self):\n        self.addCleanup(time.sleep, 99)\n"
                "        time.sleep(99)\n")
        self.assert_lines(self.tap(body, "--limit", "0.5", "folder"), 1, "^not ok .*test_bad",
                          "^ok", "^ok")

    def test_a_set_up_that_fails(self):
        for fault in ("1 / 0", "time.sleep(99)"):
            body = f"    @classmethod\n    def setUpClass(cls):\n        {fault}\n"
            self.assert_lines(self.tap(body, "--limit", "0.5", "folder"), 1,
                              "^not ok .*test_good", "^ok .*folder")

    def test_a_clean_up_of_a_class_that_fails(self):
        for fault in ("1 / 0", "time.sleep(99)"):
            body = f"    @classmethod\n    def tearDownClass(cls):\n        {fault}\n"
            self.assert_lines(self.tap(body, "--limit", "0.5", "folder"), 1, "^ok .*test_good",
                              "^not ok .*folder")

    def test_a_test_that_is_hidden_by_another(self):
        body = "    def test_good(self):\n        self.fail()\n"
        got = self.tap(body, "folder")
        self.assert_lines(got, 1, "^ok .*test_good", "^not ok .*folder")
        self.assertIn("test_x.XTest.test_good is defined twice", got[0].text)

    def test_a_class_that_is_none_of_unittest(self):
        got = self.tap("", "folder", head="class XTest:\n")
        self.assert_lines(got, 1, "^not ok .*folder")
        self.assertIn("test_x.XTest.test_good is defined, and not found", got[0].text)

    def test_a_file_of_another_name(self):
        self.plant("folder/test_y.py", HEAD + GOOD)
        self.assert_lines(self.tap("", "folder", name="text_x"), 1, "^ok .*test_y",
                          "^not ok .*folder")

    def test_a_file_that_cannot_be_imported(self):
        self.plant("folder/test_y.py", HEAD + GOOD)
        got = self.tap("", "folder", head="import nothing\n" + HEAD)
        self.assert_lines(got, 1, "^not ok .*test_x", "^ok .*test_y", "^not ok .*folder")

    def test_the_runner_agrees(self):
        """What the two make of a test that hangs where no exception comes through."""
        body = ("    def test_bad(self):\n        import signal\n"
                "        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
                "        time.sleep(99)\n")
        self.plant("folder/test_x.py", HEAD + body + GOOD)
        outcome = self.run_kind("--limit", "2", "kind",
                                "python3 tests/tap.py --limit 0.5 folder")
        self.assert_red(outcome, (0, 3, 0), "test_x.XTest.test_bad  (no result within 2 s: killed)",
                        "2 more did not report")
