"""Tries the saver on a relay: `TIDEMILL_URL=http://127.0.0.1:8080 python -m unittest -v`.

With `TIDEMILL_BIN` (the relay's program) and `VALKEY_URL` a relay of their own is stopped and started as well.
"""

import asyncio
import json
import operator
import os
import random
import socket
import subprocess
import sys
import threading
import time
import unittest
import uuid
from typing import Annotated, TypedDict

import httpx
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

import tidemill_checkpoint
from tidemill_checkpoint import (
    Damaged,
    Fenced,
    Forked,
    Refused,
    TidemillSaver,
    Unavailable,
    ValueTooLarge,
    _key,
    _part,
    _text_of,
    _version,
)

URL = os.environ.get("TIDEMILL_URL", "http://127.0.0.1:8080")


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def config(thread, ns="", checkpoint_id=None):
    named = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": {**named, "checkpoint_id": checkpoint_id} if checkpoint_id else named}


def checkpoint(**values):
    made = empty_checkpoint()
    made["channel_values"] = values
    return made


def put(saver, thread, after=None, ns="", metadata=None, versions=None, **values):
    """Puts a checkpoint behind another one; each value is a channel."""
    made = checkpoint(**values)
    versions = versions or {name: saver.get_next_version(None) for name in values}
    made["channel_versions"] = versions
    parent = config(thread, ns, after["configurable"]["checkpoint_id"] if after else None)
    return saver.put(parent, made, {"source": "loop", "step": 0, "parents": {}, **(metadata or {})}, versions)


class Case(unittest.TestCase):
    def setUp(self):
        self.bucket = f"saver-{uuid.uuid4()}"
        self.saver = self.open()

    def open(self, **options):
        saver = TidemillSaver(options.pop("url", URL), bucket=self.bucket, **options)
        self.addCleanup(saver.close)
        return saver

    def keys(self, prefix=""):
        page = httpx.get(f"{URL}/api/v1/keys/{self.bucket}", params={"limit": 1000, "prefix": prefix})
        return [entry["key"] for entry in page.json()]


class Names(unittest.TestCase):
    def test_texts_of_any_kind_never_give_the_same_key(self):
        texts = ["", "_", "a", "A", "a.b", "a_2eb", "a b", "é", "e\u0301", "\ud800", "\0", "h", "_x"]
        texts += ["x" * 58, "x" * 59]
        texts += ["." * count for count in range(1, 60)] + ["x" * 10_000, "x" * 10_001, "a:b|c", "/", "*", "{a}"]
        dice = random.Random(7)
        alphabet = "ab._:-/ é\0_x2e"
        texts += ["".join(dice.choices(alphabet, k=dice.randrange(1, 90))) for _ in range(3000)]
        parts = {_part(text): text for text in set(texts)}
        self.assertEqual(len(parts), len(set(texts)))
        for part, text in parts.items():
            self.assertRegex(part, r"\A[A-Za-z0-9_-]{1,58}\Z")
            if not part.startswith("_x"):
                self.assertEqual(_text_of(part), text)

    def test_no_part_reaches_over_into_the_next_one(self):
        places = [("a", "b.c"), ("a.b", "c"), ("", "a"), ("a", ""), ("a.", "b"), ("a", ".b"), ("_", ""), ("", "_")]
        self.assertEqual(len({_key("c", *place, "1") for place in places}), len(places))

    def test_versions_of_several_types_are_several(self):
        self.assertEqual(len({_version(version) for version in (1, "1", 1.0, "1.0", "i1", 10)}), 6)

    def test_the_longest_key_is_one_that_the_relay_takes(self):
        longest = _key("w", *["é" * 1000] * 4, str(10**8))
        self.assertLessEqual(len(longest), 255)

    def test_what_cannot_be_is_refused_at_once(self):
        for options in ({"url": "valkey://x"}, {"url": "x"}, {"forks": "maybe"}, {"bucket": "a/b"}, {"bucket": ""}):
            with self.assertRaises(ValueError, msg=options):
                TidemillSaver(options.pop("url", URL), **options)


class Threads(Case):
    def test_threads_and_namespaces_of_any_text_lie_beside_each_other(self):
        texts = ["", ".", "a", "a.", ".a", "a.b", "a|b:c", "_", "é", "x" * 300, "x" * 301, "\0"]
        for thread in texts:
            for ns in texts:
                put(self.saver, thread, ns=ns, value=f"{thread}/{ns}")
        for thread in texts:
            listed = list(self.saver.list({"configurable": {"thread_id": thread}}))
            self.assertEqual(sorted(one.config["configurable"]["checkpoint_ns"] for one in listed), sorted(texts))
            for ns in texts:
                found = self.saver.get_tuple(config(thread, ns))
                self.assertEqual(found.checkpoint["channel_values"], {"value": f"{thread}/{ns}"})
        self.assertEqual(len(list(self.saver.list(None))), len(texts) ** 2)
        self.saver.delete_thread("a")
        self.assertIsNone(self.saver.get_tuple(config("a", "a")))
        self.assertEqual(len(list(self.saver.list(None))), len(texts) ** 2 - len(texts))

    def test_a_deleted_thread_leaves_no_key(self):
        first = put(self.saver, "t", metadata={"run_id": "r"}, value=1)
        put(self.saver, "t", first, ns="child", metadata={"run_id": "r"}, value=2)
        self.saver.put_writes(first, [("a", 1), ("b", 2)], "task")
        self.assertEqual(len(self.keys()), 10)
        self.saver.delete_thread("t")
        self.assertEqual(self.keys(), [])

    def test_deleted_runs_leave_what_others_need_and_nothing_else(self):
        first = put(self.saver, "t", metadata={"run_id": "old"}, a=1)
        version = self.saver.get_tuple(first).checkpoint["channel_versions"]
        made = checkpoint(b=2)
        new = {"b": self.saver.get_next_version(None)}
        made["channel_versions"] = {**version, **new}
        second = self.saver.put(first, made, {"run_id": "new"}, new)
        self.saver.delete_for_runs(["old"])
        self.assertEqual(self.saver.get_tuple(config("t")).checkpoint["channel_values"], {"a": 1, "b": 2})
        put(self.saver, "t", second, metadata={"run_id": "late"}, c=3)
        self.saver.delete_for_runs(["late"])
        self.assertEqual(self.saver.head("t").checkpoint_id, second["configurable"]["checkpoint_id"])
        self.saver.delete_for_runs(["new"])
        self.assertEqual(self.keys(), [])

    def test_pruning_keeps_the_newest_with_its_values(self):
        after = None
        for count in range(5):
            after = put(self.saver, "t", after, metadata={"run_id": "r"}, value=count)
            self.saver.put_writes(after, [("a", count)], "task")
        self.saver.prune(["t"])
        kept = self.saver.get_tuple(config("t"))
        self.assertEqual((kept.checkpoint["channel_values"], kept.pending_writes), ({"value": 4}, [("task", "a", 4)]))
        self.assertEqual(len(self.keys()), 5)
        with self.assertRaises(ValueError):
            self.saver.prune(["t"], strategy="half")

    def test_pruning_keeps_ancestors_that_deltas_need(self):
        after = put(self.saver, "t", old=0)
        after = put(self.saver, "t", after, log=["a"])
        for count in range(2):
            self.saver.put_writes(after, [("log", [str(count)])], "task")
            counters = {"counters_since_delta_snapshot": {"log": (count + 1, count + 1)}}
            after = put(self.saver, "t", after, metadata=counters, other=count)
        before = self.saver.get_delta_channel_history(config=after, channels=["log"])
        self.assertEqual([write[2] for write in before["log"]["writes"]], [["0"], ["1"]])
        self.saver.prune(["t"])
        self.assertEqual(len(list(self.saver.list(config("t")))), 3)
        self.assertEqual(self.saver.get_delta_channel_history(config=after, channels=["log"]), before)

    def test_a_copy_is_whole_and_never_goes_over_another_thread(self):
        first = put(self.saver, "a", metadata={"run_id": "r"}, value=1)
        self.saver.put_writes(first, [("x", 1), ("__error__", 2)], "task")
        put(self.saver, "a", first, ns="child", value=2)
        self.saver.copy_thread("a", "b" * 400)
        for ns in ("", "child"):
            one, other = self.saver.get_tuple(config("a", ns)), self.saver.get_tuple(config("b" * 400, ns))
            self.assertEqual(one.checkpoint, other.checkpoint)
            self.assertEqual(one.pending_writes, other.pending_writes)
        with self.assertRaises(Forked):
            self.saver.copy_thread("a", "b" * 400)
        with self.assertRaises(ValueError):
            self.saver.copy_thread("a", "a")
        self.saver.delete_for_runs(["r"])
        self.assertIsNone(self.saver.get_tuple(config("b" * 400)))

    def test_more_than_one_request_holds_comes_back_whole(self):
        values = {f"channel-{count}": count for count in range(250)}
        put(self.saver, "t", **values)
        self.assertEqual(self.saver.get_tuple(config("t")).checkpoint["channel_values"], values)
        self.saver.put_writes(self.saver.get_tuple(config("t")).config, [("a", count) for count in range(250)], "task")
        writes = self.saver.get_tuple(config("t")).pending_writes
        self.assertEqual([write[2] for write in writes], list(range(250)))

    def test_bytes_of_a_request_are_bounded(self):
        before = tidemill_checkpoint.BATCH_BYTES_MAX
        self.addCleanup(setattr, tidemill_checkpoint, "BATCH_BYTES_MAX", before)
        tidemill_checkpoint.BATCH_BYTES_MAX = 100_000
        values = {f"channel-{count}": os.urandom(50_000) for count in range(8)}
        put(self.saver, "t", **values)
        self.assertEqual(self.saver.get_tuple(config("t")).checkpoint["channel_values"], values)

    def test_what_is_too_large_is_named_and_leaves_no_checkpoint(self):
        with self.assertRaisesRegex(ValueTooLarge, "channel 'big' is too large.*TIDEMILL_VALUE_BYTES_MAX") as raised:
            put(self.saver, "t", small=1, big=os.urandom(2 * 1024 * 1024))
        self.assertEqual((raised.exception.status, raised.exception.code), (413, "too_large"))
        self.assertIsNone(self.saver.get_tuple(config("t")))
        with self.assertRaisesRegex(ValueTooLarge, "channel 'w'"):
            self.saver.put_writes(config("t", "", "1"), [("v", 1), ("w", os.urandom(2 * 1024 * 1024))], "task")

    def test_a_value_that_somebody_has_changed_is_refused(self):
        at = put(self.saver, "t", value=1)
        [blob] = self.keys("b.")
        url = f"{URL}/api/v1/keys/{self.bucket}/{blob}"
        good = httpx.get(url).content
        kind = {"content-type": tidemill_checkpoint.CONTENT_TYPE}
        for bad in (good[:-1], good + b"x", b"", b"{}", good.replace(b'"value"', b'"other"')):
            self.assertEqual(httpx.put(url, content=bad, headers=kind).status_code, 200)
            with self.assertRaises(Damaged):
                self.saver.get_tuple(at)
        httpx.put(url, content=good, headers=kind)
        self.assertEqual(self.saver.get_tuple(at).checkpoint["channel_values"], {"value": 1})
        for bad in ("[]", "1", "{}", '{"thread":"u","ns":"","checkpoint":"1"}'):
            url, kind = f"{URL}/api/v1/keys/{self.bucket}/h.t._", {"content-type": "application/json"}
            httpx.put(url, content=bad, headers=kind).raise_for_status()
            with self.assertRaises(Damaged):
                self.saver.get_tuple(config("t"))

    def test_what_the_relay_refuses_is_told_with_its_code(self):
        with self.assertRaises(Refused) as raised:
            self.saver._run(self.saver._change([tidemill_checkpoint._Put("a/b", {})]))
        self.assertEqual((raised.exception.status, raised.exception.code), (400, "invalid_field"))
        self.assertEqual(raised.exception.field, "changes[0].key")


class Workers(Case):
    def test_of_two_workers_the_slower_one_is_told(self):
        one, other = self.open(forks="refuse"), self.open(forks="refuse")
        start = put(one, "t", value=0)
        put(one, "t", start, value=1)
        with self.assertRaises(Forked):
            put(other, "t", start, value=2)
        with self.assertRaises(Forked):
            put(other, "t", value=3)
        self.assertEqual(len(list(one.list(config("t")))), 2)
        # Going back on purpose takes a saver that lets it.
        put(self.saver, "t", start, value=4)
        self.assertEqual(one.get_tuple(config("t")).checkpoint["channel_values"], {"value": 4})

    def test_a_race_of_many_has_one_that_wins_each_round(self):
        savers = [self.open(forks="refuse") for _ in range(6)]
        start = put(savers[0], "t", value=0)
        for _ in range(5):
            told = []

            def go_on(saver, start=start, told=told):
                try:
                    told.append(put(saver, "t", start, value=1))
                except Forked:
                    told.append(None)

            threads = [threading.Thread(target=go_on, args=[saver]) for saver in savers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            won = [one for one in told if one is not None]
            self.assertEqual((len(told), len(won)), (6, 1))
            start = won[0]
        line = list(self.saver.list(config("t")))
        self.assertEqual(len(line), 6)
        for child, parent in zip(line, line[1:]):
            self.assertEqual(child.parent_config, parent.config)

    def test_the_newest_is_the_newest_whoever_comes_last(self):
        made = [checkpoint(value=count) for count in range(8)]

        async def all_at_once():
            async with TidemillSaver(URL, bucket=self.bucket) as saver:
                await asyncio.gather(*(saver.aput(config("t"), one, {}, {}) for one in made))

        asyncio.run(all_at_once())
        self.assertEqual(self.saver.head("t").checkpoint_id, max(one["id"] for one in made))
        self.assertEqual(len(list(self.saver.list(config("t")))), 8)

    def test_the_same_put_again_changes_nothing(self):
        saver = self.open(forks="refuse")
        made = checkpoint(value=1)
        for _ in range(3):
            saver.put(config("t"), made, {"run_id": "r"}, {"value": "1"})
            saver.put_writes(config("t", "", made["id"]), [("a", 1), ("b", 2)], "task")
        self.assertEqual(len(self.keys()), 6)

    def test_who_has_lost_the_lock_writes_no_more(self):
        name = f"lock-{uuid.uuid4()}"
        # With `guards` the lock and the write are checked in one step.
        ask = {"holder": "one", "ttl": 30, "guards": {"bucket": self.bucket}}
        answer = httpx.post(f"{URL}/api/v1/locks/{name}", json=ask)
        if answer.status_code == 404:
            self.skipTest("the relay has no locks")
        self.assertEqual(answer.status_code, 201, answer.text)
        lock = answer.json()
        one = self.saver.with_fence(name, lock["fence"])
        first = put(one, "t", value=1)
        httpx.post(f"{URL}/api/v1/locks/{name}/release", json={"token": lock["token"]}).raise_for_status()
        ask["holder"] = "other"
        answer = httpx.post(f"{URL}/api/v1/locks/{name}", json=ask)
        put(self.saver.with_fence(name, answer.json()["fence"]), "t", first, value=2)
        for write in (
            lambda: put(one, "t", first, value=3),
            lambda: one.put_writes(first, [("a", 1)], "task"),
            lambda: one.delete_thread("t"),
            lambda: one.prune(["t"]),
        ):
            with self.assertRaises(Fenced):
                write()
        self.assertEqual(one.get_tuple(config("t")).checkpoint["channel_values"], {"value": 2})

    def test_each_write_carries_the_fence(self):
        seen = []
        saver = self.saver.with_fence("job", "5-0")
        built = saver._clients.built

        def keep(request):
            made = built(request)
            seen.append((made.method, made.headers.get("tidemill-fence"), made.headers.get("idempotency-key")))
            made.headers.pop("tidemill-fence", None)
            return made

        saver._clients.built = keep
        first = put(saver, "t", metadata={"run_id": "r"}, value=1)
        saver.put_writes(first, [("a", 1)], "task")
        saver.copy_thread("t", "u")
        saver.prune(["t"])
        saver.delete_for_runs(["r"])
        saver.delete_thread("t")
        posts = [one for one in seen if one[0] == "POST"]
        self.assertGreater(len(posts), 6)
        self.assertTrue(all(fence == "job=5-0" for _, fence, _ in posts))
        self.assertEqual(len({key for _, _, key in posts}), len(posts))


class Link(threading.Thread):
    """Passes a connection on to the relay, and cuts those whose answers are to be lost."""

    def __init__(self, lose):
        super().__init__(daemon=True)
        self.lose = lose
        self.requests = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.start()

    def run(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=[near], daemon=True).start()

    def serve(self, near):
        target = httpx.URL(URL)
        with near, near.makefile("rb") as reader:
            while head := reader.readline():
                lines = [head]
                while (line := reader.readline()) not in (b"\r\n", b""):
                    lines.append(line)
                fields = dict(line.decode().strip().lower().split(": ", 1) for line in lines[1:])
                body = reader.read(int(fields.get("content-length", 0)))
                self.requests.append((head, fields))
                with socket.create_connection((target.host, target.port)) as far:
                    far.sendall(b"".join([*lines, b"connection: close\r\n\r\n", body]))
                    answer = b""
                    while part := far.recv(65536):
                        answer += part
                if self.lose > 0 and head.startswith(b"POST"):
                    self.lose -= 1
                    return
                near.sendall(answer)
                return

    def close(self):
        self.server.close()


class Faults(Case):
    def test_a_write_whose_answer_is_lost_is_made_once(self):
        link = Link(lose=2)
        self.addCleanup(link.close)
        saver = self.open(url=link.url, forks="refuse")
        put(saver, "t", value=1)
        keys = [fields["idempotency-key"] for head, fields in link.requests if head.startswith(b"POST")]
        self.assertEqual((len(keys), len(set(keys))), (3, 1))
        self.assertEqual(len(list(self.saver.list(config("t")))), 1)
        # Made three times, the head would have got a later revision than the checkpoint's neighbours.
        page = httpx.get(f"{URL}/api/v1/keys/{self.bucket}").json()
        self.assertEqual(len({one["revision"].split("-")[0] for one in page}), 1, page)

    def test_who_gives_up_says_so_in_time(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        saver = self.open(url=f"http://127.0.0.1:{port}", retry_for=0.5)
        before = time.monotonic()
        with self.assertRaisesRegex(Unavailable, "has failed for 0.5 s"):
            saver.get_tuple(config("t"))
        with self.assertRaises(Unavailable):
            asyncio.run(saver.aget_tuple(config("t")))
        self.assertLess(time.monotonic() - before, 5)


class Graphs(Case):
    def graph(self, saver):
        builder = StateGraph(State)
        builder.add_node("ask", lambda state: {"log": [interrupt("who?")]})
        builder.add_node("greet", lambda state: {"log": [f"hello {state['log'][-1]}"]})
        builder.add_edge(START, "ask")
        builder.add_edge("ask", "greet")
        builder.add_edge("greet", END)
        return builder.compile(checkpointer=saver)

    def test_a_graph_goes_on_with_another_saver(self):
        self.graph(self.open(forks="refuse")).invoke({"log": ["start"]}, config("t"))
        again = self.graph(self.open(forks="refuse"))
        self.assertEqual(again.invoke(Command(resume="ann"), config("t"))["log"], ["start", "ann", "hello ann"])
        steps = [state.values.get("log") for state in again.get_state_history(config("t"))]
        self.assertEqual(steps[0], ["start", "ann", "hello ann"])

    def test_a_graph_runs_in_an_event_loop_and_in_a_second_one(self):
        async def run(value):
            async with TidemillSaver(URL, bucket=self.bucket) as saver:
                return await self.graph(saver).ainvoke(value, config("t"))

        asyncio.run(run({"log": []}))
        self.assertEqual(asyncio.run(run(Command(resume="bob")))["log"], ["bob", "hello bob"])

    def test_one_saver_serves_several_event_loops(self):
        saver = self.open()

        async def run(value):
            try:
                return await self.graph(saver).ainvoke(value, config("t"))
            finally:
                await saver.aclose()

        asyncio.run(run({"log": []}))
        self.assertEqual(asyncio.run(run(Command(resume="bob")))["log"], ["bob", "hello bob"])

    def test_going_back_makes_a_branch(self):
        graph = self.graph(self.saver)
        graph.invoke({"log": []}, config("t"))
        graph.invoke(Command(resume="ann"), config("t"))
        [old] = [state for state in graph.get_state_history(config("t")) if state.next == ("greet",)]
        branch = graph.update_state(old.config, {"log": ["eve"]})
        self.assertEqual(graph.invoke(None, branch)["log"], ["ann", "eve", "hello eve"])
        self.assertEqual(graph.get_state(old.config).values["log"], ["ann"])


@unittest.skipUnless("TIDEMILL_BIN" in os.environ and "VALKEY_URL" in os.environ, "needs TIDEMILL_BIN and VALKEY_URL")
class Restart(unittest.TestCase):
    def start(self, port):
        # The relay refuses settings that it does not know, and the tests have some.
        variables = {"STORAGE_BACKEND": "valkey", "VALKEY_URL": os.environ["VALKEY_URL"]}
        command = [os.environ["TIDEMILL_BIN"], "serve", "--listen", f"127.0.0.1:{port}"]
        relay = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: relay.poll() is None and (relay.kill(), relay.wait()))
        return relay

    def test_the_example_goes_on_through_a_restart_of_the_relay(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        relay = self.start(port)
        folder = os.path.dirname(os.path.abspath(__file__))
        thread = str(uuid.uuid4())
        command = [sys.executable, os.path.join(folder, "graph.py"), f"http://127.0.0.1:{port}", thread]
        graph = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (graph.stdout.close(), graph.poll() is None and graph.kill(), graph.wait()))
        counted = [int(graph.stdout.readline()) for _ in range(3)]
        relay.terminate()
        relay.wait(20)
        time.sleep(1.5)
        relay = self.start(port)
        counted += [int(graph.stdout.readline()) for _ in range(3)]
        # The worker dies, too; the step that was not kept yet is done again.
        graph.kill()
        graph.wait()
        self.assertEqual(counted, list(range(1, 7)))
        second = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        rest = [int(line) for line in second.stdout.split()]
        self.assertIn(rest[0], (6, 7))
        self.assertEqual(rest, list(range(rest[0], 11)))
        relay.terminate()
        relay.wait(20)


if __name__ == "__main__":
    unittest.main()
