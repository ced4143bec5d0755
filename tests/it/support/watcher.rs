//! A client that watches keys or members: it cuts the frames, and keeps what they say there is, as the documents tell
//! clients to.
//!
//! It must not know what is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

use serde_json::Value;

use super::raw::{RawConnection, Stream};

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Events,
    Lines,
}

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::Events, Self::Lines];

    const fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// A frame. Its data of lines have neither its type nor its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: String,
    /// Where a client resumes; empty where it has no place any more.
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Frame {
    /// Returns the key, or the member.
    #[track_caller]
    pub(crate) fn name(&self) -> &str {
        self.data["key"].as_str().or(self.data["member"].as_str()).unwrap_or_else(|| panic!("{self:?}"))
    }

    #[track_caller]
    pub(crate) fn revision(&self) -> &str {
        self.data["revision"].as_str().unwrap_or_else(|| panic!("{self:?}"))
    }

    fn of_event(block: &str) -> Option<Self> {
        let mut frame = Self { kind: String::new(), id: None, data: Value::Null };
        let mut data = String::new();
        for line in block.split('\n') {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("event", kind) => kind.clone_into(&mut frame.kind),
                ("id", id) => frame.id = Some(id.to_owned()),
                ("data", more) => {
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(more);
                }
                ("retry" | "", _) => {}
                _ => panic!("a browser passes over {line:?}"),
            }
        }
        if frame.kind.is_empty() {
            assert!(data.is_empty(), "data without a type: {block:?}");
            return None;
        }
        frame.data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error} in {block:?}"));
        Some(frame)
    }

    fn of_line(line: &str) -> Self {
        let data = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        let Value::Object(mut data) = data else { panic!("no object: {line:?}") };
        let mut text = |name: &str| match data.remove(name) {
            Some(Value::String(text)) => Some(text),
            None => None,
            other => panic!("{name} is {other:?} in {line:?}"),
        };
        let (kind, id) = (text("type").expect("every line has a type"), text("id"));
        // There is nothing else with which a line could say so.
        let id = if kind == "reset" { Some(String::new()) } else { id };
        Self { kind, id, data: Value::Object(data) }
    }
}

/// A watch that is open.
#[derive(Debug)]
pub(crate) struct Watcher {
    stream: Stream,
    form: Form,
}

impl Watcher {
    /// Watches what is at a path; `headers` are lines that each end with CR LF.
    pub(crate) async fn open(address: SocketAddr, path: &str, form: Form, headers: &str) -> io::Result<Self> {
        let stream = Stream::open(address, path, form.content_type(), headers).await?;
        Ok(Self { stream, form })
    }

    /// The same behind an id.
    pub(crate) async fn resume(address: SocketAddr, path: &str, form: Form, id: &str) -> io::Result<Self> {
        Self::open(address, path, form, &format!("last-event-id: {id}\r\n")).await
    }

    /// Watches on a connection; returns the status if that is refused.
    pub(crate) async fn try_open_on(
        connection: RawConnection,
        path: &str,
        form: Form,
        headers: &str,
    ) -> io::Result<Result<Self, u16>> {
        let opened = Stream::try_open_on(connection, path, form.content_type(), headers).await?;
        Ok(opened.map(|stream| Self { stream, form }))
    }

    /// Returns the next frame.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            let end: &[u8] = if self.form == Form::Events { b"\n\n" } else { b"\n" };
            let bytes = self.stream.until(end).await?;
            let text = String::from_utf8(bytes).expect("frames in UTF-8");
            let frame = match self.form {
                Form::Events => Frame::of_event(&text),
                Form::Lines if text.is_empty() => None,
                Form::Lines => Some(Frame::of_line(&text)),
            };
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
    }

    /// Returns the next frame, which must be of this type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Frame {
        let frame = self.next().await.expect("the stream goes on");
        assert_eq!(frame.kind, kind, "{frame:?}");
        frame
    }

    /// Returns what comes up to a frame of this type, which is the last of it.
    pub(crate) async fn up_to(&mut self, kind: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.next().await.expect("the stream goes on"));
            if frames.last().is_some_and(|last| last.kind == kind) {
                return frames;
            }
        }
    }

    /// Checks that the stream ends here.
    pub(crate) async fn ended(mut self) {
        let rest = self.stream.rest().await.expect("it ends well");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

/// What a client knows of what it watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Each key or member that there is, with its revision.
    pub(crate) there: BTreeMap<String, String>,
    /// The id behind which it resumes.
    pub(crate) id: Option<String>,
    /// What was named since it has attached, or was reset.
    named: BTreeSet<String>,
}

impl View {
    /// Notes that the stream is another one from here on.
    pub(crate) fn attached(&mut self) {
        self.named.clear();
    }

    pub(crate) fn take(&mut self, frame: &Frame) {
        match frame.kind.as_str() {
            "put" | "joined" => {
                let name = frame.name().to_owned();
                self.there.insert(name.clone(), frame.revision().to_owned());
                self.named.insert(name);
            }
            "deleted" | "expired" | "left" => {
                self.there.remove(frame.name());
                self.named.remove(frame.name());
            }
            "reset" => self.named.clear(),
            // What the snapshot has not named is gone.
            "synced" => self.there.retain(|name, _| self.named.contains(name)),
            "bookmark" | "end" => {}
            other => panic!("nobody has heard of {other}: {frame:?}"),
        }
        match frame.id.as_deref() {
            Some("") => self.id = None,
            Some(id) => self.id = Some(id.to_owned()),
            None => {}
        }
    }
}
