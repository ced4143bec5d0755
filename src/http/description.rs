//! The description of the API for programs: what the handlers say of themselves, and what their types
//! cannot say: which texts a parameter takes, that a body has no other fields, that it has exactly one of
//! several, and a request for every operation that works as it stands.
//!
//! It must not know how a request is read; tests send what is described here to a relay.

mod copies;
mod examples;
mod keys;
mod locks;
mod refined;
mod series;
mod texts;
mod times;

use serde_json::{Map, Value, json};
use tidemill_proto::TopicPattern;
use tidemill_proto::limits::{
    BUCKETS_PAGE_MAX, CONTENT_TYPE_BYTES_MAX, DESCRIPTION_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX,
    PAGE_MESSAGES_MAX, SLOW_PAGE_MAX, TOPICS_PAGE_MAX,
};
use tidemill_proto::series::SERIES_PAGE_MAX;
use tidemill_proto::takes::{LIMIT_MAX, POLICIES_MAX, TAKES_MAX};
use tidemill_proto::work::RECEIPTS_MAX;
use utoipa::PartialSchema as _;
use utoipa::openapi::OpenApi;

use examples::{SCRATCH, TOPIC};
use refined::refine;
use texts::{key, moment, since};

use super::claims::{SOURCES_MAX, WEIGHT_MAX};
use super::devices::GRANT;
use super::groups::{BACKOFFS_MAX, DELIVERIES_MAX, HELD_MAX, IDS_MAX, RATE_MAX};
use super::routes::PERMISSION;
use crate::access::Verb;
use crate::relay::CLAIM_MESSAGES_MAX;

/// What a reference to a schema begins with.
const SCHEMAS: &str = "#/components/schemas/";

/// A receipt as a claim gives one; it settles nothing.
const RECEIPT: &str = "earthquakes/archive/0000000000000001/1517363399650-0/1";
/// A token of a lock as an acquire gives one; nobody holds anything with it.
const LOCK_TOKEN: &str = "00000000000000000000000000000000";

/// The texts of ids in requests; a number of 20 digits, which may be too large, is left out.
const ID: &str = "[0-9]{1,19}-[0-9]{1,19}";
/// The texts of times ago: at most a hundred years.
const AGO: &str = "-([0-9]{1,12}ms|[0-9]{1,9}s|[0-9]{1,7}m|[0-9]{1,5}h|[0-9]{1,4}d)";
const TOPIC_NAME: &str = "[A-Za-z0-9_-]([A-Za-z0-9_.:-]{0,253}[A-Za-z0-9_-])?";

/// The names of users, tokens and roles, but for those that a path would lose.
const NAME: &str = "[A-Za-z0-9_-][A-Za-z0-9_.@-]{0,127}";

/// The names of groups, and of recurring messages.
const SHORT_NAME: &str = "[A-Za-z0-9_-]{1,64}";
/// The ids of schedules.
const SCHEDULE: &str = "[0-9a-z-]{1,64}";
/// The names of consumers, and the ids of claims.
const CONSUMER: &str = "^[A-Za-z0-9_.@/-]{1,128}$";
const CLAIM: &str = "^[A-Za-z0-9_.-]{1,128}$";

/// The texts of rules; one may name several verbs, and leave out and repeat blanks.
const RULE: &str = "^((allow|deny) (publish|read|work|manage) (keys/|locks/|limits/|presence/|series/)?[A-Za-z0-9_.:-]{1,200}\\*?|(allow|deny) admin \\*)$";

/// The texts of base64 (RFC 4648 section 4), without bits that say nothing.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// Fields of request bodies of which exactly one is there, by schema.
const EXACTLY_ONE: &[(&str, &[&str])] = &[
    ("Publish", &["payload", "payload_text", "payload_base64"]),
    ("PublishItem", &["payload", "payload_text", "payload_base64"]),
    ("RecurringUpdate", &["payload", "payload_text", "payload_base64"]),
    ("LockRequest", &["ttl", "lease"]),
    ("TrimRequest", &["keep", "before"]),
    ("TicketCreate", &["topics", "rules"]),
];

/// Returns the whole description, for a relay whose cookies have this name.
pub(super) fn complete(openapi: &OpenApi, cookie: &str) -> Value {
    let mut document = serde_json::to_value(openapi).expect("the document is plain data");
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        split_publish(schemas);
    }
    let mut bodies = Vec::new();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (method, operation) in paths.filter_map(|(_, item)| item.as_object_mut()).flatten() {
        describe(method, operation, &mut bodies);
    }
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        while let Some(name) = bodies.pop() {
            let Some(schema) = schemas.get_mut(&name) else { continue };
            close(schema, &mut bodies);
            let one_of = EXACTLY_ONE.iter().find(|(of, _)| *of == name);
            let variants = one_of.map_or_else(Vec::new, |(_, fields)| variants(&name, schema, fields));
            if !variants.is_empty() {
                // Each by its own name, which generators of clients take over.
                let names = variants.iter().map(|(name, _)| json!({ "$ref": format!("{SCHEMAS}{name}") }));
                *schema = json!({ "description": schema["description"], "oneOf": names.collect::<Vec<_>>() });
                schemas.extend(variants);
            }
        }
    }
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        keys::complete(schemas);
        locks::complete(schemas);
        series::complete(schemas);
    }
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "A token of the relay, the access token of a log-in, or a JWT of an issuer" },
        "cookie": { "type": "apiKey", "in": "cookie", "name": cookie, "description": "What `POST /auth/cookie` sets; it counts with requests of pages of the relay itself" },
    });
    document
}

/// Tells a message that is published alone from one among several, which has a key of its own.
fn split_publish(schemas: &mut Map<String, Value>) {
    let Some(mut publish) = schemas.get("Publish").cloned() else { return };
    schemas.insert("PublishItem".to_owned(), publish.clone());
    if let Some(fields) = publish["properties"].as_object_mut() {
        fields.remove("key");
    }
    schemas.insert("Publish".to_owned(), publish);
    if let Some(items) =
        schemas.get_mut("PublishBulk").and_then(|it| it.pointer_mut("/properties/messages/items"))
    {
        *items = json!({ "$ref": "#/components/schemas/PublishItem" });
    }
}

/// Completes an operation, and notes which schemas its body has.
fn describe(method: &str, operation: &mut Value, bodies: &mut Vec<String>) {
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if response.get("description").is_none() {
            response["description"] = reason(status).into();
        }
        // Bytes as they were sent, which may be JSON.
        if let Some(any) = response.pointer_mut("/content/*~1*") {
            any["schema"] = json!({});
        }
    }
    if operation[PERMISSION] != "nothing" {
        // Whether one of them is needed depends on what the relay lets everybody do.
        operation["security"] = json!([{}, { "bearer": [] }, { "cookie": [] }]);
    }
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        if let Some(schema) = grammar(&id, &name) {
            parameter["schema"] = schema;
        } else if let Some(kinds) = parameter.pointer_mut("/schema/type").filter(|kinds| kinds.is_array()) {
            // A parameter is left out, and never null.
            let kind = kinds.as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null")).cloned();
            *kinds = kind.unwrap_or_default();
        }
        if parameter["required"] == true
            && let Some(example) = examples::of_parameter(&id, method, &name)
        {
            parameter["example"] = example.into();
        }
    }
    let contents = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
    for (kind, content) in contents.into_iter().flatten() {
        if let Some(example) = example_of_body(&id, kind) {
            content["example"] = example;
        }
        if kind == "application/x-ndjson" {
            // At least one line that is not blank.
            content["schema"]["pattern"] = "[!-~]".into();
        }
        // What sides of a copy tell each other is what is answered elsewhere, which says more of it.
        if !id.ends_with("_copy") {
            note_references(content, bodies);
        }
    }
}

/// Returns which values a parameter takes, where its type does not say.
fn grammar(operation: &str, name: &str) -> Option<Value> {
    let text = |pattern: &str| json!({ "type": "string", "pattern": format!("^{pattern}$") });
    let number = |max: u64| json!({ "type": "integer", "minimum": 1, "maximum": max });
    Some(match (operation, name) {
        ("list_topics", "cursor") | (_, "topic") => json!({ "$ref": "#/components/schemas/TopicName" }),
        ("list_scheduled", "cursor") => text(&format!("[0-9]{{1,19}}\\.{SCHEDULE}")),
        (_, "cursor" | "message_id" | "revision") => text(ID),
        ("drain", "node") => text("[0-9a-f]{16}"),
        ("list_sessions", "after") | (_, "session") => text("[0-9a-f]{16}-[0-9]{1,19}"),
        ("list_all_groups", "after") => text(&format!("{TOPIC_NAME}(/{SHORT_NAME})?")),
        ("list_locks", "after") => text(&format!("{TOPIC_NAME}(@(topic|bucket):{TOPIC_NAME})?")),
        ("list_keys" | "list_buckets" | "list_members" | "list_rooms" | "list_series", "after")
        | (_, "bucket" | "key" | "owner" | "lock" | "room" | "member" | "presence" | "series")
        | ("take" | "peek" | "refund", "name") => text(TOPIC_NAME),
        ("read_messages", "view") => json!({ "type": "string", "enum": ["latest"] }),
        ("list_keys" | "list_series", "prefix") => text("([A-Za-z0-9_-][A-Za-z0-9_.:-]{0,253})?"),
        ("read_key", "view") => json!({ "type": "string", "enum": ["history"] }),
        ("put_key", "ttl") => text("[1-9][0-9]{0,7}(ms|s|m)?"),
        ("join_room", "ttl") => text("([1-9][0-9]{0,3}s?|[1-9][0-9]{0,2}m|1[0-9]h)"),
        (_, "If-Match") => text(&format!("(\\*|\"{ID}\")")),
        ("put_key" | "increment_key", "If-None-Match") => json!({ "type": "string", "enum": ["*"] }),
        ("list_buckets", "limit") => number(BUCKETS_PAGE_MAX as u64),
        ("list_topics", "match") => json!({
            "oneOf": [{ "$ref": "#/components/schemas/TopicName" }, TopicPattern::schema()],
        }),
        ("list_topics" | "list_all_groups", "limit") => number(TOPICS_PAGE_MAX as u64),
        ("list_series", "limit") => number(SERIES_PAGE_MAX as u64),
        ("list_slow", "limit") => number(SLOW_PAGE_MAX as u64),
        ("read_series", "last") => series::last(),
        (_, "limit") => number(PAGE_MESSAGES_MAX as u64),
        ("message_state", "wait") => text("([0-9]{1,2}(\\.[0-9]{1,3})?s?|[0-9]{1,5}ms|1m)"),
        (_, "wait") => times::wait_in_words(),
        (_, "ttl") => times::whole_in_words(),
        (_, "after") => since(),
        (_, "topics") => text(&format!("{TOPIC_NAME}(,{TOPIC_NAME}){{0,9}}")),
        (_, "Idempotency-Key") => key(),
        (_, "lease") => text("[0-9a-f]{32}"),
        (_, "guards") => text(&format!("(topic|bucket):{TOPIC_NAME}")),
        (_, "Tidemill-Fence") => text(&format!("{TOPIC_NAME}={ID}")),
        (_, "Tidemill-Unique") => text("[A-Za-z0-9_-]{1,64}/[!-~]{1,255}"),
        (_, "Tidemill-Order-Key") => text("[!-~]([ -~]{0,254}[!-~])?"),
        (_, "ticket") => text("tk_[0-9a-hjkmnp-tv-z]{16}_[0-9A-Za-z]{49}"),
        (_, "schedule_id") => text(SCHEDULE),
        (_, "group") | ("read_recurring" | "put_recurring" | "delete_recurring", "name") => text(SHORT_NAME),
        (_, "name" | "role" | "user_id") => text(NAME),
        _ => return None,
    })
}

/// Returns a body that works once the examples before it were sent.
fn example_of_body(operation: &str, kind: &str) -> Option<Value> {
    let earthquake =
        json!({ "time": 1_517_363_399_650_u64, "mag": 4.1, "place": "65km SSW of Kodiak, Alaska" });
    Some(match (operation, kind) {
        ("publish", "application/json") => {
            json!({ "topic": TOPIC, "payload": earthquake, "metadata": { "source": "usgs" }, "ttl": 86_400 })
        }
        ("publish_bulk", "application/json") => json!({
            "messages": [{ "topic": TOPIC, "payload": earthquake }, { "topic": TOPIC, "payload": "any JSON value" }],
        }),
        ("publish_body", "application/json") => earthquake,
        ("publish_body", "application/x-ndjson") => "{\"mag\":4.1}\n{\"mag\":2.3}\n".into(),
        ("publish_body" | "put_key", "application/octet-stream") => "any bytes".into(),
        ("poll", "application/json") => {
            json!({ "topics": [TOPIC], "since": { TOPIC: "earliest" }, "timeout": 1 })
        }
        ("create_topic", "application/json") => {
            json!({ "topic_name": SCRATCH, "description": "to try things out", "retention_seconds": 3_600 })
        }
        ("update_topic", "application/json") => {
            json!({ "description": "of the whole world", "retention_seconds": 604_800 })
        }
        ("change_topic", "application/json") => json!({ "max_messages": 1_000_000, "when_full": "drop_old" }),
        ("read_copy", "application/json") => copies::example("read", "messages", ("after", "0-0".into())),
        ("write_copy", "application/json") => copies::example("write", "freeze", ("frozen", false.into())),
        ("trim_topic", "application/json") => json!({ "keep": 1_000 }),
        ("cancel_topic", "application/json") => json!({ "reason": "out of budget" }),
        ("put_recurring", "application/json") => json!({ "cron": "*/5 * * * *", "payload": "all is well" }),
        ("put_key", "application/json") => json!({ "step": 3, "state": "running" }),
        ("put_key", "text/plain") => "running".into(),
        ("change_keys", "application/json") => json!({ "changes": [
            { "op": "put", "key": "flow-8", "value": { "step": 1 }, "ttl": "1h" },
            { "op": "increment", "key": "flows", "by": 1 },
        ] }),
        ("increment_key", "application/json") => json!({ "by": 1, "ttl": "1d" }),
        ("touch_key", "application/json") => json!({ "ttl": "30m" }),
        ("put_bucket", "application/json") => json!({ "history": 8, "ttl": "30d" }),
        ("revoke_keys", "application/json") => json!({ "owner": "ann" }),
        ("take" | "peek" | "refund", "application/json") => json!({ "cost": 1, "policies": policies() }),
        ("take_all", "application/json") => json!({
            "takes": [{ "name": "mail", "policies": policies() }, { "name": "sms", "cost": 2, "policies": policies() }],
        }),
        ("put_group", "application/json") => {
            json!({ "start": "earliest", "ack_wait": "1m", "max_deliveries": 5 })
        }
        ("change_group", "application/json") => json!({ "max_in_flight": 100 }),
        ("seek_group", "application/json") => json!({ "to": "earliest" }),
        ("redrive", "application/json") => json!({ "all": true, "rate": 100 }),
        ("purge", "application/json") => json!({ "all": true, "dry_run": true }),
        ("claim", "application/json") => json!({ "consumer": "archiver-1", "max": 10, "wait": "1s" }),
        ("claim_from", "application/json") => {
            json!({ "consumer": "archiver-1", "from": [{ "topic": TOPIC, "group": "archive" }] })
        }
        ("ack", "application/json") => json!({ "receipts": [RECEIPT], "result": { "stored": true } }),
        ("nack", "application/json") => {
            json!({ "receipts": [RECEIPT], "delay": "30s", "error": "the archive is full" })
        }
        ("extend", "application/json") => json!({ "receipts": [RECEIPT], "ack_wait": "2m" }),
        ("reject", "application/json") => json!({ "receipts": [RECEIPT], "reason": "no earthquake" }),
        ("release", "application/json") => json!({ "receipts": [RECEIPT] }),
        ("add_point" | "add_points", "application/json") => series::example(operation),
        ("acquire_lock", "application/json") => json!({ "holder": "archiver-1", "ttl": "30s", "wait": "5s" }),
        ("renew_lock", "application/json") => json!({ "token": LOCK_TOKEN, "ttl": "30s" }),
        ("renew_locks", "application/json") => {
            json!({ "renewals": [{ "name": "nightly", "token": LOCK_TOKEN, "ttl": "30s" }] })
        }
        ("release_lock", "application/json") => json!({ "token": LOCK_TOKEN }),
        ("create_lease", "application/json") => json!({ "ttl": "30s" }),
        ("create_token", "application/json") => {
            json!({ "name": "till-7", "rules": ["allow publish,read orders.*"], "expires_in": 2_592_000 })
        }
        ("create_ticket", "application/json") => json!({ "topics": [TOPIC] }),
        ("put_user", "application/json") => json!({ "password": "correct horse battery", "roles": ["read"] }),
        ("log_in", "application/x-www-form-urlencoded") => {
            json!({ "username": "ann", "password": "correct horse battery" })
        }
        ("log_in_browser", _) => json!({ "username": "ann", "password": "correct horse battery" }),
        ("device_code", "application/x-www-form-urlencoded") => json!({ "client_hint": "till-7" }),
        ("device_token", "application/x-www-form-urlencoded") => {
            json!({ "grant_type": GRANT, "device_code": "td_…" })
        }
        ("refresh" | "revoke", "application/json") => json!({ "refresh_token": "tr_…" }),
        ("register", "application/json") => {
            json!({ "username": "bob", "password": "correct horse battery", "permissions": ["read"] })
        }
        ("put_role", "application/json") => json!({ "rules": ["allow read *", "deny read payroll.*"] }),
        ("explain", "application/json") => json!({ "verb": "read", "topic": TOPIC }),
        _ => return None,
    })
}

/// Returns policies as an application has them.
fn policies() -> Value {
    json!([{ "limit": 10, "per": "1m", "burst": 20 }, { "limit": 100, "per": "1h" }])
}

/// Says what a status means, where the handler says nothing more.
fn reason(status: &str) -> &'static str {
    let status = status.parse().ok().and_then(|status| axum::http::StatusCode::from_u16(status).ok());
    status.and_then(|status| status.canonical_reason()).unwrap_or("An answer")
}

fn note_references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str);
            names.extend(name.and_then(|name| name.strip_prefix(SCHEMAS)).map(str::to_owned));
            fields.values().for_each(|value| note_references(value, names));
        }
        Value::Array(items) => items.iter().for_each(|item| note_references(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Says that a body has no fields but these, and which values they take; notes which schemas it has in turn.
fn close(schema: &mut Value, names: &mut Vec<String>) {
    note_references(schema, names);
    let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    // Whoever logs in may say what it likes, and is told that it is wrong.
    let is_cookie = fields.len() == 2 && fields.contains_key("username");
    let is_log_in = is_cookie || fields.contains_key("grant_type");
    let is_limit = fields.contains_key("policies");
    let is_message = fields.keys().any(|name| name.starts_with("payload"));
    let is_device = fields.contains_key("device_code");
    for (name, field) in &mut *fields {
        if let Some(time) = times::field(name, is_message) {
            *field = json!({ "description": field["description"], "anyOf": [time, { "type": "null" }] });
        }
        let bounds = match name.as_str() {
            "backoff" => {
                field.as_object_mut().map(|field| field.remove("type"));
                json!({ "anyOf": [
                    { "type": "array", "minItems": 1, "maxItems": BACKOFFS_MAX, "items": times::any() },
                    {
                        "type": "object", "required": ["first", "max"], "additionalProperties": false,
                        "properties": {
                            "first": times::any(), "max": times::any(),
                            "factor": { "type": "number", "minimum": 1, "maximum": 100 },
                        },
                    },
                    { "type": "null" },
                ] })
            }
            "lease" => json!({ "pattern": "^[0-9a-f]{32}$" }),
            "per" => times::any(),
            "limit" | "burst" | "cost" => json!({ "minimum": 1, "maximum": LIMIT_MAX }),
            "policies" => json!({ "minItems": 1, "maxItems": POLICIES_MAX }),
            "takes" => json!({ "minItems": 1, "maxItems": TAKES_MAX }),
            "name" if is_limit => json!({ "pattern": format!("^{TOPIC_NAME}$") }),
            "max_in_flight" | "per_consumer_max" => json!({ "minimum": 1, "maximum": HELD_MAX }),
            "rate" => json!({ "minimum": 1, "maximum": RATE_MAX }),
            "max" => json!({ "minimum": 1, "maximum": CLAIM_MESSAGES_MAX }),
            "max_deliveries" => json!({ "minimum": 1, "maximum": DELIVERIES_MAX }),
            "weight" => json!({ "minimum": 1, "maximum": WEIGHT_MAX }),
            "order" => json!({ "enum": ["strict", "weighted", null] }),
            "from" => json!({ "minItems": 1, "maxItems": SOURCES_MAX }),
            "ids" => json!({ "minItems": 1, "maxItems": IDS_MAX }),
            "receipts" => json!({ "minItems": 1, "maxItems": RECEIPTS_MAX }),
            "consumer" => json!({ "pattern": CONSUMER }),
            "claim_id" => json!({ "pattern": CLAIM }),
            "group" => json!({ "pattern": format!("^{SHORT_NAME}$") }),
            "start" | "to" => json!({ "anyOf": since()["anyOf"] }),
            "key" => json!({ "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX, "pattern": "^[!-~]*$" }),
            "max_messages" => json!({ "minimum": 1, "maximum": tidemill_proto::limits::KEPT_MESSAGES_MAX }),
            "max_bytes" => json!({ "minimum": 1, "maximum": tidemill_proto::limits::KEPT_BYTES_MAX }),
            // Bytes in the relay, characters here: for a text of other letters it is less.
            "compact_by" => {
                json!({ "minLength": 1, "maxLength": tidemill_proto::limits::COMPACT_BY_BYTES_MAX })
            }
            "description" => json!({ "maxLength": DESCRIPTION_BYTES_MAX }),
            "keep" => json!({ "minimum": 0, "maximum": i64::MAX }),
            "before" => json!({ "anyOf": moment()["anyOf"] }),
            "since" => json!({
                "additionalProperties": since(),
                "propertyNames": { "$ref": "#/components/schemas/TopicName" },
            }),
            "payload_base64" => json!({ "contentEncoding": "base64", "pattern": BASE64 }),
            "content_type" => {
                json!({ "minLength": 1, "maxLength": CONTENT_TYPE_BYTES_MAX, "pattern": "^[ -~]*$" })
            }
            "name" | "username" if !is_log_in => json!({ "pattern": format!("^{NAME}$") }),
            "grant_type" if is_device => json!({ "enum": [GRANT] }),
            "grant_type" => json!({ "enum": ["password"] }),
            "client_hint" => json!({ "maxLength": 200 }),
            "pair" => json!({ "enum": ["true", "false"] }),
            "permissions" => json!({
                "maxItems": 3, "items": { "type": "string", "enum": ["admin", "read", "write"] },
            }),
            "rules" => json!({ "maxItems": 100, "items": { "type": "string", "pattern": RULE } }),
            "roles" => json!({ "maxItems": 32 }),
            "password" if !is_log_in => json!({ "minLength": 8, "maxLength": 1_024 }),
            "verb" => json!({ "enum": Verb::ALL.map(Verb::as_str) }),
            _ => continue,
        };
        if let (Some(field), Value::Object(bounds)) = (field.as_object_mut(), bounds) {
            field.extend(bounds);
        }
    }
    schema["additionalProperties"] = false.into();
}

/// Returns a schema for each of `fields`, with it and without the others, where there are several.
fn variants(name: &str, schema: &Value, fields: &[&str]) -> Vec<(String, Value)> {
    let there: Vec<_> = fields.iter().filter(|field| schema["properties"].get(**field).is_some()).collect();
    if there.len() < 2 {
        return Vec::new();
    }
    let variants = there.iter().map(|field| {
        let mut variant = schema.clone();
        if let Some(properties) = variant["properties"].as_object_mut() {
            properties.retain(|other, _| other == **field || !fields.contains(&other.as_str()));
            // Here it is there, and null is a mistake.
            if let Some(kind) = properties.get_mut(**field).and_then(|field| field.get_mut("type")) {
                let only =
                    kind.as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null")).cloned();
                *kind = only.unwrap_or_else(|| kind.clone());
            }
        }
        if **field == "payload"
            && let Some(kind) = variant.pointer_mut("/properties/content_type")
        {
            kind["pattern"] = "^(application/json|[a-z]+/[a-z0-9.-]+\\+json)$".into();
        }
        let mut required: Vec<_> = schema["required"].as_array().into_iter().flatten().cloned().collect();
        required.retain(|other| other != **field);
        required.push((**field).into());
        variant["required"] = required.into();
        (format!("{name}{}", camel(field)), variant)
    });
    variants.collect()
}

/// Returns a field's name as part of a schema's.
fn camel(field: &str) -> String {
    let words = field.split('_').filter_map(|word| word.split_at_checked(1));
    words.flat_map(|(first, rest)| [first.to_ascii_uppercase(), rest.to_owned()]).collect()
}
