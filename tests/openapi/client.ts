// Publishes and reads with the types that were generated from the description of the API. That it compiles
// is half of the test.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./generated.js";

const client = createClient<paths, "application/json" | "application/problem+json">({ baseUrl: process.argv[2]! });

type Message = components["schemas"]["Message"];
type Code = components["schemas"]["Code"];
const missing: Code = "topic_not_found";

const published = await client.POST("/api/v1/messages", {
  params: { header: { "Idempotency-Key": "k" } },
  body: { topic: "typescript", payload: { a: [1, null, "é"] }, ttl: 60 },
});
assert.ok(published.data, JSON.stringify(published.error));
// One that is published for later has a `schedule_id` in place of it.
assert.ok("message_id" in published.data);
const id: string = published.data.message_id;

const bulk = await client.POST("/api/v1/messages/bulk", {
  body: { messages: [{ topic: "typescript", payload: "text", key: "1" }, { topic: "typescript", payload: 2 }] },
});
assert.equal(bulk.data?.summary.accepted, 2);

const page = await client.GET("/api/v1/topics/{topic}/messages", {
  params: { path: { topic: "typescript" }, query: { order: "asc", limit: 10 } },
});
const messages: Message[] = page.data!.messages;
assert.deepEqual(messages.map((message) => message.payload), [{ a: [1, null, "é"] }, "text", 2]);
const next: string | null = page.data!.next_cursor;
assert.equal(next, messages.at(-1)?.message_id);

const one = await client.GET("/api/v1/topics/{topic}/messages/{message_id}", {
  params: { path: { topic: "typescript", message_id: id } },
});
assert.deepEqual(one.data?.payload, { a: [1, null, "é"] });

const trimmed = await client.POST("/api/v1/topics/{topic}/trim", {
  params: { path: { topic: "typescript" } },
  body: { keep: 1 },
});
assert.equal(trimmed.data?.removed, 2);

const deleted = await client.DELETE("/api/v1/topics/{topic}", { params: { path: { topic: "typescript" } } });
assert.equal(deleted.response.status, 204);
const gone = await client.GET("/api/v1/topics/{topic}", { params: { path: { topic: "typescript" } } });
assert.equal(gone.error?.code, missing);
console.log("typescript: published and read");
