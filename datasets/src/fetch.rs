//! Downloads over HTTP and HTTPS: only what has been verified comes out of them.
//!
//! A download goes to a file beside its place, which the caller's check turns into the good one by
//! a rename. Mirrors are asked in order; one may be local, `file:///path`. What a broken connection left is kept, and the next answer,
//! of the same mirror or of another or in another run, goes on behind it (`Range`); what fails the
//! check is thrown away, and its mirror with it once it has failed from the first byte. Proxies are
//! those of the environment: `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.

use crate::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// The most times that all mirrors are asked, as long as each time brings the file forward.
const MAX_ROUNDS: usize = 10;
/// The longest that one answer may take, however steadily it drips.
const LONGEST_ANSWER: Duration = Duration::from_secs(3600);

/// More than any list of authorities.
const LONGEST_LIST: u64 = 16 << 20;

/// How downloads are made.
pub struct Fetcher<'a> {
    agent: Agent,
    settings: Settings,
    observe: Box<dyn FnMut(Event<'_>) + 'a>,
}

/// What the user may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Asked in this order, in place of the published mirrors; may be empty.
    pub mirrors: Vec<String>,
    /// A mirror that sends nothing for so long is given up.
    pub patience: Duration,
    /// No connection is made: mirrors are `file://` ones, and without them a missing file is an
    /// error.
    pub offline: bool,
    /// Certificates in PEM of the authorities that mirrors and proxies are trusted by, in place of
    /// the public ones that the program knows.
    pub authorities: Option<PathBuf>,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A mirror is asked for what lies behind the first `from` bytes.
    Asked {
        /// The file's address.
        url: &'a str,
        /// Bytes that are there already.
        from: u64,
    },
    /// More has come.
    Received {
        /// Bytes that are there now.
        bytes: u64,
        /// Bytes of the whole file, where the mirror tells.
        total: Option<u64>,
    },
    /// A mirror did not give the file.
    Failed {
        /// The file's address.
        url: &'a str,
        /// Why.
        reason: &'a str,
    },
}

/// A file of a data set and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The file, or the folder of an archive's files.
    pub path: PathBuf,
    /// The address; absent if the published file was there already.
    pub url: Option<String>,
}

/// Why a mirror's answer is not a good file.
enum Trouble {
    /// The connection or the answer broke; what came is kept.
    Broken(String),
    /// The bytes, with those from before, are not the published ones.
    Wrong(String),
    /// This machine's fault: no other mirror helps.
    Local(Error),
}

struct Mirror {
    url: String,
    /// Why it did not give the file when last asked.
    trouble: String,
    wrong: bool,
}

/// The certificates in a file of PEM.
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
    /// Downloads as `settings` say, telling `observe` what happens.
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
            // A connection that its server closed between two files must not fail the second.
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

    /// Downloads one file of at most `most` bytes, meant for `target`, from the first of the `urls`
    /// whose bytes `accept` finds good. It is called with the path of the complete download,
    /// `target` with `.part`, and puts the file in place, by [`settle`] or otherwise. Gives the url.
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

        let mirror = |url| Mirror { url, trouble: String::new(), wrong: false };
        let mut mirrors: Vec<Mirror> = urls.into_iter().map(mirror).collect();
        let mut reached = download.length()?;
        for _ in 0..MAX_ROUNDS {
            for mirror in mirrors.iter_mut().filter(|mirror| !mirror.wrong) {
                match self.ask(&mirror.url, &mut download, accept) {
                    Ok(()) => return Ok(mirror.url.clone()),
                    Err(Trouble::Local(error)) => return Err(error),
                    Err(Trouble::Broken(reason)) => mirror.trouble = reason,
                    Err(Trouble::Wrong(reason)) => {
                        (mirror.trouble, mirror.wrong) = (reason, true);
                    }
                }
                (self.observe)(Event::Failed { url: &mirror.url, reason: &mirror.trouble });
            }
            if download.length()? <= reached {
                break;
            }
            reached = download.length()?;
        }
        let wrong = mirrors.iter().any(|mirror| mirror.wrong);
        let attempts = mirrors.into_iter().map(|m| format!("{}: {}", m.url, m.trouble)).collect();
        Err(Error::Mirrors { path: target.to_path_buf(), attempts, wrong })
    }

    /// Asks one mirror for what is missing, and for all of it once more if what was there before
    /// may be at fault.
    fn ask(
        &mut self,
        url: &str,
        download: &mut Download<'_>,
        accept: &mut dyn FnMut(&Path) -> Result<(), Error>,
    ) -> Result<(), Trouble> {
        loop {
            let from = download.length().map_err(Trouble::Local)?;
            (self.observe)(Event::Asked { url, from });
            let complete = self.receive(url, download, from);
            let outcome = complete.and_then(|()| {
                accept(download.path).map_err(|error| {
                    let reason = error.to_string();
                    if error.is_io() { Trouble::Local(error) } else { Trouble::Wrong(reason) }
                })
            });
            match outcome {
                Err(Trouble::Wrong(reason)) => {
                    download.forget().map_err(Trouble::Local)?;
                    if from == 0 {
                        return Err(Trouble::Wrong(reason));
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// One request and its answer, to the answer's end.
    fn receive(
        &mut self,
        url: &str,
        download: &mut Download<'_>,
        from: u64,
    ) -> Result<(), Trouble> {
        let Answer { start, total, mut body } = match local_path(url) {
            Some(path) => open(path, from).map_err(|e| Trouble::Broken(e.to_string()))?,
            None => self.request(url, from)?,
        };
        let most = download.most;
        if let Some(total) = total.filter(|&total| total > most) {
            let reason = format!("announces {total} bytes, expected at most {most}");
            return Err(Trouble::Wrong(reason));
        }
        download.continue_at(start).map_err(Trouble::Local)?;
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = start;
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Trouble::Broken(format!("broke after {bytes} bytes: {e}"))),
            };
            bytes += count as u64;
            if bytes > most {
                return Err(Trouble::Wrong(format!("sends more than {most} bytes")));
            }
            download.write(&buffer[..count]).map_err(Trouble::Local)?;
            (self.observe)(Event::Received { bytes, total });
        }
        if let Some(total) = total.filter(|&total| bytes < total) {
            return Err(Trouble::Broken(format!("ended after {bytes} of {total} bytes")));
        }
        Ok(())
    }

    fn request(&self, url: &str, from: u64) -> Result<Answer, Trouble> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let answer = request.call().map_err(|e| Trouble::Broken(e.to_string()))?;
        let start = match answer.status().as_u16() {
            200 => 0,
            206 if range_start(&answer) == Some(from) => from,
            206 => return Err(Trouble::Broken(format!("sends another part than from {from} on"))),
            416 => return Err(Trouble::Wrong(format!("has nothing behind byte {from}"))),
            status => return Err(Trouble::Broken(format!("answers with HTTP status {status}"))),
        };
        let body = answer.into_body();
        let total = body.content_length().map(|length| start.saturating_add(length));
        Ok(Answer { start, total, body: Box::new(body.into_reader()) })
    }
}

/// What a mirror sends: the bytes from `start` on, of `total` if that is known.
struct Answer {
    start: u64,
    total: Option<u64>,
    body: Box<dyn Read>,
}

/// The path of a `file://` address.
fn local_path(url: &str) -> Option<&Path> {
    url.strip_prefix("file://").map(Path::new)
}

/// A file as an answer.
fn open(path: &Path, from: u64) -> io::Result<Answer> {
    let mut file = File::open(path)?;
    let total = Some(file.metadata()?.len());
    let start = file.seek(SeekFrom::Start(from))?;
    Ok(Answer { start, total, body: Box::new(file) })
}

/// The file that a download grows in.
struct Download<'p> {
    part: File,
    path: &'p Path,
    /// The most bytes that it may have.
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

/// N of an answer's `Content-Range: bytes N-…`.
fn range_start<T>(answer: &Response<T>) -> Option<u64> {
    let range = answer.headers().get("Content-Range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Keeps other processes from the same download until the value is dropped.
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

/// Renames a verified file to its place once its bytes are on the disk.
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
