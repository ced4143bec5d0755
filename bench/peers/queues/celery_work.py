"""A load for Celery with a Redis broker: fills a queue, and has a worker work it off. Prints what was measured.

    python celery_work.py PORT WORKERS JOBS BYTES
"""

import json
import os
import sys
import threading
import time

from celery import Celery

port, workers, jobs, size = map(int, sys.argv[1:])
app = Celery("bench", broker=f"redis://127.0.0.1:{port}/0")
app.conf.update(
    # A job is acknowledged when it is done, as by all others; nobody asks for results.
    task_acks_late=True, task_ignore_result=True, worker_hijack_root_logger=False, worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)
lock, seen, times = threading.Lock(), set(), []


@app.task(name="bench.job")
def job(data):
    number = int(data[:12])
    with lock:
        seen.add(number)
        times.append(time.monotonic())
        if len(times) == jobs:
            done.set()


done = threading.Event()
with app.producer_pool.acquire(block=True) as producer:
    for number in range(jobs):
        job.apply_async((f"{number:012}" + "x" * (size - 12),), producer=producer)


def tell():
    done.wait(600)
    if len(seen) != jobs or len(times) != jobs:
        print(f"{len(seen)} of {jobs} jobs, {len(times)} times", file=sys.stderr, flush=True)
        os._exit(1)
    print(json.dumps({"count": jobs, "per_second": (jobs - 1) / (times[-1] - times[0])}), flush=True)
    os._exit(0)


threading.Thread(target=tell, daemon=True).start()
app.worker_main(["worker", "--pool", "threads", "--concurrency", str(workers), "--loglevel", "ERROR",
                 "--without-gossip", "--without-mingle", "--without-heartbeat"])
