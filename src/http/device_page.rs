//! The page on which a person types a device's code: plain HTML, for a keyboard and for a phone, without a script.
//!
//! It must not know what becomes of what is typed.
//!
//! **Invariant:** nothing that came with a request stands in the page but as escaped text.

use std::sync::LazyLock;

use axum::Extension;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::failure::AsItIs;
use crate::access::WaitingDevice;

/// What a page says.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// Nothing: there is no code yet.
    Nothing,
    /// What is wrong with the code.
    WrongCode(&'a str),
    /// Which device waits, and with whom one may sign in.
    Waiting(&'a WaitingDevice, &'a [String]),
    /// Which device waits for who has signed in, with what decides, and where the browser's mark is.
    SignedIn(&'a WaitingDevice, &'a str, &'a str),
    /// What is wrong with the name or the password.
    Wrong(&'a WaitingDevice, &'a str),
    /// That there is nothing more to do.
    Done(&'static str),
}

const STYLE: &str = "
body { max-width: 24rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color-scheme: light dark }
label { display: block; margin-top: 1rem }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .6rem; margin-top: .5rem }
.code { font: 1.5rem ui-monospace, monospace; letter-spacing: .1em }
.wrong { border-left: .3rem solid; padding-left: .6rem }
";

/// The page has this one style, loads and runs nothing, stands in no frame, and sends its form to the relay alone.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("letters, digits and signs of ASCII stand in a header")
});

const CODE_FORM: &str = r#"<form method="get" action="/auth/device">
<label for="user_code">The code that the device shows</label>
<input class="code" id="user_code" name="user_code" required autofocus autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="16" placeholder="XXXX-XXXX">
<button>Go on</button>
</form>
"#;

/// Returns the page as an answer.
pub(super) fn shown(status: StatusCode, said: &Said<'_>) -> Response {
    let mut response = (status, Extension(AsItIs), Html(written(said))).into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn written(said: &Said<'_>) -> String {
    let main = match said {
        Said::Nothing => CODE_FORM.to_owned(),
        Said::WrongCode(rule) => wrong(rule) + CODE_FORM,
        Said::Waiting(device, providers) => decision_form(device) + &sign_in_links(device, providers),
        Said::SignedIn(device, confirmation, mark) => signed_in_form(device, confirmation, mark),
        Said::Wrong(device, rule) => wrong(rule) + &decision_form(device),
        Said::Done(sentence) => format!("<p role=\"status\">{sentence}</p>\n"),
    };
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Let a device in</title>
<style>{STYLE}</style>
</head><body><main>
<h1>Let a device in</h1>
{main}</main></body></html>
"#
    )
}

fn wrong(rule: &str) -> String {
    format!("<p class=\"wrong\" role=\"alert\">{}</p>\n", escaped(rule))
}

/// Asks whether it is the device that the person has in front of it.
fn question(device: &WaitingDevice) -> String {
    let hint = device.hint.as_deref();
    let hint = hint.map(|hint| format!("<p>It says that it is <q>{}</q>.</p>\n", escaped(hint)));
    format!(
        "<p>Does the device show <strong class=\"code\">{}</strong>? If you have not started it yourself, refuse it.</p>\n{}",
        escaped(&device.user_code),
        hint.unwrap_or_default()
    )
}

fn sign_in_links(device: &WaitingDevice, providers: &[String]) -> String {
    let code = escaped(&device.user_code);
    let link = |name: &String| {
        let name = escaped(name);
        format!(
            "<p><a href=\"/auth/oidc/{name}/login?device_user_code={code}\">Sign in with {name}</a></p>\n"
        )
    };
    providers.iter().map(link).collect()
}

fn signed_in_form(device: &WaitingDevice, confirmation: &str, mark: &str) -> String {
    format!(
        r#"{}<form method="post" action="/auth/device">
<input type="hidden" name="sign_in" value="{}">
<input type="hidden" name="mark" value="{}">
<button name="decision" value="allow">Let it in as me</button>
<button name="decision" value="deny">Refuse it</button>
</form>
"#,
        question(device),
        escaped(confirmation),
        escaped(mark)
    )
}

fn decision_form(device: &WaitingDevice) -> String {
    let (code, question) = (escaped(&device.user_code), question(device));
    format!(
        r#"{question}<form method="post" action="/auth/device">
<input type="hidden" name="user_code" value="{code}">
<label for="username">Your name</label>
<input id="username" name="username" required autofocus autocomplete="username" autocapitalize="none" spellcheck="false">
<label for="password">Your password</label>
<input id="password" name="password" type="password" required autocomplete="current-password">
<button name="decision" value="allow">Let it in as me</button>
<button name="decision" value="deny">Refuse it</button>
</form>
"#
    )
}

/// Writes what HTML would read as its own as text.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_says_of_itself_is_text() {
        let device = WaitingDevice {
            user_code: "BCDF-GHJK".to_owned(),
            hint: Some("<script>alert('1')</script> & \"co\"".to_owned()),
        };
        let page = written(&Said::Wrong(&device, "<b>"));
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        let text = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;co&quot;";
        assert!(page.contains(text), "{page}");
    }

    #[test]
    fn the_one_style_of_the_page_is_the_one_that_its_policy_lets_in() {
        let page = written(&Said::Nothing);
        let style = page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>"));
        let digest = STANDARD.encode(Sha256::digest(style.expect("a style").0));
        let policy = POLICY.to_str().expect("text");
        assert!(policy.contains(&format!("style-src 'sha256-{digest}';")), "{policy}");
        assert!(page.matches("<style").count() == 1 && !page.contains("style=") && !page.contains("<script"));
    }
}
