"""What goes over the wire: connections, errors, results, and how the API writes bytes."""
import base64
import dataclasses
import http.client
import json
import os
import socket
import urllib.parse

PIECE_BYTES = 64 * 1024
RECORD_BYTES_MAX = 128 * 1024 * 1024


class ClocheError(Exception):
    """What the daemon refused or could not do.

    `code` is from a fixed list ("sandbox_not_found", "invalid_field", ...), `status` the HTTP
    status. Where no daemon answered, or the connection broke, they are "unreachable" and 0.
    """

    def __init__(self, code, message, cause="", remedy="", status=0):
        super().__init__(". ".join(part.rstrip(".") for part in (message, cause, remedy) if part))
        self.code = code
        self.message = message
        self.cause = cause
        self.remedy = remedy
        self.status = status


@dataclasses.dataclass
class Result:
    """How a command ended and what it wrote.

    `end` is "exited" (then `exit_code` is set), "signaled" (then `signal` is), "timeout", "oom",
    "output_limit" or "sandbox_gone". A command that ran and failed is a result, not an exception.
    """

    end: str
    exit_code: "int | None"
    signal: "int | None"
    stdout: bytes
    stderr: bytes
    truncated: bool
    usage: dict
    times: dict
    cwd: str = ""  # in a session: the directory it is in now
    session_ended: bool = False  # the session's shell ended with the command
    changes: "dict | None" = None  # where asked for: path -> "created", "modified" or "deleted"
    changes_truncated: bool = False
    sandbox: dict = dataclasses.field(default_factory=dict)  # run() only
    files: dict = dataclasses.field(default_factory=dict)  # run() only: path -> content
    missing: dict = dataclasses.field(default_factory=dict)  # run() only: path -> ClocheError

    @property
    def ok(self):
        """Whether it exited with 0."""
        return self.end == "exited" and self.exit_code == 0

    @property
    def text(self):
        """stdout as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")


@dataclasses.dataclass
class File:
    """What a path of the sandbox is.

    `type` is "file", "directory", "symlink" (then `target` is set), "fifo", "socket", "char_device"
    or "block_device", `mtime` an RFC 3339 time. Bytes of a path that are no UTF-8 are surrogate
    escapes, as in os.fsdecode(); every call takes such a path again.
    """

    path: str
    type: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime: "str | None"
    target: "str | None" = None

    @property
    def name(self):
        """The last component."""
        return self.path.rpartition("/")[2]


class Matches(list):
    """Files found; `truncated` where there are more."""

    truncated = False


class Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("cloche", timeout=timeout, blocksize=PIECE_BYTES)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def bytes_of(record, name):
    """A field that comes as text, or as NAME_base64 where the bytes are not text."""
    encoded = record.get(name + "_base64")
    if encoded is not None:
        return base64.b64decode(encoded)
    return record.get(name, "").encode()


def put_bytes(body, name, data):
    if isinstance(data, str):
        body[name] = data
    elif data is not None:
        body[name + "_base64"] = base64.b64encode(data).decode()


def path_of(record, name):
    if record.get(name) is None and name + "_base64" not in record:
        return None
    return bytes_of(record, name).decode("utf-8", "surrogateescape")


def put_path(body, name, path):
    data = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    try:
        body[name] = data.decode()
    except UnicodeDecodeError:
        body[name + "_base64"] = base64.b64encode(data).decode()


def file_of(record, directory=None):
    path = path_of(record, "path" if directory is None else "name")
    if directory is not None:
        path = directory.rstrip("/") + "/" + path
    return File(path=path, type=record["type"], size=record["size"], mode=int(record["mode"], 8),
                uid=record["uid"], gid=record["gid"], mtime=record.get("mtime"),
                target=path_of(record, "target"))


def range_of(offset, length):
    """The Range header, or none; a negative offset counts from the end."""
    if offset is None and length is None:
        return {}
    if length is not None and length < 1 or (offset or 0) < 0 and length is not None:
        raise ValueError("length is at least 1, and goes with an offset from the start")
    if (offset or 0) < 0:
        return {"Range": f"bytes={offset}"}
    last = "" if length is None else (offset or 0) + length - 1
    return {"Range": f"bytes={offset or 0}-{last}"}


def error_of(status, raw):
    try:
        error = json.loads(raw)["error"]
        return ClocheError(error["code"], error["message"], error.get("cause", ""),
                           error.get("remedy", ""), status)
    except (ValueError, KeyError, TypeError):
        return ClocheError("internal", f"status {status} without a cloche error", status=status)


def _changes_of(reply):
    if reply.get("changes") is None:
        return None
    return {path_of(change, "path"): change["type"] for change in reply["changes"]}


def result_of(reply):
    files = reply.get("files") or []
    return Result(
        end=reply["end"], exit_code=reply.get("exit_code"), signal=reply.get("signal"),
        stdout=bytes_of(reply, "stdout"), stderr=bytes_of(reply, "stderr"),
        truncated=reply.get("truncated", False), usage=reply.get("usage") or {},
        times=reply.get("times") or {}, cwd=os.fsdecode(bytes_of(reply, "cwd")),
        session_ended=reply.get("session_ended", False), changes=_changes_of(reply),
        changes_truncated=reply.get("changes_truncated", False), sandbox=reply.get("sandbox") or {},
        files={f["path"]: bytes_of(f, "content") for f in files if "error" not in f},
        missing={f["path"]: error_of(0, json.dumps(f)) for f in files if "error" in f})


def command_of(argv, shell, stdin=None, env=None, cwd=None, user=None, umask=None, limits=None,
             timeout_ms=None, max_output_bytes=None, session=None, changes=None):
    """The JSON of a command; these are the options that exec and its like take."""
    if isinstance(argv, str):
        raise TypeError("argv is a list of strings; give a command line as shell=")
    body = {"argv": None if argv is None else list(argv), "shell": shell, "env": env, "cwd": cwd,
            "user": user, "umask": umask, "limits": limits, "timeout_ms": timeout_ms,
            "max_output_bytes": max_output_bytes, "session": session, "changes": changes}
    body = {name: value for name, value in body.items() if value is not None}
    put_bytes(body, "stdin", stdin)
    return body


def output_of(records):
    """(kind, data, offset) of a command's records: "stdout" and "stderr" with bytes, "missed" with
    how many, at last "end" with its Result, or "running" with None."""
    for record in records:
        kind = record.get("type")
        if kind in ("stdout", "stderr"):
            yield kind, bytes_of(record, "data"), record["offset"]
        elif kind == "missed":
            yield kind, record["bytes"], record["offset"]
        elif kind == "end":
            yield kind, result_of(record), None
            return
        elif kind == "running":
            yield kind, None, record["offset"]
            return
        elif kind == "error":
            raise error_of(0, json.dumps(record))
    raise ClocheError("unreachable", "the connection was lost before the command ended")


def quote(text):
    return urllib.parse.quote(text, safe="")
