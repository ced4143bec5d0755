"""Publishes and reads with the client that was generated from the description of the API."""

import sys

from generated.api.messages import publish, publish_bulk, read_message, read_messages
from generated.api.operations import poll_stats
from generated.api.topics import create_topic, delete_topic, describe_topic, topics_stats, trim_topic
from generated.client import Client
from generated import models

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
# Where a message can have several kinds of payload, each has a class of its own.
Publish = getattr(models, "PublishPayload", None) or models.Publish
Item = getattr(models, "PublishItemPayload", None) or models.PublishItem

created = create_topic.sync(client=client, body=models.TopicCreate(topic_name="python", description="d"))
assert (created.topic_name, created.description) == ("python", "d"), created

payloads = [{"a": [1, None, "é"]}, None, "text", 1.5, True, []]
first = publish.sync(client=client, body=Publish(topic="python", payload=payloads[0]), idempotency_key="k")
again = publish.sync(client=client, body=Publish(topic="python", payload=payloads[0]), idempotency_key="k")
assert first.message_id == again.message_id, (first, again)
bulk = models.PublishBulk(messages=[Item(topic="python", payload=payload) for payload in payloads[1:]])
done = publish_bulk.sync(client=client, body=bulk)
assert done.summary.accepted == len(payloads) - 1, done
assert all(result.status == models.PublishStatus.ACCEPTED for result in done.results), done

page = read_messages.sync("python", client=client, order=models.Order.ASC, limit=100)
assert [message.payload for message in page.messages] == payloads, page
one = read_message.sync("python", first.message_id, client=client)
assert one.payload == payloads[0] and one.topic == "python", one
rest = read_messages.sync("python", client=client, after=first.message_id, limit=2)
assert [message.payload for message in rest.messages] == payloads[1:3], rest
assert rest.next_cursor == rest.messages[-1].message_id, rest

assert describe_topic.sync("python", client=client).length == len(payloads)
assert topics_stats.sync(client=client).total_messages >= len(payloads)
assert poll_stats.sync(client=client).active_waiters == 0
assert trim_topic.sync("python", client=client, body=models.TrimRequestKeep(keep=1)).removed == len(payloads) - 1
assert delete_topic.sync_detailed("python", client=client).status_code == 204

problem = describe_topic.sync_detailed("python", client=client)
assert problem.status_code == 404, problem
print("python: published and read")
