"""Whole trees of files in and out of a sandbox: what cloche.Sandbox has of it."""
import contextlib
import http.client
import json
import os
import tarfile
import threading


def pack(source, fileobj):
    """Writes what a directory holds (or one file) as a tar archive. Owners are not kept; fifos,
    sockets and devices are left out."""
    def judge(member):
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member if member.isreg() or member.isdir() or member.issym() or member.islnk() \
            else None

    source = os.path.realpath(source)
    name = "." if os.path.isdir(source) else os.path.basename(source)
    with tarfile.open(fileobj=fileobj, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, arcname=name, filter=judge)


def data_filter(member, directory):
    """As tarfile.data_filter(), for a Python that has none: raises tarfile.TarError for what would
    leave the directory or is no plain file, and drops owners and special permission bits."""
    def inside(path):
        return os.path.commonpath([top, os.path.realpath(os.path.join(top, path))]) == top

    top = os.path.realpath(directory)
    link = os.path.join(os.path.dirname(member.name), member.linkname)
    if not (member.isreg() or member.isdir() or member.issym()):
        raise tarfile.ExtractError(f"{member.name!r} is no file, directory or symbolic link")
    if os.path.isabs(member.name) or not inside(member.name):
        raise tarfile.ExtractError(f"{member.name!r} is outside of the directory")
    if member.issym() and (os.path.isabs(member.linkname) or not inside(link)):
        raise tarfile.ExtractError(f"{member.name!r} is a link to outside of the directory")
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    mode = 0o755 if member.isdir() else member.mode & 0o755 | 0o600
    member.mode = mode if mode & 0o100 else mode & ~0o111
    return member


def unpack(fileobj, directory):
    """Unpacks an archive whose maker is not trusted; returns counts of what came."""
    counts = {"files": 0, "directories": 0, "symlinks": 0, "bytes": 0}
    os.makedirs(directory, exist_ok=True)
    with tarfile.open(fileobj=fileobj, mode="r|") as archive:
        for member in archive:
            if hasattr(tarfile, "data_filter"):
                archive.extract(member, directory, filter="data")
            else:
                archive.extract(data_filter(member, directory), directory)
            counts["directories"] += member.isdir()
            counts["symlinks"] += member.issym()
            counts["files"] += member.isreg()
            counts["bytes"] += member.size if member.isreg() else 0
            archive.members.clear()  # what it remembers of each
    while fileobj.read(65536):  # only a body that has its end is whole
        pass
    return counts


class _Body:
    """A reply's body; what goes wrong with it is told apart from what does with local files."""

    def __init__(self, client, response):
        self._client, self._response = client, response

    def read(self, size):
        try:
            return self._response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise self._client._unreachable(error) from error


class Trees:
    """Methods of cloche.Sandbox."""

    def put_tree(self, source, path):
        """Copies what a local directory holds (or one file) below the sandbox's directory `path`,
        which is made where it is missing. Returns {"path", "files", "directories", "symlinks",
        "bytes"}. Owners are not kept; fifos, sockets and devices are left out."""
        reader, writer = os.pipe()
        failures = []

        def feed():
            try:
                with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as out:
                    pack(source, out)
            except BaseException as error:  # told by the caller's thread
                failures.append(error)

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        try:
            with os.fdopen(reader, "rb") as body:
                connection, response = self._client._open(
                    "PUT", self._files({"path": path}, "/tar"), body,
                    {"Content-Type": "application/x-tar"})
            try:
                return json.loads(response.read())
            finally:
                connection.close()
        finally:
            thread.join()
            if failures:  # the daemon has refused what came of it
                raise failures[0]

    def get_tree(self, path, directory):
        """Copies what the sandbox's directory `path` holds (or one file) below a local directory,
        which is made where it is missing. Returns {"files", "directories", "symlinks", "bytes",
        "skipped"}: of the last, fifos, sockets and devices, there is no copy. The sandbox is not
        trusted: what would leave the directory, as a symbolic link to an absolute path, ends it
        with a tarfile.TarError; owners and special permission bits are not kept."""
        connection, response = self._client._open("GET", self._files({"path": path}, "/tar"))
        try:
            counts = unpack(_Body(self._client, response), directory)
            return {**counts, "skipped": int(response.headers["X-Cloche-Skipped"])}
        finally:
            connection.close()
