//! A small collector of OpenTelemetry: it takes spans over HTTP, as protobuf, and keeps them.
//!
//! It must not know what is tested.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;

use super::eventually;
use super::relay::STUCK;

/// What it has got.
#[derive(Debug, Default)]
struct Got {
    spans: Vec<Span>,
    /// Of each request the headers, and what the process says of itself.
    headers: Vec<String>,
    resource: Vec<KeyValue>,
}

/// The collector.
#[derive(Debug)]
pub(crate) struct Collector {
    got: Arc<Mutex<Got>>,
    pub(crate) url: String,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let got = Arc::new(Mutex::new(Got::default()));
        let kept = got.clone();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { got, url }
    }

    /// Returns all spans.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.got.lock().spans.clone()
    }

    /// Returns the spans of an operation, as they are called.
    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        spans
    }

    /// Waits until there are so many spans of this name, and returns them.
    pub(crate) async fn wait_for(&self, name: &str, count: usize) -> Vec<Span> {
        eventually(STUCK, async || self.named(name).len() >= count).await;
        let spans = self.named(name);
        assert_eq!(spans.len(), count, "{spans:?}");
        spans
    }

    /// Returns the headers of all requests.
    pub(crate) fn headers(&self) -> Vec<String> {
        self.got.lock().headers.clone()
    }

    /// Returns what the process says of itself.
    pub(crate) fn about(&self, name: &str) -> Option<String> {
        text_among(&self.got.lock().resource, name)
    }
}

/// Returns a text or a number that was noted on a span.
pub(crate) fn noted(span: &Span, name: &str) -> Option<String> {
    text_among(&span.attributes, name)
}

fn text_among(pairs: &[KeyValue], name: &str) -> Option<String> {
    let pair = pairs.iter().find(|pair| pair.key == name)?;
    match pair.value.as_ref().and_then(|AnyValue { value }| value.as_ref())? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// Returns the digits of an id.
pub(crate) fn digits(id: &[u8]) -> String {
    hex::encode(id)
}

fn serve(stream: TcpStream, got: &Mutex<Got>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut head, mut bytes) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                bytes = length.trim().parse().ok()?;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body).ok()?;
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("a request of spans");
        let mut got = got.lock();
        got.headers.push(head);
        for of in request.resource_spans {
            got.resource = of.resource.unwrap_or_default().attributes;
            got.spans.extend(of.scope_spans.into_iter().flat_map(|of| of.spans));
        }
        drop(got);
        writer
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
            )
            .ok()?;
    }
}
