//! How long tests go on: the short form, which everybody runs, or the full one of `scripts/test-long`.
//!
//! It must not know what is tested.

use std::sync::LazyLock;
use std::time::Duration;

/// The variable that asks for the full form.
const VARIABLE: &str = "TIDEMILL_TEST_LENGTH";

/// The variable that says how many seconds the soak takes.
const SOAK_VARIABLE: &str = "TIDEMILL_SOAK_SECONDS";

static IS_LONG: LazyLock<bool> = LazyLock::new(|| match std::env::var(VARIABLE).as_deref() {
    Err(_) | Ok("" | "short") => false,
    Ok("long") => true,
    Ok(other) => panic!("{VARIABLE} is `short` or `long`, not {other}"),
});

/// Returns which of two sizes holds for this run.
pub(crate) fn pick<T>(short: T, long: T) -> T {
    if *IS_LONG { long } else { short }
}

/// Returns how long a soak takes.
pub(crate) fn soak(short: Duration, long: Duration) -> Duration {
    let named = std::env::var(SOAK_VARIABLE).ok();
    let named = named.map(|text| text.parse().unwrap_or_else(|_| panic!("{SOAK_VARIABLE} is a number")));
    named.map_or(pick(short, long), Duration::from_secs)
}

/// Tells a figure that a test has measured: `scripts/test-long` lists them at its end.
pub(crate) fn tell(figure: std::fmt::Arguments<'_>) {
    println!("figure: {figure}");
}
