"""What the benchmarks share: a daemon of their own, HTTP to it, and how they report."""
import http.client
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def add_places(parser):
    """Arguments that say which daemon is measured."""
    parser.add_argument("--cloche", default=os.path.join(HERE, "../build/release/cloche"))
    parser.add_argument("--images", default=os.path.join(HERE, "../build/images"))


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket. The daemon closes one that idles; the next call opens it again."""

    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self.path)

    def call(self, method, target, body=None):
        self.close()
        text = None if body is None else json.dumps(body)
        self.request(method, target, text, {"Content-Type": "application/json"} if text else {})
        reply = self.getresponse()
        data = reply.read()
        if reply.status >= 300:
            raise RuntimeError(f"{method} {target}: {reply.status} {data.decode()}")
        return json.loads(data) if data else None


class Daemon:
    """A daemon on a state directory, with settings of its own."""

    def __init__(self, args, state, settings, log_level="info"):
        self.socket = os.path.join(state, "s.sock")
        config = os.path.join(state, "config.json")
        self.log = open(os.path.join(state, "log"), "ab+")
        with open(config, "w", encoding="utf-8") as f:
            json.dump(settings, f)
        self.process = subprocess.Popen(
            [args.cloche, "serve", "--state-dir", os.path.join(state, "state"), "--socket",
             self.socket, "--images", args.images, "--config", config,
             "--log-level", log_level],
            stdout=self.log, stderr=self.log)

    def wait_ready(self):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            self.log.seek(0)
            if re.search(rb"daemon: ready", self.log.read()):
                return
            time.sleep(0.1)
        self.log.seek(0)
        sys.exit("the daemon did not get ready:\n" + self.log.read().decode(errors="replace"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.truncate(0)
        self.log.close()


def percentile(values, share):
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def vmm_pids(root):
    """Descendants of priv, which is the daemon's child."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as f:
                    children.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(
                        int(entry))
            except OSError:
                pass
    return [pid for priv in children.get(root, []) for pid in children.get(priv, [])]


def overcommit_for(count, mem_mib):
    """The memory_overcommit with which so many sandboxes are let in, each with its monitor."""
    offered = (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") >> 20) - 512
    return min(64, max(1, math.ceil(count * (mem_mib + 64) / offered)))


def host_line(daemon):
    info = Connection(daemon.socket).call("GET", "/v1/info")
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = re.search(r"model name\s*: (.*)", f.read()).group(1)
    print(json.dumps({"bench": "host", "cpu": model, "cpus": os.cpu_count(),
                      "kernel": os.uname().release, "kvm": info["host"]["kvm"],
                      "memory_mib": os.sysconf("SC_PHYS_PAGES") * 4096 >> 20,
                      "memory_overcommit": info["memory"]["overcommit_percent"] / 100,
                      "cloche": info["version"]}), flush=True)
