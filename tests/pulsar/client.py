"""Does with the client of pulsar-relay what sites do with it, and goes on over a restart of the relay.

    client.py URL FOLDER keeps|forgets

Whoever runs it restarts the relay when it prints `restart`, and writes a line when that is done. A relay that
`keeps` has the same users and messages afterwards; one that `forgets` has none of them.
"""

import json
import os
import sys
import threading

import requests
from pulsar_relay_client import (
    CredentialsFile,
    DeviceFlowError,
    HttpRelayClient,
    RefreshTokenRejectedError,
    RelayAuthError,
    RelayAuthManager,
    RelayDeviceFlowAuthenticator,
    RelayTransport,
    TopicOwnershipConflictError,
)

URL, FOLDER, KEEPS = sys.argv[1], sys.argv[2], sys.argv[3] == "keeps"
ROOT = ("root", "correct horse")
GALAXY = ("galaxy", "correct battery")
OTHER = ("other", "correct staple")


def path(name):
    return os.path.join(FOLDER, name)


def register(name, password):
    """Makes a user, as an administrator does."""
    token = RelayAuthManager(URL, *ROOT).get_token()
    answer = requests.post(
        f"{URL}/auth/register",
        headers={"Authorization": f"Bearer {token}"},
        json={"username": name, "password": password, "permissions": ["read", "write"]},
        timeout=10,
    )
    assert answer.status_code == 201, answer.text
    assert answer.json()["permissions"] == ["read", "write"], answer.text


def fails(kind, act):
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def ids(messages):
    return [message["message_id"] for message in messages]


def publish(sender):
    """Posts one message, and several, and returns their ids."""
    posted = sender.post_message("jobs", {"id": 1}, ttl=3600, metadata={"site": "a"})
    assert set(posted) == {"message_id", "topic", "timestamp"} and posted["topic"] == "jobs", posted
    bulk = sender.post_bulk_messages([{"topic": "jobs", "payload": {"id": id}} for id in (2, 3)])
    assert bulk["summary"] == {"total": 2, "accepted": 2, "rejected": 0}, bulk
    assert {result["status"] for result in bulk["results"]} == {"accepted"}, bulk
    return [posted["message_id"], *ids(bulk["results"])]


def poll(reader, sent):
    """Reads from a cursor, and then what comes while it waits."""
    reader.set_last_message_id("jobs", sent[0])
    got = reader.long_poll(["jobs"], timeout=5)
    assert ids(got) == sent[1:], got
    assert [message["payload"]["id"] for message in got] == [2, 3], got
    fields = {"topic", "message_id", "payload", "timestamp", "metadata", "stream_id"}
    assert fields <= set(got[0]), got
    assert reader.long_poll(["jobs"], timeout=1) == []
    late = threading.Timer(0.5, lambda: reader.post_message("jobs", {"id": 4}))
    late.start()
    got = reader.long_poll(["jobs"], timeout=30)
    late.join()
    assert [message["payload"] for message in got] == [{"id": 4}], got
    with open(path("cursor.json")) as file:
        assert json.load(file) == {"jobs": got[0]["message_id"]}


def page(client, token):
    """Reads pages in both directions."""
    newest = client.fetch_messages(token, "jobs", limit=1)
    assert newest["order"] == "desc" and newest["messages"][0]["payload"] == {"id": 4}, newest
    seen, cursor = [], None
    while True:
        read = client.fetch_messages(token, "jobs", limit=3, order="asc", cursor=cursor)
        assert read["total"] == len(read["messages"]) and read["limit"] == 3, read
        seen += [message["payload"]["id"] for message in read["messages"]]
        cursor = read["next_cursor"]
        if len(read["messages"]) < 3:
            break
    assert seen == [1, 2, 3, 4], seen


def own(client, token):
    """Makes a topic, and cannot have one of somebody else."""
    client.create_or_verify_topic(token, "job_setup_site")
    client.create_or_verify_topic(token, "job_setup_site")
    me = client.whoami(token)
    assert (me["user_id"], me["username"], me["is_active"]) == ("galaxy", "galaxy", True), me
    assert me["owned_topics"] == ["job_setup_site", "jobs"], me
    other = RelayAuthManager(URL, *OTHER).get_token()
    fails(TopicOwnershipConflictError, lambda: client.create_or_verify_topic(other, "job_setup_site"))


def refresh(client):
    """Goes on with the refresh token of a file, which is replaced each time and is good once."""
    file = CredentialsFile(path("credentials.json"))
    first = file.load()["refresh_token"]
    by_file = RelayTransport(URL, credentials_file=file.path)
    assert by_file.auth_manager.strategy_name == "refresh_token"
    by_file.post_message("status", {"state": "running"})
    second = file.load()["refresh_token"]
    assert second != first
    by_file.auth_manager.invalidate()
    by_file.post_message("status", {"state": "done"})
    third = file.load()["refresh_token"]
    assert third != second
    # Whoever has an old one ends the log-in of all.
    fails(RefreshTokenRejectedError, lambda: client.exchange_refresh_token(first))
    fails(RefreshTokenRejectedError, lambda: client.exchange_refresh_token(third))
    fails(RelayAuthError, lambda: by_file.post_message("status", {"state": "lost"}))


def decide(decision):
    """Returns what a person does who is shown a code: opens the page, and decides."""

    def on_user_code(address, code):
        page = requests.get(address, timeout=10)
        assert page.status_code == 200 and code in page.text and "galaxy-byoc" in page.text, page.text
        form = {"user_code": code, "username": GALAXY[0], "password": GALAXY[1], "decision": decision}
        done = requests.post(address.split("?")[0], data=form, timeout=10)
        assert done.status_code == 200, done.text

    return on_user_code


def let_in(client):
    """Is let in with a code, and has a pair of log-ins, of which one is handed on."""
    file = CredentialsFile(path("device.json"))
    told = {"client_hint": "galaxy-byoc", "pair": True}
    refused = RelayDeviceFlowAuthenticator(URL, CredentialsFile(path("none.json")), on_user_code=decide("deny"), **told)
    failed = []
    beside = threading.Thread(target=lambda: failed.append(fails(DeviceFlowError, refused.run)))
    beside.start()
    got = RelayDeviceFlowAuthenticator(URL, file, on_user_code=decide("allow"), **told).run()
    beside.join()
    assert "denied" in str(failed[0]), failed
    assert file.load()["refresh_token"] == got["refresh_token"]
    RelayTransport(URL, credentials_file=file.path).post_message("status", {"state": "let in"})
    other = client.exchange_refresh_token(got["refresh_token_secondary"])
    assert other is not None


def log_in(credentials):
    """Logs in by a password, and leaves the refresh token in a file."""
    if os.path.exists(credentials):
        os.remove(credentials)
    transport = RelayTransport(URL, *GALAXY, credentials_file=credentials, cursor_path=path("cursor.json"))
    assert transport.auth_manager.strategy_name == "password"
    return transport


def main():
    register(*GALAXY)
    register(*OTHER)
    for wrong in [("galaxy", "wrong battery"), ("nobody", "correct battery")]:
        error = fails(RelayAuthError, lambda: RelayAuthManager(URL, *wrong).get_token())
        assert "401" in str(error), error
    client = HttpRelayClient(URL)
    reader = log_in(path("credentials.json"))
    sent = publish(reader)
    poll(reader, sent)
    page(client, reader.auth_manager.get_token())
    own(client, reader.auth_manager.get_token())
    refresh(client)
    let_in(client)
    # The reader's log-in is over by that; it logs in again by itself.
    away = [reader.post_message("jobs", {"id": id})["message_id"] for id in (5, 6)]

    by_file = RelayTransport(URL, credentials_file=path("credentials.json"), cursor_path=path("cursor.json"))
    print("restart", flush=True)
    sys.stdin.readline()
    if KEEPS:
        got = by_file.long_poll(["jobs"], timeout=5)
        assert ids(got) == away, got
        assert client.whoami(reader.auth_manager.get_token())["user_id"] == "galaxy", "the same token"
    else:
        fails(RelayAuthError, lambda: by_file.long_poll(["jobs"], timeout=1))
        register(*GALAXY)
    # With the access token from before, or by the password.
    last = reader.post_message("jobs", {"id": 7})["message_id"]
    again = log_in(path("again.json"))
    got = again.long_poll(["jobs"], timeout=5)
    assert ids(got) == [last], got
    print("went on", flush=True)


main()
