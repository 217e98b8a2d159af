//! Our products beside those of matrixmultiply, the gemm crate, faer (with the feature of that name),
//! and OpenBLAS and oneDNN (with a Python that has NumPy and PyTorch), interleaved: a table of
//! rates, shares of the measured peak, and paired ratios.
//!
//! ```text
//! gemm_peers [BATCH [PYTHON]]
//! ```
//!
//! `MATMUL_NUM_THREADS` sets the threads of all (with `RAYON_NUM_THREADS` for the gemm crate and
//! faer); matrixmultiply uses 4 at most. The batch size is 128 by default.

#[path = "../common/products.rs"]
mod products;

use limbeck_kernels::{Context, Isa, peak};
use products::{Product, Shape, Way, shapes};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 41;
/// Least duration of one timing.
const TIMING: Duration = Duration::from_millis(6);
/// Of a measurement of the peak.
const PROBE: Duration = Duration::from_millis(2);

fn main() {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("'{text}' is no number"));
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = std::env::var("MATMUL_NUM_THREADS").map_or(available, number);
    let batch = std::env::args().nth(1).map_or(128, number);
    let python = std::env::args().nth(2);
    let context = Context::new(Isa::best(), threads).expect("threads");
    let libraries = ["openblas", "onednn"];
    let mut others: Vec<Library> = python
        .iter()
        .flat_map(|python| libraries.map(|library| Library::new(python, library, threads)))
        .collect();
    println!(
        "batch {batch}, {threads} threads, {}; GFLOP/s and share of the peak, medians of {ROUNDS} \
         rounds; ratios are the peer's time over the training path's: median (quartiles)\n",
        context.isa
    );
    let [ours, row_major, peers @ ..] = Way::ALL else { unreachable!("ours are two ways") };
    let peers = peers.iter().map(Way::to_string);
    let peers: Vec<String> = peers.chain(others.iter().map(|other| other.name.clone())).collect();
    let heading: String = peers.iter().map(|peer| format!(" {peer} | ratio |")).collect();
    println!("| product | {ours} | {row_major} |{heading}");
    println!("|---|---|---|{}", "---|---|".repeat(peers.len()));
    for shape in shapes(batch) {
        let mut product = Product::new(shape);
        product.verify(&context);
        let once = Instant::now();
        product.compute(Way::Matrixmultiply, &context);
        let calls = TIMING.div_duration_f64(once.elapsed()).ceil() as usize;

        let ways = Way::ALL.len() + others.len();
        let mut times = vec![Vec::new(); ways];
        let mut peaks = Vec::new();
        for round in 0..ROUNDS {
            peaks.push(peak::flops(&context, PROBE));
            // Each comes first equally often, and the order turns.
            for i in 0..ways {
                let way = (round + if round % 2 == 0 { i } else { ways - i }) % ways;
                let seconds = match Way::ALL.get(way) {
                    Some(&way @ (Way::TrainingPath | Way::RowMajor)) => {
                        context.pool.install(|| time(calls, || product.compute(way, &context)))
                    }
                    Some(&way) => time(calls, || product.compute(way, &context)),
                    None => others[way - Way::ALL.len()].time(shape, calls),
                };
                times[way].push(seconds);
            }
        }
        let rate = |seconds| rate(shape.flop(), seconds, &peaks);
        let (ours, others) = times.split_first().expect("the training path");
        let (row_major, peers) = others.split_first().expect("the row-major product");
        print!("| {shape} | {} | {} |", rate(ours), rate(row_major));
        for peer in peers {
            print!(" {} | {} |", rate(peer), ratio(peer, ours));
        }
        println!();
    }
}

/// A library in a process of its own, `products.py`, that computes when asked. Between its turns the
/// process is stopped: its threads would go on waiting for work in a loop, on the cores of whoever
/// is timed next.
struct Library {
    name: String,
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Library {
    fn new(python: &str, library: &str, threads: usize) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/peers/products.py");
        let threads = threads.to_string();
        let mut process = Command::new(python)
            .args([script, library, &threads])
            .env("OPENBLAS_NUM_THREADS", &threads)
            // OpenBLAS's own choice of kernels for this processor.
            .env_remove("OPENBLAS_CORETYPE")
            // The allocator keeps what it has: PyTorch allocates each result anew, and fresh
            // pages would cost more than some products.
            .env("MALLOC_MMAP_THRESHOLD_", (1 << 30).to_string())
            .env("MALLOC_TRIM_THRESHOLD_", (1 << 30).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}"));
        let to = process.stdin.take().expect("piped");
        let from = BufReader::new(process.stdout.take().expect("piped"));
        let mut library = Self { name: String::new(), process, to, from };
        library.name = library.answer();
        library.signal(libc::SIGSTOP);
        library
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("products.py's answer");
        assert!(!line.is_empty(), "products.py ended early");
        line.trim().into()
    }

    fn time(&mut self, shape: Shape, calls: usize) -> f64 {
        let Shape { role, m, n, k } = shape;
        let role = role.to_string().replace(' ', "-");
        self.signal(libc::SIGCONT);
        writeln!(self.to, "{role} {m} {n} {k} {calls}").expect("products.py listens");
        let seconds = self.answer().parse().expect("seconds");
        self.signal(libc::SIGSTOP);
        seconds
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that has not been waited for, so its number is its own.
        let sent = unsafe { libc::kill(self.process.id() as i32, signal) };
        assert_eq!(sent, 0, "products.py is gone");
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // It would wait for lines until its input closes; nothing is lost.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Seconds a call, after one that is not counted.
fn time(calls: usize, mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    (0..calls).for_each(|_| call());
    start.elapsed().as_secs_f64() / calls as f64
}

/// The first quartile, the median and the third quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn rate(flop: u64, seconds: &[f64], peaks: &[f64]) -> String {
    let rates = seconds.iter().map(|seconds| flop as f64 / seconds);
    let shares = rates.clone().zip(peaks).map(|(rate, peak)| 100.0 * rate / peak);
    let [_, rate, _] = quartiles(rates.collect());
    let [_, share, _] = quartiles(shares.collect());
    format!("{:.0} ({share:.0} %)", rate / 1e9)
}

fn ratio(theirs: &[f64], ours: &[f64]) -> String {
    let ratios = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
    let [low, median, high] = quartiles(ratios);
    format!("{median:.2} ({low:.2}–{high:.2})")
}
