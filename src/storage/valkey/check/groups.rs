//! Trying what the relay does with groups of consumers: the commands that its scripts call, on the probe's own stream.
//!
//! It must not know how they are sent.

use glide::Pipeline;
use tidemill_proto::locks::Guarded;
use tidemill_proto::work::GroupName;
use tidemill_proto::{BucketName, LockName, TopicName};

use super::PROBE_SECONDS;
use crate::storage::valkey::keys::{Keys, fences};

/// The name of the probe's group and of its consumers.
const GROUP: &str = "check";

/// Returns the keys that the probe's group writes.
pub(super) fn keys(keys: Keys, topic: &TopicName) -> Vec<String> {
    let group = GroupName::parse(GROUP).expect("letters name a group");
    let mut all = keys.group(topic, &group).to_vec();
    all.push(keys.groups(topic));
    all
}

/// Adds what the relay does with buckets and locks: looks at keys of their names, with what their scripts call.
fn add_of_keys(
    pipeline: &mut Pipeline,
    keys: Keys,
    settings: &str,
    due: &str,
    (topic, bucket): (&TopicName, &BucketName),
) {
    let Ok(lock) = LockName::parse(GROUP) else { return };
    let [_, facts, ..] = keys.bucket(bucket);
    let [held, _] = fences(Guarded::Topic(topic.clone()), &lock);
    pipeline.cmd("EXISTS").arg(facts).cmd("EXISTS").arg(held);
    pipeline.cmd("HEXISTS").arg(settings).arg("epoch").cmd("HRANDFIELD").arg(settings);
    pipeline.cmd("PTTL").arg(settings).cmd("PEXPIRE").arg(settings).arg("60000");
    pipeline
        .cmd("PEXPIREAT")
        .arg(settings)
        .arg("9999999999999")
        .cmd("EXPIRE")
        .arg(settings)
        .arg(PROBE_SECONDS);
    pipeline.cmd("ZRANK").arg(due).arg("0-0");
}

/// Adds what makes a group of a stream that has an entry, gives it out, and deletes the group.
pub(super) fn add(pipeline: &mut Pipeline, keys: Keys, topic: &TopicName, bucket: &BucketName) {
    let stream = keys.stream(topic);
    let written = self::keys(keys, topic);
    let (settings, due, groups) = (&written[0], &written[1], &written[written.len() - 1]);
    pipeline.cmd("HSET").arg(settings).arg("epoch").arg("0");
    pipeline.cmd("EXPIRE").arg(settings).arg(PROBE_SECONDS);
    pipeline.cmd("ZADD").arg(due).arg("0").arg("0-0");
    pipeline.cmd("EXPIRE").arg(due).arg(PROBE_SECONDS);
    pipeline.cmd("SADD").arg(groups).arg(GROUP);
    pipeline.cmd("EXPIRE").arg(groups).arg(PROBE_SECONDS);
    pipeline.cmd("HMGET").arg(settings).arg("epoch").cmd("HINCRBY").arg(settings).arg("done").arg("1");
    pipeline.cmd("HLEN").arg(settings).cmd("HKEYS").arg(settings).cmd("HSCAN").arg(settings).arg("0");
    pipeline.cmd("ZCOUNT").arg(due).arg("-inf").arg("+inf");
    pipeline.cmd("SMEMBERS").arg(groups).cmd("SREM").arg(groups).arg(GROUP);
    pipeline.cmd("XGROUP").arg("CREATE").arg(&stream).arg(GROUP).arg("0");
    pipeline.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg(GROUP).arg("COUNT").arg("1");
    pipeline.arg("STREAMS").arg(&stream).arg(">");
    pipeline.cmd("XPENDING").arg(&stream).arg(GROUP);
    pipeline.cmd("XCLAIM").arg(&stream).arg(GROUP).arg(GROUP).arg("0").arg("1-1");
    pipeline.cmd("XACK").arg(&stream).arg(GROUP).arg("1-1");
    pipeline.cmd("XINFO").arg("CONSUMERS").arg(&stream).arg(GROUP);
    pipeline.cmd("XGROUP").arg("DELCONSUMER").arg(&stream).arg(GROUP).arg(GROUP);
    pipeline.cmd("XGROUP").arg("DESTROY").arg(&stream).arg(GROUP);
    add_of_keys(pipeline, keys, settings, due, (topic, bucket));
}
