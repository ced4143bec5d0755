"""What schemathesis has to be told: how lines are written, and that nobody waits for long."""

import re

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", errors="replace")


def cut(fields, name):
    """Makes a wait that the relay would keep to one of a second."""
    seconds = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(seconds, str) and re.fullmatch(r"[0-9.]+(ms|s|m)?", seconds):
        # A text with a unit; how it is read is tried elsewhere.
        fields[name] = "1s"
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 1 < seconds <= 60:
        fields[name] = 1


@schemathesis.hook
def before_call(ctx, case, kwargs):
    cut(case.query, "wait")
    cut(case.body, "wait")
    if case.path == "/messages/poll" and isinstance(case.body, dict):
        cut(case.body, "timeout")
        if case.body.get("timeout") is None:
            case.body["timeout"] = 1
