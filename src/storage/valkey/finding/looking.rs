//! Asking a server what it is; and asking several at once, without waiting long for those that are silent.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::super::options::ValkeyOptions;
use super::super::resolver::Address;
use super::super::resp::{Peer, Replies, Reply, Request, RespConnection};

/// How much longer the others are waited for once one has answered.
const GRACE: Duration = Duration::from_millis(200);

/// What a server is that is not dialled, as one that is in order.
pub(super) const REPLICA: &str = "is a replica";

/// What a server that may be dialled is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    /// One of a cluster, where each knows of all.
    InCluster,
}

/// Asks the server at an address whether it is a primary.
pub(super) async fn role_of(
    options: &ValkeyOptions,
    address: &Address,
    within: Duration,
) -> Result<Role, String> {
    let mut request = Request::default();
    request.add(&[b"HELLO"]);
    let replies = ask(options, &Peer::at(address, options), &request, within).await?;
    let fields = replies.iter().next().map(read_fields).unwrap_or_default();
    let field = |name: &str| fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    match (field("role"), field("mode")) {
        (_, Some("cluster")) => Ok(Role::InCluster),
        (_, Some("sentinel")) => Err("is a sentinel, and stands where a server should".to_owned()),
        (Some("replica" | "slave"), _) => Err(REPLICA.to_owned()),
        // One that does not say so is looked at when it is connected to.
        _ => Ok(Role::Primary),
    }
}

/// Asks whatever listens at an address, over a connection that is made for it.
pub(super) async fn ask(
    options: &ValkeyOptions,
    peer: &Peer<'_>,
    request: &Request,
    within: Duration,
) -> Result<Replies, String> {
    let deadline = Instant::now() + within;
    let opened = RespConnection::open_at(options, peer, "tidemill-find", within).await;
    let (connection, driver) = opened.map_err(|error| error.to_string())?;
    let left = deadline.saturating_duration_since(Instant::now());
    tokio::select! {
        biased;
        replies = connection.exchange(request, left) => replies.map_err(|error| error.to_string()),
        reason = driver.drive() => Err(reason),
    }
}

/// Returns the fields of a reply that has a name before each value.
pub(super) fn read_fields(reply: Reply<'_>) -> Vec<(String, String)> {
    let Reply::Array(mut parts) = reply else { return Vec::new() };
    let text = |reply: Reply<'_>| reply.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        fields.extend(text(name).zip(text(value)));
    }
    fields
}

/// Returns what each says, in the order of asking. Once one has answered, who is silent is given up soon.
pub(super) async fn answers<T, F>(asked: impl IntoIterator<Item = F>) -> Vec<Result<T, String>>
where
    F: Future<Output = Result<T, String>>,
{
    let numbered = asked.into_iter().enumerate().map(|(at, asked)| async move { (at, asked.await) });
    let mut asked: FuturesUnordered<_> = numbered.collect();
    let silent = || Err("is slower than the others".to_owned());
    let mut answers: Vec<Result<T, String>> = (0..asked.len()).map(|_| silent()).collect();
    let mut deadline = None;
    loop {
        let patience = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = asked.next() => {
                let Some((at, answer)) = answer else { return answers };
                if answer.is_ok() {
                    deadline.get_or_insert_with(|| Instant::now() + GRACE);
                }
                answers[at] = answer;
            }
            () = patience => return answers,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Answers after some milliseconds.
    async fn after(ms: u64, answer: Result<u64, &str>) -> Result<u64, String> {
        sleep(Duration::from_millis(ms)).await;
        answer.map_err(str::to_owned)
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_waited_for_until_one_has_answered() {
        let began = Instant::now();
        let all = [after(900, Ok(1)), after(10, Err("no")), after(1_000, Ok(2)), after(5_000, Ok(3))];
        let told = answers(all).await;
        let slow = Err("is slower than the others".to_owned());
        assert_eq!(told, [Ok(1), Err("no".to_owned()), Ok(2), slow]);
        assert_eq!(began.elapsed(), Duration::from_millis(1_100));
        assert_eq!(answers([after(700, Err("no"))]).await, [Err("no".to_owned())]);
        assert!(answers(Vec::<std::future::Ready<Result<u8, String>>>::new()).await.is_empty());
    }
}
