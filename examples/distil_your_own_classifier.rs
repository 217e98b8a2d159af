//! Any classifier that gives a score for each class can teach a small net: here the distance to the
//! nearest of 1,000 labelled images. No label of the transfer set is used.
//!
//! `cargo run --release --example distil_your_own_classifier`

use limbeck::datasets::{Split, glyphs};
use limbeck::engine::config::{Config, OptimizerKind};
use limbeck::engine::loss::LossSpec;
use limbeck::engine::metrics;
use limbeck::engine::trainer::{self, Task};
use limbeck::kernels::{Context, Isa};

const CLASSES: usize = 10;

/// Logits [n, classes] of the images of `split`: minus the squared distance to the nearest known
/// image of each class, in units of a white pixel.
fn your_classifier(known: &Split, split: &Split) -> Vec<f32> {
    let labels = known.labels.as_ref().expect("known images have labels");
    let mut logits = vec![f32::NEG_INFINITY; split.len() * CLASSES];
    for (i, row) in logits.chunks_mut(CLASSES).enumerate() {
        for (j, &label) in labels.iter().enumerate() {
            let pairs = split.images().image(i).iter().zip(known.images().image(j));
            let distance: i32 = pairs.map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum();
            let logit = &mut row[usize::from(label)];
            *logit = logit.max(-distance as f32 / 255.0 / 255.0);
        }
    }
    logits
}

fn main() -> limbeck::Result<()> {
    let digits = glyphs::load(0, 6_000, 1_000);
    // Your own images come in by Split::of_images, tables and features of your own by Features.
    let (known, transfer) = {
        let (rest, known) = digits.train.holdout(1_000);
        (known, rest.without_labels())
    };
    let teacher_logits = your_classifier(&known, &transfer);

    let mut config = Config::default();
    config.model.layers = vec![784, 100, CLASSES];
    config.training.epochs = 15;
    config.training.optimizer = OptimizerKind::Adam;
    config.training.learning_rate = 1e-3;
    config.validate_in_memory(transfer.input_size())?;

    let context = Context::new(Isa::best(), 1).map_err(limbeck::Error::Usage)?;
    let objective = LossSpec { temperature: 4.0, soft_weight: 1.0, hard_weight: 0.0 };
    let task = Task::soft("student", &config, &transfer, objective, &teacher_logits);
    let student = trainer::train(&context, &task, None, &mut ())?.model;

    let labels = digits.test.labels.as_ref().expect("test images have labels");
    let taught = your_classifier(&known, &digits.test);
    let learnt = student.logits(&context, &digits.test);
    let agreement = metrics::agreement(&taught, &learnt, CLASSES);
    let [teacher, student_errors] =
        [&taught, &learnt].map(|logits| metrics::errors(logits, labels, CLASSES));
    println!("your classifier: {teacher} errors in {}, 784,000 subtractions a digit", labels.len());
    println!("its student:     {student_errors} errors, {} multiplications", 784 * 100 + 100 * 10);
    // student.to_file().save(path)? writes it for PyTorch and others to read.
    println!("they agree on    {:.1} % of digits that neither has seen", 100.0 * agreement);
    assert!(student_errors <= teacher, "it reads no worse, at a tenth of the work");
    assert!(agreement > 0.5, "and mostly as it was taught, of ten classes");
    Ok(())
}
