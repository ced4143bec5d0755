//! Lists that come in pages.

use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CliError;
use super::client::Client;
use super::output::{self, Output};

/// Prints every page of a list, each as a table of its own width, so that the first lines do not wait for the last ones. A
/// page that is empty may have others behind it.
pub(super) async fn list<T: Serialize + DeserializeOwned, const N: usize>(
    client: &Client,
    first: RequestBuilder,
    form: Output,
    heading: [&str; N],
    row: impl Fn(&T) -> [String; N],
) -> Result<(), CliError> {
    let mut answer = client.send(first).await?;
    let mut heading = Some(heading.map(str::to_owned));
    loop {
        let items: Vec<T> = client.read(&answer)?;
        match form {
            Output::Json => items.iter().try_for_each(output::json)?,
            Output::Text if items.is_empty() && (answer.next.is_some() || heading.is_none()) => {}
            Output::Text => {
                let rows: Vec<_> = heading.take().into_iter().chain(items.iter().map(&row)).collect();
                output::line(&output::table(&rows))?;
            }
        }
        let Some(next) = answer.next else { return Ok(()) };
        answer = client.send(client.follow(&next)?).await?;
    }
}
