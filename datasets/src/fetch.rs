//! Downloads over HTTP and HTTPS, of which only verified files come out.
//!
//! A download goes to a file with `.part` behind its name. The caller checks the complete file and
//! renames it to its place. Mirrors are asked in order; one may be local, `file:///path`.
//!
//! A broken connection leaves a part of the file. The next request goes on behind it (`Range`), to
//! the same mirror or another one, in the same run or a later one. A complete file that fails the
//! check is thrown away. A mirror is given up once a file that it sent from the first byte fails.
//! Proxies are those of the environment: `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.

use crate::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// The most rounds through all mirrors. A round that adds no byte is the last.
const MAX_ROUNDS: usize = 10;
/// The longest time that one answer may take, even if it keeps sending.
const LONGEST_ANSWER: Duration = Duration::from_secs(3600);

/// The longest list of authorities accepted, in bytes.
const LONGEST_LIST: u64 = 16 << 20;

/// Makes downloads.
pub struct Fetcher<'a> {
    agent: Agent,
    settings: Settings,
    observe: Box<dyn FnMut(Event<'_>) + 'a>,
}

/// The choices of the user.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mirrors to ask in this order, in place of the published ones; empty for the published ones.
    pub mirrors: Vec<String>,
    /// The time without a byte after which a mirror is given up.
    pub patience: Duration,
    /// Whether no connection may be made. Then only `file://` mirrors count, and without them a
    /// missing file is an error.
    pub offline: bool,
    /// A file of PEM certificates of the authorities to trust, in place of the public ones.
    pub authorities: Option<PathBuf>,
}

/// A step of a download, for the user to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A mirror is asked for the bytes behind the first `from`.
    Asked {
        /// The file's address.
        url: &'a str,
        /// Number of bytes that are there already.
        from: u64,
    },
    /// More bytes have come.
    Received {
        /// Number of bytes that are there now.
        bytes: u64,
        /// Number of bytes of the whole file, where the mirror tells.
        total: Option<u64>,
    },
    /// A mirror did not send the file.
    Failed {
        /// The file's address.
        url: &'a str,
        /// The reason.
        reason: &'a str,
    },
}

/// A file of a data set, and the address that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The file, or the folder of an archive's files.
    pub path: PathBuf,
    /// The address; absent if the published file was there already.
    pub url: Option<String>,
}

/// The reason for which a mirror's answer is no good file.
enum Failure {
    /// The connection or the answer broke; the bytes that came are kept.
    Broken(String),
    /// The bytes, with those from before, are not the published ones.
    Wrong(String),
    /// This machine failed, by a full disk for example: no other mirror helps.
    Local(Error),
}

struct Mirror {
    url: String,
    /// Why it did not send the file when it was last asked.
    reason: String,
    wrong: bool,
}

/// Reads the certificates in a PEM file.
fn authorities(path: &Path) -> Result<RootCerts, Error> {
    const EXPECTED: &str = "certificates in PEM";
    let mut pem = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_LIST + 1).read_to_end(&mut pem));
    read.map_err(|cause| Error::Io { path: path.to_path_buf(), expected: EXPECTED, cause })?;
    let content = |found: String| Error::Content {
        path: path.to_path_buf(),
        offset: 0,
        found,
        expected: EXPECTED.into(),
    };
    if pem.len() as u64 > LONGEST_LIST {
        return Err(content(format!("more than {} MiB", LONGEST_LIST >> 20)));
    }
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    let certificates = items.map_err(|error| content(error.to_string()))?.into_iter();
    let certificates: Vec<_> = certificates
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(content("no certificate".into()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

impl<'a> Fetcher<'a> {
    /// A fetcher that downloads as `settings` say, and calls `observe` with each event.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Content`] for the file of authorities.
    pub fn new(
        settings: Settings,
        observe: impl FnMut(Event<'_>) + 'a,
    ) -> Result<Fetcher<'a>, Error> {
        let patience = Some(settings.patience);
        let asked = settings.authorities.as_deref().filter(|_| !settings.offline);
        let roots = asked.map(authorities).transpose()?;
        let tls = TlsConfig::builder().root_certs(roots.unwrap_or(RootCerts::WebPki)).build();
        let config = Agent::config_builder()
            .user_agent(concat!("limbeck/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // No connection is used twice: a server may close it between two files.
            .max_idle_connections(0)
            .timeout_global(Some(LONGEST_ANSWER))
            .timeout_resolve(patience)
            .timeout_connect(patience)
            .timeout_recv_response(patience)
            .timeout_per_read(patience)
            .tls_config(tls)
            .build();
        Ok(Fetcher { agent: config.new_agent(), settings, observe: Box::new(observe) })
    }

    /// The user's mirrors or, without any, the `published` ones.
    pub(crate) fn mirrors(&self, published: &[&str]) -> Vec<String> {
        match self.settings.mirrors.as_slice() {
            [] => published.iter().map(|&url| url.to_owned()).collect(),
            mirrors => mirrors.to_vec(),
        }
    }

    /// Downloads the file for `target`, of at most `most` bytes, from the first of the `urls` whose
    /// file passes `accept`; returns the url. `accept` gets the path of the complete download,
    /// `target` with `.part`, checks it, and puts it in its place, by [`settle`] or otherwise.
    ///
    /// # Errors
    /// [`Error::Offline`]; [`Error::Mirrors`] with each url's reason; [`Error::Write`] when the disk
    /// is full, the folder cannot be written, or another process downloads into it; and `accept`'s
    /// own where they are of that kind ([`Error::is_io`]).
    pub fn get(
        &mut self,
        target: &Path,
        mut urls: Vec<String>,
        most: u64,
        accept: &mut dyn FnMut(&Path) -> Result<(), Error>,
    ) -> Result<String, Error> {
        if self.settings.offline {
            let (local, remote): (Vec<_>, Vec<_>) =
                urls.into_iter().partition(|url| local_path(url).is_some());
            if local.is_empty() {
                return Err(Error::Offline { path: target.to_path_buf(), urls: remote });
            }
            urls = local;
        }
        let folder = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
        let _alone = lock(&folder.join(".fetch.lock"))?;
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = Path::new(&path);
        let mut options = OpenOptions::new();
        let part = options.read(true).write(true).create(true).truncate(false).open(path);
        let mut download = Download { part: part.map_err(Error::write(path))?, path, most };

        let mirror = |url| Mirror { url, reason: String::new(), wrong: false };
        let mut mirrors: Vec<Mirror> = urls.into_iter().map(mirror).collect();
        let mut reached = download.length()?;
        for _ in 0..MAX_ROUNDS {
            for mirror in mirrors.iter_mut().filter(|mirror| !mirror.wrong) {
                match self.ask(&mirror.url, &mut download, accept) {
                    Ok(()) => return Ok(mirror.url.clone()),
                    Err(Failure::Local(error)) => return Err(error),
                    Err(Failure::Broken(reason)) => mirror.reason = reason,
                    Err(Failure::Wrong(reason)) => {
                        (mirror.reason, mirror.wrong) = (reason, true);
                    }
                }
                (self.observe)(Event::Failed { url: &mirror.url, reason: &mirror.reason });
            }
            if download.length()? <= reached {
                break;
            }
            reached = download.length()?;
        }
        let wrong = mirrors.iter().any(|mirror| mirror.wrong);
        let attempts = mirrors.into_iter().map(|m| format!("{}: {}", m.url, m.reason)).collect();
        Err(Error::Mirrors { path: target.to_path_buf(), attempts, wrong })
    }

    /// Asks one mirror for the missing bytes. If the complete file fails the check, and bytes of an
    /// earlier answer may be the reason, it asks for the whole file once more.
    fn ask(
        &mut self,
        url: &str,
        download: &mut Download<'_>,
        accept: &mut dyn FnMut(&Path) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        loop {
            let from = download.length().map_err(Failure::Local)?;
            (self.observe)(Event::Asked { url, from });
            let complete = self.receive(url, download, from);
            let outcome = complete.and_then(|()| {
                accept(download.path).map_err(|error| {
                    let reason = error.to_string();
                    if error.is_io() { Failure::Local(error) } else { Failure::Wrong(reason) }
                })
            });
            match outcome {
                Err(Failure::Wrong(reason)) => {
                    download.forget().map_err(Failure::Local)?;
                    if from == 0 {
                        return Err(Failure::Wrong(reason));
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends one request and reads its answer to the end.
    fn receive(
        &mut self,
        url: &str,
        download: &mut Download<'_>,
        from: u64,
    ) -> Result<(), Failure> {
        let Answer { start, total, mut body } = match local_path(url) {
            Some(path) => open(path, from).map_err(|e| Failure::Broken(e.to_string()))?,
            None => self.request(url, from)?,
        };
        let most = download.most;
        if let Some(total) = total.filter(|&total| total > most) {
            let reason = format!("announces {total} bytes, expected at most {most}");
            return Err(Failure::Wrong(reason));
        }
        download.continue_at(start).map_err(Failure::Local)?;
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = start;
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::Broken(format!("broke after {bytes} bytes: {e}"))),
            };
            bytes += count as u64;
            if bytes > most {
                return Err(Failure::Wrong(format!("sends more than {most} bytes")));
            }
            download.write(&buffer[..count]).map_err(Failure::Local)?;
            (self.observe)(Event::Received { bytes, total });
        }
        if let Some(total) = total.filter(|&total| bytes < total) {
            return Err(Failure::Broken(format!("ended after {bytes} of {total} bytes")));
        }
        Ok(())
    }

    fn request(&self, url: &str, from: u64) -> Result<Answer, Failure> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let answer = request.call().map_err(|e| Failure::Broken(e.to_string()))?;
        let start = match answer.status().as_u16() {
            200 => 0,
            206 if range_start(&answer) == Some(from) => from,
            206 => return Err(Failure::Broken(format!("sends another part than from {from} on"))),
            416 => return Err(Failure::Wrong(format!("has nothing behind byte {from}"))),
            status => return Err(Failure::Broken(format!("answers with HTTP status {status}"))),
        };
        let body = answer.into_body();
        let total = body.content_length().map(|length| start.saturating_add(length));
        Ok(Answer { start, total, body: Box::new(body.into_reader()) })
    }
}

/// The answer of a mirror: the bytes from `start` on, of `total` if that is known.
struct Answer {
    start: u64,
    total: Option<u64>,
    body: Box<dyn Read>,
}

/// The path of a `file://` address.
fn local_path(url: &str) -> Option<&Path> {
    url.strip_prefix("file://").map(Path::new)
}

/// Opens a local file as if it were the answer of a mirror.
fn open(path: &Path, from: u64) -> io::Result<Answer> {
    let mut file = File::open(path)?;
    let total = Some(file.metadata()?.len());
    let start = file.seek(SeekFrom::Start(from))?;
    Ok(Answer { start, total, body: Box::new(file) })
}

/// The file `.part` that a download is written to.
struct Download<'p> {
    part: File,
    path: &'p Path,
    /// The most bytes that the file may have.
    most: u64,
}

impl Download<'_> {
    fn length(&self) -> Result<u64, Error> {
        Ok(self.part.metadata().map_err(Error::write(self.path))?.len())
    }

    fn continue_at(&mut self, start: u64) -> Result<(), Error> {
        let mut cut = || {
            self.part.set_len(start)?;
            self.part.seek(SeekFrom::Start(start))
        };
        cut().map(drop).map_err(Error::write(self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.part.write_all(bytes).map_err(Error::write(self.path))
    }

    fn forget(&mut self) -> Result<(), Error> {
        self.continue_at(0)
    }
}

/// The N of an answer's `Content-Range: bytes N-…`.
fn range_start<T>(answer: &Response<T>) -> Option<u64> {
    let range = answer.headers().get("Content-Range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Locks out other processes of the same download until the returned file is dropped.
fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(Error::write(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(cause)) => Err(Error::write(path)(cause)),
        Err(TryLockError::WouldBlock) => Err(Error::write(path)(io::Error::new(
            ErrorKind::WouldBlock,
            "another process is downloading into this folder",
        ))),
    }
}

/// Syncs a verified file to the disk, and renames it to its place.
///
/// # Errors
/// [`Error::Write`] naming the place.
pub fn settle(file: &Path, place: &Path) -> Result<(), Error> {
    let settle = || {
        File::open(file)?.sync_all()?;
        fs::rename(file, place)?;
        // Only Unix can open a folder to sync it.
        match place.parent() {
            Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    };
    settle().map_err(Error::write(place))
}
