//! Content negotiation: in which form a reader wants messages.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use super::media;

/// The forms in which a topic's messages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A page.
    Page,
    /// A stream of server-sent events.
    Events,
    /// A stream of frames, one a line.
    Lines,
}

/// Returns the form that the headers ask for by name; of several, the one with the greatest weight
/// (RFC 9110 section 12.5.1), then the one that is named first. Who names none gets a page.
pub(super) fn wanted(headers: &HeaderMap) -> Wanted {
    let mut best = (0, Wanted::Page);
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in texts.flat_map(|text| text.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "text/event-stream" => Wanted::Events,
            name if media::is_lines(name) => Wanted::Lines,
            "application/json" => Wanted::Page,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = thousandths(weight.unwrap_or("1"));
        if weight > best.0 {
            best = (weight, form);
        }
    }
    best.1
}

/// Returns a weight of at most three decimals in thousandths; 0 for what is none.
fn thousandths(text: &str) -> u16 {
    match text.parse::<f32>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at most 1,000")]
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1_000.0) as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_for_those_who_name_it() {
        for (text, form) in [
            ("", Wanted::Page),
            ("*/*", Wanted::Page),
            ("text/*", Wanted::Page),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Wanted::Page),
            ("text/event-stream", Wanted::Events),
            ("Text/Event-Stream; charset=utf-8", Wanted::Events),
            ("application/x-ndjson, */*", Wanted::Lines),
            ("application/jsonl", Wanted::Lines),
            ("Application/NDJSON", Wanted::Lines),
            ("application/json-lines;q=0.5", Wanted::Lines),
            ("text/jsonl", Wanted::Lines),
            ("application/json, text/event-stream", Wanted::Page),
            ("application/json;q=0.5, text/event-stream;q=0.9", Wanted::Events),
            ("application/x-ndjson;q=0", Wanted::Page),
            ("text/event-stream;q=nan", Wanted::Page),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().expect("a header value"));
            assert_eq!(wanted(&headers), form, "{text}");
        }
        assert_eq!(wanted(&HeaderMap::new()), Wanted::Page);
    }
}
