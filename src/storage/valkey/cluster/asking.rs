//! Asking servers: whether one is part of a cluster, and who has which slots.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::super::connect::{ConnectError, primary};
use super::super::options::ValkeyOptions;
use super::super::resolver::{Address, Resolver};
use super::super::resp::{Bounds, Reply, Request, RespConnection};
use super::super::target::Target;
use super::map::SlotMap;

/// What the map of a cluster may have: one whose slots are scattered over a thousand servers.
const MAP_BOUNDS: Bounds = Bounds { bytes: 16 * 1024 * 1024, elements: 512 * 1024, pass_over: false };

/// Knows one address.
#[derive(Debug)]
struct Fixed(Address);

#[async_trait]
impl Resolver for Fixed {
    async fn primary_of(&self, _: &Target) -> Result<Address, String> {
        Ok(self.0.clone())
    }
}

/// Asks the target what it is: whether it is part of a cluster, and where it listens.
pub(in super::super) async fn mode_of(options: &ValkeyOptions) -> Result<(bool, Address), ConnectError> {
    let address = primary(options).await?;
    let at = ValkeyOptions { resolver: Arc::new(Fixed(address.clone())), ..options.clone() };
    let (connection, driver, _) = RespConnection::open(&at, "tidemill-ask").await?;
    let mut request = Request::default();
    request.add(&[b"HELLO"]);
    let asked = async {
        let replies = connection.exchange(&request, options.timeout).await;
        let replies = replies.map_err(|error| ConnectError::Refused(error.to_string()))?;
        let Some(Reply::Array(mut fields)) = replies.iter().next() else { return Ok(false) };
        let mut mode = None;
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            if name.bytes() == Some(b"mode") {
                mode = value.bytes();
            }
        }
        Ok(mode == Some(b"cluster"))
    };
    let is_cluster = tokio::select! {
        biased;
        answer = asked => answer,
        reason = driver.drive() => Err(ConnectError::Refused(reason)),
    };
    Ok((is_cluster?, address))
}

/// Asks over a connection that there is.
pub(in super::super) async fn map_over(
    connection: &RespConnection,
    address: &Address,
    within: Duration,
) -> Result<SlotMap, String> {
    let mut request = Request::default();
    request.add(&[b"CLUSTER", b"INFO"]).add(&[b"CLUSTER", b"SLOTS"]).bound(MAP_BOUNDS);
    let replies = connection.exchange(&request, within).await.map_err(|error| error.to_string())?;
    SlotMap::read(address, replies.iter())
}

/// Asks the server at an address, over a connection that is made for it.
pub(in super::super) async fn map_at(
    options: &ValkeyOptions,
    address: Address,
    within: Duration,
) -> Result<SlotMap, String> {
    let at = ValkeyOptions { resolver: Arc::new(Fixed(address.clone())), ..options.clone() };
    let asked = async {
        let (connection, driver, _) =
            RespConnection::open(&at, "tidemill-ask").await.map_err(|error| error.to_string())?;
        tokio::select! {
            biased;
            map = map_over(&connection, &address, within) => map,
            reason = driver.drive() => Err(reason),
        }
    };
    timeout(within, asked).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
