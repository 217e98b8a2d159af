//! Our side of `run.py`: times training steps and prints one JSON object.
//!
//! Usage: limbeck_step teacher|student BATCH THREADS STEPS

#[path = "../common/training.rs"]
mod training;

use limbeck::run::cpu_model;
use limbeck_kernels::{Context, Isa};
use serde_json::json;
use training::Training;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, numbers @ ..] = arguments.as_slice() else { usage() };
    let numbers: Vec<usize> = numbers.iter().filter_map(|text| text.parse().ok()).collect();
    let [batch @ (1..), threads @ (1..), steps @ (1..)] = numbers[..] else { usage() };
    let training = match task.as_str() {
        "teacher" => Training::teacher(batch),
        "student" => Training::student(batch),
        _ => usage(),
    };
    let context = Context::new(Isa::best(), threads).expect("threads");
    let mut ms: Vec<f64> = training.time(&context, steps).iter().map(|s| s * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let median = (ms[(steps - 1) / 2] + ms[steps / 2]) / 2.0;
    let net: Vec<String> = training.net().iter().map(usize::to_string).collect();
    let result = json!({
        "version": concat!("limbeck ", env!("CARGO_PKG_VERSION")),
        "cpu": cpu_model(),
        "isa": context.isa.to_string(),
        "task": training.name,
        "net": net.join("-"),
        "batch": batch,
        "threads": threads,
        "steps": steps,
        "ms_per_step": { "median": median, "min": ms[0], "max": ms[steps - 1] },
        "gflop_per_step": training.flop() / 1e9,
        "gflops": training.flop() / 1e6 / median,
    });
    println!("{result}");
}

fn usage() -> ! {
    eprintln!("usage: limbeck_step teacher|student BATCH THREADS STEPS");
    std::process::exit(2)
}
