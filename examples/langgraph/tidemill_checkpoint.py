"""A saver of LangGraph that keeps threads in the keys of a Tidemill relay.

A thread lies in one bucket, under keys of five kinds:

| key | value |
|---|---|
| `h.THREAD.NS` | the head: which checkpoint is the newest |
| `c.THREAD.NS.CHECKPOINT` | a checkpoint without the values of its channels, and its metadata |
| `b.THREAD.NS.CHANNEL.VERSION` | the value of a channel in one version; checkpoints share it |
| `w.THREAD.NS.CHECKPOINT.TASK.INDEX` | a write of a task that is not in a checkpoint yet |
| `r.RUN.THREAD.NS.CHECKPOINT` | that a run has made the checkpoint |

What is asked of the relay stands once, in generators that yield requests and are sent answers; two short drivers send
them, one that blocks and one that does not.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import json
import random
import re
import threading
import time
import uuid
import weakref
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import httpx
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    SerializerProtocol,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)

__all__ = [
    "Damaged",
    "Fenced",
    "Forked",
    "Head",
    "Refused",
    "TidemillError",
    "TidemillSaver",
    "Unavailable",
    "ValueTooLarge",
]

CONTENT_TYPE = "application/x-tidemill-langgraph"
"""What values are called that are not JSON."""

CHANGES_MAX = 100
"""Most changes that the relay takes in one request."""

BATCH_BYTES_MAX = 16 * 1024 * 1024
"""Most bytes of changes in one request, where one alone is not larger: half of what the relay takes unless set."""

PAGE_KEYS = 1_000
"""Keys asked for at once, the most that the relay gives."""

TRIES_MAX = 64
"""How often a change is made anew because another worker has been faster."""

PART_BYTES_MAX = 58
"""Longest part of a key that stands there as it is: four of them, an index and what is between are under 255 bytes."""


class TidemillError(Exception):
    """What went wrong; each kind is a class below."""


class Unavailable(TidemillError):
    """The relay has not answered in time. The call may have had its effect, and can be made again."""


class Refused(TidemillError):
    """The relay has refused a request. Nothing was changed.

    `status` is that of the answer, `code` and `detail` are those of its problem document, `field` is what it names.
    """

    def __init__(self, message: str, answer: _Answer) -> None:
        problem = answer.problem()
        detail = problem.get("detail") or problem.get("title") or "no problem document"
        super().__init__(f"{message}: {detail}")
        self.status = answer.status
        self.code: str | None = problem.get("code")
        self.detail: str = detail
        self.field: str | None = problem.get("field")


class ValueTooLarge(Refused):
    """A value is larger than the relay takes (its setting `TIDEMILL_VALUE_BYTES_MAX`). Nothing refers to it."""


class Fenced(Refused):
    """The lock that the saver writes under is held by somebody else by now."""


class Forked(TidemillError):
    """Another worker has gone on with the thread. Read it again before going on."""


class Damaged(TidemillError):
    """What the relay has is not what a saver has written: it was changed by others, or an earlier read was cut."""


class Head(NamedTuple):
    """The newest checkpoint of a namespace of a thread."""

    checkpoint_id: str
    revision: str


# Names


def _part(text: Any) -> str:
    """Returns a text as a part of a key.

    No two texts give the same: letters, digits and `-` stand for themselves, any other byte is `_` and two hex digits,
    nothing is a bare `_`, and what would be long is `_x` with its SHA-256; no part has a dot.
    """
    raw = str(text).encode("utf-8", "surrogatepass")
    if not raw:
        return "_"
    out = re.sub(rb"[^A-Za-z0-9-]", lambda match: b"_%02x" % match[0][0], raw)
    if len(out) <= PART_BYTES_MAX:
        return out.decode("ascii")
    digest = base64.b32hexencode(hashlib.sha256(raw).digest()).decode("ascii")
    return "_x" + digest.rstrip("=").lower()


def _is_digest(part: str) -> bool:
    return part.startswith("_x")


def _text_of(part: str) -> str:
    """Returns the text of a part that is no digest."""
    if part == "_":
        return ""
    raw = re.sub(rb"_([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), part.encode("ascii"))
    return raw.decode("utf-8", "surrogatepass")


def _version(version: str | int | float) -> str:
    """Returns a version with its type: 1 and "1" are two."""
    kind = {str: "s", int: "i", float: "f"}.get(type(version), "o")
    return f"{kind}{version}"


def _key(kind: str, *parts: Any) -> str:
    return ".".join([kind, *map(_part, parts)])


def _prefix(kind: str, *parts: Any) -> str:
    """Returns what all keys begin with that have these parts and more."""
    return _key(kind, *parts) + "."


def _index(index: int) -> str:
    """Returns the index of a write: that of a special channel is negative."""
    return f"n{-index}" if index < 0 else str(index)


# Values


class _Record(NamedTuple):
    """A value with the names that it has in full, as keys may have their digests."""

    names: dict[str, Any]
    parts: list[tuple[str, bytes]]

    def encode(self) -> bytes:
        """Writes the names as one line of JSON, and the parts behind it."""
        body = b"".join(part for _, part in self.parts)
        lengths = [[kind, len(part)] for kind, part in self.parts]
        head = {**self.names, "parts": lengths}
        text = json.dumps(head, separators=(",", ":"), sort_keys=True).encode("ascii")
        digest = hashlib.sha256(text + b"\n" + body).hexdigest().encode("ascii")
        return digest + b" " + text + b"\n" + body

    @classmethod
    def decode(cls, key: str, value: bytes, **expected: Any) -> _Record:
        """Reads what `encode` has written, if it belongs to `key`."""
        digest, _, rest = value.partition(b" ")
        if digest != hashlib.sha256(rest).hexdigest().encode("ascii"):
            raise Damaged(f"the value of key `{key}` is not what was written there")
        head, _, body = rest.partition(b"\n")
        names = json.loads(head)
        lengths = names.pop("parts")
        _check_names(key, names, expected)
        parts, at = [], 0
        for kind, length in lengths:
            parts.append((kind, body[at : at + length]))
            at += length
        return cls(names, parts)


def _check_names(key: str, names: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if names.get(name) != value:
            raise Damaged(f"key `{key}` belongs to {name} {names.get(name)!r}, and {value!r} was looked for")


# Requests


@dataclass
class _Request:
    """What is asked of the relay. Each can be sent twice: changes carry an idempotency key."""

    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    expects: frozenset[int] = frozenset({200})
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)

    def problem(self) -> dict[str, Any]:
        try:
            problem = self.json()
        except ValueError:
            return {}
        return problem if isinstance(problem, dict) else {}


class _Put(NamedTuple):
    """A change that puts a key; `of` says in words whose value it is."""

    key: str
    value: bytes | dict[str, Any]
    of: str = ""
    if_match: str | None = None
    is_new: bool = False

    def encode(self) -> str:
        change: dict[str, Any] = {"op": "put", "key": self.key}
        if isinstance(self.value, bytes):
            change["value_base64"] = base64.b64encode(self.value).decode("ascii")
            change["content_type"] = CONTENT_TYPE
        else:
            change["value"] = self.value
        return _with_condition(change, self.if_match, self.is_new)


class _Delete(NamedTuple):
    """A change that deletes a key."""

    key: str
    if_match: str | None = None
    of: str = ""

    def encode(self) -> str:
        return _with_condition({"op": "delete", "key": self.key}, self.if_match, False)


def _with_condition(change: dict[str, Any], if_match: str | None, is_new: bool) -> str:
    if if_match is not None:
        change["if_match"] = if_match
    if is_new:
        change["if_none_match"] = "*"
    return json.dumps(change, separators=(",", ":"))


_Change = _Put | _Delete


class _Item(NamedTuple):
    """What a generator yields to the caller of its driver, and not to the relay."""

    value: Any


# What is yielded: one request, or several that may be sent beside each other; what comes back are their answers.
_Steps = Generator[Any, Any, Any]

# The class has a method called `list`, behind which the name means that.
_Result = list[Any]


class _Attempts:
    """How often and how long one request is tried."""

    def __init__(self, request: _Request, seconds: float) -> None:
        self.request = request
        self.ends_at = time.monotonic() + seconds
        self.seconds = seconds
        self.delay = 0.05

    def after_error(self, error: httpx.TransportError) -> float:
        """Returns how long to wait after a connection has failed."""
        return self._wait(None, f"{type(error).__name__}: {error}".rstrip(": "), error)

    def after(self, answer: _Answer) -> float | None:
        """Returns how long to wait for another try, or `None` where the answer is one."""
        if answer.status in self.request.expects:
            return None
        problem = answer.problem()
        # An unknown outcome becomes known by the idempotency key; a proxy knows no problem documents.
        again = problem.get("retryable") is True or problem.get("code") == "outcome_unknown"
        if not again and (problem.get("code") or answer.status not in (429, 502, 503, 504)):
            return None
        return self._wait(answer.headers.get("retry-after"), problem.get("detail") or str(answer.status), None)

    def _wait(self, retry_after: str | None, why: str, cause: Exception | None) -> float:
        delay = self.delay * (0.5 + random.random())
        self.delay = min(self.delay * 2, 2.0)
        if retry_after is not None and retry_after.isdigit():
            delay = max(delay, float(retry_after))
        if time.monotonic() + delay > self.ends_at:
            text = f"{self.request.method} {self.request.path} has failed for {self.seconds:g} s: {why}"
            raise Unavailable(text) from cause
        return delay


def _judge(request: _Request, answer: _Answer) -> _Answer:
    """Returns an answer that is expected, and raises what another one means."""
    if answer.status in request.expects:
        return answer
    what = f"the relay refuses {request.method} {request.path} ({answer.status})"
    code = answer.problem().get("code")
    raise {"fenced": Fenced, "too_large": ValueTooLarge}.get(code or "", Refused)(what, answer)


class TidemillSaver(BaseCheckpointSaver[str]):
    """Keeps checkpoints in a bucket of a relay.

    Args:
        url: The relay, as in `http://127.0.0.1:8080`.
        bucket: The bucket; its first key makes it.
        token: A token that may read and publish keys of the bucket, on a closed relay.
        fence: The name of a lock and the fence with which the caller holds it. Each write carries it, and the relay
            refuses those of who no longer holds the lock (`Fenced`).
        forks: `refuse` lets a checkpoint follow the newest one alone: of two workers on one thread the slower one gets
            `Forked`. `allow` lets it follow any, as going back to an earlier checkpoint needs.
        timeout: Seconds that one request may take.
        retry_for: Seconds for which a request is tried while the relay cannot be reached or asks to come back later.
        serde: How values are turned into bytes; encrypting serializers of LangGraph fit.

    Raises:
        ValueError: The URL is not one of HTTP.
    """

    def __init__(
        self,
        url: str,
        *,
        bucket: str = "langgraph",
        token: str | None = None,
        fence: tuple[str, str] | None = None,
        forks: Literal["allow", "refuse"] = "allow",
        timeout: float = 10.0,
        retry_for: float = 30.0,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"`url` must be a URL of HTTP, as in `http://127.0.0.1:8080`, and is {url!r}")
        if forks not in ("allow", "refuse"):
            raise ValueError(f"`forks` must be `allow` or `refuse`, and is {forks!r}")
        if not re.fullmatch(r"[A-Za-z0-9_-]([A-Za-z0-9_.:-]{0,253}[A-Za-z0-9_-])?", bucket):
            raise ValueError(f"`bucket` must be the name of a bucket, and is {bucket!r}")
        self.bucket = bucket
        self.forks = forks
        self.fence = fence
        self.retry_for = retry_for
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._clients = _Clients(url.rstrip("/"), headers, timeout)

    def with_fence(self, name: str, fence: str) -> TidemillSaver:
        """Returns a saver that writes under a lock, over the same connections."""
        clone = copy.copy(self)
        clone.fence = (name, fence)
        return clone

    def close(self) -> None:
        """Closes the connections of calls that block. The saver opens others if it is used again."""
        self._clients.close()

    async def aclose(self) -> None:
        """Closes all connections that belong to the running event loop, and those of calls that block."""
        await self._clients.aclose()

    def __enter__(self) -> TidemillSaver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> TidemillSaver:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def get_next_version(self, current: str | int | None, channel: None = None) -> str:
        """Returns the next version of a channel; two branches of a thread never get the same."""
        before = int(str(current).split(".")[0]) if current is not None else 0
        return f"{before + 1:032}.{uuid.uuid4().hex[:16]}"

    # The interface of LangGraph

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Returns a checkpoint: that which `config` names, or the newest."""
        return self._run(self._get_tuple(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Does as `get_tuple`."""
        return await self._arun(self._get_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yields checkpoints, the newest first; each is read when it is asked for."""
        yield from self._items(self._list(config, filter, before, limit))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Does as `list`."""
        async for item in self._aitems(self._list(config, filter, before, limit)):
            yield item

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keeps a checkpoint.

        Raises:
            Forked: It does not follow the newest one, and the saver refuses forks.
            Fenced: The lock is no longer held.
            ValueTooLarge: The value of a channel is; the text names the channel.
        """
        return self._run(self._put(config, checkpoint, metadata, new_versions))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Does as `put`."""
        return await self._arun(self._put(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keeps what a task has written after a checkpoint. What it has written before stays as it was."""
        self._run(self._put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Does as `put_writes`."""
        await self._arun(self._put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Deletes all of a thread. One that was cut short can be made again."""
        self._run(self._delete_thread(str(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        """Does as `delete_thread`."""
        await self._arun(self._delete_thread(str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes what runs have made, in all threads."""
        self._run(self._delete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Does as `delete_for_runs`."""
        await self._arun(self._delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread to a name that has none.

        Raises:
            Forked: There is a thread of that name.
        """
        self._run(self._copy_thread(str(source_thread_id), str(target_thread_id)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Does as `copy_thread`."""
        await self._arun(self._copy_thread(str(source_thread_id), str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes all but the newest checkpoint of each namespace, or with `delete` whole threads.

        Ancestors stay that the newest one needs for channels of deltas.
        """
        self._run(self._prune(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Does as `prune`."""
        await self._arun(self._prune(thread_ids, strategy))

    def head(self, thread_id: str, checkpoint_ns: str = "") -> Head | None:
        """Returns the newest checkpoint, with the revision of the key that says so."""
        return self._run(self._head(str(thread_id), checkpoint_ns))

    async def ahead(self, thread_id: str, checkpoint_ns: str = "") -> Head | None:
        """Does as `head`."""
        return await self._arun(self._head(str(thread_id), checkpoint_ns))

    # Reading

    def _get_tuple(self, config: RunnableConfig) -> _Steps:
        thread, ns, checkpoint_id = _named(config)
        for _ in range(TRIES_MAX):
            wanted = checkpoint_id
            if not wanted:
                head = yield from self._head(thread, ns)
                if head is None:
                    return None
                wanted = head.checkpoint_id
            record = yield from self._checkpoint(thread, ns, wanted)
            # It may have been pruned between the two reads, and then the head is another one.
            if record is not None or checkpoint_id:
                return (yield from self._tuple(record)) if record is not None else None
            if (yield from self._head(thread, ns)) == head:
                raise Damaged(f"thread {thread!r} has lost checkpoint {wanted!r}, its newest one")
        raise Unavailable(f"the newest checkpoint of thread {thread!r} changes faster than it can be read")

    def _head(self, thread: str, ns: str) -> _Steps:
        key = _key("h", thread, ns)
        answer = yield from self._get(key)
        if answer is None:
            return None
        try:
            names = answer.json()
            _check_names(key, names, {"thread": thread, "ns": ns})
            return Head(names["checkpoint"], answer.headers["etag"].removeprefix("W/").strip('"'))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"key `{key}` is no head of a thread") from error

    def _checkpoint(self, thread: str, ns: str, checkpoint_id: str) -> _Steps:
        key = _key("c", thread, ns, checkpoint_id)
        answer = yield from self._get(key)
        if answer is None:
            return None
        return _Record.decode(key, answer.content, thread=thread, ns=ns, checkpoint=checkpoint_id)

    def _tuple(self, record: _Record) -> _Steps:
        """Adds values of channels and pending writes to a checkpoint."""
        names = record.names
        thread, ns, checkpoint_id = names["thread"], names["ns"], names["checkpoint"]
        checkpoint = self.serde.loads_typed(record.parts[0])
        metadata = self.serde.loads_typed(record.parts[1])
        versions = checkpoint["channel_versions"].items()
        keys = [_key("b", thread, ns, channel, _version(version)) for channel, version in versions]
        answers = (yield [self._read(key) for key in keys]) if keys else []
        values = {}
        for (channel, version), key, answer in zip(versions, keys, answers, strict=True):
            if answer.status == 404:
                continue
            found = _Record.decode(
                key, answer.content, thread=thread, ns=ns, channel=channel, version=_version(version)
            )
            if found.parts[0][0] != "empty":
                values[channel] = self.serde.loads_typed(found.parts[0])
        writes = []
        prefix = _prefix("w", thread, ns, checkpoint_id)
        for key, write in (yield from self._records(prefix, thread=thread, ns=ns, checkpoint=checkpoint_id)):
            writes.append((write.names, self.serde.loads_typed(write.parts[0])))
        writes.sort(key=lambda write: writes_sort_key(write[0]["path"], write[0]["task"], write[0]["index"]))
        parent = names["parent"]
        return CheckpointTuple(
            config=_config(thread, ns, checkpoint_id),
            checkpoint={**checkpoint, "channel_values": values},
            metadata=metadata,
            parent_config=_config(thread, ns, parent) if parent else None,
            pending_writes=[(names["task"], names["channel"], value) for names, value in writes],
        )

    def _list(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> _Steps:
        thread, ns, only = None, None, None
        prefix = "c."
        if config is not None:
            thread, only = str(config["configurable"]["thread_id"]), get_checkpoint_id(config)
            ns = config["configurable"].get("checkpoint_ns")
            prefix = _prefix("c", thread) if ns is None else _prefix("c", thread, ns)
        end = get_checkpoint_id(before) if before else None
        found = []
        for key in (yield from self._keys(prefix)):
            parts = key.split(".")[1:]
            if len(parts) != 3:
                raise Damaged(f"key `{key}` is none that a saver has written")
            if any(map(_is_digest, parts)):
                answer = yield from self._get(key)
                if answer is None:
                    continue
                names = _Record.decode(key, answer.content).names
                found.append((names["checkpoint"], names["thread"], names["ns"]))
            else:
                of_thread, of_ns, checkpoint_id = map(_text_of, parts)
                found.append((checkpoint_id, of_thread, of_ns))
        found.sort(reverse=True)
        for checkpoint_id, of_thread, of_ns in found:
            if limit is not None and limit <= 0:
                return
            if (only and checkpoint_id != only) or (end and checkpoint_id >= end):
                continue
            record = yield from self._checkpoint(of_thread, of_ns, checkpoint_id)
            # Pruned meanwhile.
            if record is None:
                continue
            if filter:
                metadata = self.serde.loads_typed(record.parts[1])
                if any(metadata.get(name) != value for name, value in filter.items()):
                    continue
            if limit is not None:
                limit -= 1
            yield _Item((yield from self._tuple(record)))

    # Writing

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> _Steps:
        thread, ns, parent = _named(config)
        checkpoint_id = checkpoint["id"]
        kept = dict(checkpoint)
        values = kept.pop("channel_values")
        kept_metadata = get_checkpoint_metadata(config, metadata)
        run = str(kept_metadata["run_id"]) if kept_metadata.get("run_id") is not None else None
        place = {"thread": thread, "ns": ns}
        blobs: list[_Change] = []
        for channel, version in new_versions.items():
            part = self.serde.dumps_typed(values[channel]) if channel in values else ("empty", b"")
            record = _Record({**place, "channel": channel, "version": _version(version)}, [part])
            key = _key("b", thread, ns, channel, _version(version))
            blobs.append(_Put(key, record.encode(), f"the value of channel {channel!r}"))
        names = {**place, "checkpoint": checkpoint_id, "parent": parent, "run": run}
        parts = [self.serde.dumps_typed(kept), self.serde.dumps_typed(kept_metadata)]
        own: list[_Change] = [
            _Put(
                _key("c", thread, ns, checkpoint_id),
                _Record(names, parts).encode(),
                "the checkpoint without values of channels",
            )
        ]
        if run is not None:
            own.append(_run_of(names))
        # With room for the head.
        is_one_step = len(blobs) + len(own) < CHANGES_MAX and len(tuple(_batches([*blobs, *own]))) == 1
        for _ in range(TRIES_MAX):
            head = yield from self._head(thread, ns)
            # One that is there already was written by a try whose answer was lost.
            is_again = head is not None and head.checkpoint_id == checkpoint_id
            if self.forks == "refuse" and not is_again:
                newest = head.checkpoint_id if head else None
                if newest != (parent or None):
                    text = f"a checkpoint was to follow {parent!r} in thread {thread!r}, whose newest is {newest!r}"
                    raise Forked(text)
            if not is_one_step:
                # No checkpoint leads to them yet.
                for batch in tuple(_batches(blobs)):
                    yield from self._change_surely(batch)
                blobs = []
            changes = [*blobs, *own]
            if head is None or (checkpoint_id > head.checkpoint_id or self.forks == "refuse"):
                changes.append(self._head_put(place, checkpoint_id, head))
            if (yield from self._change(changes)) is None:
                return _config(thread, ns, checkpoint_id)
        raise Unavailable(f"the head of thread {thread!r} changes faster than a checkpoint can be written")

    def _head_put(self, place: dict[str, Any], checkpoint_id: str, before: Head | None) -> _Put:
        return _Put(
            _key("h", place["thread"], place["ns"]),
            {**place, "checkpoint": checkpoint_id},
            "the head",
            if_match=before.revision if before else None,
            is_new=before is None,
        )

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> _Steps:
        thread, ns, checkpoint_id = _named(config)
        changes: list[_Change] = []
        for position, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, position)
            names = {
                "thread": thread,
                "ns": ns,
                "checkpoint": checkpoint_id,
                "task": task_id,
                "index": index,
                "channel": channel,
                "path": task_path,
            }
            record = _Record(names, [self.serde.dumps_typed(value)])
            key = _key("w", thread, ns, checkpoint_id, task_id, _index(index))
            of = f"a write of channel {channel!r}"
            changes.append(_Put(key, record.encode(), of, is_new=index >= 0))
        # One channel may be written twice by its special index: the last one counts.
        unique = {change.key: change for change in changes}
        for batch in tuple(_batches(unique.values())):
            left = batch
            while left and (yield from self._change(left)) is not None:
                there = set((yield from self._keys(_prefix("w", thread, ns, checkpoint_id, task_id))))
                kept = [change for change in left if not (change.is_new and change.key in there)]
                if len(kept) == len(left):
                    raise Forked(f"writes of task {task_id!r} in thread {thread!r} are deleted while they are written")
                left = kept

    def _copy_thread(self, source: str, target: str) -> _Steps:
        if source == target:
            raise ValueError("a thread cannot be copied to itself")
        heads = yield from self._heads(source)
        if (yield from self._heads(target)):
            raise Forked(f"thread {target!r} is there already")
        # What a head leads to is there before the head is.
        for kind, rest in (
            ("b", ("ns", "channel", "version")),
            ("w", ("ns", "checkpoint", "task", "index")),
            ("c", ("ns", "checkpoint")),
        ):
            after = None
            while True:
                page, after = yield from self._page(_prefix(kind, source), True, after)
                changes: list[_Change] = []
                for entry in page:
                    record = _Record.decode(entry["key"], _bytes_of(entry), thread=source)
                    names = {**record.names, "thread": target}
                    parts = [_index(names[name]) if name == "index" else names[name] for name in rest]
                    changes.append(_Put(_key(kind, target, *parts), record._replace(names=names).encode()))
                    if kind == "c" and names["run"] is not None:
                        changes.append(_run_of(names))
                for batch in tuple(_batches(changes)):
                    yield from self._change_surely(batch)
                if after is None:
                    break
        puts = [
            self._head_put({"thread": target, "ns": ns}, head.checkpoint_id, None) for ns, head in heads.items()
        ]
        for batch in tuple(_batches(puts)):
            if (yield from self._change(batch)) is not None:
                raise Forked(f"thread {target!r} came to be while it was copied to")

    # Deleting

    def _delete_thread(self, thread: str) -> _Steps:
        # Heads first: what is half deleted is not found any more.
        yield from self._delete_all("h", thread)
        found = yield from self._records(_prefix("c", thread), thread=thread)
        yield from self._delete_keys([_run_of(one.names).key for _, one in found if one.names["run"] is not None])
        for kind in ("w", "b", "c"):
            yield from self._delete_all(kind, thread)

    def _delete_for_runs(self, run_ids: Sequence[str]) -> _Steps:
        runs = {str(run) for run in run_ids}
        places, marks = set(), []
        for run in runs:
            for entry in (yield from self._entries(_prefix("r", run))):
                names = entry["value"]
                _check_names(entry["key"], names, {"run": run})
                places.add((names["thread"], names["ns"]))
                marks.append(entry["key"])
        for thread, ns in sorted(places):
            yield from self._thin(thread, ns, runs)
        # Also those whose checkpoints were gone.
        yield from self._delete_keys(marks)

    def _prune(self, thread_ids: Sequence[str], strategy: str) -> _Steps:
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"`strategy` must be `keep_latest` or `delete`, and is {strategy!r}")
        for thread in map(str, thread_ids):
            if strategy == "delete":
                yield from self._delete_thread(thread)
                continue
            for ns in (yield from self._heads(thread)):
                yield from self._thin(thread, ns, None)

    def _newest(self, records: _Result, head: str | None) -> _Steps:
        """Returns the newest checkpoint, and the ancestors to which its channels of deltas go back."""
        by_id = {record.names["checkpoint"]: record for record in records}
        if not by_id:
            return []
        one = by_id.get(head or "") or by_id[max(by_id)]
        counters = self.serde.loads_typed(one.parts[1]).get("counters_since_delta_snapshot") or {}
        kept, deltas = [one], set(counters)
        while deltas:
            deltas -= yield from self._whole(one, deltas)
            # An ancestor may be gone already.
            one = by_id.get(one.names["parent"])
            if one is None or not deltas:
                break
            kept.append(one)
        return kept

    def _whole(self, record: _Record, channels: set[str]) -> _Steps:
        """Returns which of these channels have a value in a checkpoint."""
        versions = self.serde.loads_typed(record.parts[0])["channel_versions"]
        place = record.names["thread"], record.names["ns"]
        keys = {one: _key("b", *place, one, _version(versions[one])) for one in sorted(channels) if one in versions}
        answers = (yield [self._read(key) for key in keys.values()]) if keys else []
        found = zip(keys.items(), answers, strict=True)
        return {
            channel
            for (channel, key), answer in found
            if answer.status == 200 and _Record.decode(key, answer.content).parts[0][0] != "empty"
        }

    def _thin(self, thread: str, ns: str, runs: set[str] | None) -> _Steps:
        """Deletes the checkpoints of a namespace that runs have made, or all but the newest.

        Values go with them that no checkpoint has which stays.
        """
        for _ in range(TRIES_MAX):
            # Values before checkpoints: one that is younger than these is none of them.
            blobs = yield from self._keys(_prefix("b", thread, ns))
            head = yield from self._head(thread, ns)
            found = yield from self._records(_prefix("c", thread, ns), thread=thread, ns=ns)
            records = [record for _, record in found]
            if runs is None:
                kept = yield from self._newest(records, head.checkpoint_id if head else None)
            else:
                kept = [record for record in records if record.names["run"] not in runs]
            ids = {record.names["checkpoint"] for record in kept}
            if head is None or head.checkpoint_id in ids or not records:
                break
            change: _Change = _Delete(_key("h", thread, ns), if_match=head.revision)
            if ids:
                change = self._head_put({"thread": thread, "ns": ns}, max(ids), head)
            if (yield from self._change([change])) is None:
                break
        else:
            raise Unavailable(f"the head of thread {thread!r} changes faster than it can be set")
        used = set()
        for record in kept:
            versions = self.serde.loads_typed(record.parts[0])["channel_versions"]
            used |= {_key("b", thread, ns, channel, _version(at)) for channel, at in versions.items()}
        for record in records:
            names = record.names
            if names["checkpoint"] in ids:
                continue
            yield from self._delete_all("w", thread, ns, names["checkpoint"])
            gone = [_key("c", thread, ns, names["checkpoint"])]
            if names["run"] is not None:
                gone.append(_run_of(names).key)
            yield from self._delete_keys(gone)
        yield from self._delete_keys([key for key in blobs if key not in used])

    def _delete_all(self, kind: str, *parts: str) -> _Steps:
        yield from self._delete_keys((yield from self._keys(_prefix(kind, *parts))))

    def _delete_keys(self, keys: Sequence[str]) -> _Steps:
        for batch in tuple(_batches([_Delete(key) for key in keys])):
            yield from self._change_surely(batch)

    # Keys

    def _read(self, key: str) -> _Request:
        return _Request("GET", f"/api/v1/keys/{self.bucket}/{key}", expects=frozenset({200, 404}))

    def _get(self, key: str) -> _Steps:
        """Returns the answer that is the value of a key, or `None`."""
        answer = yield self._read(key)
        return None if answer.status == 404 else answer

    def _page(self, prefix: str, values: bool, after: str | None) -> _Steps:
        """Returns keys behind one, and the last of them where there are more."""
        params: dict[str, Any] = {"prefix": prefix, "limit": PAGE_KEYS}
        if values:
            params["values"] = "true"
        if after is not None:
            params["after"] = after
        path = f"/api/v1/keys/{self.bucket}"
        answer = yield _Request("GET", path, params, expects=frozenset({200, 404}))
        if answer.status == 404:
            return [], None
        page = answer.json()
        return page, page[-1]["key"] if page and "link" in answer.headers else None

    def _entries(self, prefix: str, values: bool = True) -> _Steps:
        entries, after = [], None
        while True:
            page, after = yield from self._page(prefix, values, after)
            entries += page
            if after is None:
                return entries

    def _keys(self, prefix: str) -> _Steps:
        entries = yield from self._entries(prefix, values=False)
        return [entry["key"] for entry in entries]

    def _records(self, prefix: str, **expected: Any) -> _Steps:
        entries = yield from self._entries(prefix)
        return [(entry["key"], _Record.decode(entry["key"], _bytes_of(entry), **expected)) for entry in entries]

    def _heads(self, thread: str) -> _Steps:
        """Returns the heads of a thread by namespace."""
        heads = {}
        for entry in (yield from self._entries(_prefix("h", thread))):
            names = entry["value"]
            _check_names(entry["key"], names, {"thread": thread})
            heads[names["ns"]] = Head(names["checkpoint"], entry["revision"])
        return heads

    def _change(self, changes: Sequence[_Change]) -> _Steps:
        """Makes changes, all or none. Returns `None`, or what the relay says where a condition does not hold."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        if self.fence is not None:
            headers["Tidemill-Fence"] = f"{self.fence[0]}={self.fence[1]}"
        body = f'{{"changes":[{",".join(change.encode() for change in changes)}]}}'.encode("ascii")
        path = f"/api/v1/keys/{self.bucket}"
        request = _Request("POST", path, {}, body, frozenset({200, 412, 413}), headers)
        answer = yield request
        if answer.status == 200:
            return None
        problem = answer.problem()
        if answer.status == 412 and problem.get("code") == "precondition_failed":
            return problem
        if problem.get("code") == "fenced":
            raise Fenced(f"the write is refused, for lock {self.fence[0] if self.fence else ''!r} is lost", answer)
        if answer.status == 413:
            raise ValueTooLarge(_too_large(changes, problem), answer)
        raise Refused(f"the relay refuses changes ({answer.status})", answer)

    def _change_surely(self, changes: Sequence[_Change]) -> _Steps:
        """Makes changes that have no condition."""
        refused = yield from self._change(changes)
        if refused is not None:
            raise TidemillError(f"the relay refuses changes without a condition: {refused.get('detail')}")

    # Drivers

    def _run(self, steps: _Steps) -> Any:
        result: _Result = []
        for item in self._items(steps, result):
            raise AssertionError(f"nothing is listed here, but {item!r}")
        return result[0]

    def _items(self, steps: _Steps, result: _Result | None = None) -> Iterator[Any]:
        """Runs steps to their end, and yields what they list; what they return is appended to `result`."""
        sent: Any = None
        while True:
            try:
                asked = steps.send(sent)
            except StopIteration as end:
                if result is not None:
                    result.append(end.value)
                return
            if isinstance(asked, _Item):
                yield asked.value
                sent = None
            elif isinstance(asked, list):
                sent = [self._exchange(request) for request in asked]
            else:
                sent = self._exchange(asked)

    async def _arun(self, steps: _Steps) -> Any:
        result: _Result = []
        async for item in self._aitems(steps, result):
            raise AssertionError(f"nothing is listed here, but {item!r}")
        return result[0]

    async def _aitems(self, steps: _Steps, result: _Result | None = None) -> AsyncIterator[Any]:
        """Does as `_items`."""
        sent: Any = None
        while True:
            try:
                asked = steps.send(sent)
            except StopIteration as end:
                if result is not None:
                    result.append(end.value)
                return
            if isinstance(asked, _Item):
                yield asked.value
                sent = None
            elif isinstance(asked, list):
                # The client has a bound of connections, past which requests wait for one.
                sent = await asyncio.gather(*map(self._aexchange, asked))
            else:
                sent = await self._aexchange(asked)

    def _exchange(self, request: _Request) -> _Answer:
        attempts = _Attempts(request, self.retry_for)
        while True:
            try:
                answer = _answer(self._clients.blocking().send(self._clients.built(request)))
                delay = attempts.after(answer)
            except httpx.TransportError as error:
                delay = attempts.after_error(error)
            if delay is None:
                return _judge(request, answer)
            time.sleep(delay)

    async def _aexchange(self, request: _Request) -> _Answer:
        attempts = _Attempts(request, self.retry_for)
        while True:
            try:
                answer = _answer(await self._clients.running().send(self._clients.built(request)))
                delay = attempts.after(answer)
            except httpx.TransportError as error:
                delay = attempts.after_error(error)
            if delay is None:
                return _judge(request, answer)
            await asyncio.sleep(delay)


class _Clients:
    """Connections: those of calls that block, and those of each event loop."""

    def __init__(self, url: str, headers: dict[str, str], timeout: float) -> None:
        self.url = url
        self.headers = headers
        self.timeout = httpx.Timeout(timeout)
        self.limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
        self.lock = threading.Lock()
        self.client: httpx.Client | None = None
        self.of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    def built(self, request: _Request) -> httpx.Request:
        return httpx.Request(
            request.method,
            self.url + request.path,
            params=request.params or None,
            headers={**self.headers, **request.headers},
            content=request.body,
            # Who waits for a connection of the pool waits as long as for an answer.
            extensions={"timeout": self.timeout.as_dict()},
        )

    def blocking(self) -> httpx.Client:
        with self.lock:
            if self.client is None:
                self.client = httpx.Client(timeout=self.timeout, limits=self.limits)
            return self.client

    def running(self) -> httpx.AsyncClient:
        """Returns the client of the running loop: connections of another one are dead here."""
        loop = asyncio.get_running_loop()
        with self.lock:
            client = self.of_loops.get(loop)
            if client is None:
                client = self.of_loops[loop] = httpx.AsyncClient(timeout=self.timeout, limits=self.limits)
            return client

    def close(self) -> None:
        with self.lock:
            client, self.client = self.client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        self.close()
        with self.lock:
            client = self.of_loops.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def _answer(response: httpx.Response) -> _Answer:
    return _Answer(response.status_code, response.headers, response.content)


def _named(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Returns the thread, the namespace and the checkpoint that a config names."""
    configurable = config["configurable"]
    return str(configurable["thread_id"]), configurable.get("checkpoint_ns") or "", get_checkpoint_id(config)


def _config(thread: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


def _run_of(names: Mapping[str, Any]) -> _Put:
    """Returns the change that says which run has made a checkpoint."""
    value = {name: names[name] for name in ("run", "thread", "ns", "checkpoint")}
    return _Put(_key("r", names["run"], names["thread"], names["ns"], names["checkpoint"]), value)


def _bytes_of(entry: Mapping[str, Any]) -> bytes:
    """Returns the value of a key in a page."""
    if "value_base64" in entry:
        return base64.b64decode(entry["value_base64"])
    if "value_text" in entry:
        return entry["value_text"].encode()
    raise Damaged(f"the value of key `{entry.get('key')}` is none that a saver has written")


def _batches(changes: Iterable[_Change]) -> Iterator[list[_Change]]:
    """Yields changes in their order, as many as fit into a request each."""
    batch: list[_Change] = []
    weight = 0
    for change in changes:
        value = change.value if isinstance(change, _Put) else b""
        # A value of JSON is small.
        own = 1024 + (len(value) * 4 // 3 if isinstance(value, bytes) else 0)
        if batch and (len(batch) == CHANGES_MAX or weight + own > BATCH_BYTES_MAX):
            yield batch
            batch, weight = [], 0
        batch.append(change)
        weight += own
    if batch:
        yield batch


def _too_large(changes: Sequence[_Change], problem: Mapping[str, Any]) -> str:
    match = re.match(r"changes\[(\d+)\]", str(problem.get("field") or ""))
    of = changes[int(match[1])].of if match and int(match[1]) < len(changes) else ""
    return f"{of or 'a value'} is too large for the relay; keep it elsewhere, or raise the setting"
