//! The paper's section 3, last paragraph: classes that the transfer set lacks.
//!
//! A student that never sees a 3, or sees 7s and 8s only, still learns the other digits from its
//! teacher's soft targets. Only its biases are wrong, and one offset of some logits mends them; see
//! [`crate::engine::bias`]. The offset is chosen in three ways:
//!
//! | protocol | chosen for | labels |
//! |---|---|---|
//! | test | fewest errors on the test set, as the paper did: exact, and optimistic | test |
//! | hold-out | fewest errors on 10,000 training images that a second student did not see | training |
//! | share | the classes' share of the training images | none, only how frequent the classes are |
//!
//! That second student is trained like the first on what remains of the transfer set; its offset
//! is then applied to the first. Each student takes about as many steps as one of the whole set.

use super::transfer::Transfer;
use crate::engine::{
    bias::Correction, config::Config, loss::LossSpec, metrics, mlp::Mlp, trainer::Task,
};
use crate::files::error::Result;
use crate::paper::experiment::{About, Conclusion, Data, Experiment, ExperimentSpec, Setup};
use crate::paper::{experiment_run::ExperimentRun, graph::Node, key::Key, preset::PresetConfigs};
use crate::run::chart::{Chart, Point, Series};
use crate::run::statistics::MeanSd;
use crate::run::summary::{Claim, Measure, Measures, Row, Summary, Table, Verdict};
use limbeck_datasets::Split;
use std::{fmt::Display, rc::Rc};

struct TransferSet {
    student: &'static str,
    /// The name of the student that the hold-out's offset is chosen with.
    held_out: &'static str,
    /// Whether the transfer set holds a class.
    keeps: fn(u16) -> bool,
    /// S, the classes whose logits are shifted.
    shifted: &'static [usize],
    /// The paper's test errors of 10,000, before and after the correction.
    paper: [u64; 2],
    /// The same on [`SHOWN`] alone, where the paper tells.
    paper_on_shown: Option<[u64; 2]>,
}

/// The class whose errors are counted apart: the paper's 3.
const SHOWN: u16 = 3;

const TRANSFER_SETS: [TransferSet; 2] = [
    TransferSet {
        student: "student without 3s",
        held_out: "student without 3s, hold-out",
        keeps: |label| label != 3,
        shifted: &[3],
        paper: [206, 109],
        paper_on_shown: Some([133, 14]),
    },
    TransferSet {
        student: "student of 7s and 8s",
        held_out: "student of 7s and 8s, hold-out",
        keeps: |label| label == 7 || label == 8,
        shifted: &[7, 8],
        paper: [4730, 1320],
        paper_on_shown: None,
    },
];

/// How an offset is chosen, in the order of the table.
const PROTOCOLS: [&str; 3] = ["test", "hold-out", "share"];

/// The offset that the hold-out's student chose.
const OFFSET: Measure = Measure::named("offset");
/// Test errors on [`SHOWN`] before the correction.
const ON_SHOWN: Measure = Measure::named("errors_on_3");

/// `offset`, `errors` and `errors_on_3` after the correction by a protocol; `errors_at` an offset.
fn measure(what: &str, of: impl Display) -> Measure {
    Measure::numbered(format!("{what}_{of}"))
}

/// The offsets of the figure, in steps of ½.
fn drawn_offsets() -> impl Iterator<Item = f64> {
    (-24..=24).map(|halves| f64::from(halves) / 2.0)
}

/// The experiment.
pub struct Omitted;

impl Experiment for Omitted {
    fn about(&self) -> About {
        About {
            name: "omitted",
            section: "3",
            shows: "a transfer set without 3s, or of 7s and 8s alone, and the bias correction",
            data: &[Data::Images],
            takes_teachers: true,
            takes_seeds: true,
            has_more_rows: false,
        }
    }

    fn declare(&self, setup: Setup) -> Result<ExperimentSpec> {
        let (request, dataset) = setup.images(self)?;
        let transfer = Transfer::new(PresetConfigs::new(request.preset, dataset), dataset);
        let students = |seed| {
            let of_set = |set| {
                let students = Students { transfer: transfer.clone(), set, seed };
                [students.hold_out(), students.whole(), students.corrections()]
            };
            TRANSFER_SETS.iter().flat_map(of_set).collect::<Vec<_>>()
        };
        let PresetConfigs { teacher, student, .. } = &transfer.configs;
        let configs = [("teacher", teacher), ("student", student)];
        Ok(ExperimentSpec {
            paper_errors: TRANSFER_SETS.iter().map(|set| (set.student, set.paper[0])).collect(),
            ..transfer.spec(self, request, &configs, students, conclude)
        })
    }
}

/// The students of one seed and transfer set.
#[derive(Clone)]
struct Students {
    transfer: Rc<Transfer>,
    set: &'static TransferSet,
    seed: u64,
}

impl Students {
    /// The student that the hold-out's offset is chosen with.
    fn hold_out(&self) -> Node {
        let students = self.clone();
        Node::row(self.set.held_out, self.seed, vec![Transfer::teacher(self.seed)], move |run| {
            let Transfer { train, dataset, .. } = &*students.transfer;
            // A sixth of MNIST's training images: 10,000.
            let (seen, held) = train.holdout(train.len() / 6);
            let (model, row) = students.train(run, students.set.held_out, &seen)?;
            let logits = model.logits(run.kernels(), &held);
            let labels = held.labels.as_deref().unwrap_or_default();
            let (classes, shifted) = (dataset.classes, students.set.shifted);
            let found = Correction::fewest_errors(&logits, labels, classes, shifted);
            Ok(Row { measures: [OFFSET.of(found.offset.into())].into(), ..row })
        })
    }

    /// The student of the whole transfer set.
    fn whole(&self) -> Node {
        let students = self.clone();
        Node::row(self.set.student, self.seed, vec![Transfer::teacher(self.seed)], move |run| {
            Ok(students.train(run, students.set.student, &students.transfer.train)?.1)
        })
    }

    /// What each correction makes of that student.
    fn corrections(&self) -> Node {
        let (students, set) = (self.clone(), self.set);
        let held_out = Key::row(set.held_out, self.seed);
        Node::measures(set.student, self.seed, vec![held_out.clone()], move |run| {
            let model = run.model(&Key::row(set.student, students.seed))?;
            let from_holdout = run.row_of(&held_out)?.value(&OFFSET).unwrap_or_default();
            Ok(students.measures(run, &model, from_holdout as f32))
        })
    }

    fn measures(&self, run: &ExperimentRun, model: &Mlp, from_holdout: f32) -> Measures {
        let Transfer { train, dataset, .. } = &*self.transfer;
        let (context, classes, shifted) = (run.kernels(), dataset.classes, self.set.shifted);
        let test = model.logits(context, &dataset.test);
        let labels = dataset.test.labels.as_deref().unwrap_or_default();
        let labelled = train.labels.as_deref().unwrap_or_default();
        let is_shifted = |label: &&u16| shifted.contains(&usize::from(**label));
        let share = labelled.iter().filter(is_shifted).count() as f64 / train.len() as f64;
        let seen = model.logits(context, train);
        let with = |offset| Correction { shifted: shifted.to_vec(), offset };
        let corrections = [
            Correction::fewest_errors(&test, labels, classes, shifted),
            with(from_holdout),
            Correction::matching_share(&seen, classes, shifted, share),
        ];
        let corrected = |correction: &Correction| {
            let mut logits = test.clone();
            correction.apply(&mut logits, classes);
            logits
        };
        let errors_of = |logits: &[f32]| metrics::errors(logits, labels, classes) as f64;
        let mut measures = Measures::from([ON_SHOWN.of(count_on_shown(&test, labels, classes))]);
        for (protocol, correction) in PROTOCOLS.iter().zip(corrections) {
            let logits = corrected(&correction);
            measures.extend([
                measure("offset", protocol).of(correction.offset.into()),
                measure("errors", protocol).of(errors_of(&logits)),
                measure("errors_on_3", protocol).of(count_on_shown(&logits, labels, classes)),
            ]);
        }
        measures.extend(drawn_offsets().map(|offset| {
            measure("errors_at", offset).of(errors_of(&corrected(&with(offset as f32))))
        }));
        measures
    }

    /// Trains a student on what the transfer set keeps of `images`.
    fn train(&self, run: &mut ExperimentRun, name: &str, images: &Split) -> Result<(Rc<Mlp>, Row)> {
        let Transfer { configs, dataset, .. } = &*self.transfer;
        let transfer = images.of_classes(self.set.keeps);
        let mut config = Config { seed: self.seed, ..configs.student.clone() };
        let epochs = config.training.epochs * images.len();
        config.training.epochs = epochs.div_ceil(transfer.len().max(1));
        let loss = LossSpec::soft(&config);
        let logits = run.model(&Transfer::teacher(self.seed))?.logits(run.kernels(), &transfer);
        run.train(dataset, &Task::soft(name, &config, &transfer, loss, &logits), self.seed)
    }
}

/// Errors on the examples of class [`SHOWN`].
fn count_on_shown(logits: &[f32], labels: &[u16], classes: usize) -> f64 {
    let wrong = metrics::misclassified(logits, labels, classes);
    wrong.into_iter().filter(|&i| labels[i] == SHOWN).count() as f64
}

fn conclude(summary: &Summary) -> Conclusion {
    let on_mnist = summary.dataset == "mnist";
    let shown = |paper: Option<u64>| {
        paper.filter(|_| on_mnist).map_or("–".into(), |errors| errors.to_string())
    };
    let mut table = Table::new(
        format!("Classes omitted from the transfer set, {}, {}", summary.dataset, summary.preset),
        &["transfer set", "offset chosen on", "offset", "errors", "paper", "on 3s", "paper on 3s"],
    );
    for set in &TRANSFER_SETS {
        let of = |measure: Measure, decimals| summary.cell(set.student, decimals, &measure);
        table.push([
            set.student.into(),
            "–".into(),
            "–".into(),
            summary.errors_cell(set.student),
            shown(Some(set.paper[0])),
            of(ON_SHOWN, 1),
            shown(set.paper_on_shown.map(|errors| errors[0])),
        ]);
        for protocol in PROTOCOLS {
            // The paper chose on the test set.
            let papers = protocol == "test";
            table.push([
                String::new(),
                protocol.into(),
                of(measure("offset", protocol), 2),
                of(measure("errors", protocol), 1),
                shown(papers.then_some(set.paper[1])),
                of(measure("errors_on_3", protocol), 1),
                shown(set.paper_on_shown.filter(|_| papers).map(|errors| errors[1])),
            ]);
        }
    }
    table.note(
        "Offset of the logits of 3, or of those of 7 and 8. 'test' looks at the test labels, as \
         the paper did; the others do not.",
    );
    let claims = if summary.is_the_papers() { claims(summary) } else { Vec::new() };
    let charts = vec![("offsets".into(), errors_by_offset(summary))];
    Conclusion { headline: headline(summary), tables: vec![table], claims, charts }
}

fn headline(summary: &Summary) -> Option<String> {
    let [without_3, _] = &TRANSFER_SETS;
    let before = MeanSd::of(&summary.values(without_3.student, &Measure::TestErrors))?.mean;
    let after = MeanSd::of(&summary.values(without_3.student, &measure("errors", "test")))?.mean;
    Some(format!(
        "A student that was never shown a 3 makes {before:.0} test errors{}, and {after:.0} once the \
         bias of that class is corrected, by the test labels as in the paper.",
        summary.of_examples()
    ))
}

/// What the correction is worth at any offset.
fn errors_by_offset(summary: &Summary) -> Chart {
    let series = TRANSFER_SETS.iter().map(|set| {
        let point = |x| Point::of(x, &summary.values(set.student, &measure("errors_at", x)));
        Series::new(set.student, drawn_offsets().filter_map(point))
    });
    let papers = TRANSFER_SETS.iter().filter(|_| summary.dataset == "mnist");
    let title = format!("Test errors against the offset, {}", summary.dataset);
    let x_label = "offset of the logits of 3, or of 7 and 8";
    Chart {
        caption:
            "What adding an offset to the logits of the classes left out does to the test errors."
                .into(),
        log_y: true,
        references: papers
            .map(|set| (format!("paper, {}, corrected", set.student), set.paper[1] as f64))
            .collect(),
        ..Chart::new(title, x_label, "test errors", series)
    }
}

fn claims(summary: &Summary) -> Vec<Claim> {
    let [without_3, of_7_and_8] = &TRANSFER_SETS;
    let test_3s = 1010.0;
    let mean = |set: &TransferSet, measure: &Measure| {
        MeanSd::of(&summary.values(set.student, measure)).map(|errors| errors.mean)
    };
    let mut claims = Vec::new();
    if let (Some(before), Some(corrected), Some(on_3)) = (
        mean(without_3, &Measure::TestErrors),
        mean(without_3, &measure("errors", "test")),
        mean(without_3, &measure("errors_on_3", "test")),
    ) {
        let right = 100.0 * (1.0 - on_3 / test_3s);
        claims.push(Claim {
            paper: "Without 3s in the transfer set the student makes 206 test errors; with the \
                    bias of class 3 corrected 109, and gets 98.6 % of the 3s right."
                .into(),
            ours: format!("{before:.0}, corrected {corrected:.0}, {right:.1} % of the 3s right"),
            verdict: Verdict::of(Some(corrected <= 109.0 && right >= 98.6)),
        });
    }
    if let (Some(before), Some(after)) =
        (mean(of_7_and_8, &Measure::TestErrors), mean(of_7_and_8, &measure("errors", "test")))
    {
        claims.push(Claim {
            paper: "With only 7s and 8s in the transfer set the error rate is 47.3 %, and 13.2 % \
                    once the biases of 7 and 8 are lowered."
                .into(),
            ours: format!("{:.1} %, corrected {:.1} %", before / 100.0, after / 100.0),
            verdict: Verdict::of(Some(after <= 1320.0)),
        });
    }
    claims
}
