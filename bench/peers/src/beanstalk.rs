//! A load for beanstalkd: fills a tube, and has workers reserve and delete its jobs, one at a time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lines::{Jobs, Lines, job};

const TUBE: &str = "bench";
/// Jobs that are put before their answers are read.
const WINDOW: u64 = 1_000;

/// Works all jobs off, and returns what was measured.
pub(crate) async fn run(
    server: SocketAddr,
    workers: usize,
    count: u64,
    bytes: usize,
) -> Result<Value, String> {
    let mut filler = Lines::connect(server).await?;
    filler.put(&format!("use {TUBE}\r\n"));
    filler.flush().await?;
    expect(&filler.line().await?, "USING")?;
    for from in (0..count).step_by(WINDOW.try_into().unwrap_or(1)) {
        let to = (from + WINDOW).min(count);
        for number in from..to {
            filler.put(&format!("put 0 0 600 {bytes}\r\n{}\r\n", job(number, bytes)));
        }
        filler.flush().await?;
        for _ in from..to {
            expect(&filler.line().await?, "INSERTED")?;
        }
    }
    let jobs = Arc::new(Mutex::new(Jobs::new(usize::try_from(count).unwrap_or_default())));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        tasks.spawn(work(server, Arc::clone(&jobs)));
    }
    while let Some(worked) = tasks.join_next().await {
        worked.map_err(|error| error.to_string())??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let repeated = jobs.lock().map_err(|error| error.to_string())?.repeated;
    if repeated > 0 {
        return Err(format!("{repeated} jobs came twice"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 jobs")]
    let per_second = count as f64 / seconds;
    Ok(json!({ "count": count, "per_second": per_second }))
}

async fn work(server: SocketAddr, jobs: Arc<Mutex<Jobs>>) -> Result<(), String> {
    let mut lines = Lines::connect(server).await?;
    lines.put(&format!("watch {TUBE}\r\nignore default\r\n"));
    lines.flush().await?;
    expect(&lines.line().await?, "WATCHING")?;
    expect(&lines.line().await?, "WATCHING")?;
    while jobs.lock().map_err(|error| error.to_string())?.left > 0 {
        lines.put("reserve-with-timeout 0\r\n");
        lines.flush().await?;
        let line = lines.line().await?;
        if line == "TIMED_OUT" {
            // Others have the last ones.
            break;
        }
        let rest = expect(&line, "RESERVED")?;
        let (id, length) = rest.split_once(' ').ok_or_else(|| format!("beanstalkd said {line:?}"))?;
        let length = length.parse().map_err(|_| format!("beanstalkd said {line:?}"))?;
        let payload = lines.bytes(length).await?;
        lines.put(&format!("delete {id}\r\n"));
        lines.flush().await?;
        expect(&lines.line().await?, "DELETED")?;
        jobs.lock().map_err(|error| error.to_string())?.done(&payload)?;
    }
    Ok(())
}

fn expect<'a>(line: &'a str, word: &str) -> Result<&'a str, String> {
    line.strip_prefix(word).map(str::trim_start).ok_or_else(|| format!("beanstalkd said {line:?}"))
}
