//! A page for each code of a problem, and one that lists them, made from the code.

use std::collections::BTreeMap;
use std::fs;

use tidemill::proto::{Code, Problem};

use super::root;

const LIST: &str = "# Problems

Every error of the relay is a problem document (RFC 9457). Programs tell problems apart by `code`, which is stable. `retryable` says whether the same request, sent again later, can succeed and does no harm. Each code has a page that says what it means and what to do. A running relay shows them at `/problems`. What is no request of HTTP at all (a broken request line or header, far too many headers) is answered by the HTTP library before the relay has seen it: 400, 414 or 431 without a body, and the connection ends.

| code | status | retryable | |
|---|---|---|---|
";

/// Whether the same request can be sent again, in words.
fn retry(code: Code) -> String {
    match (code.retryable(), Problem::new(code, "").retry_after_seconds) {
        (false, _) if code.retryable_under_key() => "under an `Idempotency-Key`".to_owned(),
        (false, _) => "no".to_owned(),
        (true, None) => "yes".to_owned(),
        (true, Some(seconds)) => {
            format!("yes, after `Retry-After`, which is {seconds} s where nothing else is said")
        }
    }
}

/// Returns the page of a code.
fn page(code: Code) -> String {
    let problem = Problem { request_id: Some("…".to_owned()), ..Problem::new(code, "…") };
    let document = serde_json::to_string_pretty(&problem).expect("it is plain data");
    format!(
        "# {name}\n\n{title}. Status {status}; the same request again: {retry}.\n\n{explanation}\n\n```json\n{document}\n```\n\nOver a WebSocket it comes as a frame `error`: the code stands in `details.code`, the sentence in `message` ([an example](../websocket-api.md#errors)). [What every problem has](../http-api.md#problems), [all codes](../problems.md).\n",
        name = code.as_str(),
        title = code.title().trim_end_matches('.'),
        status = code.status(),
        retry = retry(code),
        explanation = code.explanation().trim(),
    )
}

/// Returns all pages, by their paths.
fn pages() -> BTreeMap<String, String> {
    let row = |code: &Code| {
        let (name, status, title) = (code.as_str(), code.status(), code.title());
        format!("| [{name}](problems/{name}.md) | {status} | {} | {title} |\n", retry(*code))
    };
    let list = LIST.to_owned() + &Code::ALL.iter().map(row).collect::<String>();
    let one = |code: &Code| (format!("docs/problems/{}.md", code.as_str()), page(*code));
    let mut pages: BTreeMap<_, _> = Code::ALL.iter().map(one).collect();
    pages.insert("docs/problems.md".to_owned(), list);
    pages
}

#[test]
fn every_problem_is_explained() {
    let (pages, folder) = (pages(), root().join("docs/problems"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (path, page) in &pages {
            fs::write(root().join(path), page).expect("the page can be written");
        }
    }
    let there = fs::read_dir(&folder).expect("the folder can be read").map(|entry| {
        let name = entry.expect("the folder can be read").file_name();
        format!("docs/problems/{}", name.to_string_lossy())
    });
    for path in there.chain(["docs/problems.md".to_owned()]) {
        let text = fs::read_to_string(root().join(&path)).expect("pages are UTF-8");
        assert_eq!(
            Some(&text),
            pages.get(&path),
            "{path} is not up to date: run this test with UPDATE_DOCS=1"
        );
    }
    for path in pages.keys() {
        assert!(root().join(path).exists(), "{path} is missing: run this test with UPDATE_DOCS=1");
    }
}
