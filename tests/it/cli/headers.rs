//! Headers of the user's own: every command that speaks to a relay sends them.

use crate::support::process::run;

/// A server that keeps the heads of requests, and answers none.
fn listening() -> (String, std::thread::JoinHandle<Vec<String>>) {
    use std::io::{BufRead as _, BufReader, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it listens"));
    let heads = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).expect("UTF-8") > 0 {}
            if head.starts_with("GET /stop") {
                return heads;
            }
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.get_mut().write_all(answer);
            heads.push(head.to_ascii_lowercase());
        }
        heads
    });
    (url, heads)
}

#[test]
fn every_command_that_speaks_to_a_relay_takes_headers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("header");
    std::fs::write(&file, "Authorization: Bearer abc\n").expect("the folder is ours");
    let from_file = format!("--header=@{}", file.display());
    let (url, heads) = listening();
    let receipt = "jobs/workers/4f0c2a9e6b1d7358/1770000000000-0/1";
    let commands: [&[&str]; 15] = [
        &["publish", "t", "1"],
        &["publish", "t"],
        &["read", "t"],
        &["tail", "t"],
        &["topics"],
        &["topics", "create", "t"],
        &["trim", "t", "--keep", "1"],
        &["work", "t", "-g", "g", "--", "true"],
        &["groups", "list", "t"],
        &["claim", "t", "g", "--consumer", "c"],
        &["ack", receipt],
        &["dead", "redrive", "t", "g", "--all"],
        &["why", "t", "1-1"],
        &["health"],
        &["health", "--ready"],
    ];
    for command in commands {
        let flags = ["--url", &url, "--header", "X-Team: tides", &from_file];
        // What stands behind `--` is not ours.
        let own = command.iter().position(|word| *word == "--").unwrap_or(command.len());
        let ended = run(&[], &[&command[..own], &flags, &command[own..]].concat(), "1\n");
        assert_ne!(ended.code, Some(0), "{command:?}");
        assert_ne!(ended.code, Some(2), "{command:?}: {ended:?}");
        assert!(!format!("{ended:?}").contains("abc"), "{ended:?}");
    }
    let address = url.trim_start_matches("http://");
    let mut stop = std::net::TcpStream::connect(address).expect("it listens");
    std::io::Write::write_all(&mut stop, b"GET /stop HTTP/1.1\r\n\r\n").expect("it reads");
    let heads = heads.join().expect("no panic");
    assert!(heads.len() >= commands.len(), "{heads:?}");
    for head in heads {
        assert!(head.contains("\r\nx-team: tides\r\n"), "{head}");
        assert!(head.contains("\r\nauthorization: bearer abc\r\n"), "{head}");
    }
    for wrong in ["no colon", ": no name", "a b: c", "@/not/there"] {
        assert_eq!(run(&[], &["read", "t", "--header", wrong], "").code, Some(2), "{wrong}");
    }
}
