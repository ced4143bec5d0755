"""Runs the application pulsar-app, as sites do that take jobs by way of the relay, and sends it a job.

    app.py URL FOLDER

The relay knows the administrator `root`, with the password `correct horse`.
"""

import os
import sys
import time

import requests
from pulsar.core import PulsarApp
from pulsar_relay_client import RelayAuthManager, RelayTransport

URL, FOLDER = sys.argv[1], sys.argv[2]
GALAXY = ("galaxy", "correct battery")


def register():
    token = RelayAuthManager(URL, "root", "correct horse").get_token()
    answer = requests.post(
        f"{URL}/auth/register",
        headers={"Authorization": f"Bearer {token}"},
        json={"username": GALAXY[0], "password": GALAXY[1], "permissions": ["read", "write"]},
        timeout=10,
    )
    assert answer.status_code == 201, answer.text


def start():
    """Starts the application, which waits for jobs."""
    return PulsarApp(
        staging_directory=os.path.join(FOLDER, "staging"),
        persistence_directory=os.path.join(FOLDER, "kept"),
        conda_auto_init=False,
        tool_dependency_dir="none",
        message_queue_url=URL,
        message_queue_username=GALAXY[0],
        message_queue_password=GALAXY[1],
        relay_long_poll_timeout=5,
    )


def run_job(galaxy):
    """Sends a job, and follows what the application tells of it to its end."""
    told = []
    galaxy.set_last_message_id("job_status_update", "0-0")
    galaxy.post_message("job_setup", {"job_id": "7", "command_line": "echo said", "setup": True})
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for message in galaxy.long_poll(["job_status_update"], timeout=5):
            status = message["payload"]
            if status["job_id"] == "7":
                told.append(status)
        if told and told[-1]["complete"] == "true":
            return told
    raise AssertionError(told)


def main():
    register()
    app = start()
    try:
        told = run_job(RelayTransport(URL, *GALAXY))
    finally:
        app.shutdown(5)
    last = told[-1]
    assert (last["status"], last["returncode"]) == ("complete", 0), told
    assert "said" in last["stdout"] + last["job_stdout"], last
    assert [status["complete"] for status in told].count("true") == 1, told
    print("a job ran", flush=True)


main()
