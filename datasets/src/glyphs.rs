//! The embedded data set: handwritten-like digits drawn from parametric strokes.
//!
//! With it everything runs without a download. The steps of an image:
//! 1. choose one of the digit's written forms (`strokes`), move its points a little, and bend its
//!    plane smoothly;
//! 2. slant, turn, scale and move it;
//! 3. draw it with a round pen of varying pressure, whose edge is anti-aliased by distance;
//! 4. blur, dim and spot it.
//!
//! The difficulty is chosen so that a plain net overfits the small training split, and dropout,
//! jitter and distillation help.
//!
//! Each image is a function of (seed, split, index) alone. Only IEEE additions,
//! multiplications, divisions and square roots are used, all of them exactly rounded: the bytes
//! are the same on every machine.

mod letters;
mod strokes;
pub mod writers;

use crate::digest::sha256_of;
use crate::random::{Purpose, below, keystream, unit};
use crate::{Dataset, Names, Split};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use strokes::{DIGITS, Form, Point};

/// Training images of [`default`]: few enough to overfit.
pub const DEFAULT_TRAIN: usize = 8_000;
/// Test images of [`default`].
pub const DEFAULT_TEST: usize = 10_000;
const DEFAULT_SEED: u64 = 0;

const SIDE: usize = 28;
const CLASSES: usize = 10;

/// The data set that is used when there is no other: [`DEFAULT_TRAIN`] and [`DEFAULT_TEST`]
/// images of a fixed seed, pinned by their SHA-256.
#[must_use]
pub fn default() -> Dataset {
    load(DEFAULT_SEED, DEFAULT_TRAIN, DEFAULT_TEST)
}

/// Draws `train` training and `test` test images of 28×28, 10 classes.
///
/// Example i shows digit i mod 10 and depends only on (seed, split, i): a larger split begins
/// with the smaller one, and every first 10·n examples hold n of each class.
#[must_use]
pub fn load(seed: u64, train: usize, test: usize) -> Dataset {
    let split = |purpose, count| draw_split(seed, purpose, count, CLASSES, &draw);
    let (train, test) = (split(Purpose::GlyphsTrain, train), split(Purpose::GlyphsTest, test));
    dataset("glyphs", CLASSES, train, test)
}

/// Makes a data set of the two splits, with their SHA-256.
fn dataset(name: &str, classes: usize, train: Split, test: Split) -> Dataset {
    // Labels as bytes, where one byte holds each.
    let width = if classes > 256 { 2 } else { 1 };
    let digest = |split: &Split| {
        let labels = split.labels.iter().flatten();
        let labels: Vec<u8> =
            labels.flat_map(|&y| y.to_le_bytes().into_iter().take(width)).collect();
        sha256_of([&split.images().pixels, &labels])
    };
    Dataset {
        name: name.to_owned(),
        classes,
        names: Names::default(),
        notes: Vec::new(),
        sha256: BTreeMap::from([
            ("train".to_owned(), digest(&train)),
            ("test".to_owned(), digest(&test)),
        ]),
        train,
        test,
    }
}

/// `count` examples, the i-th of class i mod `classes`, drawn from its own keystream.
fn draw_split(
    seed: u64,
    purpose: Purpose,
    count: usize,
    classes: usize,
    draw: &dyn Fn(&mut ChaCha8Rng, usize) -> [u8; SIDE * SIDE],
) -> Split {
    let mut pixels = Vec::with_capacity(count * SIDE * SIDE);
    for i in 0..count {
        let mut rng = keystream(seed, purpose, i as u64);
        pixels.extend_from_slice(&draw(&mut rng, i % classes));
    }
    let labels = (0..count).map(|i| (i % classes) as u16).collect();
    Split::of_images(pixels, (SIDE, SIDE), Some(labels))
}

fn draw(rng: &mut ChaCha8Rng, digit: usize) -> [u8; SIDE * SIDE] {
    let forms = DIGITS[digit];
    let form = forms[below(rng, forms.len() as u32) as usize];
    let mut canvas = Canvas::new();
    let hand = Hand::any(rng);
    write(rng, form, &hand, &mut canvas);
    if unit(rng) < 0.35 {
        scribble(rng, &mut canvas);
    }
    canvas.develop(rng)
}

/// The handwriting of one digit: bend, slant, turn, size, place, pen.
struct Hand {
    bend: Bend,
    placement: Placement,
    /// Radius of the pen in pixels.
    pen: f32,
}

impl Hand {
    /// Draws the handwriting of anybody.
    fn any(rng: &mut ChaCha8Rng) -> Self {
        let bend = Bend::new(rng, 0.08);
        let height = between(rng, 15.5, 21.5);
        let placement = Placement::new(Shape {
            height,
            width: height * between(rng, 0.62, 1.05),
            slant: 0.10 + 0.20 * normal(rng),
            turn: 0.06 * normal(rng),
            shift: (1.2 * normal(rng), 1.2 * normal(rng)),
        });
        Self { bend, placement, pen: between(rng, 0.65, 1.75) }
    }
}

/// Draws the digit, with points that move a little and a pressure that varies.
fn write(rng: &mut ChaCha8Rng, form: Form, hand: &Hand, canvas: &mut Canvas) {
    let Hand { bend, placement, pen } = hand;
    let wobble = 0.016;
    for stroke in form {
        let mut points: Vec<Point> = Vec::with_capacity(stroke.len());
        for (i, &(x, y)) in stroke.iter().enumerate() {
            let corner = i > 0 && stroke[i - 1] == (x, y);
            let point = if corner {
                points[i - 1]
            } else {
                (x + wobble * normal(rng), y + wobble * normal(rng))
            };
            points.push(point);
        }
        let path = curve(&points)
            .into_iter()
            .map(|point| placement.apply(bend.apply(point)))
            .collect::<Vec<_>>();
        let pressure = [0; 3].map(|_| between(rng, 0.75, 1.2));
        canvas.stroke(&path, |t| pen * ramp(&pressure, t));
    }
}

/// A stray line at the border, as from a neighbouring character or a ruled form.
fn scribble(rng: &mut ChaCha8Rng, canvas: &mut Canvas) {
    let side = SIDE as f32;
    let (along, depth) = (between(rng, 0.0, side), between(rng, -1.0, 4.0));
    let (run, rise) = (between(rng, -9.0, 9.0), between(rng, -3.0, 4.0));
    let (from, to) = ((along, depth), (along + run, depth + rise));
    let border = below(rng, 4);
    let place = |(along, depth): Point| match border {
        0 => (along, depth),
        1 => (along, side - depth),
        2 => (depth, along),
        _ => (side - depth, along),
    };
    let pen = between(rng, 0.4, 1.3);
    canvas.stroke(&[place(from), place(to)], |_| pen);
}

/// A smooth displacement of the plane: random vectors on a 3×3 lattice over the digit's box,
/// blended with the smoothstep 3t² − 2t³ in both directions.
struct Bend {
    lattice: [[Point; 3]; 3],
}

impl Bend {
    fn new(rng: &mut ChaCha8Rng, strength: f32) -> Self {
        let lattice =
            [[(); 3]; 3].map(|row| row.map(|()| (strength * normal(rng), strength * normal(rng))));
        Self { lattice }
    }

    /// The sum of both displacements.
    fn plus(&self, other: &Self) -> Self {
        let mut sum = Self { lattice: self.lattice };
        let points = sum.lattice.iter_mut().flatten().zip(other.lattice.iter().flatten());
        points.for_each(|(a, b)| *a = (a.0 + b.0, a.1 + b.1));
        sum
    }

    fn apply(&self, (x, y): Point) -> Point {
        // (cell, blend) of a coordinate in 0..=1; clamped outside.
        let cell = |v: f32| {
            let v = (v * 2.0).clamp(0.0, 2.0);
            let cell = (v as usize).min(1);
            let t = v - cell as f32;
            (cell, t * t * (3.0 - 2.0 * t))
        };
        let ((column, tx), (row, ty)) = (cell(x), cell(y));
        let mix = |a: f32, b: f32, t: f32| a + t * (b - a);
        let blend = |axis: fn(Point) -> f32| {
            let at = |row: usize, column: usize| axis(self.lattice[row][column]);
            mix(
                mix(at(row, column), at(row, column + 1), tx),
                mix(at(row + 1, column), at(row + 1, column + 1), tx),
                ty,
            )
        };
        (x + blend(|p| p.0), y + blend(|p| p.1))
    }
}

/// The affine map from the digit's box to pixels: p ↦ A·(p − ½) + centre, with
/// A = rotation · shear · diag(width, height).
struct Placement {
    matrix: [f32; 4],
    centre: Point,
}

/// The parameters of a [`Placement`].
struct Shape {
    /// In pixels.
    height: f32,
    /// In pixels.
    width: f32,
    /// How far the top leans to the right, as a share of the height.
    slant: f32,
    /// Tangent of half the angle of rotation.
    turn: f32,
    /// The centre, in pixels.
    shift: Point,
}

impl Placement {
    fn new(Shape { height, width, slant, turn: t, shift }: Shape) -> Self {
        // The rational parametrisation of the circle needs no sine, whose last bit differs between
        // machines.
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let middle = SIDE as f32 / 2.0;
        Self {
            matrix: [
                cos * width,
                -(cos * slant + sin) * height,
                sin * width,
                (cos - sin * slant) * height,
            ],
            centre: (middle + shift.0, middle + shift.1),
        }
    }

    fn apply(&self, (x, y): Point) -> Point {
        let (x, y) = (x - 0.5, y - 0.5);
        let [a, b, c, d] = self.matrix;
        (a * x + b * y + self.centre.0, c * x + d * y + self.centre.1)
    }
}

/// The Catmull–Rom curve through the points, eight steps to a span: between p1 and p2
/// ½·(2p1 + (p2 − p0)t + (2p0 − 5p1 + 4p2 − p3)t² + (3p1 − p0 − 3p2 + p3)t³).
fn curve(points: &[Point]) -> Vec<Point> {
    const STEPS: usize = 8;
    let at = |i: usize| points[i.clamp(1, points.len()) - 1];
    let mut path = Vec::with_capacity(points.len() * STEPS);
    for span in 1..points.len() {
        let [p0, p1, p2, p3] = [at(span - 1), at(span), at(span + 1), at(span + 2)];
        let through = |p0: f32, p1: f32, p2: f32, p3: f32, t: f32| {
            let cubic = (3.0 * p1 - p0 - 3.0 * p2 + p3) * t + (2.0 * p0 - 5.0 * p1 + 4.0 * p2 - p3);
            0.5 * ((cubic * t + (p2 - p0)) * t + 2.0 * p1)
        };
        for step in 0..STEPS {
            let t = step as f32 / STEPS as f32;
            path.push((through(p0.0, p1.0, p2.0, p3.0, t), through(p0.1, p1.1, p2.1, p3.1, t)));
        }
    }
    path.extend(points.last());
    path
}

/// Ink in 0..=1, `[SIDE·SIDE]`.
struct Canvas {
    ink: [f32; SIDE * SIDE],
}

impl Canvas {
    fn new() -> Self {
        Self { ink: [0.0; SIDE * SIDE] }
    }

    /// Draws a path with a round pen of `radius(t)` pixels, t from 0 at its start to 1 at its end.
    /// A pixel whose centre has distance d to the path gets radius + ½ − d, clamped to 0..=1.
    fn stroke(&mut self, path: &[Point], radius: impl Fn(f32) -> f32) {
        for (i, ends) in path.windows(2).enumerate() {
            let (a, b) = (ends[0], ends[1]);
            let reach = radius((i as f32 + 0.5) / (path.len() - 1) as f32) + 0.5;
            let (dx, dy) = (b.0 - a.0, b.1 - a.1);
            let length2 = dx * dx + dy * dy;
            let pixels = |a: f32, b: f32| {
                let low = (a.min(b) - reach).clamp(0.0, SIDE as f32);
                let high = (a.max(b) + reach + 1.0).clamp(0.0, SIDE as f32);
                low as usize..high as usize
            };
            for y in pixels(a.1, b.1) {
                for x in pixels(a.0, b.0) {
                    let (px, py) = (x as f32 + 0.5 - a.0, y as f32 + 0.5 - a.1);
                    // The place of the nearest point on the segment, as a share of its length.
                    let t = if length2 > 0.0 {
                        ((px * dx + py * dy) / length2).clamp(0.0, 1.0)
                    } else {
                        0.0
                    };
                    let (ex, ey) = (px - t * dx, py - t * dy);
                    let cover = (reach - (ex * ex + ey * ey).sqrt()).clamp(0.0, 1.0);
                    let ink = &mut self.ink[y * SIDE + x];
                    *ink = ink.max(cover);
                }
            }
        }
    }

    /// Blurs, dims, adds noise and spots, and quantises to bytes.
    fn develop(mut self, rng: &mut ChaCha8Rng) -> [u8; SIDE * SIDE] {
        let blur = between(rng, 0.0, 0.22);
        self.blur(blur, 1);
        self.blur(blur, SIDE);
        let brightness = between(rng, 0.7, 1.1);
        let grain = 0.07 * unit(rng);
        for _ in 0..below(rng, 4) {
            let spot = below(rng, (SIDE * SIDE) as u32) as usize;
            self.ink[spot] = between(rng, 0.2, 0.9);
        }
        self.ink.map(|ink| {
            let value = ink * brightness + grain * normal(rng);
            (value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
        })
    }

    /// Each pixel gives the share `side` to each of its two neighbours `stride` away. The
    /// outermost pixels keep theirs.
    fn blur(&mut self, side: f32, stride: usize) {
        let sharp = self.ink;
        for i in stride..SIDE * SIDE - stride {
            self.ink[i] =
                (1.0 - 2.0 * side) * sharp[i] + side * (sharp[i - stride] + sharp[i + stride]);
        }
    }
}

/// Uniform on [low, high).
fn between(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * unit(rng)
}

/// Draws a nearly normal value of mean 0 and variance 1, within ±2√3: a sum of four uniform ones.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let sum = unit(rng) + unit(rng) + unit(rng) + unit(rng);
    (sum - 2.0) * 1.732_050_8
}

/// Interpolates linearly between three knots at 0, ½ and 1.
fn ramp(knots: &[f32; 3], t: f32) -> f32 {
    let (from, t) = if t < 0.5 { (0, 2.0 * t) } else { (1, 2.0 * t - 1.0) };
    knots[from] + t * (knots[from + 1] - knots[from])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_set_never_drifts() {
        let data = default();
        assert_eq!((data.train.len(), data.test.len()), (DEFAULT_TRAIN, DEFAULT_TEST));
        assert_eq!(
            data.sha256["train"],
            "2150e24208d489b67fdcb57cd18a1875063e464ecb816b4ade904f847e43b9f9"
        );
        assert_eq!(
            data.sha256["test"],
            "dea1817655d8819bf14e563e68e3108c7e9ca5d3f41552f67ea45e50fd5d7dcd"
        );
    }

    #[test]
    fn an_example_depends_on_seed_split_and_index_alone() {
        let (small, large) = (load(3, 30, 20), load(3, 70, 60));
        assert_eq!(small.train, large.train.clone().truncated(30));
        assert_eq!(small.test, large.test.clone().truncated(20));
        let other = load(4, 30, 20);
        for i in 0..20 {
            assert_ne!(small.train.images().image(i), small.test.images().image(i));
            assert_ne!(small.train.images().image(i), other.train.images().image(i));
            assert_ne!(small.train.images().image(i), large.train.images().image(i + 30));
        }
    }

    #[test]
    fn classes_are_balanced() {
        let data = load(1, 500, 200);
        for (split, each) in [(&data.train, 50), (&data.test, 20)] {
            let mut counts = [0; CLASSES];
            for &label in split.labels.as_ref().unwrap() {
                counts[usize::from(label)] += 1;
            }
            assert_eq!(counts, [each; CLASSES]);
        }
    }

    #[test]
    fn the_ink_is_in_the_middle_and_the_digits_differ() {
        // Per-pixel class means over 200 images each; ink spread evenly would be 51 % inside.
        let data = load(2, 2_000, 0);
        let mut means = [[0.0_f64; SIDE * SIDE]; CLASSES];
        for i in 0..data.train.len() {
            for (mean, &pixel) in means[i % CLASSES].iter_mut().zip(data.train.images().image(i)) {
                *mean += f64::from(pixel) / 200.0;
            }
        }
        for (digit, mean) in means.iter().enumerate() {
            let (mut all, mut middle) = (0.0, 0.0);
            for (place, ink) in mean.iter().enumerate() {
                let inside = (4..24).contains(&(place / SIDE)) && (4..24).contains(&(place % SIDE));
                all += ink;
                middle += if inside { *ink } else { 0.0 };
            }
            assert!(middle > 0.7 * all, "{digit}: {middle} of {all}");
            for (other, other_mean) in means.iter().enumerate().skip(digit + 1) {
                let distance2: f64 =
                    mean.iter().zip(other_mean).map(|(a, b)| (a - b) * (a - b)).sum();
                assert!(distance2.sqrt() > 200.0, "{digit} and {other}: {}", distance2.sqrt());
            }
        }
    }

    #[test]
    fn the_curve_runs_through_its_points() {
        let points = [(0.0, 0.0), (1.0, 0.5), (1.5, 2.0), (0.0, 3.0)];
        let path = curve(&points);
        for (i, point) in points.iter().enumerate() {
            assert_eq!(path[8 * i], *point);
        }
        // Equidistant points on a line: so is the curve between the inner ones.
        let path = curve(&[(0.0, 0.0), (8.0, 0.0), (16.0, 0.0), (24.0, 0.0)]);
        for (i, &(x, y)) in path[8..=16].iter().enumerate() {
            assert_eq!((x, y), (8.0 + i as f32, 0.0));
        }
    }

    #[test]
    fn a_stroke_covers_by_distance() {
        // A horizontal line through the centres of row 10, radius 1.25.
        let mut canvas = Canvas::new();
        canvas.stroke(&[(5.5, 10.5), (15.5, 10.5)], |_| 1.25);
        let at = |x: usize, y: usize| canvas.ink[y * SIDE + x];
        assert_eq!([8, 9, 10, 11, 12].map(|y| at(10, y)), [0.0, 0.75, 1.0, 0.75, 0.0]);
        assert_eq!([2, 3, 4, 5].map(|x| at(x, 10)), [0.0, 0.0, 0.75, 1.0]);
        assert_eq!(at(17, 10), 0.0);
    }
}
