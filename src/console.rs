//! The console: the page in a browser from which a relay is looked at and run. Its files are a part of the binary, and
//! are what browsers read: there is no step between them and what is served.
//!
//! | file | owns |
//! |---|---|
//! | `index.html`, `console.css`, `icon.svg` | the frame of the page, and how all looks |
//! | `app.js` | who is logged in, which page is shown, and what became of what somebody asked for |
//! | `api.js` | what is asked of the relay: the API that everybody has, and nothing else |
//! | `dom.js`, `plot.js`, `messages.js` | elements, plots, and messages as they are shown |
//! | `json.js` | JSON as it was typed |
//! | `bytes.js` | bytes as text, as numbers and as a file |
//! | `value.js` | the value of a key, and changing it: a part of the page of keys |
//! | `dead.js` | the dead letters of a group: a part of its page |
//! | the other scripts | one page each, by its name in the address |
//!
//! It must not know how files are served.
//!
//! **Invariant:** nothing is loaded from anywhere but the relay, and what the relay says becomes text, never markup.

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, as it stands in the address behind `/console/`; the page itself has none there.
    pub name: &'static str,
    /// What it is.
    pub content_type: &'static str,
    /// What stands in it.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! file {
    ($name:literal, $type:expr) => {
        file!($name, $type, $name)
    };
    ($name:literal, $type:expr, $path:literal) => {
        File { name: $name, content_type: $type, text: include_str!(concat!("console/", $path)) }
    };
}

/// All files.
pub const FILES: &[File] = &[
    file!("", HTML, "index.html"),
    file!("console.css", CSS),
    file!("icon.svg", SVG),
    file!("app.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("bytes.js", SCRIPT),
    file!("json.js", SCRIPT),
    file!("plot.js", SCRIPT),
    file!("messages.js", SCRIPT),
    file!("overview.js", SCRIPT),
    file!("topics.js", SCRIPT),
    file!("topic.js", SCRIPT),
    file!("groups.js", SCRIPT),
    file!("work.js", SCRIPT),
    file!("dead.js", SCRIPT),
    file!("keys.js", SCRIPT),
    file!("value.js", SCRIPT),
    file!("locks.js", SCRIPT),
    file!("presence.js", SCRIPT),
    file!("sessions.js", SCRIPT),
    file!("nodes.js", SCRIPT),
    file!("slow.js", SCRIPT),
    file!("access.js", SCRIPT),
];

/// What a browser may do with the page: load what the relay has, ask the relay, and nothing else. Scripts make no markup
/// out of texts (Trusted Types).
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/console")).expect("it is there");
        let mut there: Vec<_> = folder
            .map(|entry| entry.expect("it can be read").file_name().into_string().expect("UTF-8"))
            .map(|name| if name == "index.html" { String::new() } else { name })
            .collect();
        let mut served: Vec<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
        there.sort();
        served.sort();
        assert_eq!(served, there);
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_text_becomes_markup() {
        // Names of elements of SVG are no addresses that are loaded.
        let names = ["http://www.w3.org/2000/svg"];
        let forbidden =
            ["//", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="];
        for file in FILES {
            let text = names.iter().fold(file.text.to_owned(), |text, name| text.replace(name, ""));
            for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
                for word in forbidden {
                    assert!(!line.contains(word), "{}: {line}", file.name);
                }
            }
        }
    }
}
