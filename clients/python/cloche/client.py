"""The daemon."""
import http.client
import json
import os
import urllib.parse
import uuid

from ._wire import (RECORD_BYTES_MAX, ClocheError, Connection, command_of, error_of, put_bytes,
                    quote, result_of)
from .sandbox import Sandbox

DEFAULT_SOCKET = "/run/cloche/cloche.sock"


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
        return Sandbox(self, self._json("GET", "/v1/sandboxes/" + quote(sandbox_id)))

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
        body = command_of(argv, shell, stdin, env, cwd, user, umask, limits, timeout_ms,
                        max_output_bytes)
        body.update((name, value) for name, value in fields.items() if value is not None)
        if template is not None:
            body["template"] = template
        body["files"] = []
        for path, content in (files or {}).items():
            entry = {"path": path}
            put_bytes(entry, "content", content)
            body["files"].append(entry)
        body["collect"] = list(collect)
        return result_of(self._json("POST", "/v1/run", body, idempotency_key))

    def _open(self, method, target, body=None, headers=None):
        """One request; returns (connection, response), or raises what the daemon says."""
        connection = Connection(self.socket, self.timeout)
        try:
            # A reader without a length goes out in chunks.
            chunked = hasattr(body, "read")
            connection.request(method, target, body=body, encode_chunked=chunked,
                               headers={"Connection": "close", **(headers or {}),
                                        **({"Transfer-Encoding": "chunked"} if chunked else {})})
            response = connection.getresponse()
            if response.status >= 400:
                raise error_of(response.status, response.read(RECORD_BYTES_MAX))
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
                return error_of(response.status, response.read(RECORD_BYTES_MAX))
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
                    # readline() takes a cut for an end; behind the last chunk this is None.
                    if response.chunk_left is not None:
                        raise http.client.IncompleteRead(b"")
                    return
                yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
