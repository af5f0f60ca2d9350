"""Faults planted for tests/run.py: each must be red, and what is whole must be green."""
import ast
import glob
import os
import re
import subprocess
import time
import unittest

from plant import TOP, PlantTest

# A program of C tests as run.py sees it: it can be begun in the middle.
C_TESTS = ("one", "two", "three", "four")
SOURCE = "static const struct CMUnitTest tests[] = {\n" + "".join(
    f"    cmocka_unit_test({name}),\n" for name in C_TESTS) + "};\n"
PROGRAM = """
first=${{TEST_FIRST:-0}}
echo "1..$((4 - first))"
number=0
for name in one two three four; do
    number=$((number + 1))
    [ $number -gt $first ] || continue
    [ $name != {victim} ] || {{ {fault}; }}
    echo "ok $((number - first)) - $name"
done
"""


class TapTest(PlantTest):
    def lines(self, *lines, end="exit 0"):
        text = "".join(f"echo '{line}'\n" for line in lines) + end + "\n"
        return self.run_kind("kind", self.script("program", text).replace("program", "./program"))

    def test_what_is_whole_is_green(self):
        self.assert_green(self.lines("1..2", "ok 1 - a", "ok 2 - b"), (2, 0, 0))
        self.assert_green(self.lines("no TAP"), (1, 0, 0))

    def test_no_command(self):
        self.assert_red(self.run_kind("kind"), (0, 1, 0), "no tests")

    def test_no_test(self):
        self.assert_red(self.lines("1..0"), (0, 1, 0), "a plan of no tests")

    def test_a_test_that_does_not_report(self):
        self.assert_red(self.lines("1..3", "ok 1 - a"), (1, 2, 0), "did not report")

    def test_a_number_twice(self):
        self.assert_red(self.lines("1..2", "ok 1 - a", "ok 1 - a"), (1, 2, 0), "again")

    def test_a_number_beyond_the_plan(self):
        self.assert_red(self.lines("1..1", "ok 1 - a", "ok 2 - b"), (1, 1, 0), "out of it")

    def test_a_second_plan(self):
        self.assert_red(self.lines("1..1", "ok 1 - a", "1..1"), (1, 1, 0), "a second plan")

    def test_a_result_before_the_plan(self):
        self.assert_red(self.lines("ok 1 - a", "1..1", "ok 1 - a"), (1, 1, 0), "before the plan")

    def test_a_result_without_a_plan(self):
        self.assert_red(self.lines("ok 1 - a"), (1, 1, 0), "before the plan")

    def test_a_failure(self):
        self.assert_red(self.lines("1..2", "not ok 1 - a", "ok 2 - b"), (1, 1, 0))

    def test_exit_codes(self):
        self.assert_red(self.lines("1..1", "ok 1 - a", end="exit 3"), (1, 1, 0), "exit 3")
        self.assert_red(self.lines(end="exit 3"), (0, 1, 0), "exit 3")
        self.assert_red(self.lines(end="kill -SEGV $$"), (0, 1, 0), "SIGSEGV")

    def test_skips(self):
        self.assert_red(self.lines("1..1", "ok 1 - a # SKIP needs nothing"), (0, 1, 0), "known")
        self.assert_red(self.lines("1..1", "ok 1 - a # SKIP"), (0, 1, 0), "reason: none")
        self.assert_red(self.lines("needs sleep", end="exit 77"), (0, 1, 0), "known reason")
        have = "root" if os.geteuid() == 0 else "lack"
        self.assert_red(self.lines("1..1", f"ok 1 - a # SKIP needs {have}"), (0, 1, 0))

    def test_a_program_that_is_not_there(self):
        self.assert_red(self.run_kind("kind", "./none"), (0, 1, 0), "No such file")

    def test_one_command_does_not_hide_another(self):
        self.script("bad", "exit 1")
        self.script("good", "exit 0")
        self.assert_red(self.run_kind("--jobs", "2", "kind", "./bad", "./good"), (1, 1, 0))


class InventoryTest(PlantTest):
    def build(self, victim="none", fault=":", source=SOURCE):
        """A source and its program, newer than that."""
        self.plant("tests/unit/test_x.c", source)
        return self.script("build/asan/tests/unit/test_x",
                           PROGRAM.format(victim=victim, fault=fault))

    def run_built(self, *arguments):
        return self.run_kind(*arguments, "unit", "build/asan/tests/unit/test_x")

    def test_what_is_whole_is_green(self):
        self.build()
        self.assert_green(self.run_built("--all", "tests/**/test_*.c"), (4, 0, 0))

    def test_a_source_that_nobody_runs(self):
        self.build()
        self.plant("tests/elsewhere/deep/test_y.c")
        self.assert_red(self.run_built("--all", "tests/**/test_*.c"), (4, 1, 0),
                        "tests/elsewhere/deep/test_y.c")

    def test_a_program_older_than_its_source(self):
        program = os.path.join(self.top, self.build())
        os.utime(program, (1, 1))
        self.assert_red(self.run_built(), (0, 1, 0), "did not compile")

    def test_a_program_that_did_not_get_built(self):
        os.unlink(os.path.join(self.top, self.build()))
        self.assert_red(self.run_built(), (0, 1, 0), "no plan")

    def test_a_test_that_the_program_lacks(self):
        self.build(source=SOURCE.replace("};", "    X_TEST(five),\n};"))
        self.assert_red(self.run_built(), (4, 1, 0), "has 5")

    def test_a_test_that_the_source_lacks(self):
        self.build(source=SOURCE.replace("    cmocka_unit_test(four),\n", "// four\n"))
        self.assert_red(self.run_built(), (4, 1, 0), "has 3")

    def test_a_test_of_another_name(self):
        self.build(source=SOURCE.replace("three", "tree"))
        self.assert_red(self.run_built(), (4, 1, 0), "number 3 is three, and tree in the source")

    def test_a_program_without_a_plan(self):
        self.build()
        self.script("build/asan/tests/unit/test_x", "exit 0")
        self.assert_red(self.run_built(), (0, 1, 0), "no plan; exit 0")

    def test_a_crash_is_named_and_the_rest_runs(self):
        self.build("two", "kill -SEGV $$")
        self.assert_red(self.run_built(), (3, 1, 0), "test_x: two  (signal SIGSEGV)")

    def test_a_hang_is_named_and_the_rest_runs(self):
        self.build("three", "sleep 100")
        self.assert_red(self.run_built("--limit", "1"), (3, 1, 0), "test_x: three  (no result")

    def test_make_drops_what_it_cannot_build(self):
        """A program that is older than what it is made of; and only that."""
        name = "tests/unit/base/test_base"
        program = self.plant("build/" + name)
        drop = ["make", "-s", "-C", TOP, "drop-stale", f"BUILD={self.top}/build",
                f"TEST_PROGRAMS={program}", "FUZZ_PROGRAMS="]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        subprocess.run(drop, check=True, env=environment)
        self.assertTrue(os.path.exists(program))
        os.utime(program, (1, 1))
        subprocess.run(drop, check=True, env=environment)
        self.assertFalse(os.path.exists(program))


class LeakTest(PlantTest):
    def run_script(self, text, *arguments):
        self.script("program", text)
        return self.run_kind(*arguments, "kind", "./program")

    def assert_gone(self, word):
        done = subprocess.run(["pgrep", "-f", f"sleep {word}"], capture_output=True)
        self.assertEqual(done.returncode, 1, done.stdout)

    def test_a_child_that_is_left(self):
        outcome = self.run_script("sleep 1111.1 >/dev/null 2>&1 &")
        self.assert_red(outcome, (1, 1, 0), "left a process behind", "sleep 1111.1")
        self.assert_gone("1111.1")

    def test_a_child_in_a_session_of_its_own(self):
        outcome = self.run_script("setsid sh -c 'sleep 1111.2 & sleep 1111.2' </dev/null &\n"
                                  "echo 1..1; echo ok 1")
        self.assert_red(outcome, (1, 3, 0), "sleep 1111.2")
        self.assert_gone("1111.2")

    def test_a_child_that_ends_by_itself(self):
        self.assert_green(self.run_script("sleep 1 &"), (1, 0, 0))

    def test_a_child_of_a_command_that_hangs(self):
        outcome = self.run_script("setsid sleep 1111.3 & exec sleep 1111.3", "--limit", "1")
        self.assert_red(outcome, (0, 1, 0), "no result within 1 s")
        self.assert_gone("1111.3")

    def test_a_command_that_outlives_the_runner(self):
        self.script("program", "echo up >up; exec sleep 1111.4")
        runner = subprocess.Popen(["python3", "tests/run.py", "kind", "./program"], cwd=self.top,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not os.path.exists(os.path.join(self.top, "up")):
            time.sleep(0.02)
        runner.kill()
        runner.wait()
        for _ in range(500):
            if subprocess.run(["pgrep", "-f", "sleep 1111.4"], capture_output=True).returncode:
                break
            time.sleep(0.02)
        self.assert_gone("1111.4")


class TotalsTest(PlantTest):
    def totals(self, *kinds):
        return self.run_kind("--results", "results", "--totals", *kinds)

    def test_sums(self):
        self.script("program", "exit 0")
        for kind in ("one", "two"):
            self.run_kind("--results", "results", kind, "./program")
        outcome = self.totals("one", "two")
        self.assert_green(outcome, (2, 0, 0))
        self.assertTrue(outcome.text.endswith("\n2 passed, 0 failed, 0 skipped\n"))

    def test_a_kind_that_did_not_run(self):
        self.script("program", "exit 0")
        self.run_kind("--results", "results", "one", "./program")
        self.assert_red(self.totals("one", "two"), (1, 1, 0), "did not run to its end")


def hides_assertions(node):
    """A `with suppress(...)` around an assertion, which then need not be reached, or one that takes
    a failed assertion for what it waits for."""
    calls = [item.context_expr for item in getattr(node, "items", ())
             if isinstance(item.context_expr, ast.Call)]
    for call in calls:
        if ast.unparse(call.func).rpartition(".")[2] == "suppress":
            taken = {ast.unparse(argument) for argument in call.args}
            if taken & {"AssertionError", "Exception", "BaseException"}:
                return True
            inside = [n for child in node.body for n in ast.walk(child)]
            return any(isinstance(n, ast.Assert) or isinstance(n, ast.Attribute)
                       and n.attr.startswith(("assert", "fail")) for n in inside)
    return False


def python_folders():
    found = set()
    for folder, names, files in os.walk(TOP):
        names[:] = [n for n in names if n not in (".git", "build")]
        if any(re.fullmatch(r"test_\w+\.py", name) for name in files):
            found.add(os.path.relpath(folder, TOP))
    return found


class SourcesTest(unittest.TestCase):
    def test_no_assertion_is_suppressed(self):
        planted = "with suppress({}):\n    {}"
        for fault in (("OSError", "self.assertTrue(x)"), ("AssertionError", "x()"),
                      ("OSError", "assert x")):
            fault = planted.format(*fault)
            self.assertTrue(hides_assertions(ast.parse(fault).body[0]))
        self.assertFalse(hides_assertions(ast.parse(planted.format("OSError", "x()")).body[0]))
        for folder in python_folders():
            for path in glob.glob(os.path.join(TOP, folder, "*.py")):
                with open(path, encoding="utf-8") as f:
                    for node in ast.walk(ast.parse(f.read())):
                        where = f"{path}:{getattr(node, 'lineno', 0)}"
                        self.assertFalse(hides_assertions(node), where)

    def test_every_python_test_is_in_a_folder_that_is_run(self):
        with open(os.path.join(TOP, "mk/tasks.mk"), encoding="utf-8") as f:
            run = set(re.findall(r"tests/tap\.py (?:--\S+ (?:\$\(\w+\)|\w+) )*(\S+?)[' ]",
                                 f.read()))
        self.assertEqual(python_folders(), run)


if __name__ == "__main__":
    unittest.main()
