//! Nodes: the fields of one hash, each with the time until which it is listed in front of its document.

use std::time::Duration;

use bytes::Bytes;
use glide::ValkeyValue;
use tidemill_proto::NodeId;

use super::control::{bytes_of, checked};
use super::failure::{Effect, of_key, unexpected};
use super::{Shard, keys, scripts};
use crate::storage::StorageError;
use crate::storage::nodes::NODES_MAX;

impl Shard {
    /// Lists a node, and returns whether there was room.
    pub(super) async fn announce(
        &self,
        node: NodeId,
        document: &Bytes,
        kept_for: Duration,
    ) -> Result<bool, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::ANNOUNCE).arg("1").arg(keys::NODES);
        pipeline.arg(node.to_string()).arg(document.to_vec());
        pipeline.arg(kept_for.as_millis().to_string()).arg(NODES_MAX.to_string());
        let answer = self.change.run(&pipeline, Effect::Write).await?.pop().unwrap_or(ValkeyValue::Nil);
        match checked(answer).map_err(|error| of_key(error, keys::NODES))? {
            ValkeyValue::Int(listed) => Ok(listed == 1),
            _ => Err(unexpected("EVAL", Effect::Write)),
        }
    }

    /// Lists a node no more.
    pub(super) async fn retire(&self, node: NodeId) -> Result<(), StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("HDEL").arg(keys::NODES).arg(node.to_string());
        let done = self.change.run_one(&pipeline, Effect::Write).await;
        done.map(drop).map_err(|error| of_key(error, keys::NODES))
    }

    /// Returns the nodes that are listed.
    pub(super) async fn nodes(&self) -> Result<Vec<(NodeId, Bytes)>, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::LIST_NODES).arg("1").arg(keys::NODES);
        let answer = self.change.run(&pipeline, Effect::Read).await?.pop().unwrap_or(ValkeyValue::Nil);
        let answer = checked(answer).map_err(|error| of_key(error, keys::NODES))?;
        let ValkeyValue::Array(answer) = answer else {
            return Err(unexpected("EVAL", Effect::Read));
        };
        let mut answer = answer.into_iter();
        let mut nodes = Vec::with_capacity(answer.len() / 2);
        while let (Some(node), Some(document)) = (answer.next(), answer.next()) {
            // What is no node is none of the relay's.
            let node = bytes_of(node).and_then(|node| NodeId::parse(std::str::from_utf8(&node).ok()?).ok());
            nodes.extend(node.zip(bytes_of(document)));
        }
        nodes.sort_by_key(|(node, _)| *node);
        Ok(nodes)
    }
}
