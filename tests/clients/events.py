"""Reads a stream of events with httpx-sse until a message says that it is the last, and prints each event as a
line of JSON. Every event must have data in JSON, as programs that use this library take for granted.

    python events.py URL [LAST_EVENT_ID]
"""

import json
import sys

import httpx
from httpx_sse import connect_sse

url, last_event_id = sys.argv[1], sys.argv[2:]
headers = {"Last-Event-ID": last_event_id[0]} if last_event_id else {}
with httpx.Client(timeout=20, trust_env=False) as client:
    with connect_sse(client, "GET", url, headers=headers) as source:
        for event in source.iter_sse():
            value = event.json()
            line = {"event": event.event, "id": event.id, "data": event.data, "retry": event.retry}
            print(json.dumps(line), flush=True)
            if value.get("payload") == "last":
                break
