//! A student that never saw a 3 learns what a 3 is from what its teacher says of other digits
//! (the paper's section 3): a transfer set of one's choice, without labels.
//!
//! `cargo run --release --example custom_transfer_set`

use limbeck::datasets::{Split, glyphs};
use limbeck::engine::bias::Correction;
use limbeck::engine::config::{Config, OptimizerKind};
use limbeck::engine::distill;
use limbeck::engine::loss::LossSpec;
use limbeck::engine::metrics;
use limbeck::engine::trainer::{self, Task};
use limbeck::kernels::{Context, Isa};

const CLASSES: usize = 10;

fn config(hidden: usize, dropout: Option<Vec<f64>>) -> Config {
    let mut config = Config::default();
    config.model.layers = vec![784, hidden, CLASSES];
    config.model.dropout = dropout;
    config.training.epochs = 15;
    config.training.optimizer = OptimizerKind::Adam;
    config.training.learning_rate = 1e-3;
    config
}

fn errors(logits: &[f32], split: &Split) -> usize {
    metrics::errors(logits, split.labels.as_ref().expect("labels"), CLASSES)
}

fn main() -> limbeck::Result<()> {
    let context = Context::new(Isa::best(), 1).map_err(limbeck::Error::Usage)?;
    let digits = glyphs::load(0, 8_000, 2_000);
    let teacher_config = config(300, Some(vec![0.2, 0.5]));
    let task = Task::hard("teacher", &teacher_config, &digits.train);
    let teacher = [trainer::train(&context, &task, None, &mut ())?.model];

    let transfer = digits.train.of_classes(|class| class != 3).without_labels();
    let objective = LossSpec { temperature: 8.0, soft_weight: 1.0, hard_weight: 0.0 };
    let logits =
        distill::teacher_logits(&context, &teacher, &transfer, objective.temperature, None);
    let student_config = config(100, None);
    let task = Task::soft("student", &student_config, &transfer, objective, &logits);
    let student = trainer::train(&context, &task, None, &mut ())?.model;

    // No 3 ever was right, so the student's bias of the 3 is too low. One in ten images is a 3:
    // that is all the correction needs to know.
    let unlabelled = student.logits(&context, &digits.train);
    let correction = Correction::matching_share(&unlabelled, CLASSES, &[3], 0.1);
    let threes = digits.test.of_classes(|class| class == 3);
    let mut logits = student.logits(&context, &threes);
    let before = errors(&logits, &threes);
    correction.apply(&mut logits, CLASSES);
    let after = errors(&logits, &threes);

    println!("3s that the student misreads, of {}:        {before}", threes.len());
    println!("with {:+.2} on its logit of the 3:            {after}", correction.offset);
    let taught = errors(&teacher[0].logits(&context, &threes), &threes);
    println!("its teacher, which was trained on 3s:        {taught}");
    assert!(after < before, "the correction helps");
    assert!(after < threes.len() / 2, "most 3s are recognised, where none was shown");
    Ok(())
}
