//! Three nets that differ in their seed, their ensemble, and one net of the same size taught by it.
//!
//! `cargo run --release --example ensemble_teacher`

use limbeck::config::{Config, OptimizerKind};
use limbeck::datasets::glyphs;
use limbeck::kernels::{Context, Isa};
use limbeck::loss::Objective;
use limbeck::trainer::{self, Task};
use limbeck::{distill, metrics};

const CLASSES: usize = 10;

fn main() -> limbeck::Result<()> {
    let context = Context::new(Isa::best(), 1).map_err(limbeck::Error::Usage)?;
    let digits = glyphs::load(0, 2_000, 2_000);
    let labels = digits.test.labels.as_ref().expect("test images have labels");
    let errors = |logits: &[f32]| metrics::errors(logits, labels, CLASSES);

    let mut config = Config::default();
    config.model.layers = vec![784, 100, CLASSES];
    config.training.epochs = 15;
    config.training.optimizer = OptimizerKind::Adam;
    config.training.learning_rate = 1e-3;
    let mut members = Vec::new();
    for seed in 0..3 {
        config.seed = seed;
        let task = Task::hard("member", &config, &digits.train);
        members.push(trainer::train(&context, &task, None, &mut ())?.model);
    }

    // The arithmetic mean of the members' softened predictions (the paper's section 2).
    let objective = Objective { temperature: 4.0, soft_weight: 1.0, hard_weight: 0.1 };
    let soft =
        distill::teacher_logits(&context, &members, &digits.train, objective.temperature, None);
    let task = Task::soft("student", &config, &digits.train, objective, &soft);
    let student = trainer::train(&context, &task, None, &mut ())?.model;

    let logits: Vec<Vec<f32>> =
        members.iter().map(|member| member.logits(&context, &digits.test)).collect();
    let alone: Vec<usize> = logits.iter().map(|logits| errors(logits)).collect();
    let mean = alone.iter().sum::<usize>() as f64 / alone.len() as f64;
    let ensemble = errors(&distill::ensemble_logits(&context, logits, CLASSES, 1.0));
    let student = errors(&student.logits(&context, &digits.test));
    println!("errors in {} test images", labels.len());
    println!("members alone        {alone:?}, {mean:.1} on average");
    println!("their ensemble       {ensemble}, three times the work");
    println!("a net taught by it   {student}, the work of one");
    assert!((ensemble as f64) < mean, "an ensemble beats its mean member");
    assert!((student as f64) < mean, "and some of that reaches its student");
    Ok(())
}
