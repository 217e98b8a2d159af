//! 360 classes of the size of MNIST: ten digits and 26 capital letters, each as ten writers write it.
//!
//! It is made for the paper's specialists (section 5), which need many classes with natural
//! confusions. A writer is a style that never changes: slant, height, proportion, turn, pen, the
//! form of each character and the bend of its plane. An example is drawn in that style as the
//! [`glyphs`](super) are, with a bend, slant, size and place of its own. Styles differ between
//! writers no more than examples of one writer do. A class is therefore confused with the same
//! character of a similar writer, and with a similar character: 0, O, D and Q, or 5 and S.
//!
//! Class 10·c + w is character c of writer w, called `3c` for the 3 of the third. Each image is a
//! function of (seed, split, index) alone, to the bit.

use super::letters::LETTERS;
use super::strokes::{DIGITS, Form};
use super::{
    Bend, Canvas, Dataset, Hand, Placement, SIDE, Shape, between, dataset, draw_split, normal,
    write,
};
use crate::random::{Purpose, below, keystream};
use rand_chacha::ChaCha8Rng;

/// Classes: digits and letters × [`WRITERS`].
pub const CLASSES: usize = CHARACTERS.len() * WRITERS;
/// Writers.
pub const WRITERS: usize = 10;
/// Training images of [`default`].
pub const DEFAULT_TRAIN: usize = 72_000;
/// Test images of [`default`].
pub const DEFAULT_TEST: usize = 10_800;
const DEFAULT_SEED: u64 = 0;
const CHARACTERS: &[u8; DIGITS.len() + LETTERS.len()] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// [`DEFAULT_TRAIN`] and [`DEFAULT_TEST`] images of a fixed seed; a test pins the
/// SHA-256 of their beginning.
#[must_use]
pub fn default() -> Dataset {
    load(DEFAULT_SEED, DEFAULT_TRAIN, DEFAULT_TEST)
}

/// Draws `train` training and `test` test images of 28×28, [`CLASSES`] classes.
///
/// Example i is of class i mod 360 and depends only on (seed, split, i): a larger split begins
/// with the smaller one, and every first 360·n examples hold n of each class.
#[must_use]
pub fn load(seed: u64, train: usize, test: usize) -> Dataset {
    let writers: Vec<Writer> = (0..WRITERS).map(|w| Writer::new(seed, w)).collect();
    let draw = |rng: &mut ChaCha8Rng, class: usize| {
        let writer = &writers[class % WRITERS];
        writer.draw(rng, class / WRITERS)
    };
    let split = |purpose, count| draw_split(seed, purpose, count, CLASSES, &draw);
    let (train, test) = (split(Purpose::WritersTrain, train), split(Purpose::WritersTest, test));
    dataset("writers", CLASSES, train, test)
}

/// The character and its writer's letter: `3c`.
///
/// # Panics
/// If `class` is not below [`CLASSES`].
#[must_use]
pub fn class_name(class: usize) -> String {
    assert!(class < CLASSES, "class {class} of {CLASSES}");
    let character = char::from(CHARACTERS[class / WRITERS]);
    format!("{character}{}", char::from(b'a' + (class % WRITERS) as u8))
}

/// The style of a writer.
struct Writer {
    /// Of each character.
    forms: Vec<Form>,
    /// Of each character.
    bends: Vec<Bend>,
    height: f32,
    /// The width as a share of the height.
    proportion: f32,
    slant: f32,
    turn: f32,
    pen: f32,
}

impl Writer {
    fn new(seed: u64, writer: usize) -> Self {
        let rng = &mut keystream(seed, Purpose::WriterStyle, writer as u64);
        let forms = DIGITS.iter().chain(&LETTERS);
        Self {
            forms: forms.map(|forms| forms[below(rng, forms.len() as u32) as usize]).collect(),
            bends: CHARACTERS.iter().map(|_| Bend::new(rng, 0.05)).collect(),
            height: between(rng, 17.0, 20.0),
            proportion: between(rng, 0.72, 0.93),
            slant: 0.10 + 0.11 * normal(rng),
            turn: 0.03 * normal(rng),
            pen: between(rng, 0.88, 1.42),
        }
    }

    fn draw(&self, rng: &mut ChaCha8Rng, character: usize) -> [u8; SIDE * SIDE] {
        let bend = self.bends[character].plus(&Bend::new(rng, 0.05));
        let height = self.height + 0.8 * normal(rng);
        let placement = Placement::new(Shape {
            height,
            width: height * (self.proportion + 0.06 * normal(rng)),
            slant: self.slant + 0.08 * normal(rng),
            turn: self.turn + 0.03 * normal(rng),
            shift: (normal(rng), normal(rng)),
        });
        let pen = self.pen * between(rng, 0.85, 1.15);
        let mut canvas = Canvas::new();
        write(rng, self.forms[character], &Hand { bend, placement, pen }, &mut canvas);
        canvas.develop(rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_never_drifts() {
        let data = load(DEFAULT_SEED, 2_000, 1_000);
        assert_eq!(
            data.sha256["train"],
            "74597c6dc3a1e9951c79f8f21f69dd03a829a402c73b51a84287e1f2e34fe016"
        );
        assert_eq!(
            data.sha256["test"],
            "a74079821a34422e17201993dc6f4a023799d507f772d4a0abc7207e48886473"
        );
    }

    #[test]
    fn an_example_depends_on_seed_split_and_index_alone() {
        let (small, large) = (load(3, 30, 20), load(3, 390, 120));
        assert_eq!(small.train, large.train.clone().truncated(30));
        assert_eq!(small.test, large.test.clone().truncated(20));
        let other = load(4, 30, 20);
        for i in 0..20 {
            assert_ne!(small.train.images().image(i), small.test.images().image(i));
            assert_ne!(small.train.images().image(i), other.train.images().image(i));
            assert_ne!(small.train.images().image(i), large.train.images().image(i + CLASSES));
        }
        let labels = large.train.labels.unwrap();
        assert!((0..390).all(|i| usize::from(labels[i]) == i % CLASSES));
    }

    #[test]
    fn classes_are_named_by_character_and_writer() {
        assert_eq!([0, 9, 32, 100, 359].map(class_name), ["0a", "0j", "3c", "Aa", "Zj"]);
    }

    /// The nearest class mean: a plain classifier to show what is alike.
    #[test]
    fn a_class_is_mistaken_for_the_same_character_of_another_writer() {
        let data = load(1, 10 * CLASSES, 4 * CLASSES);
        let mut means = vec![[0.0f64; SIDE * SIDE]; CLASSES];
        for i in 0..data.train.len() {
            for (mean, &pixel) in means[i % CLASSES].iter_mut().zip(data.train.images().image(i)) {
                *mean += f64::from(pixel) / 10.0;
            }
        }
        let distance2 = |mean: &[f64], image: &[u8]| -> f64 {
            mean.iter().zip(image).map(|(m, &p)| (m - f64::from(p)).powi(2)).sum()
        };
        let nearest = |image: &[u8]| {
            let distances: Vec<f64> = means.iter().map(|mean| distance2(mean, image)).collect();
            (0..CLASSES).min_by(|&a, &b| distances[a].total_cmp(&distances[b])).unwrap()
        };
        let found: Vec<usize> =
            (0..data.test.len()).map(|i| nearest(data.test.images().image(i))).collect();
        let wrong = || found.iter().enumerate().filter(|&(i, &class)| class != i % CLASSES);
        let same_character =
            wrong().filter(|&(i, &class)| class / WRITERS == i % CLASSES / WRITERS).count();
        // By chance 99.7 % would be wrong, and 9 of 359 wrong classes have the right character.
        let wrong = wrong().count();
        assert!(wrong < 3 * data.test.len() / 4, "{wrong} of {}", data.test.len());
        assert!(3 * same_character > wrong, "{same_character} of {wrong}");
    }
}
