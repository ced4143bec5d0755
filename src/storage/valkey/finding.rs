//! Finding the primary of a target that does not name it alone.
//!
//! | file | owns |
//! |---|---|
//! | `looking` | asking a server what it is, and several at once |
//! | `sentinel` | a primary that sentinels tell |
//! | `listening` | what sentinels tell unasked |
//! | `standby` | several servers, of which one is the primary |

use std::sync::Arc;

use futures_util::future::join_all;

use super::options::ValkeyOptions;
use super::resolver::Address;
use looking::{REPLICA, Role, answers, role_of};
use sentinel::Sentinels;
use standby::Standby;

mod listening;
mod looking;
mod sentinel;
mod standby;

/// Returns the options with a resolver that finds the primary as the target says.
pub(super) fn found(options: ValkeyOptions) -> ValkeyOptions {
    if options.target.watched.is_some() {
        ValkeyOptions { resolver: Arc::new(Sentinels::new(options.clone())), ..options }
    } else if options.target.others.is_empty() {
        options
    } else {
        ValkeyOptions { resolver: Arc::new(Standby::new(options.clone())), ..options }
    }
}

/// Returns what each of the sentinels says of where the primary is, where the target is watched by some.
pub(super) async fn told_by_sentinels(options: &ValkeyOptions) -> Vec<(Address, Result<Address, String>)> {
    if options.target.watched.is_none() {
        return Vec::new();
    }
    let told = Sentinels::new(options.clone()).ask_each().await.into_iter();
    addresses_of(options).into_iter().zip(told.map(|told| told.map(|told| told.primary))).collect()
}

/// Returns what each of several hosts is, or why it cannot be used, where the target names several that no sentinel watches.
pub(super) async fn told_by_hosts(options: &ValkeyOptions) -> Vec<(Address, Result<&'static str, String>)> {
    if options.target.watched.is_some() || options.target.others.is_empty() {
        return Vec::new();
    }
    let hosts = addresses_of(options);
    let within = options.connect_timeout;
    let told = join_all(hosts.iter().map(|host| role_of(options, host, within))).await;
    let told = told.into_iter().map(|told| match told {
        Ok(Role::Primary) => Ok("is a primary"),
        Ok(Role::InCluster) => Ok("is one of a cluster"),
        Err(reason) if reason == REPLICA => Ok(REPLICA),
        Err(reason) => Err(reason),
    });
    hosts.iter().cloned().zip(told).collect()
}

/// Learns of what changes about the servers while the relay runs, for as long as it is polled.
pub(super) async fn follow(options: ValkeyOptions) {
    let files = [&options.password_file, &options.sentinel_login.file];
    let files = files.into_iter().flatten().map(|file| file.follow());
    tokio::join!(options.resolver.follow(), join_all(files));
}

/// Returns the addresses that a target names.
fn addresses_of(options: &ValkeyOptions) -> Vec<Address> {
    options.target.hosts().map(|(host, port)| Address { host: host.to_owned(), port }).collect()
}
