//! A connection that does one operation after the other: over HTTP, or by the commands of a bare server that do the same.

use std::fmt::Write as _;

use super::operation::Operation;
use crate::connected::Connected;
use crate::load::bare_key;
use crate::resp;
use crate::target::Target;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    headers: String,
    bucket: String,
    value: String,
    connected: Option<Connected>,
    request: String,
}

impl Client {
    /// Opens a connection for keys of a bucket, whose values have so many bytes.
    pub(super) async fn open(
        target: &Target,
        headers: &str,
        bucket: &str,
        value_bytes: usize,
    ) -> Result<Self, String> {
        let value = ('a'..='z').cycle().take(value_bytes).collect();
        Ok(Self {
            target: target.clone(),
            headers: headers.to_owned(),
            bucket: bucket.to_owned(),
            value,
            connected: Some(Connected::open(target).await?),
            request: String::new(),
        })
    }

    /// Does one operation. After an error the connection is opened anew.
    pub(super) async fn run(&mut self, operation: &Operation) -> Result<(), String> {
        if self.connected.is_none() {
            self.connected = Some(Connected::open(&self.target).await?);
        }
        let done = self.exchange(operation).await;
        if done.is_err() {
            self.connected = None;
        }
        done
    }

    async fn exchange(&mut self, operation: &Operation) -> Result<(), String> {
        match &mut self.connected {
            Some(Connected::Http(connection)) => {
                self.request.clear();
                let place = (self.target.base.as_str(), self.target.host.as_str());
                write_request(
                    &mut self.request,
                    place,
                    &self.headers,
                    (&self.bucket, &self.value),
                    operation,
                );
                let answer = connection.exchange(self.request.as_bytes()).await?;
                if !(200..300).contains(&answer.status) {
                    return Err(format!("status {}", answer.status));
                }
                Ok(())
            }
            Some(Connected::Server(connection)) => {
                connection.ask(&command(&self.bucket, &self.value, operation)).await?;
                Ok(())
            }
            None => Err("there is no connection".to_owned()),
        }
    }
}

/// Writes the request of an operation.
fn write_request(
    out: &mut String,
    (base, host): (&str, &str),
    headers: &str,
    (bucket, value): (&str, &str),
    operation: &Operation,
) {
    let keys = format!("{base}/api/v1/keys/{bucket}/k");
    let (method, path, media, body) = match operation {
        Operation::Put { key, ttl: None } => ("PUT", format!("{keys}{key}"), "text/plain", value.to_owned()),
        Operation::Put { key, ttl: Some(ttl) } => {
            ("PUT", format!("{keys}{key}?ttl={ttl}"), "text/plain", value.to_owned())
        }
        Operation::Get { key } => ("GET", format!("{keys}{key}"), "", String::new()),
        Operation::Touch { key, ttl } => {
            let body = format!(r#"{{"ttl":{ttl},"return":"value"}}"#);
            ("POST", format!("{keys}{key}/touch"), "application/json", body)
        }
        Operation::Increment { key } => {
            ("POST", format!("{keys}{key}/increment"), "application/json", r#"{"by":1}"#.to_owned())
        }
        Operation::Take { limit } => {
            let body = r#"{"policies":[{"limit":1000000000,"per":"1s"}]}"#;
            let path = format!("{base}/api/v1/limits/{bucket}.{limit}/take");
            ("POST", path, "application/json", body.to_owned())
        }
    };
    let _ = write!(out, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}");
    if !media.is_empty() {
        let _ = write!(out, "Content-Type: {media}\r\nContent-Length: {}\r\n", body.len());
    }
    let _ = write!(out, "\r\n{body}");
}

/// Returns the command that does on a bare server what the operation does.
fn command(bucket: &str, value: &str, operation: &Operation) -> Vec<u8> {
    let name = |key: &u64| bare_key(bucket, *key);
    match operation {
        Operation::Put { key, ttl: None } => resp::command(&["SET", &name(key), value]),
        Operation::Put { key, ttl: Some(ttl) } => {
            resp::command(&["SET", &name(key), value, "EX", &ttl.to_string()])
        }
        Operation::Get { key } => resp::command(&["GET", &name(key)]),
        Operation::Touch { key, ttl } => resp::command(&["GETEX", &name(key), "EX", &ttl.to_string()]),
        Operation::Increment { key } | Operation::Take { limit: key } => resp::command(&["INCR", &name(key)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_commands_are_whole() {
        let operations = [
            Operation::Put { key: 1, ttl: None },
            Operation::Put { key: 1, ttl: Some(9) },
            Operation::Get { key: 1 },
            Operation::Touch { key: 1, ttl: 9 },
            Operation::Increment { key: 1 },
            Operation::Take { limit: 1 },
        ];
        for operation in operations {
            let mut request = String::new();
            write_request(&mut request, ("/base", "here"), "X-A: b\r\n", ("b", "value"), &operation);
            let (head, body) = request.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(" /base/api/v1/") && head.contains("\r\nX-A: b"), "{head}");
            let length = format!("Content-Length: {}", body.len());
            assert_eq!(head.contains(&length), !body.is_empty(), "{head}");
            let command = command("b", "value", &operation);
            assert_eq!(resp::extent(&command).expect("RESP").expect("whole").bytes, command.len());
        }
    }
}
