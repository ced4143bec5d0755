//! Headers of every request, as they are written on the command line.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// The flag that names headers.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HeaderFlag {
    /// A header to send with every request, as in `X-Team: tides`, for a proxy in front of the relay. May be
    /// repeated. Other users of the machine can see flags: with `@PATH` the line is read from a file
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(super) header: Vec<Header>,
}

impl HeaderFlag {
    /// Returns the headers.
    pub(in crate::cli) fn headers(&self) -> HeaderMap {
        self.header.iter().map(|header| (header.name.clone(), header.value.clone())).collect()
    }
}

/// A header of every request.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Header {
    /// Its name.
    pub(super) name: HeaderName,
    /// What it says, which may be a secret.
    pub(super) value: HeaderValue,
    /// The file that it was read from.
    pub(super) file: Option<String>,
}

/// Reads a header as it is written on the command line, or in a file.
fn parse_header(text: &str) -> Result<Header, String> {
    let file = text.strip_prefix('@').map(str::to_owned);
    let read = file.as_ref().map(std::fs::read_to_string).transpose();
    let line = read.map_err(|cause| format!("the file cannot be read: {cause}"))?;
    let line = line.as_deref().unwrap_or(text).trim();
    let (name, value) = line.split_once(':').ok_or("write a name and a value, as in `X-Team: tides`")?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| "the name is none of a header")?;
    let mut value = HeaderValue::try_from(value.trim())
        .map_err(|_| "the value has characters that a header cannot have")?;
    value.set_sensitive(true);
    Ok(Header { name, value, file })
}
