"""A real nginx that checks forms; it is started on a port of 127.0.0.1 and ended by its id."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.helpers.certificates import Certificate
from tests.helpers.processes import Server, free_port

# nginx has a body only where it hands the request on: so it asks itself whether the form is the
# right one. Its limit of requests on one connection is low, so that it is met.
CONFIGURATION = """
pid {directory}/pid;
error_log stderr info;
daemon off;
master_process off;
events {{ worker_connections 256; }}
http {{
  log_format connections "$connection";
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 10;
  server {{
    listen unix:{directory}/judge;
    access_log off;
    location / {{
      if ($http_form = "{right}") {{ return 204; }}
      return 403 "no";
    }}
  }}
  server {{
    listen 127.0.0.1:{port} {tls};
    access_log {directory}/access connections;
    location = /login {{
      proxy_set_header Form $request_body;
      proxy_pass http://unix:{directory}/judge:/;
    }}
    location = /moved {{ return 301 /login; }}
    location = /down {{ proxy_pass http://127.0.0.1:{closed}; }}
    location = /throttled {{ return 429; }}
  }}
}}
"""


class Nginx:
    """Answers 204 at /login to the form that is *right*, 403 to any other."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self._directory = directory

    def connections(self) -> list[str]:
        """Return the number of the connection that each request came by."""
        return (self._directory / "access").read_text().split()


@contextmanager
def nginx(directory: Path, right: str, certificate: Certificate | None = None) -> Iterator[Nginx]:
    """Run nginx in *directory*, with TLS if there is a *certificate*, while the block runs."""
    port = free_port()
    tls = ""
    if certificate is not None:
        files = f"ssl_certificate {certificate.certificate}; ssl_certificate_key {certificate.key}"
        tls = f"ssl; {files}"
    file = directory / "nginx.conf"
    file.write_text(
        CONFIGURATION.format(
            directory=directory, right=right, port=port, tls=tls, closed=free_port()
        )
    )
    argv = ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(file)]
    with Server(argv, directory / "output") as server:
        server.wait_until(lambda: _listens(port))
        yield Nginx(directory, port)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
