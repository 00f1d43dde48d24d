"""A store of objects, as much of it as reading takes: one bucket, which is a folder."""

import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

_FOUND = "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00Z</LastModified>"


@contextmanager
def bucket(folder):
    """Yield the address of a folder's files, s3://..., with what pyarrow needs to reach it."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path, _, query = self.path.partition("?")
            name = urllib.parse.unquote(path).removeprefix("/bucket").strip("/")
            if "list-type" in query:
                self.answer(200, _listing(folder, dict(urllib.parse.parse_qsl(query))))
            elif (file := folder / name).is_file():
                data = file.read_bytes()
                if part := self.headers.get("Range"):
                    start, end = part.removeprefix("bytes=").split("-")
                    self.answer(206, data[int(start) : int(end) + 1])
                else:
                    self.answer(200, data)
            else:
                self.answer(404 if name else 200, b"")

        def do_HEAD(self):
            self.do_GET()

        def answer(self, status, data):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = urllib.parse.quote(f"127.0.0.1:{server.server_port}")
    try:
        yield f"s3://key:secret@bucket/?scheme=http&region=x&endpoint_override={where}"
    finally:
        server.shutdown()
        server.server_close()


def _listing(folder, query):
    prefix = query.get("prefix", "")
    files = {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}
    found = [(name, size) for name, size in sorted(files.items()) if name.startswith(prefix)]
    contents = "".join(_FOUND.format(escape(n), size) + "</Contents>" for n, size in found)
    head = f"<Name>bucket</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
    body = f"{head}<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}"
    return f'<?xml version="1.0"?><ListBucketResult>{body}</ListBucketResult>'.encode()
