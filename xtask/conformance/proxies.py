"""Sluice and its peers, each before the same service: a plain port and one with TLS. Peers have the
configs that their manuals show, with the same time limits where they have such."""

import os
import signal
import socket
import subprocess
import time

SLUICE = """version: 1
admin: {{ address: "127.0.0.1:{admin}" }}
access_log: {{ output: {folder}/access.log }}
listeners:
  - {{ name: plain, address: "127.0.0.1:{plain}" }}
  - {{ name: tls, address: "127.0.0.1:{tls}", tls: {{ certificates: [ {{ cert_file: "{cert}", key_file: "{key}" }} ] }} }}
upstreams:
  web: {{ endpoints: [ {{ address: "127.0.0.1:{web}" }} ] }}
  grpc: {{ protocol: http2, endpoints: [ {{ address: "127.0.0.1:{grpc}" }} ] }}
routes:
  - {{ id: grpc, match: {{ path: "/test.Echo/**" }}, streaming: true, upstream: grpc }}
  - {{ id: ws, match: {{ path: /ws }}, websocket: true, upstream: web }}
  - {{ id: all, match: {{ path: "/**" }}, upstream: web }}
"""

NGINX = """daemon off; user root; worker_processes 2; worker_rlimit_nofile 20000;
pid {folder}/nginx.pid; error_log {folder}/error.log error;
events {{ worker_connections 8000; }}
http {{
  access_log off; client_max_body_size 64m;
  client_header_timeout 10s; client_body_timeout 30s; send_timeout 30s;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream web {{ server 127.0.0.1:{web}; keepalive 64; }}
  upstream grpc {{ server 127.0.0.1:{grpc}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{plain} backlog=4096;
    listen 127.0.0.1:{tls} ssl http2 backlog=4096;
    ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection "";
    location / {{ proxy_pass http://web; }}
    location /ws {{ proxy_pass http://web; proxy_set_header Connection upgrade;
      proxy_set_header Upgrade $http_upgrade; }}
    location /test.Echo/ {{ grpc_pass grpc://grpc; client_max_body_size 0; }}
  }}
}}
"""

HAPROXY = """global
  nbthread 2
  maxconn 8000
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout http-request 10s
  timeout tunnel 300s
frontend all
  bind 127.0.0.1:{plain} backlog 4096
  bind 127.0.0.1:{tls} ssl crt {both} alpn h2,http/1.1
  use_backend grpc if {{ path_beg /test.Echo/ }}
  default_backend web
backend web
  server one 127.0.0.1:{web}
backend grpc
  server one 127.0.0.1:{grpc} proto h2
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


class Ground:
    """Certificates and the service."""

    def __init__(self, folder, python, here):
        self.folder = folder
        self.ca, self.cert, self.key = (f"{folder}/{name}.pem" for name in ("ca", "cert", "key"))
        self.both = f"{folder}/both.pem"
        self.make_certificates()
        self.web, self.grpc = free_port(), free_port()
        words = [python, f"{here}/origin.py", str(self.web), str(self.grpc)]
        self.origin = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        wait_for(self.web)
        wait_for(self.grpc)

    def make_certificates(self):
        run = lambda *words: subprocess.run(["openssl", *words], check=True, capture_output=True)
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        ca_key, request, names = (f"{self.folder}/{n}" for n in ("ca.key", "leaf.csr", "names"))
        run("req", "-x509", *curve, "-keyout", ca_key, "-out", self.ca, "-days", "30",
            "-subj", "/CN=conformance", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        run("req", *curve, "-keyout", self.key, "-out", request, "-subj", "/CN=localhost")
        with open(names, "w", encoding="ascii") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
                       "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n")
        run("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-out", self.cert,
            "-days", "30", "-extfile", names)
        with open(self.both, "w", encoding="ascii") as both:
            for part in (self.cert, self.key):
                both.write(open(part, encoding="ascii").read())

    def stop(self):
        self.origin.kill()
        self.origin.wait()


class Proxy:
    """One proxy that runs before the service."""

    def __init__(self, name, program, ground):
        self.name = name
        self.plain, self.tls, admin = free_port(), free_port(), free_port()
        folder = f"{ground.folder}/{name}"
        os.makedirs(folder, exist_ok=True)
        text = {"Sluice": SLUICE, "nginx": NGINX, "HAProxy": HAPROXY}[name].format(
            folder=folder, admin=admin, plain=self.plain, tls=self.tls, web=ground.web,
            grpc=ground.grpc, cert=ground.cert, key=ground.key, both=ground.both)
        config = f"{folder}/config.yaml"
        with open(config, "w", encoding="ascii") as file:
            file.write(text)
        words = {
            "Sluice": [program, "run", "--config", config, "--workers", "2"],
            "nginx": [program, "-p", folder, "-e", f"{folder}/error.log", "-c", config],
            "HAProxy": [program, "-db", "-f", config],
        }[name]
        self.log = open(f"{folder}/output", "wb")
        self.process = subprocess.Popen(words, stdout=self.log, stderr=subprocess.STDOUT)
        self.ca = ground.ca
        wait_for(self.plain)
        wait_for(self.tls)

    def is_alive(self):
        return self.process.poll() is None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
