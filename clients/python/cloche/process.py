"""A command that may outlive the call that started it."""
import json
import time
import urllib.parse

from ._wire import error_of, output_of, result_of

WAIT_S = 30  # of one request that waits


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
                raise error_of(0, json.dumps(self.described))
            if self.described["state"] == "ended":
                return result_of(self.described)
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
        return output_of(self._client._records("GET", target))

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
