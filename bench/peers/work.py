"""The work that every server is given, and the bars that Tidemill is held to.

A scenario is a list of runs; a run starts its servers, loads them, checks that the work was really done
and returns figures by name. It must not know how figures are joined or written.
"""

import json
import re
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from servers import KEEP, QUEUES, TIME, TOPIC, VENV, Failed, find, payload

MEMORY, VALKEY = "Tidemill, memory", "Tidemill, Valkey"
NOOP, WEBDIS, PULSAR = "no-op axum handler", "webdis", "pulsar-relay"
NCHAN_MEMORY, NCHAN_REDIS = "nchan, memory", "nchan, Redis store"
# As many threads as there are cores are not always the fastest, where the load has the same cores: each
# server that can be told is measured with both numbers, and the better one counts.
THREADS = (1, 2)
BARE, JETSTREAM = "bare Valkey", "JetStream, file"
BULLMQ, CELERY, BEANSTALKD, RABBITMQ = "BullMQ", "Celery, threads", "beanstalkd", "RabbitMQ"

RATE = ("per second", "per_second")
P50, P99 = ("p50, µs", "p50_us"), ("p99, µs", "p99_us")

PUBLISH_BYTES, FANOUT_BYTES = 200, 230
SUBSCRIBERS = 100
WORKERS = 50
# Longest run of one load beyond the time that it measures: filling ten million messages, making and
# deleting a hundred thousand topics.
EXTRA_SECONDS_MAX = 600


@dataclass
class Pace:
    """How long and how much is measured."""

    seconds: int
    warm_up: int
    idle: int
    topics: tuple
    fills: tuple
    messages: int
    benchmark: int
    # Messages that workers work off, and those of the slower ones.
    jobs: int
    few_jobs: int


FULL = Pace(seconds=5, warm_up=1, idle=10_000, topics=(10, 100_000), fills=(10_000, 10_000_000),
            messages=1_000_000, benchmark=1_000_000, jobs=200_000, few_jobs=20_000)
QUICK = Pace(seconds=2, warm_up=1, idle=1_000, topics=(10, 1_000), fills=(10_000, 100_000),
             messages=200_000, benchmark=300_000, jobs=20_000, few_jobs=5_000)


@dataclass
class Bar:
    """What a ratio has to be. `ratio` gets a function from a run and a figure to its value."""

    text: str
    is_least: bool
    limit: float
    ratio: Callable


# After so many seconds of warm-up many topics are measured.
TOPICS_WARM_UP_SECONDS = 10


@dataclass
class Scenario:
    title: str
    how: str
    # Pairs of a heading and the name of a figure.
    figures: list
    # By label: a function from servers and pace to figures.
    runs: dict
    bars: list
    # By label: what it does not do in this work.
    lacks: dict = field(default_factory=dict)

    @property
    def variants(self):
        """The labels of runs with so many threads, by that number."""
        of = {count: [label for label in self.runs if label.endswith(labelled("", count))] for count in THREADS}
        return {count: labels for count, labels in of.items() if labels}


def run(command, seconds):
    """Runs a load, which must succeed, and returns what it printed."""
    try:
        # It ends with its time: then it is killed.
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + EXTRA_SECONDS_MAX)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{command[0]} took too long") from late
    if done.returncode != 0:
        raise Failed(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout)[-600:]}")
    return done.stdout


def wrk(servers, server, seconds, connections=50):
    """Posts as fast as it is answered; returns how many requests were answered, and how many a second."""
    script = servers.folder / "post.lua"
    quoted = server.body(PUBLISH_BYTES).replace("\\", "\\\\").replace("'", "\\'")
    lines = [f"wrk.method = '{server.method}'", f"wrk.body = '{quoted}'"]
    lines += [f"wrk.headers['{name}'] = '{value}'" for name, value in server.headers.items()]
    script.write_text("\n".join(lines) + "\n")
    command = [find("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), server.url + server.path]
    text = run(command, seconds)
    if "Non-2xx" in text or "Socket errors" in text:
        raise Failed(f"requests failed: {text[-300:]}")
    return int(re.search(r"(\d+) requests in", text)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])


def publish(start, **options):
    """One message a request over 50 connections; each must be there afterwards."""

    def measure(servers, pace):
        server = getattr(servers, start)(**options)
        status, body = server.ask(server.method, server.path, server.body(PUBLISH_BYTES))
        if not 200 <= status < 300:
            raise Failed(f"a publish was answered with {status}: {body[:200]}")
        sent = 1
        for seconds in (pace.warm_up, pace.seconds):
            requests, rate = wrk(servers, server, seconds)
            sent += requests
        stored = server.stored()
        # Those under way at the end may be there without having been counted.
        if stored is not None and not min(sent, KEEP) <= stored <= sent + 100:
            raise Failed(f"{sent} messages were accepted, and {stored} are there")
        return {"per_second": rate}

    return measure


def bench(servers, pace, server, scenario, *flags, seconds=None):
    """Runs `tidemill bench`, which checks what it counts, and returns the rows of the run."""
    seconds = pace.seconds if seconds is None else seconds
    command = [servers.load, "bench", *scenario.split(), "--url", server.url, "--output", "json",
               "--duration", f"{seconds}s", "--warm-up", f"{pace.warm_up}s", *map(str, flags)]
    rows = json.loads(run(command, seconds))["runs"][0]["rows"]
    for row in rows:
        if row["errors"] or row.get("lost") or row.get("gaps") or row.get("disordered"):
            raise Failed(f"not all was done: {row['errors']} {row.get('lost')}")
    return rows


def figures(row):
    return {"per_second": row["per_second"], "p50_us": row["latency"]["p50_us"], "p99_us": row["latency"]["p99_us"]}


def benched(start, scenario, *flags, **options):
    """Publishes with `tidemill bench`; where something is kept, as many must be there as were counted."""

    def measure(servers, pace):
        server = getattr(servers, start)(**options)
        sized = ["--payload-bytes", PUBLISH_BYTES, "--topic", TOPIC]
        row, = bench(servers, pace, server, scenario, *sized, *getattr(server, "load_flags", []), *flags)
        stored = server.stored()
        if stored is not None and stored < min(row["count"], KEEP):
            raise Failed(f"{row['count']} messages were accepted, and {stored} are there")
        return figures(row)

    return measure


def redis_benchmark(servers, pace):
    server = servers.valkey()
    xadd = ["XADD", f"stream:topic:{TOPIC}", "MAXLEN", "~", str(KEEP), "*",
            "payload", payload(PUBLISH_BYTES), "timestamp", TIME]
    command = [find("redis-benchmark"), "-p", str(server.port), "-P", "128", "-n", str(pace.benchmark), "--csv", *xadd]
    text = run(command, pace.seconds)
    if server.stored() < pace.benchmark:
        raise Failed(f"{server.stored()} of {pace.benchmark} entries are there")
    return {"per_second": float(text.strip().splitlines()[-1].rsplit('",', 7)[1].strip('"'))}


def pulsar_bulk(servers, pace):
    server = servers.pulsar_relay()
    header = ["--header", f"Authorization: {server.headers['Authorization']}"]
    flags = ["--batch", 100, "--connections", 4, "--payload-bytes", PUBLISH_BYTES, "--topic", TOPIC]
    row, = bench(servers, pace, server, "publish --mode bulk", *flags, *header)
    if server.stored() < row["count"]:
        raise Failed(f"{row['count']} messages were accepted, and {server.stored()} are there")
    return figures(row)


def jetstream(**options):
    def measure(servers, pace):
        server = servers.jetstream(**options)
        command = [servers.helper, "jetstream", "--server", f"127.0.0.1:{server.port}", "--window", "1024",
                   "--payload-bytes", str(PUBLISH_BYTES), "--warm-up", str(pace.warm_up),
                   "--duration", str(pace.seconds)]
        return json.loads(run(command, pace.seconds))

    return measure


def live(start, scenario, *flags, **options):
    """Publishes to subscribers with `tidemill bench`, which checks that each gets every message."""

    def measure(servers, pace):
        server = getattr(servers, start)(**options)
        sized = ["--payload-bytes", FANOUT_BYTES, "--subscribers", SUBSCRIBERS]
        rows = bench(servers, pace, server, scenario, *sized, *flags, *getattr(server, "paths", []))
        received, published = rows
        return {**figures(received), "answer_us": published["latency"]["p50_us"]}

    return measure


def idle(start):
    def measure(servers, pace):
        if start.startswith("nchan"):
            server = getattr(servers, start)(threads=1)
            flags = [*server.paths, "--pid", server.worker()]
        else:
            server = getattr(servers, start)()
            flags = []
        row, = bench(servers, pace, server, "idle", "--subscribers", pace.idle, *flags)
        return {"bytes": row["facts"]["bytes_per_subscriber"], "subscribers": pace.idle}

    return measure


def topics(servers, pace):
    server = servers.tidemill_valkey()
    few, many = pace.topics
    # A hundred thousand subscriptions take some time until all is quiet.
    pace = replace(pace, warm_up=TOPICS_WARM_UP_SECONDS)
    rows = bench(servers, pace, server, "topics", "--counts", f"{few},{many}", "--rate", 1_000,
                 "--payload-bytes", PUBLISH_BYTES)
    answers = [row for row in rows if row["what"].endswith("publish to answer")]
    return {"few_us": answers[0]["latency"]["p99_us"], "many_us": answers[1]["latency"]["p99_us"]}


def page(backend):
    def measure(servers, pace):
        keep = {"MAX_MESSAGES_PER_TOPIC": str(2 * max(pace.fills)), "TIDEMILL_MEMORY_BYTES_MAX": "8GiB"}
        store = servers.valkey() if backend == "valkey" else None
        where = {"VALKEY_URL": f"redis://127.0.0.1:{store.port}"} if store else {}
        server = servers.relay({"STORAGE_BACKEND": backend, **where, **keep}, store)
        few, many = pace.fills
        flags = ["--fill", f"{few},{many}", "--limit", 100, "--connections", 1, "--depths", "0,0.5,1"]
        rows = bench(servers, pace, server, "page", *flags, "--payload-bytes", PUBLISH_BYTES)
        times = [row["latency"]["p50_us"] for row in rows]
        # At each depth the two are read in turn.
        short, long = times[0::2], times[1::2]
        worst = max(range(len(short)), key=lambda depth: long[depth] / short[depth])
        return {"few_us": short[worst], "many_us": long[worst]}

    return measure


def resident(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024


def memory(servers, pace):
    server = servers.tidemill_memory()
    before = resident(server.process.pid)
    flags = ["--messages", pace.messages, "--payload-bytes", FANOUT_BYTES, "--topic", TOPIC, "--batch", 100]
    command = [servers.load, "bench", "publish", "--mode", "bulk", "--connections", "4", "--url", server.url,
               "--output", "json", "--warm-up", "0s", "--duration", "60s", *map(str, flags)]
    run(command, 60)
    stored = server.stored()
    if stored < pace.messages * 0.99:
        raise Failed(f"only {stored} messages are there")
    return {"bytes": (resident(server.process.pid) - before) / stored}


def worked(*flags, other_node=False):
    """Has workers work a topic off with `tidemill bench work`, which looks at each message."""

    def measure(servers, pace):
        server = servers.tidemill_valkey()
        more = ["--ack-url", servers.second(server).url] if other_node else []
        row, = bench(servers, pace, server, "work", "--messages", pace.jobs, "--payload-bytes", PUBLISH_BYTES, *flags, *more)
        if row["count"] != pace.jobs:
            raise Failed(f"{row['count']} of {pace.jobs} messages were acknowledged")
        return figures(row)

    return measure


def pulled(workers, batch, **options):
    def measure(servers, pace):
        server = servers.jetstream(**options)
        command = [servers.helper, "pull", "--server", f"127.0.0.1:{server.port}", "--workers", str(workers),
                   "--batch", str(batch), "--messages", str(pace.jobs), "--payload-bytes", str(PUBLISH_BYTES)]
        return json.loads(run(command, pace.seconds))

    return measure


def beanstalk(servers, pace):
    server = servers.beanstalkd()
    command = [servers.helper, "beanstalk", "--server", f"127.0.0.1:{server.port}", "--workers", str(WORKERS),
               "--messages", str(pace.jobs), "--payload-bytes", str(PUBLISH_BYTES)]
    return json.loads(run(command, pace.seconds))


def queue(start, script, *flags, workers=WORKERS):
    """Has a script of a queue's own library fill it, and work it off."""

    def measure(servers, pace):
        server = getattr(servers, start)()
        program = [VENV / "bin/python"] if script.endswith(".py") else [find("node")]
        # Where the libraries of Node.js are found.
        path = servers.folder / script
        path.write_text((Path(__file__).parent / "queues" / script).read_text())
        modules = servers.folder / "node_modules"
        if not modules.exists():
            modules.symlink_to(QUEUES / "node_modules")
        words = [server.port, workers, pace.few_jobs, PUBLISH_BYTES, *flags]
        text = run([*map(str, program), str(path), *map(str, words)], pace.seconds)
        # A worker's own banner may stand around it.
        found = re.search(r'\{"count":.*?\}', text)
        if not found:
            raise Failed(f"{script} has told no figures: {text[-300:]}")
        return json.loads(found[0])

    return measure


ROUTES = {
    MEMORY: "keeps nothing over a restart",
    VALKEY: "nothing: acknowledges once Valkey has appended",
    NOOP: "everything: reads the body and answers 201",
    BARE: "no HTTP; the load speaks its protocol",
    WEBDIS: "no subscribers, limits, idempotency, topics; passes a command on",
    NCHAN_MEMORY: "keeps nothing over a restart; no idempotency; a message is dropped after its time or number",
    NCHAN_REDIS: "no idempotency; answers 201 once its script has run in the server; not a stream",
    PULSAR: "delivery between its workers can be out of order; its limit of 120 publishes a minute is switched off",
    JETSTREAM: "acknowledges once written to the page cache: it syncs every two minutes, Valkey here every second",
    BULLMQ: "a library for Node.js; a job is gone when it is done, there is no log to read",
    CELERY: "a library for Python; a job is gone when it is done",
    BEANSTALKD: "no topics with a history, no HTTP; a job is gone when it is done",
    RABBITMQ: "no history, no HTTP; its consumers here are of one process of Node.js",
}


def labelled(label, count):
    return f"{label}, {count} thread{'s' * (count > 1)}"


def with_threads(label, run, *arguments):
    """Returns a run for each number of threads; `run` makes it of the arguments and that number."""
    return {labelled(label, count): run(*arguments, threads=count) for count in THREADS}


def by(name):
    """Returns the ratio of two runs in one figure; of those with several numbers of threads the better counts."""
    best = max if name == "per_second" else min

    def value(of, label):
        found = []
        for variant in (label, *(labelled(label, count) for count in THREADS)):
            try:
                found.append(of(variant, name))
            except (KeyError, IndexError):
                pass
        if not found:
            raise KeyError(label)
        return best(found)

    return lambda a, b: lambda of: value(of, a) / value(of, b)


rate, p50, p99 = by("per_second"), by("p50_us"), by("p99_us")

SCENARIOS = {
    "publish": Scenario(
        "HTTP publish, one message a request",
        "200-byte payloads, one topic, 50 connections: `wrk -t1 -c50`, the same script for all but method, path and body. "
        "Every answer must be 2xx, and afterwards as many messages be there as were accepted. "
        "Bare Valkey: `tidemill bench publish`, one `XADD` at a time on each of 50 connections.",
        [RATE],
        {
            **with_threads(VALKEY, publish, "tidemill_valkey"), **with_threads(WEBDIS, publish, "webdis"),
            **with_threads(NCHAN_REDIS, publish, "nchan_redis"), PULSAR: publish("pulsar_relay"),
            **with_threads(NOOP, publish, "noop"), **with_threads(MEMORY, publish, "tidemill_memory"),
            **with_threads(NCHAN_MEMORY, publish, "nchan_memory"),
            BARE: benched("valkey", "publish", "--connections", 50),
        },
        [
            Bar("Valkey / webdis", True, 1.25, rate(VALKEY, WEBDIS)),
            Bar("Valkey / nchan with its Redis store", True, 2.5, rate(VALKEY, NCHAN_REDIS)),
            Bar("Valkey / pulsar-relay", True, 30, rate(VALKEY, PULSAR)),
            Bar("Valkey / no-op handler", True, 0.7, rate(VALKEY, NOOP)),
            Bar("memory / nchan in memory", True, 1.0, rate(MEMORY, NCHAN_MEMORY)),
            Bar("memory / no-op handler", True, 0.85, rate(MEMORY, NOOP)),
        ],
    ),
    "fanout": Scenario(
        "Fan-out, as fast as it goes",
        "100 WebSocket subscribers of one topic, 230-byte payloads published over HTTP by 4 connections: "
        "`tidemill bench fanout`, the same reader for all. Every subscriber must get every message in order. "
        "nchan sends the payload alone, Tidemill a JSON frame with id, topic and time around it.",
        [RATE],
        {**with_threads(MEMORY, live, "tidemill_memory", "fanout"),
         **with_threads(NCHAN_MEMORY, live, "nchan_memory", "fanout"),
         **with_threads(VALKEY, live, "tidemill_valkey", "fanout"),
         **with_threads(NCHAN_REDIS, live, "nchan_redis", "fanout")},
        [
            Bar("memory / nchan in memory", True, 1.7, rate(MEMORY, NCHAN_MEMORY)),
            Bar("Valkey / nchan with its Redis store", True, 1.7, rate(VALKEY, NCHAN_REDIS)),
        ],
    ),
    "latency": Scenario(
        "Fan-out at 200 messages a second",
        "The same at a fixed rate: `tidemill bench latency --rate 200`; from when a message was due to each receipt, and "
        "to the answer that its publisher gets.",
        [P50, P99, ("answer, p50, µs", "answer_us")],
        {**with_threads(MEMORY, live, "tidemill_memory", "latency", "--rate", 200),
         **with_threads(NCHAN_MEMORY, live, "nchan_memory", "latency", "--rate", 200),
         **with_threads(VALKEY, live, "tidemill_valkey", "latency", "--rate", 200),
         **with_threads(NCHAN_REDIS, live, "nchan_redis", "latency", "--rate", 200)},
        [
            Bar("p50, memory / nchan in memory", False, 1.0, p50(MEMORY, NCHAN_MEMORY)),
            Bar("p99, memory / nchan in memory", False, 1.0, p99(MEMORY, NCHAN_MEMORY)),
            Bar("p50, Valkey / nchan with its Redis store", False, 1.0, p50(VALKEY, NCHAN_REDIS)),
            Bar("p99, Valkey / nchan with its Redis store", False, 1.0, p99(VALKEY, NCHAN_REDIS)),
        ],
    ),
    "ws": Scenario(
        "Publishing over a socket, with acknowledgements",
        "200-byte payloads, one connection, at most 1,024 messages not yet acknowledged: "
        "`tidemill bench publish --mode ws --window 1024`, and the same loop for the protocol of nats-server. "
        "Bare Valkey: a rolling pipeline of 1,024 `XADD`.",
        [RATE, P50],
        {**with_threads(VALKEY, benched, "tidemill_valkey", "publish --mode ws", "--window", 1_024, "--connections", 1),
         **with_threads(JETSTREAM, jetstream),
         f"{VALKEY}, binary frames":
             benched("tidemill_valkey", "publish --mode ws-binary", "--window", 1_024, "--connections", 1),
         BARE: benched("valkey", "publish --mode ws", "--window", 1_024, "--connections", 1)},
        [Bar("Valkey / JetStream on file", True, 1.0, rate(VALKEY, JETSTREAM))],
    ),
    "work": Scenario(
        "Workers, one message at a time",
        "200-byte payloads, 50 workers with a connection each, which claim and acknowledge one message at a time: "
        "`tidemill bench work --workers 50`; each message must be acknowledged once. The same for beanstalkd, whose log is "
        "synced every second. BullMQ (concurrency 50), Celery (50 threads, late acknowledgements) and RabbitMQ (50 "
        "consumers, prefetch 1) with their own libraries and a tenth of the messages.",
        [RATE],
        {VALKEY: worked(), f"{VALKEY}, binary frames": worked("--transport", "ws-binary"),
         f"{VALKEY}, acknowledged at another node": worked(other_node=True),
         BEANSTALKD: beanstalk, BULLMQ: queue("valkey", "bullmq.mjs"), CELERY: queue("valkey", "celery_work.py"),
         RABBITMQ: queue("rabbitmq", "rabbitmq.mjs", 1)},
        [
            Bar("HTTP / BullMQ", True, 3.0, rate(VALKEY, BULLMQ)),
            Bar("HTTP / Celery", True, 15, rate(VALKEY, CELERY)),
            Bar("HTTP / beanstalkd", True, 1.0, rate(VALKEY, BEANSTALKD)),
            Bar("another node / the same node", True, 0.6, rate(f"{VALKEY}, acknowledged at another node", VALKEY)),
        ],
    ),
    "batches": Scenario(
        "Workers, batches of 100",
        "200-byte payloads, 4 workers: `tidemill bench work --workers 4 --batch 100` over HTTP and over WebSockets with "
        "binary frames, where a worker has a batch and the next on its way; JetStream's pull consumers with the same, each "
        "message acknowledged.",
        [RATE],
        {f"{VALKEY}, binary frames": worked("--workers", 4, "--batch", 100, "--transport", "ws-binary"),
         f"{VALKEY}, JSON frames": worked("--workers", 4, "--batch", 100, "--transport", "ws"),
         f"{VALKEY}, HTTP": worked("--workers", 4, "--batch", 100),
         f"{VALKEY}, HTTP, acknowledged at another node": worked("--workers", 4, "--batch", 100, other_node=True),
         **with_threads(JETSTREAM, pulled, 4, 100), RABBITMQ: queue("rabbitmq", "rabbitmq.mjs", 200, workers=4)},
        [
            Bar("WebSocket / JetStream pull", True, 1.0, rate(f"{VALKEY}, binary frames", JETSTREAM)),
            Bar("HTTP / WebSocket", True, 0.6, rate(f"{VALKEY}, HTTP", f"{VALKEY}, binary frames")),
            Bar("another node / the same node", True, 0.6,
                rate(f"{VALKEY}, HTTP, acknowledged at another node", f"{VALKEY}, HTTP")),
        ],
    ),
    "bulk": Scenario(
        "Publishing in batches",
        "200-byte payloads, 4 connections: `tidemill bench publish --mode ndjson --batch 1000` and "
        "`--mode bulk --batch 100`, which is the most that pulsar-relay takes; `redis-benchmark -P 128` with the "
        "`XADD` that Tidemill sends, on 50 connections.",
        [RATE],
        {f"{VALKEY}, NDJSON of 1,000":
             benched("tidemill_valkey", "publish --mode ndjson", "--batch", 1_000, "--connections", 4),
         "redis-benchmark -P 128": redis_benchmark,
         f"{VALKEY}, bulk of 100":
             benched("tidemill_valkey", "publish --mode bulk", "--batch", 100, "--connections", 4),
         f"{PULSAR}, bulk of 100": pulsar_bulk},
        [
            Bar("NDJSON / redis-benchmark -P 128", True, 0.6,
                rate(f"{VALKEY}, NDJSON of 1,000", "redis-benchmark -P 128")),
            Bar("bulk / pulsar-relay's bulk", True, 1.0, rate(f"{VALKEY}, bulk of 100", f"{PULSAR}, bulk of 100")),
        ],
    ),
    "single": Scenario(
        "One connection, one message at a time",
        "200-byte payloads: `tidemill bench publish --connections 1`, to the bare server one `XADD` at a time.",
        [P50, P99],
        {VALKEY: benched("tidemill_valkey", "publish", "--connections", 1),
         BARE: benched("valkey", "publish", "--connections", 1),
         NOOP: benched("noop", "publish", "--connections", 1),
         MEMORY: benched("tidemill_memory", "publish", "--connections", 1)},
        [Bar("p50, Valkey / (bare `XADD` + no-op request)", False, 1.2,
             lambda of: of(VALKEY, "p50_us") / (of(BARE, "p50_us") + of(NOOP, "p50_us")))],
    ),
    "idle": Scenario(
        "Idle WebSocket subscribers",
        "Growth of the resident memory of the process for each subscriber that gets nothing: `tidemill bench idle`; "
        "at the end one message must reach all. nginx has one worker here, so that one process holds them all.",
        [("bytes each", "bytes"), ("subscribers", "subscribers")],
        {MEMORY: idle("tidemill_memory"), NCHAN_MEMORY: idle("nchan_memory")},
        [Bar("Tidemill / nchan", False, 1.0, lambda of: of(MEMORY, "bytes") / of(NCHAN_MEMORY, "bytes"))],
    ),
    "topics": Scenario(
        "Many live topics",
        "One subscriber on each topic, 1,000 messages a second to any of them: `tidemill bench topics`; p99 from "
        "publish to answer, with 10 topics and with 100,000 (1,000 with `--quick`), 10 s after all are subscribed.",
        [("p99 with few, µs", "few_us"), ("p99 with many, µs", "many_us")],
        {VALKEY: topics},
        [Bar("p99 with many / with few", False, 2.0, lambda of: of(VALKEY, "many_us") / of(VALKEY, "few_us"))],
    ),
    "page": Scenario(
        "A page of a long topic",
        "A page of 100 from a topic of 10,000 messages and from one of 10,000,000 (100,000 with `--quick`), at the "
        "newest end, in the middle and at the oldest, read in turn; the place where the long one is worst: "
        "`tidemill bench page`.",
        [("short, p50, µs", "few_us"), ("long, p50, µs", "many_us")],
        {MEMORY: page("memory"), VALKEY: page("valkey")},
        [Bar(f"long / short, {label.split(', ')[1]}", False, 1.2,
             lambda of, label=label: of(label, "many_us") / of(label, "few_us")) for label in (MEMORY, VALKEY)],
    ),
    "memory": Scenario(
        "Memory of a message",
        "Growth of the resident memory of the relay for each message of 230 bytes that it keeps.",
        [("bytes each", "bytes")],
        {MEMORY: memory},
        [Bar("bytes a message", False, 350, lambda of: of(MEMORY, "bytes"))],
    ),
}
