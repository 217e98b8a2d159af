//! `limbeck data fetch`: a data set from its mirrors.

use crate::session::{Session, to_stderr};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use limbeck::Result;
use limbeck::files::shown::ShownPath;
use limbeck::run::manifest::shell_line;
use limbeck_datasets::fetch::{Event, Fetched, Fetcher, Settings};
use limbeck_datasets::{an4, mnist, shown};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub struct FetchArgs {
    /// The data set
    dataset: Published,

    /// In place of the published mirrors, also several times: of mnist the folder of the four .gz
    /// files, of an4 the repository's .tar.gz; http://, https:// or file://
    #[arg(long = "mirror", value_name = "URL", value_parser = mirror)]
    mirrors: Vec<String>,

    /// Make no connection: only verify what is there, and copy from file:// mirrors
    #[arg(long)]
    offline: bool,

    /// Give a mirror up that sends nothing for so long
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Trust the authorities of this file of PEM certificates, a company's for example, in place of
    /// the public ones
    #[arg(long, env = "SSL_CERT_FILE", hide_env_values = true, value_name = "FILE")]
    authorities: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Published {
    /// 70,000 handwritten digits, 12 MB
    Mnist,
    /// 1,078 spoken utterances, 65 MB
    An4,
}

fn mirror(url: &str) -> std::result::Result<String, &'static str> {
    let known = ["http://", "https://", "file://"].iter().any(|scheme| url.starts_with(scheme));
    if known { Ok(url.to_owned()) } else { Err("expected http://…, https://… or file:///…") }
}

pub fn run(session: &Session, args: &FetchArgs) -> Result<()> {
    let data_dir = session.data_dir()?;
    let settings = Settings {
        mirrors: args.mirrors.clone(),
        patience: Duration::from_secs(args.timeout),
        offline: args.offline,
        authorities: args.authorities.clone(),
    };
    let quiet = session.quiet;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // Its template is right at compile time: the default would only look different.
    let style = ProgressStyle::with_template("{bar:20} {bytes}/{total_bytes}  {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let show = |line: String| {
        if !quiet {
            bar.suspend(|| to_stderr(&line));
        }
    };
    let mut fetcher = Fetcher::new(settings, |event| match event {
        Event::Asked { url, from: 0 } => show(format!("note: from {}", shown(url))),
        Event::Asked { url, from } => show(format!("note: on from byte {from}, {}", shown(url))),
        Event::Received { bytes, total } if !quiet => {
            bar.set_length(total.unwrap_or(bytes));
            bar.set_position(bytes);
        }
        Event::Received { .. } => {}
        Event::Failed { url, reason } => {
            bar.suspend(|| to_stderr(&format!("warning: {}: {}", shown(url), shown(reason))));
        }
    })?;
    let fetched = match args.dataset {
        Published::Mnist => mnist::fetch(data_dir, &mut fetcher),
        Published::An4 => an4::fetch(data_dir, &mut fetcher),
    };
    bar.finish_and_clear();
    session.result(&Files {
        dataset: args.dataset,
        files: fetched?
            .into_iter()
            .map(|Fetched { path, url }| File { path: path.into(), url })
            .collect(),
    })?;
    let experiment = match args.dataset {
        Published::Mnist => "mnist",
        Published::An4 => "speech",
    };
    let data = data_dir.display().to_string();
    let words = ["limbeck", "reproduce", experiment, "--preset", "quick", "--data", &data];
    session.note(&format!("next: {}", shell_line(&words.map(String::from))));
    Ok(())
}

#[derive(Serialize)]
struct Files {
    dataset: Published,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: ShownPath,
    /// Where it came from; absent if it was there already.
    url: Option<String>,
}

impl Display for Files {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for File { path, url } in &self.files {
            let source = match url {
                Some(url) => format!("verified, from {}", shown(url)),
                None => "was there, verified".to_owned(),
            };
            writeln!(f, "{}  {source}", path.display())?;
        }
        Ok(())
    }
}
