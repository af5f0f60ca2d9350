"""A daemon without guests: the API's shapes, with sandboxes that are a dict of files each. What an
exec does is in the command's first word."""
import base64
import fnmatch
import http.server
import json
import os
import shutil
import socketserver
import tempfile
import threading
import urllib.parse


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class FakeDaemon:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="cloche-fake-")
        self.socket = os.path.join(self.dir, "s")
        self.sandboxes = {}
        self.requests = []  # (method, path, headers, body) as they came
        self.server = Server(self.socket, type("BoundHandler", (Handler,), {"fake": self}))
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.dir)


class Refusal(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


def exec_result(body):
    words = body.get("argv") or ["shell", body["shell"]]
    stdin = base64.b64decode(body["stdin_base64"]) if "stdin_base64" in body else \
        body.get("stdin", "").encode()
    result = {"end": "exited", "exit_code": 0, "signal": None, "truncated": False,
              "usage": {"wall_ms": 1.5}, "times": {"first_output_ms": 4.2}}
    out = " ".join(words[1:]).encode()
    if words[0] == "cat":
        out = stdin
    elif words[0] == "fail":
        result["exit_code"] = int(words[1])
    elif words[0] == "die":
        result.update(end="signaled", exit_code=None, signal=int(words[1]))
    elif words[0] == "end":
        result.update(end=words[1], exit_code=None)
    return result, out


def put_bytes(reply, name, data):
    try:
        reply[name] = data.decode()
    except UnicodeDecodeError:
        reply[name + "_base64"] = base64.b64encode(data).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    fake = None  # set in a subclass for each FakeDaemon
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def address_string(self):
        return "unix"

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while True:
            size = int(self.rfile.readline(), 16)
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(parts)

    def reply(self, status, data, kind="application/json"):
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, records, complete=True):
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        data = b"".join(json.dumps(r).encode() + b"\n" for r in records)
        for i in range(0, len(data), 7):  # small chunks: lines never end with one
            piece = data[i:i + 7]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if complete:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def handle_call(self):
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(p) for p in url.path.split("/")[2:]]
        query = dict(urllib.parse.parse_qsl(url.query, errors="surrogateescape"))
        body = self.body()
        self.fake.requests.append((self.command, self.path, dict(self.headers), body))
        try:
            self.route(parts, query, body)
        except Refusal as refusal:
            self.reply(refusal.status, {"error": {
                "code": refusal.code, "message": str(refusal), "cause": "a cause",
                "remedy": "A remedy.", "request_id": "r1"}})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_call

    def route(self, parts, query, body):
        if parts == ["info"]:
            self.reply(200, {"version": "0", "templates": [{"name": "python"}]})
        elif parts == ["run"]:
            self.run(json.loads(body))
        elif parts == ["sandboxes"]:
            self.sandbox_collection(query, body)
        else:
            self.sandbox(parts[1], parts[2:], query, body)

    def sandbox_collection(self, query, body):
        boxes = self.fake.sandboxes
        if self.command == "POST":
            fields = json.loads(body)
            if fields.get("template") == "nope":
                raise Refusal(404, "template_not_found", "there is no template nope")
            box = {"id": f"sb_{len(boxes)}", "state": "running", "times": {"ready_ms": 8.1},
                   **fields}
            boxes[box["id"]] = {"described": box, "files": {}}
            self.reply(201, box)
            return
        ids = list(boxes)  # pages of two
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        page = ids[start:start + 2]
        more = start + 2 < len(ids)
        self.reply(200, {"sandboxes": [boxes[i]["described"] for i in page],
                         "next": page[-1] if more else None})

    def sandbox(self, name, rest, query, body):
        box = self.fake.sandboxes.get(name)
        if box is None:
            raise Refusal(410, "sandbox_gone", f"{name} is gone")
        if rest == ["exec"]:
            self.exec(json.loads(body))
        elif rest == ["files"] and self.command == "PUT":
            box["files"][query["path"]] = body
            self.reply(201, {"path": query["path"], "size": len(body)})
        elif rest == ["files"] and self.command == "DELETE":
            self.remove(box, query)
        elif rest == ["files", "tar"]:
            self.tree(box, query, body)
        elif rest[0:1] == ["files"] and len(rest) == 2:
            call = getattr(self, "file_" + rest[1])
            call(box, query if self.command == "GET" else json.loads(body))
        elif rest == ["files"]:
            if query["path"] not in box["files"]:
                raise Refusal(404, "file_not_found", f"{query['path']}: no such file")
            data = box["files"][query["path"]]
            if query["path"] == "/cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(data) + 5))
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = True
                return
            self.reply_range(data)
        elif self.command == "DELETE":
            del self.fake.sandboxes[name]
            self.send_response(204)
            self.end_headers()
        else:
            if self.command == "PATCH":
                box["described"].update(json.loads(body))
            self.reply(200, box["described"])

    def tree(self, box, query, body):
        """Keeps an archive, which must have its end, and gives it back."""
        if self.command == "PUT":
            if body[-1024:] != bytes(1024):
                raise Refusal(422, "archive_refused", "the archive ends before its end")
            box["tree"] = body
            self.reply(200, {"path": query["path"], "files": 1})
            return
        data = box["tree"]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Cloche-Skipped", "3")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if query["path"] != "/cut":
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def reply_range(self, data):
        asked = self.headers.get("Range")
        if asked is None:
            self.reply(200, data, "application/octet-stream")
            return
        first, last = asked.removeprefix("bytes=").split("-")
        piece = data[-int(last):] if not first else data[int(first):int(last or len(data)) + 1]
        if not piece:
            raise Refusal(416, "range_not_satisfiable", "nothing there")
        self.reply(206, piece, "application/octet-stream")

    @staticmethod
    def record(box, path, key):
        """A path that others begin with is a directory; so is none."""
        data = box["files"].get(path)
        if data is None and not any(p.startswith(path + "/") for p in box["files"]):
            raise Refusal(404, "file_not_found", f"{path!r}: no such file")
        record = {"type": "directory" if data is None else "file", "size": len(data or b""),
                  "mode": "0644", "uid": 0, "gid": 0, "mtime": "2026-01-02T03:04:05.000000006Z"}
        if data is not None and data.startswith(b"->"):
            record.update(type="symlink", target=data[2:].decode())
        put_bytes(record, key, (path if key == "path" else path.rpartition("/")[2]).encode(
            "utf-8", "surrogateescape"))
        return record

    def file_stat(self, box, query):
        self.reply(200, self.record(box, query["path"], "path"))

    def file_list(self, box, query):
        prefix = query["path"].rstrip("/") + "/"
        names = sorted({p[len(prefix):].partition("/")[0].encode("utf-8", "surrogateescape")
                        for p in box["files"] if p.startswith(prefix)})
        names = [n for n in names
                 if n > query.get("after", "").encode("utf-8", "surrogateescape")]
        page = {"entries": [self.record(box, prefix + n.decode("utf-8", "surrogateescape"), "name")
                            for n in names[:2]], "next": None}  # pages of two
        if len(names) > 2:
            del page["next"]
            put_bytes(page, "next", names[1])
        self.reply(200, page)

    def file_search(self, box, query):
        found = [p for p in box["files"] if fnmatch.fnmatch(p, "*" + query["pattern"])]
        limit = int(query.get("limit", 1000))
        self.reply(200, {"entries": [self.record(box, p, "path") for p in found[:limit]],
                         "truncated": len(found) > limit})

    def file_mkdir(self, box, body):
        self.reply(201, {"path": body["path"], "created": True})

    def file_rename(self, box, body):
        paths = [base64.b64decode(body[n + "_base64"]).decode("utf-8", "surrogateescape")
                 if n + "_base64" in body else body[n] for n in ("from", "to")]
        if paths[1] in box["files"] and not body["overwrite"]:
            raise Refusal(409, "file_exists", "it is there")
        box["files"][paths[1]] = box["files"].pop(paths[0])
        self.reply(200, {})

    def file_chmod(self, box, body):
        self.reply(200, body)

    def file_symlink(self, box, body):
        box["files"][body["path"]] = b"->" + body["target"].encode()
        self.reply(201, body)

    def remove(self, box, query):
        self.record(box, query["path"], "path")
        inside = [p for p in box["files"] if p.startswith(query["path"] + "/")]
        if inside and "recursive" not in query:
            raise Refusal(409, "directory_not_empty", "it is not empty")
        for path in inside + [query["path"]]:
            box["files"].pop(path, None)
        self.send_response(204)
        self.end_headers()

    def exec(self, body):
        result, out = exec_result(body)
        if "ndjson" not in self.headers.get("Accept", ""):
            put_bytes(result, "stdout", out)
            self.reply(200, {**result, "stderr": ""})
            return
        record = {"type": "stdout", "offset": 0}
        put_bytes(record, "data", out)
        if body.get("argv") == ["lost"]:
            self.stream([{"type": "start", "pid": 7}, record], complete=False)
        else:
            self.stream([{"type": "start", "pid": 7}, record, {"type": "end", **result}])

    def run(self, body):
        result, out = exec_result(body)
        put_bytes(result, "stdout", out)
        given = {f["path"]: base64.b64decode(f["content_base64"]) if "content_base64" in f
                 else f["content"].encode() for f in body["files"]}
        files = []
        for path in body["collect"]:
            if path in given:
                files.append({"path": path,
                              "content_base64": base64.b64encode(given[path]).decode()})
            else:
                files.append({"path": path, "error": {"code": "file_not_found",
                                                      "message": f"{path}: no such file"}})
        self.reply(200, {**result, "stderr": "", "files": files, "sandbox": {"pool": "hit"}})
