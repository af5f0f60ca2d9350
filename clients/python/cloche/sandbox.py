"""A sandbox, its commands and its files."""
import http.client
import io
import json
import urllib.parse

from ._wire import (PIECE_BYTES, ClocheError, Matches, command_of, file_of, output_of, path_of,
                    put_path, quote, range_of, result_of)
from .process import Process
from .tree import Trees


class Sandbox(Trees):
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
        return "/v1/sandboxes/" + quote(self.id)

    def refresh(self):
        """Asks anew what the API says about it; returns that."""
        self.described = self._client._json("GET", self._path)
        return self.described

    def exec(self, argv=None, shell=None, idempotency_key=None, **options):
        """Runs `argv` (a list) or `shell` (a command line) and returns its Result.

        Options: stdin (bytes or str), env, cwd, user, umask ("022"), limits ({"memory_mib",
        "processes", "cpu_s", "file_mib", "open_files"}), timeout_ms, max_output_bytes, session (a
        name: the command runs in a shell that stays, and keeps directory, variables and functions
        from one command to the next), changes (True: Result.changes says which files it made,
        changed or deleted).
        """
        body = command_of(argv, shell, **options)
        return result_of(self._client._json("POST", self._path + "/exec", body, idempotency_key))

    def exec_stream(self, argv=None, shell=None, **options):
        """As exec, but yields ("stdout" or "stderr", bytes) as output comes, and at last
        ("end", Result) with empty stdout and stderr. Leaving the loop early kills the command."""
        body = command_of(argv, shell, **options)
        for kind, data, _ in output_of(self._client._records("POST", self._path + "/exec", body)):
            yield kind, data

    def start(self, argv=None, shell=None, stdin_open=False, keep_output_bytes=None,
              idempotency_key=None, **options):
        """Starts a command in the background and returns its Process, which goes on without us.

        Options as for exec. `stdin_open`: Process.write() may write to it. `keep_output_bytes`: how
        much of its newest output is kept for those who read it later (1 MiB).
        """
        body = {**command_of(argv, shell, **options), "background": True, "stdin_open": stdin_open}
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
                                                  range_of(offset, length))
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
        return file_of(self._client._json("GET", self._files(query, "/stat")))

    def list(self, path):
        """Yields a File for each entry of a directory, sorted by the names' bytes."""
        directory = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
        query = {"path": path}
        while True:
            page = self._client._json("GET", self._files(query, "/list"))
            for record in page["entries"]:
                yield file_of(record, directory)
            query["after"] = path_of(page, "next")
            if query["after"] is None:
                return

    def search(self, path, pattern, limit=None):
        """The files below a directory that match, as Matches, in no order. The pattern is one for
        the path from there: *, ?, [a-z], and ** for any number of directories."""
        query = {"path": path, "pattern": pattern}
        if limit is not None:
            query["limit"] = limit
        reply = self._client._json("GET", self._files(query, "/search"))
        found = Matches(file_of(record) for record in reply["entries"])
        found.truncated = reply["truncated"]
        return found

    def watch(self, path, recursive=False):
        """Yields what happens to files: dicts with "type" ("watching" first: from then on nothing
        is missed but what an "overflow" tells; "created", "modified", "deleted", "moved") and
        "path". Ends with the directory, or when the loop is left."""
        query = {"path": path, "recursive": "true" if recursive else "false"}
        for record in self._client._records("GET", self._files(query, "/watch")):
            yield {**record, **{name: path_of(record, name) for name in ("path", "from")
                                if name in record or name + "_base64" in record}}

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
            put_path(body, name, path)
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
