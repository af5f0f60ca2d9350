"""Which tests there are, as the sources have it: one that does not report is missed by its name."""
import ast
import glob
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# cmocka's own table of tests, or one of rows that a program makes that of.
TABLE = re.compile(r"\bstruct (?:CMUnitTest|row) \w+\[\] = \{(.*?)\n\s*\};", re.DOTALL)
ROW = re.compile(r"""\b\w+\(\s*(\w+)|\{"(\w+)",""")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def source_of(program):
    """The source of a C test program (build/CONFIG/tests/X is tests/X.c); None of anything else."""
    found = re.search(r"(?:^|/)build/\w+/(tests/\S*test_\w+)$", program)
    path = os.path.join(TOP, found.group(1) + ".c") if found else None
    return path if path and os.path.exists(path) else None


def rows(source):
    """The tests in a C source's table, in their order."""
    with open(source, encoding="utf-8") as f:
        text = COMMENT.sub("", f.read())
    return ["".join(found) for table in TABLE.findall(text) for found in ROW.findall(table)]


def not_run(pattern, commands):
    """Sources (a glob below the checkout, "**" is any folders) whose program no command runs."""
    words = {word for words in commands for word in words}
    for source in sorted(glob.glob(pattern, root_dir=TOP, recursive=True)):
        program = "/" + os.path.splitext(source)[0]
        if not any(("/" + word).endswith(program) for word in words):
            yield source


def is_test_class(node):
    return isinstance(node, ast.ClassDef) and any(is_test(method) for method in node.body)


def is_test(node):
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test")


def python_tests(folder):
    """The tests that a folder's Python files define: (module, "Class.method") of each, with those
    that a later one of the same name hides given twice."""
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.py"), recursive=True)):
        module = os.path.relpath(path, folder)[:-3].replace(os.sep, ".")
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read(), path)
        for node in filter(is_test_class, tree.body):
            for method in filter(is_test, node.body):
                yield module, f"{node.name}.{method.name}"
