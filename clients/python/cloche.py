"""A client for cloche, the daemon that runs code in microVM sandboxes.

    import cloche

    with cloche.Client().create(template="python") as sandbox:
        sandbox.put("/workspace/a.py", b"print(6 * 7)")
        result = sandbox.exec(["python3", "a.py"])
        print(result.exit_code, result.stdout)

Standard library only. A client may be shared by threads: each call has a connection of its own.

Calls that make something take an `idempotency_key`. A call that got no answer (code "unreachable")
may be made again with the same key: what was done is not done twice, its reply comes again.
"""
import base64
import dataclasses
import http.client
import io
import json
import os
import socket
import time
import urllib.parse
import uuid

__all__ = ["Client", "ClocheError", "File", "Matches", "Process", "Result", "Sandbox",
           "DEFAULT_SOCKET"]
__version__ = "0.1.0"

DEFAULT_SOCKET = "/run/cloche/cloche.sock"
PIECE_BYTES = 64 * 1024
WAIT_S = 30  # of one request that waits
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


class _Connection(http.client.HTTPConnection):
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


def _bytes_of(record, name):
    """A field that comes as text, or as NAME_base64 where the bytes are not text."""
    encoded = record.get(name + "_base64")
    if encoded is not None:
        return base64.b64decode(encoded)
    return record.get(name, "").encode()


def _put_bytes(body, name, data):
    if isinstance(data, str):
        body[name] = data
    elif data is not None:
        body[name + "_base64"] = base64.b64encode(data).decode()


def _path_of(record, name):
    if record.get(name) is None and name + "_base64" not in record:
        return None
    return _bytes_of(record, name).decode("utf-8", "surrogateescape")


def _put_path(body, name, path):
    data = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    try:
        body[name] = data.decode()
    except UnicodeDecodeError:
        body[name + "_base64"] = base64.b64encode(data).decode()


def _file_of(record, directory=None):
    path = _path_of(record, "path" if directory is None else "name")
    if directory is not None:
        path = directory.rstrip("/") + "/" + path
    return File(path=path, type=record["type"], size=record["size"], mode=int(record["mode"], 8),
                uid=record["uid"], gid=record["gid"], mtime=record.get("mtime"),
                target=_path_of(record, "target"))


def _range_of(offset, length):
    """The Range header, or none; a negative offset counts from the end."""
    if offset is None and length is None:
        return {}
    if length is not None and length < 1 or (offset or 0) < 0 and length is not None:
        raise ValueError("length is at least 1, and goes with an offset from the start")
    if (offset or 0) < 0:
        return {"Range": f"bytes={offset}"}
    last = "" if length is None else (offset or 0) + length - 1
    return {"Range": f"bytes={offset or 0}-{last}"}


def _error_of(status, raw):
    try:
        error = json.loads(raw)["error"]
        return ClocheError(error["code"], error["message"], error.get("cause", ""),
                           error.get("remedy", ""), status)
    except (ValueError, KeyError, TypeError):
        return ClocheError("internal", f"status {status} without a cloche error", status=status)


def _result_of(reply):
    files = reply.get("files") or []
    return Result(
        end=reply["end"], exit_code=reply.get("exit_code"), signal=reply.get("signal"),
        stdout=_bytes_of(reply, "stdout"), stderr=_bytes_of(reply, "stderr"),
        truncated=reply.get("truncated", False), usage=reply.get("usage") or {},
        times=reply.get("times") or {}, cwd=os.fsdecode(_bytes_of(reply, "cwd")),
        session_ended=reply.get("session_ended", False), sandbox=reply.get("sandbox") or {},
        files={f["path"]: _bytes_of(f, "content") for f in files if "error" not in f},
        missing={f["path"]: _error_of(0, json.dumps(f)) for f in files if "error" in f})


def _command(argv, shell, stdin=None, env=None, cwd=None, user=None, umask=None, limits=None,
             timeout_ms=None, max_output_bytes=None, session=None):
    """The JSON of a command; these are the options that exec and its like take."""
    if isinstance(argv, str):
        raise TypeError("argv is a list of strings; give a command line as shell=")
    body = {"argv": None if argv is None else list(argv), "shell": shell, "env": env, "cwd": cwd,
            "user": user, "umask": umask, "limits": limits, "timeout_ms": timeout_ms,
            "max_output_bytes": max_output_bytes, "session": session}
    body = {name: value for name, value in body.items() if value is not None}
    _put_bytes(body, "stdin", stdin)
    return body


class Client:
    """Talks to the daemon at `socket`, by default $CLOCHE_SOCKET or /run/cloche/cloche.sock.

    `timeout` (seconds, None: no limit) bounds each wait for the daemon's next bytes.
    """

    def __init__(self, socket=None, timeout=None):
        self.socket = socket or os.environ.get("CLOCHE_SOCKET") or DEFAULT_SOCKET
        self.timeout = timeout

    def info(self):
        """Facts about the daemon, its templates and its host, as a dict."""
        return self._json("GET", "/v1/info")

    def create(self, template=None, idempotency_key=None, **fields):
        """Makes a sandbox. Fields: vcpus, mem_mib, disk_mib, timeout_s, env, labels."""
        body = {"template": template, **fields}
        body = {name: value for name, value in body.items() if value is not None}
        return Sandbox(self, self._json("POST", "/v1/sandboxes", body, idempotency_key))

    def get(self, sandbox_id):
        """The sandbox with that id."""
        return Sandbox(self, self._json("GET", "/v1/sandboxes/" + _quote(sandbox_id)))

    def list(self, label=None):
        """All sandboxes, or those with the label "NAME=VALUE"."""
        query, found = {} if label is None else {"label": label}, []
        while True:
            page = self._json("GET", "/v1/sandboxes?" + urllib.parse.urlencode(query))
            found += [Sandbox(self, described) for described in page["sandboxes"]]
            if not page.get("next"):
                return found
            query["after"] = page["next"]

    def run(self, argv=None, shell=None, template=None, files=None, collect=(), stdin=None,
            env=None, cwd=None, user=None, umask=None, limits=None, timeout_ms=None,
            max_output_bytes=None, idempotency_key=None, **fields):
        """One command in a sandbox of its own, which ends with it.

        `files` maps paths in the guest to their content (bytes or str), `collect` names those to
        bring back: result.files maps them to bytes. Other fields are those of create().
        """
        body = _command(argv, shell, stdin, env, cwd, user, umask, limits, timeout_ms,
                        max_output_bytes)
        body.update((name, value) for name, value in fields.items() if value is not None)
        if template is not None:
            body["template"] = template
        body["files"] = []
        for path, content in (files or {}).items():
            entry = {"path": path}
            _put_bytes(entry, "content", content)
            body["files"].append(entry)
        body["collect"] = list(collect)
        return _result_of(self._json("POST", "/v1/run", body, idempotency_key))

    def _open(self, method, target, body=None, headers=None):
        """One request; returns (connection, response), or raises what the daemon says."""
        connection = _Connection(self.socket, self.timeout)
        try:
            # A reader without a length goes out in chunks.
            chunked = hasattr(body, "read")
            connection.request(method, target, body=body, encode_chunked=chunked,
                               headers={"Connection": "close", **(headers or {}),
                                        **({"Transfer-Encoding": "chunked"} if chunked else {})})
            response = connection.getresponse()
            if response.status >= 400:
                raise _error_of(response.status, response.read(RECORD_BYTES_MAX))
            return connection, response
        except (OSError, http.client.HTTPException) as error:
            refusal = self._early_reply(connection)
            connection.close()
            raise refusal or self._unreachable(error) from error
        except BaseException:
            connection.close()
            raise

    @staticmethod
    def _early_reply(connection):
        """The daemon may refuse a body before it has read all: its reply is there then."""
        try:
            response = http.client.HTTPResponse(connection.sock)
            response.begin()
            if response.status >= 400:
                return _error_of(response.status, response.read(RECORD_BYTES_MAX))
        except (OSError, AttributeError, http.client.HTTPException):
            pass
        return None

    def _unreachable(self, error):
        return ClocheError("unreachable", f"no answer from the daemon at {self.socket}", str(error),
                           "start one with `sudo cloche serve`, or name its socket")

    def _json(self, method, target, body=None, idempotency_key=None):
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        if method == "POST":
            headers["Idempotency-Key"] = idempotency_key or str(uuid.uuid4())
        connection, response = self._open(method, target, body, headers)
        try:
            raw = response.read()
            return json.loads(raw) if raw else {}
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _records(self, method, target, body=None):
        """The records of an NDJSON reply, one dict each."""
        headers = {"Accept": "application/x-ndjson"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        connection, response = self._open(method, target, body, headers)
        try:
            while True:
                line = response.readline(RECORD_BYTES_MAX)
                if not line:
                    return
                yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()


def _output_of(records):
    """(kind, data, offset) of a command's records: "stdout" and "stderr" with bytes, "missed" with
    how many, at last "end" with its Result, or "running" with None."""
    for record in records:
        kind = record.get("type")
        if kind in ("stdout", "stderr"):
            yield kind, _bytes_of(record, "data"), record["offset"]
        elif kind == "missed":
            yield kind, record["bytes"], record["offset"]
        elif kind == "end":
            yield kind, _result_of(record), None
            return
        elif kind == "running":
            yield kind, None, record["offset"]
            return
        elif kind == "error":
            raise _error_of(0, json.dumps(record))
    raise ClocheError("unreachable", "the connection was lost before the command ended")


def _quote(text):
    return urllib.parse.quote(text, safe="")


class Sandbox:
    """A sandbox that is there. As a context manager it is deleted at the end of the block."""

    def __init__(self, client, described):
        self._client = client
        self.id = described["id"]
        self.described = described  # as the API said it when this object was made

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self.delete()
        except ClocheError as error:
            # One that has ended by itself is as gone as it was to be.
            if error.code not in ("sandbox_gone", "sandbox_not_found"):
                raise

    def __repr__(self):
        return f"<cloche.Sandbox {self.id}>"

    @property
    def times(self):
        """Milliseconds from the request for it to restore, first instruction and ready."""
        return self.described.get("times") or {}

    @property
    def _path(self):
        return "/v1/sandboxes/" + _quote(self.id)

    def refresh(self):
        """Asks anew what the API says about it; returns that."""
        self.described = self._client._json("GET", self._path)
        return self.described

    def exec(self, argv=None, shell=None, idempotency_key=None, **options):
        """Runs `argv` (a list) or `shell` (a command line) and returns its Result.

        Options: stdin (bytes or str), env, cwd, user, umask ("022"), limits ({"memory_mib",
        "processes", "cpu_s", "file_mib", "open_files"}), timeout_ms, max_output_bytes, session (a
        name: the command runs in a shell that stays, and keeps directory, variables and functions
        from one command to the next).
        """
        body = _command(argv, shell, **options)
        return _result_of(self._client._json("POST", self._path + "/exec", body, idempotency_key))

    def exec_stream(self, argv=None, shell=None, **options):
        """As exec, but yields ("stdout" or "stderr", bytes) as output comes, and at last
        ("end", Result) with empty stdout and stderr. Leaving the loop early kills the command."""
        body = _command(argv, shell, **options)
        for kind, data, _ in _output_of(self._client._records("POST", self._path + "/exec", body)):
            yield kind, data

    def start(self, argv=None, shell=None, stdin_open=False, keep_output_bytes=None,
              idempotency_key=None, **options):
        """Starts a command in the background and returns its Process, which goes on without us.

        Options as for exec. `stdin_open`: Process.write() may write to it. `keep_output_bytes`: how
        much of its newest output is kept for those who read it later (1 MiB).
        """
        body = {**_command(argv, shell, **options), "background": True, "stdin_open": stdin_open}
        if keep_output_bytes is not None:
            body["keep_output_bytes"] = keep_output_bytes
        return Process(self, self._client._json("POST", self._path + "/exec", body,
                                                idempotency_key))

    def processes(self):
        """The commands that run, and those of start() that have ended."""
        listed = self._client._json("GET", self._path + "/processes")["processes"]
        return [Process(self, described) for described in listed]

    def process(self, pid):
        """The process with that number."""
        return Process(self, self._client._json("GET", f"{self._path}/processes/{pid}"))

    def put(self, path, data, mode=None):
        """Writes a file: `data` is bytes, str or a binary file object (streamed, of any size)."""
        query = {"path": path}
        if mode is not None:
            query["mode"] = f"{mode:o}"
        if isinstance(data, str):
            data = data.encode()
        if isinstance(data, (bytearray, memoryview)):
            data = bytes(data)
        connection, response = self._client._open(
            "PUT", self._files(query), data, {"Content-Type": "application/octet-stream"})
        try:
            return json.loads(response.read())
        finally:
            connection.close()

    def get(self, path, offset=None, length=None):
        """A file's content as bytes: all of it, `length` bytes from `offset` on, or with a
        negative offset the last ones. A file that has none of them is an error."""
        content = io.BytesIO()
        self.get_to(path, content, offset, length)
        return content.getvalue()

    def get_to(self, path, fileobj, offset=None, length=None):
        """Writes a file's content to a binary file object; returns the number of bytes. A file
        that has no size of its own (in /proc, say) comes whole, whatever the offset is."""
        connection, response = self._client._open("GET", self._files({"path": path}), None,
                                                  _range_of(offset, length))
        try:
            size = 0
            while True:
                piece = response.read(PIECE_BYTES)
                if not piece:
                    break
                fileobj.write(piece)
                size += len(piece)
            # http.client does not always say that a body ended before its announced length.
            if response.length:
                raise ClocheError("unreachable", f"{path}: the connection was lost half-way")
            return size
        except (OSError, http.client.HTTPException) as error:
            raise self._client._unreachable(error) from error
        finally:
            connection.close()

    def stat(self, path, follow=False):
        """What is at that path, as a File; `follow` looks behind a symbolic link."""
        query = {"path": path, **({"follow": "true"} if follow else {})}
        return _file_of(self._client._json("GET", self._files(query, "/stat")))

    def list(self, path):
        """Yields a File for each entry of a directory, sorted by the names' bytes."""
        directory = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
        query = {"path": path}
        while True:
            page = self._client._json("GET", self._files(query, "/list"))
            for record in page["entries"]:
                yield _file_of(record, directory)
            query["after"] = _path_of(page, "next")
            if query["after"] is None:
                return

    def search(self, path, pattern, limit=None):
        """The files below a directory that match, as Matches, in no order. The pattern is one for
        the path from there: *, ?, [a-z], and ** for any number of directories."""
        query = {"path": path, "pattern": pattern}
        if limit is not None:
            query["limit"] = limit
        reply = self._client._json("GET", self._files(query, "/search"))
        found = Matches(_file_of(record) for record in reply["entries"])
        found.truncated = reply["truncated"]
        return found

    def mkdir(self, path, mode=None, parents=True):
        """Makes a directory; returns whether it was not there before."""
        body = {"parents": parents, **({} if mode is None else {"mode": f"{mode:04o}"})}
        return self._change("mkdir", body, path=path)["created"]

    def rename(self, source, target, overwrite=False):
        """Moves a file or directory to another path, where nothing is unless `overwrite`."""
        self._change("rename", {"overwrite": overwrite}, **{"from": source, "to": target})

    def remove(self, path, recursive=False):
        """Removes a file, an empty directory or, `recursive`, one with all that is in it."""
        query = {"path": path, **({"recursive": "true"} if recursive else {})}
        self._client._json("DELETE", self._files(query))

    def chmod(self, path, mode):
        """Sets permission bits, as in 0o755."""
        self._change("chmod", {"mode": f"{mode:04o}"}, path=path)

    def symlink(self, target, path):
        """Makes a symbolic link at `path` that says `target`."""
        self._change("symlink", {}, target=target, path=path)

    def _change(self, call, body, **paths):
        for name, path in paths.items():
            _put_path(body, name, path)
        return self._client._json("POST", f"{self._path}/files/{call}", body)

    def extend(self, timeout_s):
        """Moves its end to `timeout_s` seconds from now; returns what the API says about it."""
        self.described = self._client._json("PATCH", self._path, {"timeout_s": timeout_s})
        return self.described

    def delete(self):
        """Ends it; returns when nothing of it is left."""
        self._client._json("DELETE", self._path)

    def _files(self, query, call=""):
        return f"{self._path}/files{call}?" + urllib.parse.urlencode(
            query, quote_via=urllib.parse.quote, encoding="utf-8", errors="surrogateescape")


class Process:
    """A command in a sandbox. One that Sandbox.start() made goes on by itself, and what is known of
    it stays after its end until remove()."""

    def __init__(self, sandbox, described):
        self._client = sandbox._client
        self._path = f"{sandbox._path}/processes/{described['pid']}"
        self.pid = described["pid"]
        self.described = described  # as the API said it last

    def __repr__(self):
        return f"<cloche.Process {self.pid}>"

    def refresh(self):
        """Asks anew what the API says about it; returns that."""
        self.described = self._client._json("GET", self._path)
        return self.described

    def wait(self, timeout=None):
        """Waits for its end, at most `timeout` seconds; returns its Result without output, or None
        where it still runs."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_S if end is None else min(WAIT_S, max(0, end - time.monotonic()))
            self.described = self._client._json("GET",
                                                f"{self._path}?wait_ms={int(left * 1000)}")
            if "error" in self.described:
                raise _error_of(0, json.dumps(self.described))
            if self.described["state"] == "ended":
                return _result_of(self.described)
            if end is not None and time.monotonic() >= end:
                return None

    def output(self, offset=None, follow=True):
        """Yields (kind, data, offset): "stdout" or "stderr" with bytes, and where in all output
        they start; "missed" with the number of bytes that are no longer there; at last "end" with
        the Result, or, without `follow`, "running". `offset` None begins with the oldest byte that
        is kept.

        After a lost connection go on at the offset of the last piece plus its length."""
        query = {"follow": "true" if follow else "false"}
        if offset is not None:
            query["from"] = offset
        target = f"{self._path}/output?{urllib.parse.urlencode(query)}"
        return _output_of(self._client._records("GET", target))

    def write(self, data, close=False):
        """Writes bytes, str or a binary file object to its stdin, then closes that if wanted;
        returns the number of bytes."""
        if isinstance(data, str):
            data = data.encode()
        connection, response = self._client._open(
            "POST", f"{self._path}/stdin?close={'true' if close else 'false'}", data,
            {"Content-Type": "application/octet-stream"})
        try:
            return json.loads(response.read())["bytes"]
        finally:
            connection.close()

    def signal(self, name):
        """Sends a signal ("TERM", 15) to its process group."""
        self._client._json("POST", self._path + "/signal", {"signal": str(name)})

    def remove(self):
        """Kills it with all its descendants where it still runs, and forgets it; returns what the
        API last says about it."""
        self.described = self._client._json("DELETE", self._path)
        return self.described
