//! Downloads from servers of this process that are honest, that lie, stall, die and flood.
#![cfg(feature = "fetch")]

mod common;

use common::{data_dir, is_required};
use flate2::Compression;
use flate2::write::GzEncoder;
use limbeck_datasets::fetch::{Event, Fetcher, Settings, settle};
use limbeck_datasets::{Error, FileStatus, an4, mnist};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for a busy machine to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Short enough to wait for a mirror that never answers.
const SHORT: Duration = Duration::from_secs(3);
const MOST: u64 = 1 << 20;

/// A web server in a thread that ends with the process.
struct Server {
    url: String,
    /// The first byte that each request asked for.
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Server {
    /// `answer` gets the first byte asked for and the connection, which is closed behind it.
    fn new(answer: impl Fn(u64, &mut TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || {
                    let from = read_request(&stream);
                    log.lock().unwrap().push(from);
                    answer(from, &mut stream);
                });
            }
        });
        Server { url, asked }
    }

    /// Gives `content`, or what is behind the byte asked for.
    fn honest(content: &[u8]) -> Server {
        Server::dying(content, usize::MAX)
    }

    /// As an honest one, but each answer breaks off after so many bytes.
    fn dying(content: &[u8], after: usize) -> Server {
        let content = content.to_vec();
        Server::new(move |from, stream| send(stream, &content, from as usize, after))
    }

    /// Only this.
    fn saying(answer: String) -> Server {
        Server::new(move |_, stream| drop(stream.write_all(answer.as_bytes())))
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> u64 {
    let mut from = 0;
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.strip_suffix('-').unwrap().parse().unwrap();
        }
    }
    from
}

/// Answers as RFC 9110 has it, but with `most` bytes of the body at most.
fn send(stream: &mut TcpStream, content: &[u8], from: usize, most: usize) {
    let total = content.len();
    if from >= total && from > 0 {
        let _ = write!(
            stream,
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{total}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return;
    }
    let status = match from {
        0 => "200 OK".to_string(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}", total - 1),
    };
    let rest = &content[from..];
    // That the client has gone is no fault of this side's.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    );
    let _ = stream.write_all(&rest[..rest.len().min(most)]);
}

/// What is to be downloaded: bytes without a period that a wrong offset would hide in.
fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn settings(mirrors: Vec<String>) -> Settings {
    Settings { mirrors, patience: PATIENCE, offline: false, authorities: None }
}

struct Place {
    dir: TempDir,
    target: PathBuf,
    patience: Duration,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data/file");
        Place { dir, target, patience: PATIENCE }
    }

    fn get(&self, urls: &[&str]) -> Result<String, Error> {
        self.get_with(urls, false, &mut |_| {})
    }

    /// Downloads, and checks that the good file is in place exactly if that is the result.
    fn get_with(
        &self,
        urls: &[&str],
        offline: bool,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<String, Error> {
        let before = fs::read(&self.target).ok();
        let settings = Settings { offline, patience: self.patience, ..settings(Vec::new()) };
        let urls = urls.iter().map(|url| url.to_string()).collect();
        let result =
            Fetcher::new(settings, observe).unwrap().get(&self.target, urls, MOST, &mut |part| {
                assert!(part.starts_with(self.dir.path()));
                if fs::read(part).unwrap() == content() {
                    return settle(part, &self.target);
                }
                let path = part.to_path_buf();
                Err(Error::Hash { path, found: "other bytes".into(), expected: "these".into() })
            });
        let after = fs::read(&self.target).ok();
        if result.is_ok() {
            assert!(after.unwrap() == content());
            assert_eq!(self.part(), None, "a part is left behind");
        } else {
            assert!(after == before, "a failed download changed the file");
        }
        result
    }

    /// Bytes of an unfinished download.
    fn part(&self) -> Option<u64> {
        fs::metadata(self.target.with_extension("part")).ok().map(|part| part.len())
    }
}

/// The reasons of a failure, in the mirrors' order, and whether it is one of data.
#[track_caller]
fn failure(result: Result<String, Error>) -> (Vec<String>, bool) {
    let error = result.unwrap_err();
    let data = !error.is_io();
    let Error::Mirrors { attempts, wrong, .. } = error else { panic!("{error}") };
    assert_eq!(wrong, data);
    (attempts, data)
}

#[test]
fn an_honest_mirror_is_believed_and_the_next_not_asked() {
    let (first, second) = (Server::honest(&content()), Server::honest(&content()));
    let place = Place::new();
    assert_eq!(place.get(&[&first.url, &second.url]).unwrap(), first.url);
    assert_eq!((first.asked(), second.asked()), (vec![0], vec![]));
}

#[test]
fn mirrors_are_asked_in_order_until_one_answers() {
    let missing = Server::saying("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into());
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/file", listener.local_addr().unwrap())
    };
    let babbling = Server::saying("SSH-2.0-OpenSSH_9.2\r\n".into());
    let honest = Server::honest(&content());
    let urls = [&missing.url, &closed, &babbling.url, &honest.url].map(String::as_str);
    let mut failed = Vec::new();
    let place = Place::new();
    let url = place.get_with(&urls, false, &mut |event| {
        if let Event::Failed { url, .. } = event {
            failed.push(url.to_string());
        }
    });
    assert_eq!(url.unwrap(), honest.url);
    assert_eq!(failed, urls[..3]);

    // All of them failing is a failure to reach the data, and each is named with its reason.
    let (reasons, data) = failure(place.get(&urls[..3]));
    assert!(!data && reasons.len() == 3, "{reasons:?}");
    assert!(reasons[0].ends_with("answers with HTTP status 404"), "{reasons:?}");
    for (reason, url) in reasons.iter().zip(urls) {
        assert!(reason.starts_with(url), "{reasons:?}");
    }
}

#[test]
fn a_lie_is_found_out_and_replaces_nothing() {
    let mut other = content();
    other[123_456] ^= 1;
    let lying = Server::honest(&other);
    let page = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>".into());
    let honest = Server::honest(&content());
    let place = Place::new();
    assert_eq!(place.get(&[&lying.url, &page.url, &honest.url]).unwrap(), honest.url);
    // The good file stays, and nothing of the lies does.
    let (reasons, data) = failure(place.get(&[&lying.url, &page.url]));
    assert!(data && reasons.iter().all(|reason| reason.contains("other bytes")), "{reasons:?}");
    assert_eq!(place.part(), Some(0));
    // Found out once, asked no more.
    assert_eq!(lying.asked(), [0, 0]);
}

#[test]
fn a_broken_answer_goes_on_where_it_broke() {
    // From the same mirror, as often as it brings something,
    let dying = Server::dying(&content(), 100_000);
    assert_eq!(Place::new().get(&[&dying.url]).unwrap(), dying.url);
    assert_eq!(dying.asked(), [0, 100_000, 200_000]);
    // and from the next one.
    let (dying, honest) = (Server::dying(&content(), 100_000), Server::honest(&content()));
    assert_eq!(Place::new().get(&[&dying.url, &honest.url]).unwrap(), honest.url);
    assert_eq!((dying.asked(), honest.asked()), (vec![0], vec![100_000]));
}

#[test]
fn another_run_goes_on_where_the_last_one_ended() {
    let once = |from, stream: &mut TcpStream| {
        if from == 0 {
            send(stream, &content(), 0, 70_000);
        }
    };
    let place = Place::new();
    let (reasons, data) = failure(place.get(&[&Server::new(once).url]));
    assert!(!data && reasons.len() == 1, "{reasons:?}");
    assert_eq!(place.part(), Some(70_000));
    let honest = Server::honest(&content());
    place.get(&[&honest.url]).unwrap();
    assert_eq!(honest.asked(), [70_000]);
}

#[test]
fn what_another_mirror_began_with_a_lie_is_begun_again() {
    let mut other = content();
    other[5] ^= 1;
    let lying = Server::dying(&other, 100_000);
    let honest = Server::honest(&content());
    assert_eq!(Place::new().get(&[&lying.url, &honest.url]).unwrap(), honest.url);
    assert_eq!(honest.asked(), [100_000, 0]);
}

#[test]
fn a_mirror_without_ranges_begins_again() {
    let dying = Server::dying(&content(), 100_000);
    let whole = Server::new(|_, stream| send(stream, &content(), 0, usize::MAX));
    assert_eq!(Place::new().get(&[&dying.url, &whole.url]).unwrap(), whole.url);
    assert_eq!(whole.asked(), [100_000]);
    // One that calls the beginning a continuation is not believed.
    let (dying, honest) = (Server::dying(&content(), 100_000), Server::honest(&content()));
    let confused = Server::new(|_, stream| {
        let total = content().len();
        let _ = write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-{}/{total}\r\n\
             Content-Length: {total}\r\n\r\n",
            total - 1
        );
        let _ = stream.write_all(&content());
    });
    let urls = [&dying.url, &confused.url, &honest.url].map(String::as_str);
    assert_eq!(Place::new().get(&urls).unwrap(), honest.url);
    assert_eq!(honest.asked(), [100_000]);
}

#[test]
fn a_complete_download_that_was_never_checked_is_not_trusted() {
    let place = Place::new();
    fs::create_dir_all(place.target.parent().unwrap()).unwrap();
    fs::write(place.target.with_extension("part"), vec![7; content().len()]).unwrap();
    let honest = Server::honest(&content());
    place.get(&[&honest.url]).unwrap();
    assert_eq!(honest.asked(), [content().len() as u64, 0]);
}

#[test]
fn a_stalled_mirror_is_given_up() {
    let silent = Server::new(|_, _| thread::sleep(Duration::from_secs(3600)));
    let stalling = Server::new(|from, stream| {
        send(stream, &content(), from as usize, 50_000);
        thread::sleep(Duration::from_secs(3600));
    });
    let honest = Server::honest(&content());
    let started = Instant::now();
    let urls = [&silent.url, &stalling.url, &honest.url].map(String::as_str);
    let place = Place { patience: SHORT, ..Place::new() };
    assert_eq!(place.get(&urls).unwrap(), honest.url);
    assert_eq!(honest.asked(), [50_000]);
    assert!(started.elapsed() >= 2 * SHORT);
}

#[test]
fn no_mirror_fills_the_disk() {
    let announcing =
        Server::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nabc", MOST + 1));
    let flooding = Server::new(|_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while stream.write_all(&[7; 1 << 16]).is_ok() {}
    });
    let place = Place::new();
    let mut most = 0;
    let urls = [&announcing.url, &flooding.url].map(String::as_str);
    let result = place.get_with(&urls, false, &mut |event| {
        if let Event::Received { bytes, .. } = event {
            most = most.max(bytes);
        }
    });
    let (reasons, data) = failure(result);
    assert!(data && reasons[0].contains("announces 1048577 bytes"), "{reasons:?}");
    assert!(reasons[1].ends_with("sends more than 1048576 bytes"), "{reasons:?}");
    assert!(most <= MOST, "{most}");
    assert_eq!(place.part(), Some(0));
}

#[test]
fn redirections_are_followed_with_the_range_and_end() {
    let redirect = |to: &str| {
        Server::saying(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
    };
    let (dying, honest) = (Server::dying(&content(), 100_000), Server::honest(&content()));
    let redirecting = redirect(&honest.url);
    let place = Place::new();
    assert_eq!(place.get(&[&dying.url, &redirecting.url]).unwrap(), redirecting.url);
    assert_eq!((redirecting.asked(), honest.asked()), (vec![100_000], vec![100_000]));

    let circle = redirect("/file");
    let (reasons, data) = failure(Place::new().get(&[&circle.url]));
    assert!(!data && reasons[0].contains("redirect"), "{reasons:?}");
}

#[test]
fn offline_nothing_is_asked_but_the_disk() {
    let honest = Server::honest(&content());
    let place = Place::new();
    let error = place.get_with(&[&honest.url], true, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Offline { .. }) && error.is_io());
    for part in [&honest.url, "--offline", "--mirror file:///PATH"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(honest.asked().is_empty());
    assert!(!place.target.parent().unwrap().exists());

    let copy = place.dir.path().join("copy");
    fs::write(&copy, content()).unwrap();
    let local = format!("file://{}", copy.display());
    assert_eq!(place.get_with(&[&honest.url, &local], true, &mut |_| {}).unwrap(), local);
    assert!(honest.asked().is_empty());
    fs::remove_file(&copy).unwrap();
    let (reasons, data) = failure(place.get(&[&local]));
    assert!(!data && reasons[0].contains("No such file"), "{reasons:?}");
}

#[test]
fn one_download_into_a_folder_at_a_time() {
    let honest = Server::honest(&content());
    let place = Place::new();
    let mut second = None;
    let observe = &mut |_: Event<'_>| {
        second.get_or_insert_with(|| place.get(&[&honest.url]));
    };
    place.get_with(&[&honest.url], false, observe).unwrap();
    let error = second.unwrap().unwrap_err();
    assert!(error.is_io() && error.to_string().contains("another process"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let place = Place::new();
    fs::write(place.target.parent().unwrap(), "a file").unwrap();
    let error = place.get(&["http://127.0.0.1:9/file"]).unwrap_err();
    assert!(matches!(error, Error::Write { .. }) && error.is_io());
    assert!(error.to_string().contains("data: cannot be written"), "{error}");
}

fn fetcher(mirror: String) -> Fetcher<'static> {
    Fetcher::new(settings(vec![mirror]), |_| {}).unwrap()
}

#[test]
fn mnist_is_fetched_repaired_and_left_alone() {
    let Some(published) = data_dir(mnist::is_present) else { return };
    let mirror = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(published.join("mnist")).unwrap() {
        let from = entry.unwrap();
        let name = from.file_name().into_string().unwrap();
        let bytes = fs::read(from.path()).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            fs::write(mirror.path().join(name), bytes).unwrap();
        } else {
            let file = fs::File::create(mirror.path().join(name + ".gz")).unwrap();
            let mut file = GzEncoder::new(file, Compression::fast());
            file.write_all(&bytes).unwrap();
            file.finish().unwrap();
        }
    }
    let mut fetcher = fetcher(format!("file://{}/", mirror.path().display()));
    let place = tempfile::tempdir().unwrap();
    let fetched = mnist::fetch(place.path(), &mut fetcher).unwrap();
    assert!(fetched.len() == 4 && fetched.iter().all(|file| file.url.is_some()), "{fetched:?}");
    assert!(mnist::verify(place.path()).iter().all(FileStatus::is_ok));

    // Of the four only the bad one is fetched again, though it is plain and the good one gzipped.
    let bad = place.path().join("mnist/t10k-labels-idx1-ubyte");
    fs::write(&bad, [0, 0, 8, 1, 0, 0, 0, 1, 9]).unwrap();
    let fetched = mnist::fetch(place.path(), &mut fetcher).unwrap();
    let urls: Vec<bool> = fetched.iter().map(|file| file.url.is_some()).collect();
    assert_eq!(urls, [false, false, false, true]);
    assert!(!bad.exists() && mnist::verify(place.path()).iter().all(FileStatus::is_ok));

    // Nothing to do needs no mirror.
    fs::remove_dir_all(mirror.path()).unwrap();
    let fetched = mnist::fetch(place.path(), &mut fetcher).unwrap();
    assert!(fetched.iter().all(|file| file.url.is_none()), "{fetched:?}");
}

/// The archive of the repository, made from the corpus: its README under its own name, and files
/// that are not of the corpus.
fn archive(corpus: &Path, spoilt: Option<&str>) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("an4-b567d13/{name}"), bytes).unwrap();
    };
    let sums = fs::read_to_string(corpus.join("SHA256SUMS")).unwrap();
    for line in sums.lines() {
        let name = line.split_once("  ./").unwrap().1;
        let mut bytes = fs::read(corpus.join(name)).unwrap();
        if spoilt == Some(name) {
            *bytes.last_mut().unwrap() ^= 1;
        }
        add(if name == "README.upstream.md" { "README.md" } else { name }, &bytes);
    }
    add("etc/sphinx_train.cfg", b"not of the corpus");
    archive.into_inner().unwrap().finish().unwrap()
}

#[test]
fn an4_is_fetched_as_a_whole_or_not_at_all() {
    let Some(published) = data_dir(an4::is_present) else { return };
    let corpus = published.join("an4");
    let place = tempfile::tempdir().unwrap();
    let ours = place.path().join("an4/wav/of-mine.txt");
    fs::create_dir_all(ours.parent().unwrap()).unwrap();
    fs::write(&ours, "stays").unwrap();

    let spoilt = archive(&corpus, Some("wav/an4_clstk/fash/an251-fash-b.wav"));
    let file = place.path().join("spoilt.tar.gz");
    fs::write(&file, &spoilt).unwrap();
    let error = an4::fetch(place.path(), &mut fetcher(format!("file://{}", file.display())));
    let error = error.unwrap_err();
    assert!(!error.is_io() && error.to_string().contains("SHA256SUMS: found SHA-256"), "{error}");
    assert!(!an4::is_present(place.path()));

    fs::write(&file, archive(&corpus, None)).unwrap();
    let url = format!("file://{}", file.display());
    let fetched = an4::fetch(place.path(), &mut fetcher(url.clone())).unwrap();
    assert_eq!(fetched.len(), 1);
    assert_eq!(fetched[0].url.as_ref(), Some(&url));
    let statuses = an4::verify(place.path());
    assert!(statuses.len() == 1090 && statuses.iter().all(FileStatus::is_ok));
    assert_eq!(an4::load(place.path()).unwrap().train.len(), 948);
    assert_eq!(fs::read_to_string(&ours).unwrap(), "stays");
    assert!(!place.path().join("an4/etc/sphinx_train.cfg").exists());

    fs::remove_file(&file).unwrap();
    assert_eq!(an4::fetch(place.path(), &mut fetcher(url)).unwrap()[0].url, None);
    let left: Vec<_> =
        fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "an4" || name == ".fetch.lock"), "{left:?}");
}

#[test]
fn an_archive_leads_nowhere_else() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("hostile.tar.gz");
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for name in ["x/wav/../../../outside.wav", "x/../outside.wav", "x/wav//outside.wav"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, &b"evil"[..]).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "x/wav/link.wav", "/etc/passwd").unwrap();
    fs::write(&file, archive.into_inner().unwrap().finish().unwrap()).unwrap();
    for bytes in [fs::read(&file).unwrap(), b"no archive at all".to_vec(), vec![]] {
        fs::write(&file, bytes).unwrap();
        let url = format!("file://{}", file.display());
        let data = place.path().join("inner/data");
        let error = an4::fetch(&data, &mut fetcher(url)).unwrap_err();
        assert!(!error.is_io(), "{error}");
        assert!(!data.join("an4").exists());
    }
    let mut found = vec![place.path().to_path_buf()];
    while let Some(path) = found.pop() {
        assert!(!path.to_str().unwrap().contains("outside"), "{path:?}");
        if path.is_dir() {
            found.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// openssl with these words in `folder`; whether it is there at all.
fn openssl(folder: &Path, words: &str) -> bool {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
    let Ok(output) = output else {
        assert!(!is_required("openssl"), "there is no openssl");
        eprintln!("SKIPPED: TLS: no openssl, which makes the certificates");
        return false;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// A server of `content` over TLS with the certificate and the key in `folder`.
fn secure_server(folder: &Path, content: Vec<u8>) -> String {
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/file", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // A client that does not trust this server says so instead of asking.
            let mut request = BufReader::new(&mut stream).lines().map_while(Result::ok);
            if request.any(|line| line.is_empty()) {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&content);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    url
}

#[test]
fn only_servers_of_a_known_authority_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path();
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    if !openssl(own, &format!("req -x509 {new_key} -subj /CN=authority -keyout ca.key -out ca.pem"))
    {
        return;
    }
    openssl(own, &format!("req {new_key} -subj /CN=server -keyout server.key -out server.csr"));
    fs::write(own.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        own,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names \
         -out server.pem",
    );
    let url = secure_server(own, content());

    let place = Place::new();
    let fetch = |authorities: Option<PathBuf>| {
        let settings = Settings { authorities, ..settings(Vec::new()) };
        Fetcher::new(settings, |_| {})?
            .get(&place.target, vec![url.clone()], MOST, &mut |part| settle(part, &place.target))
    };
    // The public authorities do not know it.
    let refused = fetch(None).unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    assert!(!place.target.exists());
    assert_eq!(fetch(Some(own.join("ca.pem"))).unwrap(), url);
    assert_eq!(fs::read(&place.target).unwrap(), content());

    let missing = fetch(Some(own.join("none.pem"))).unwrap_err().to_string();
    assert!(missing.contains("none.pem") && missing.contains("certificates in PEM"), "{missing}");
    for wrong in ["names", "server.key"] {
        let error = fetch(Some(own.join(wrong))).unwrap_err().to_string();
        assert!(error.contains("found no certificate"), "{error}");
    }
}

#[test]
fn a_list_of_authorities_is_read_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list.pem");
    let fetcher = |offline| {
        let authorities = Some(list.clone());
        Fetcher::new(Settings { authorities, offline, ..settings(Vec::new()) }, |_| {}).map(drop)
    };
    // A byte too long, sparse: cut off, what it holds would seem complete.
    File::create(&list).unwrap().set_len((16 << 20) + 1).unwrap();
    let error = fetcher(false).unwrap_err().to_string();
    assert!(error.contains("list.pem") && error.contains("more than 16 MiB"), "{error}");
    // Who connects to nobody trusts nobody.
    fetcher(true).unwrap();
}
