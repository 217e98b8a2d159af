//! What is possible and most likely not meant, as a sentence for the user: each function gives none where
//! nothing is to be doubted.

use crate::engine::metrics::{self, Confusion};
use limbeck_datasets::{Names, Split};
use std::collections::{BTreeMap, BTreeSet};

/// A result on test examples that answering the commonest class without looking would have made too.
pub fn did_not_learn(confusion: &Confusion, names: &Names) -> Option<String> {
    let examples = confusion.all_examples();
    let (n, errors) = (examples as f64, examples - confusion.all_right());
    let (commonest, by_rote) = confusion.commonest();
    // One-sided, at 5 %: whether the errors are clearly fewer, by a binomial's deviation.
    let share = by_rote as f64 / n;
    let deviation = (n * share * (1.0 - share)).sqrt();
    (by_rote > 0 && errors as f64 > by_rote as f64 - 1.645 * deviation).then(|| {
        let (what, first) = match errors < by_rote {
            true => ("has not been shown to have learnt", "Test on more examples; try"),
            false => ("did not learn", "Try"),
        };
        format!(
            "the net {what}: {errors} errors of {examples} test examples, and always answering \
             \"{}\" makes {by_rote}. {first} more epochs, another learning rate, or more hidden units; and \
             see whether rows and labels belong together",
            names.class(commonest)
        )
    })
}

/// A part of the data, called `part`, with classes that no training example has, or without some that they
/// have.
pub fn labels(names: &Names, train: &Split, part: &str, split: &Split) -> Option<String> {
    let (Some(of_train), Some(of_part)) = (&train.labels, &split.labels) else {
        return None;
    };
    let set = |labels: &[u16]| labels.iter().copied().collect::<BTreeSet<u16>>();
    let (train, known) = (set(of_train), set(of_part));
    let list = |classes: &mut dyn Iterator<Item = &u16>| {
        const SHOWN: usize = 10;
        let all: Vec<String> = classes.map(|class| names.class(usize::from(*class))).collect();
        let more = if all.len() > SHOWN { ", …" } else { "" };
        all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ") + more
    };
    let strange = of_part.iter().filter(|label| !train.contains(label)).count();
    if strange > 0 {
        return Some(format!(
            "{strange} of {} {part} examples have classes that no training example has ({}): if the \
             rows are sorted by class, hold out by data.split = \"stratified\"",
            of_part.len(),
            list(&mut known.difference(&train))
        ));
    }
    let missing = train.difference(&known).count();
    (missing > 0 && !of_part.is_empty()).then(|| {
        format!(
            "no {part} example is of {missing} of the {} classes ({}): its figures say nothing of them",
            train.len(),
            list(&mut train.difference(&known))
        )
    })
}

/// A teacher's `logits` [n, classes] for `split` whose rows or classes are in another order.
pub fn logits(logits: &[f32], split: &Split, classes: usize) -> Option<String> {
    let rows = || logits.chunks(classes);
    let labels = split.labels.as_ref()?;
    let n = labels.len() as f64;
    let (mut agree, mut by_label, mut by_teacher) = (0.0, vec![0.0; classes], vec![0.0; classes]);
    let mut pairs = BTreeMap::new();
    for (row, &label) in rows().zip(labels) {
        let answer = metrics::predict(row)?;
        agree += f64::from(u8::from(answer == usize::from(label)));
        by_label[usize::from(label)] += 1.0;
        by_teacher[answer] += 1.0;
        *pairs.entry((answer, usize::from(label))).or_insert(0.0) += 1.0;
    }
    // The columns in another order, in which each is the class that it names most often.
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by(|(_, a), (_, b): &(_, f64)| b.total_cmp(a));
    let (mut column_of, mut taken, mut permuted) = (vec![None; classes], vec![false; classes], 0.0);
    for ((column, class), count) in pairs {
        if column_of[class].is_none() && !taken[column] {
            (column_of[class], taken[column]) = (Some(column), true);
            permuted += count;
        }
    }
    // A class without examples, or that the teacher never names, has the column that is left.
    let left: Vec<usize> = (0..classes).filter(|&class| column_of[class].is_none()).collect();
    if let [class] = left[..] {
        column_of[class] = taken.iter().position(|taken| !taken);
    }
    // Of one example for each class every teacher would be permuted.
    let many = n >= 2.0 * classes as f64;
    if many && permuted > agree + 3.0 * n.sqrt() && n - permuted < 0.5 * (n - agree) {
        let shown = column_of.iter().take(20).map(|c| c.map_or("?".into(), |c| c.to_string()));
        return Some(format!(
            "the teacher's logits agree with {agree} of {n} labels, and with {permuted} if their columns are \
             taken in the order {}{}: are they in that of the classes? Numbers are sorted by value; \
             scikit-learn's classes_ of texts are sorted as texts, 1, 10, 2",
            shown.collect::<Vec<_>>().join(", "),
            if classes > 20 { ", …" } else { "" }
        ));
    }
    // Were rows and labels independent: a binomial number of p·n.
    let pairs = by_label.iter().zip(&by_teacher);
    let p: f64 = pairs.map(|(label, teacher)| label * teacher / (n * n)).sum();
    let bound = n * p + 3.0 * (n * p * (1.0 - p)).sqrt();
    // Where nearly all are of one class, or there are few, a good teacher agrees no more often.
    let can_tell = n >= 20.0 && p < 0.95;
    (can_tell && agree <= bound).then(|| {
        format!(
            "the teacher's logits agree with {agree} of {n} labels, hardly more than chance would \
             ({:.0}): are their rows in the order of the examples, and their columns in that of \
             the classes?",
            n * p
        )
    })
}
