#!/usr/bin/env python3
"""No circle between files: what cannot be taken out alone cannot be read, tested or replaced alone.

A unit is a .c file with the header of its name beside it, or either of them alone. A unit leans on
another when it includes the other's header, or when it names a function that the other defines,
whichever header declares it (one header may be the face of several files). Callbacks and the tables
that a caller hands in are how the lower of two units speaks to the higher."""
import re

import sources

CODE = ("src/", "guest/")
# At the margin: a function's declaration or, in a .c file, its definition; static ones are private.
FUNCTION = re.compile(r"^(?!static|typedef|extern)[A-Za-z_][\w \*]*?\b(\w+)\(", re.MULTILINE)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
DIRECTIVE = re.compile(r"^\s*#(?:.*\\\n)*.*$", re.MULTILINE)
WORD = re.compile(r"\b[A-Za-z_]\w*\b")


class Tree:
    """The code's files: what each includes, declares, defines and mentions."""

    def __init__(self):
        self.includes, self.words, declared, defined = {}, {}, {}, {}
        paths = [p for p in sources.files(".c", ".h") if p.startswith(CODE)]
        for path in paths:
            text = sources.read(path)
            self.includes[path] = [self.resolve(name) for name in INCLUDE.findall(text)]
            code = DIRECTIVE.sub("", sources.without_comments(text))
            self.words[path] = set(WORD.findall(code))
            for name in FUNCTION.findall(code):
                if path.endswith(".h"):
                    declared.setdefault(name, set()).add(path)
                else:
                    defined.setdefault(name, set()).add(path)
        # Header -> {function: the file that defines it}; a name that several programs define apart
        # belongs to the one in the header's own component.
        self.faces = {}
        for name, headers in declared.items():
            for header in headers:
                for path in defined.get(name, ()):
                    if path.split("/")[:2] == header.split("/")[:2]:
                        self.faces.setdefault(header, {})[name] = path

    @staticmethod
    def resolve(name):
        return name if name.startswith("guest/") else f"src/{name}"

    def reach(self, path):
        """Every header that `path` sees."""
        seen, todo = set(), [path]
        while todo:
            for header in self.includes.get(todo.pop(), ()):
                if header not in seen:
                    seen.add(header)
                    todo.append(header)
        return seen

    def edges(self):
        """{unit: {other unit: why}}"""
        graph = {}
        for path, headers in self.includes.items():
            edges = graph.setdefault(unit(path), {})
            for header in headers:
                if header in self.includes and unit(header) != unit(path):
                    edges.setdefault(unit(header), f"includes {header}")
            if path.endswith(".h"):
                continue
            for header in self.reach(path):
                for name, definer in self.faces.get(header, {}).items():
                    if name in self.words[path] and unit(definer) != unit(path):
                        edges[unit(definer)] = f"calls {name}"
        return graph


def unit(path):
    return path.rsplit(".", 1)[0]


def circles(graph):
    """Groups of units that lean on each other (Tarjan's components, without recursion)."""
    index, low, on, stack, found = {}, {}, set(), [], []
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on.add(other)
                    work.append((other, iter(sorted(graph.get(other, {})))))
                    break
                if other in on:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group = []
                    while not group or group[-1] != node:
                        group.append(stack.pop())
                        on.discard(group[-1])
                    if len(group) > 1:
                        found.append(sorted(group))
    return found


def main():
    graph = Tree().edges()
    findings = []
    for group in circles(graph):
        findings.append(f"{group[0]}: a circle of {len(group)} files: {', '.join(group)}")
        for one in group:
            for other, why in sorted(graph[one].items()):
                if other in group:
                    findings.append(f"    {one} -> {other}: {why}")
    sources.finish(findings)


if __name__ == "__main__":
    main()
