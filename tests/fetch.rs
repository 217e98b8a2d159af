//! `limbeck data fetch` as its users meet it; datasets/tests/fetch.rs has what mirrors may do.
#![cfg(all(feature = "cli", feature = "fetch"))]

mod common;

use common::required::data_dir;
use limbeck_datasets::mnist;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// A web server whose answers to `GET /NAME` are `body(NAME)`, else 404; also a proxy that claims to
/// be every other server. Gives its address and the first lines of the requests.
fn serve(body: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, lines) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap());
            loop {
                let mut lines = requests.by_ref().lines().map(|line| line.unwrap());
                let Some(first) = lines.next() else { break };
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let _ = sender.send(first.clone());
                if first.starts_with("CONNECT ") {
                    write!(stream, "HTTP/1.1 200 OK\r\n\r\n").unwrap();
                    continue;
                }
                let name = first.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
                let (status, body) = match body(name) {
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", vec![]),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(&body);
                break;
            }
        }
    });
    (url, lines)
}

fn limbeck(data: &Path, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env_remove("SSL_CERT_FILE");
    command.arg("data").args(args).arg("--data").arg(data);
    command.envs(environment.iter().copied()).output().unwrap()
}

#[track_caller]
fn fails(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} not in: {stderr}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn failures_say_why_and_what_next() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let fetch = |args: &[&str]| limbeck(&data, &[&["fetch"], args].concat(), &[]);
    fails(&fetch(&["mnits"]), 2, &["mnits", "similar", "mnist"]);
    fails(&fetch(&["mnist", "--mirror", "ftp://a/b"]), 2, &["ftp://a/b", "https://"]);
    fails(&fetch(&["mnist", "--timeout", "0"]), 2, &["1..=3600"]);
    for (dataset, place) in [("mnist", "mnist/train-images-idx3-ubyte.gz"), ("an4", "an4.tar.gz")] {
        fails(&fetch(&[dataset, "--offline"]), 74, &[place, "https://", "--mirror file:///PATH"]);
        assert!(!data.exists());
    }
    let (missing, _requests) = serve(|_| None);
    let refused = fetch(&["mnist", "--mirror", &missing]);
    fails(&refused, 74, &["train-images-idx3-ubyte.gz", "HTTP status 404", "--mirror"]);

    // A well-formed file that is not the published one, which leaves the user's own alone.
    let own = data.join("mnist/train-images-idx3-ubyte.gz");
    fs::write(&own, "mine").unwrap();
    let (lying, _requests) =
        serve(|_| Some(vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9]));
    let lied = fetch(&["mnist", "--mirror", &lying]);
    fails(&lied, 65, &[&lying, "found SHA-256 56c304bf", "expected ba891046"]);
    assert_eq!(fs::read_to_string(&own).unwrap(), "mine");
}

#[test]
fn proxies_are_those_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let fetch = |environment: &[(&str, &str)]| {
        // No such host exists (RFC 6761): only a proxy can answer for it.
        let args = ["fetch", "mnist", "--mirror", "http://mirror.invalid/mnist"];
        limbeck(dir.path(), &args, environment)
    };
    let (proxy, requests) = serve(|_| None);
    fails(&fetch(&[("HTTP_PROXY", &proxy)]), 74, &["HTTP status 404"]);
    let lines: Vec<String> = requests.try_iter().collect();
    assert!(lines.iter().any(|line| line.contains("mirror.invalid")), "{lines:?}");
    let direct = fetch(&[("HTTP_PROXY", &proxy), ("NO_PROXY", "mirror.invalid")]);
    assert_eq!(direct.status.code(), Some(74));
    assert_eq!(requests.try_iter().count(), 0);
}

#[test]
fn mnist_arrives_from_a_mirror() {
    let Some(published) = data_dir(mnist::is_present) else { return };
    let published = fs::canonicalize(published).unwrap().join("mnist");
    let (honest, requests) = serve(move |name| {
        let path = published.join(name);
        fs::read(&path).or_else(|_| fs::read(path.with_extension(""))).ok()
    });
    let dir = tempfile::tempdir().unwrap();
    let args =
        ["fetch", "mnist", "--json", "--mirror", "http://127.0.0.1:9/a", "--mirror", &honest];
    for asked in [4, 0] {
        let output = limbeck(dir.path(), &args, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("next: limbeck reproduce mnist"), "{stderr}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let files = result["files"].as_array().unwrap();
        assert_eq!(files.iter().filter(|file| file["url"].is_string()).count(), asked);
        assert_eq!((files.len(), requests.try_iter().count()), (4, asked));
        let verified = limbeck(dir.path(), &["verify"], &[]);
        assert_eq!(verified.status.code(), Some(0));
    }
}
