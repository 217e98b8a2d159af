//! Three nets that differ in their seed, their ensemble, and one of half their size taught by it.
//!
//! `cargo run --release --example ensemble_teacher`

use limbeck::datasets::glyphs;
use limbeck::engine::config::{Config, OptimizerKind};
use limbeck::engine::distill;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::metrics;
use limbeck::engine::trainer::{self, Task};
use limbeck::kernels::{Context, Isa};

const CLASSES: usize = 10;

fn main() -> limbeck::Result<()> {
    let context = Context::new(Isa::best(), 1).map_err(limbeck::Error::Usage)?;
    let digits = glyphs::load(0, 4_000, 2_000);
    let labels = digits.test.labels.as_ref().expect("test images have labels");
    let errors = |logits: &[f32]| metrics::errors(logits, labels, CLASSES);

    let mut config = Config::default();
    config.model.layers = vec![784, 200, CLASSES];
    config.data.jitter = Some(2);
    config.training.epochs = 30;
    config.training.optimizer = OptimizerKind::Adam;
    config.training.learning_rate = 1e-3;
    // The members see every image moved by up to two pixels; the student only as it is.
    let mut members = Vec::new();
    for seed in 0..3 {
        config.seed = seed;
        let task = Task::hard("member", &config, &digits.train);
        members.push(trainer::train(&context, &task, None, &mut ())?.model);
    }

    // The arithmetic mean of the members' softened predictions (the paper's section 2).
    let objective = LossSpec { temperature: 4.0, soft_weight: 1.0, hard_weight: 0.1 };
    let soft =
        distill::teacher_logits(&context, &members, &digits.train, objective.temperature, None);
    config.model.layers = vec![784, 100, CLASSES];
    config.data.jitter = None;
    config.training.epochs = 40;
    let labelled = Task::hard("baseline", &config, &digits.train);
    let taught = Task::soft("student", &config, &digits.train, objective, &soft);
    let [baseline, student] = [labelled, taught].map(|task| {
        let model = trainer::train(&context, &task, None, &mut ())?.model;
        Ok::<_, limbeck::Error>(errors(&model.logits(&context, &digits.test)))
    });
    let (baseline, student) = (baseline?, student?);

    let logits: Vec<Vec<f32>> =
        members.iter().map(|member| member.logits(&context, &digits.test)).collect();
    let alone: Vec<usize> = logits.iter().map(|logits| errors(logits)).collect();
    let mean = alone.iter().sum::<usize>() as f64 / alone.len() as f64;
    let ensemble = errors(&distill::ensemble_logits(&context, logits, CLASSES, 1.0));
    println!("errors in {} test images", labels.len());
    println!("nets of 200 hidden units  {alone:?}, {mean:.1} on average");
    println!("their ensemble            {ensemble}");
    println!("100 units, on labels      {baseline}");
    println!("100 units, taught by it   {student}");
    assert!((ensemble as f64) < mean, "an ensemble beats its mean member");
    assert!(student < baseline, "and its soft targets teach more than labels");
    Ok(())
}
