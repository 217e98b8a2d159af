//! Other images of the transfer set: what a teacher is asked at more points than the set has.
//!
//! A student that is given the teacher's answers at the training images fits them and stays apart from
//! the teacher elsewhere. Each time an example is drawn, a [`View`] of it is made anew, and teacher and
//! student see the same pixels. None of the ways is a translation.
//!
//! | way | what becomes of a pixel x of 0 … 255 |
//! |---|---|
//! | `mix λ` | ⌊λ·x + (1 − λ)·x′ + ½⌋, x′ that of another image of the set |
//! | `noise s` | x + 255·s·g, rounded and kept within 0 … 255; g of mean 0 and variance 1 |
//! | `mask r` | 0 with the probability r |
//! | `block n` | 0 in a square of n × n pixels, anywhere within the image |
//!
//! They are applied in this order, however they are written. λ and r are numbers, or drawn uniformly
//! for each image from an interval `a..b`. r is rounded to a multiple of 1/256 and λ to one of 2⁻¹⁶. g
//! is the sum of four uniform numbers, which is a normal one to within 0.02 of its distribution
//! function. A block that is higher or wider than the image is cut to its height or width.
//!
//! Every draw is a function of (seed, epoch, position in the epoch): no order of threads and no
//! interruption changes a pixel. With n pixels an image takes 8 + ⌈n/4⌉ + n 32-bit words of the views'
//! keystream of (seed, epoch), those behind the words of the positions before its own. The keystream is
//! ChaCha of 8 rounds, whose key is the 8 bytes `limbeck\0` and, as little-endian 64-bit numbers, the
//! seed, 12 and 0, and whose stream number is the epoch, counted from 0. u is a word over 2³², and an
//! interval a..b gives a + (b − a)·word/(2³² − 1):
//!
//! | word | |
//! |---|---|
//! | 0 | ⌊u·count⌋ is the view's number among several |
//! | 1 | ⌊u·images⌋ is that of the other image of a mixture, in the set |
//! | 2, 3 | λ and r |
//! | 4, 5 | ⌊u·places⌋ are the block's first row and column |
//! | from 8 | a byte for each pixel, the lowest of a word first: hidden by the mask where below 256·r |
//! | from 8 + ⌈n/4⌉ | a word for each pixel: g is (Σ of its 4 bytes − 510)/√(4·(256² − 1)/12) |
//!
//! `tests/golden/views.py` computes them from this page alone.

use crate::nearest;
use crate::random::{Purpose, keystream};
use rand::Rng;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A number, or an interval from which one is drawn for each image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    low: f64,
    high: f64,
}

/// One way to see an image, or several together: `mask 0.4`, `mix 0.7..1 + mask 0..0.5`; `plain` is the
/// image as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    mix: Option<Interval>,
    noise: Option<f64>,
    mask: Option<Interval>,
    block: Option<usize>,
}

/// 32-bit words of an image's draws that do not belong to a pixel.
const HEAD: usize = 8;

impl View {
    /// `mask rate`.
    ///
    /// # Panics
    /// If the rate is no number from 0 to 1.
    #[must_use]
    pub fn masked(rate: f64) -> View {
        assert!((0.0..=1.0).contains(&rate), "a rate of {rate}");
        View { mask: Some(Interval { low: rate, high: rate }), ..View::default() }
    }

    /// The same of a mixture, of which a share drawn from this interval is the image's.
    ///
    /// # Panics
    /// Unless 0 ≤ low ≤ high ≤ 1.
    #[must_use]
    pub fn mixed(self, low: f64, high: f64) -> View {
        assert!(0.0 <= low && low <= high && high <= 1.0, "shares from {low} to {high}");
        View { mix: Some(Interval { low, high }), ..self }
    }

    /// Whether nothing is left of an image of this size.
    #[must_use]
    pub fn hides(&self, height: usize, width: usize) -> bool {
        self.mask.is_some_and(|mask| of_256(mask.low) == 256)
            || self.block.is_some_and(|side| side >= height && side >= width)
    }

    /// Whether the share of an image in its mixture may be below a half, so that the label of the other
    /// image would be the better one.
    #[must_use]
    pub fn may_hide_the_label(&self) -> bool {
        self.mix.is_some_and(|mix| mix.low < 0.5)
    }
}

/// The draws of one example.
pub(crate) struct Draw<'v> {
    pub views: &'v [View],
    pub seed: u64,
    pub epoch: u64,
    /// In the epoch.
    pub position: usize,
}

impl Draw<'_> {
    /// Turns `image` [height·width] into a view of it. `others` are `count` images to mix with.
    pub fn apply<'i>(
        self,
        image: &mut [u8],
        width: usize,
        count: usize,
        others: impl Fn(usize) -> &'i [u8],
    ) {
        let size = image.len();
        // A word of head, a byte of mask and a word of noise for each pixel.
        let words = HEAD + size.div_ceil(4) + size;
        let mut rng = keystream(self.seed, Purpose::Views, self.epoch);
        let start = self.position as u128 * words as u128;
        rng.set_word_pos(start);
        let head: [u32; HEAD] = std::array::from_fn(|_| rng.next_u32());
        // ⌊n·u⌋ for a uniform u of 32 bits.
        let below = |word: u32, n: usize| ((u64::from(word) * n as u64) >> 32) as usize;
        let view = self.views[below(head[0], self.views.len())];
        if let Some(mix) = view.mix {
            let other = others(below(head[1], count));
            let share = (mix.at(head[2]) * 65536.0).round() as u32;
            for (x, &y) in image.iter_mut().zip(other) {
                let mixed = share * u32::from(*x) + (65536 - share) * u32::from(y);
                *x = ((mixed + (1 << 15)) >> 16) as u8;
            }
        }
        if let Some(sd) = view.noise {
            rng.set_word_pos(start + (HEAD + size.div_ceil(4)) as u128);
            // The variance of a byte is (256² − 1)/12.
            let factor = 255.0 * sd / (4.0 * 65535.0 / 12.0f64).sqrt();
            for x in image.iter_mut() {
                let sum: u32 = rng.next_u32().to_le_bytes().map(u32::from).iter().sum();
                let noisy = f64::from(*x) + factor * (f64::from(sum) - 510.0);
                *x = noisy.round().clamp(0.0, 255.0) as u8;
            }
        }
        if let Some(mask) = view.mask {
            rng.set_word_pos(start + HEAD as u128);
            let rate = of_256(mask.at(head[3]));
            for pixels in image.chunks_mut(4) {
                for (x, byte) in pixels.iter_mut().zip(rng.next_u32().to_le_bytes()) {
                    *x = if u16::from(byte) < rate { 0 } else { *x };
                }
            }
        }
        if let Some(side) = view.block {
            let height = size / width;
            let (high, wide) = (side.min(height), side.min(width));
            let top = below(head[4], height - high + 1);
            let left = below(head[5], width - wide + 1);
            for row in image.chunks_exact_mut(width).skip(top).take(high) {
                row[left..left + wide].fill(0);
            }
        }
    }
}

/// A mask's rate as the number of bytes, of 256, that hide their pixel.
fn of_256(rate: f64) -> u16 {
    (rate * 256.0).round() as u16
}

impl Interval {
    fn at(self, word: u32) -> f64 {
        self.low + (self.high - self.low) * f64::from(word) / f64::from(u32::MAX)
    }
}

impl FromStr for Interval {
    /// What was expected.
    type Err = String;

    fn from_str(text: &str) -> Result<Interval, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let ends = match text.split_once("..") {
            Some((low, high)) => number(low).zip(number(high)),
            None => number(text).map(|x| (x, x)),
        };
        match ends {
            Some((low, high)) if 0.0 <= low && low <= high && high <= 1.0 => {
                Ok(Interval { low, high })
            }
            Some((low, high)) if low > high && high >= 0.0 && low <= 1.0 => {
                Err(format!("an interval whose ends are the other way round, {high}..{low}"))
            }
            _ => Err("a number from 0 to 1, or an interval a..b".into()),
        }
    }
}

impl FromStr for View {
    type Err = String;

    fn from_str(text: &str) -> Result<View, String> {
        let mut view = View::default();
        for way in text.split('+').map(str::trim) {
            let (name, value) = way.split_once(' ').unwrap_or((way, ""));
            let bad = |expected: &str| match way == text {
                true => format!("found {text:?}, expected {name} with {expected}"),
                false => format!("found {way:?} in {text:?}, expected {name} with {expected}"),
            };
            let interval = || value.parse::<Interval>().map_err(|expected| bad(&expected));
            let twice = match name {
                "plain" if text.trim() == "plain" => false,
                "mix" => view.mix.replace(interval()?).is_some(),
                "mask" => {
                    let rate = interval()?;
                    if rate.high > 0.0 && of_256(rate.high) == 0 {
                        return Err(bad("0, or 1/256 and more: rates are multiples of it"));
                    }
                    view.mask.replace(rate).is_some()
                }
                "noise" => {
                    let sd = value.trim().parse().ok().filter(|sd| (0.0..=1.0).contains(sd));
                    let sd =
                        sd.ok_or_else(|| bad("one deviation from 0 to 1, the range of a pixel"))?;
                    view.noise.replace(sd).is_some()
                }
                "block" => {
                    let side = value.trim().parse().ok().filter(|side| (1..=4096).contains(side));
                    let side = side.ok_or_else(|| bad("one side of 1 to 4096 pixels"))?;
                    view.block.replace(side).is_some()
                }
                _ => {
                    let meant = match nearest(
                        &name.to_lowercase(),
                        ["plain", "mix", "noise", "mask", "block"],
                    ) {
                        Some(known) => format!("; did you mean {known}?"),
                        None if name == "jitter" => "; translations are data.jitter = n".into(),
                        None => String::new(),
                    };
                    return Err(format!(
                        "found {text:?}, expected `plain`, or some of `mix λ`, `noise s`, `mask r` \
                         and `block n`, joined by +{meant}"
                    ));
                }
            };
            if twice {
                return Err(format!("found {text:?}, expected {name} once"));
            }
        }
        Ok(view)
    }
}

impl Display for Interval {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.low == self.high {
            true => write!(f, "{}", self.low),
            false => write!(f, "{}..{}", self.low, self.high),
        }
    }
}

impl Display for View {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ways = [
            self.mix.map(|mix| format!("mix {mix}")),
            self.noise.map(|noise| format!("noise {noise}")),
            self.mask.map(|mask| format!("mask {mask}")),
            self.block.map(|block| format!("block {block}")),
        ];
        let ways: Vec<String> = ways.into_iter().flatten().collect();
        f.write_str(if ways.is_empty() { "plain" } else { "" })?;
        f.write_str(&ways.join(" + "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(text: &str) -> View {
        text.parse().unwrap()
    }

    /// Images of 20×20 pixels of value 200 as `view` shows them, one for each position; mixed with
    /// images of value 100.
    fn seen(view: View, count: usize) -> Vec<Vec<u8>> {
        let other = [100; 400];
        let at = |position| {
            let mut image = vec![200; 400];
            let draw = Draw { views: &[view], seed: 3, epoch: 1, position };
            draw.apply(&mut image, 20, 7, |i| {
                assert!(i < 7);
                &other
            });
            image
        };
        (0..count).map(at).collect()
    }

    fn mean(of: impl Iterator<Item = f64> + Clone) -> f64 {
        of.clone().sum::<f64>() / of.count() as f64
    }

    #[test]
    fn views_are_written_as_they_are_read() {
        for text in ["plain", "mask 0.4", "mix 0.7..1 + mask 0..0.5", "noise 0.1", "block 10"] {
            assert_eq!(view(text).to_string(), text);
        }
        assert_eq!(view("mask 0..0.5+mix 0.7..1").to_string(), "mix 0.7..1 + mask 0..0.5");
        for (text, part) in [
            ("shift 2", "expected `plain`"),
            ("", "expected `plain`"),
            ("plain + mask 0.1", "expected `plain`"),
            ("mask", "found \"mask\", expected mask with a number from 0 to 1"),
            ("mask 1.5", "from 0 to 1"),
            ("mask -0.1..0.2", "an interval a..b"),
            ("mask 0.5..0.2", "the other way round, 0.2..0.5"),
            ("mix +0.5", "found \"mix\" in \"mix +0.5\", expected mix with a number"),
            ("mask 0.0001", "1/256 and more"),
            ("mask 0..0.001", "1/256 and more"),
            ("noise x", "one deviation from 0 to 1"),
            ("block 0", "one side of 1"),
            ("noise 0.1..0.3", "one deviation"),
            ("Mask 0.3", "did you mean mask?"),
            ("jitter 2", "data.jitter"),
            ("mask 0.1 + mask 0.2", "mask once"),
        ] {
            let message = text.parse::<View>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert_eq!(View::masked(0.2).mixed(0.5, 1.0), view("mix 0.5..1 + mask 0.2"));
        assert!(view("mix 0..1").may_hide_the_label() && !view("mix 0.7..1").may_hide_the_label());
    }

    #[test]
    fn masks_hide_their_share_of_the_pixels() {
        assert!(seen(view("plain"), 3).concat().iter().all(|&x| x == 200));
        let share = |image: &Vec<u8>| mean(image.iter().map(|&x| f64::from(u8::from(x == 0))));
        let shares: Vec<f64> = seen(view("mask 0.4"), 500).iter().map(share).collect();
        // 102/256 of 200,000 pixels: a deviation of 0.0011.
        assert!((mean(shares.iter().copied()) - 102.0 / 256.0).abs() < 0.004);
        // Of an image's 400 pixels: 0.0245.
        let of_image = |shares: &[f64]| {
            let mean = mean(shares.iter().copied());
            (shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / shares.len() as f64).sqrt()
        };
        assert!((of_image(&shares) / 0.0245 - 1.0).abs() < 0.1, "{}", of_image(&shares));
        // A rate for each image: uniform on 0 … ½, of deviation 0.5/√12.
        let shares: Vec<f64> = seen(view("mask 0..0.5"), 500).iter().map(share).collect();
        assert!((mean(shares.iter().copied()) - 0.25).abs() < 0.02);
        assert!((of_image(&shares) - 0.146).abs() < 0.01, "{}", of_image(&shares));
        assert!(seen(view("mask 1"), 2).concat().iter().all(|&x| x == 0));
        assert!(view("mask 1").hides(9, 9) && !view("mask 0..1").hides(9, 9));
        // 255.488 of 256 rounds to 255, 255.744 to all of them.
        assert!(view("mask 0.999").hides(9, 9) && !view("mask 0.998").hides(9, 9));
        assert!(seen(view("noise 0.5 + mask 0.999"), 2).concat().iter().all(|&x| x == 0));
        assert!(view("block 9").hides(9, 8) && !view("block 8").hides(9, 8));
    }

    #[test]
    fn mixtures_lie_between_their_images() {
        assert!(seen(view("mix 0.25"), 3).concat().iter().all(|&x| x == 125));
        let images = seen(view("mix 0.7..1"), 500);
        assert!(images.iter().all(|image| image.iter().all(|&x| x == image[0])));
        let values = images.iter().map(|image| f64::from(image[0]));
        assert!(values.clone().all(|x| (170.0..=200.0).contains(&x)));
        assert!((mean(values) - 185.0).abs() < 1.5);
    }

    #[test]
    fn noise_has_its_deviation_and_blocks_lie_anywhere() {
        let values = seen(view("noise 0.05"), 100).concat();
        let values = values.iter().map(|&x| f64::from(x) - 200.0);
        assert!(mean(values.clone()).abs() < 0.3);
        // With the rounding's 1/12.
        let sd = mean(values.map(|x| x * x)).sqrt();
        assert!((sd - (12.75f64.powi(2) + 1.0 / 12.0).sqrt()).abs() < 0.2, "{sd}");

        let mut corners = std::collections::BTreeSet::new();
        for image in seen(view("block 5"), 2000) {
            let hidden: Vec<usize> = (0..400).filter(|&i| image[i] == 0).collect();
            let (top, left) = (hidden[0] / 20, hidden[0] % 20);
            let square = (0..25).map(|i| (top + i / 5) * 20 + left + i % 5);
            assert!(hidden.iter().copied().eq(square));
            corners.insert(hidden[0]);
        }
        assert_eq!(corners.len(), 16 * 16, "each place of a 5×5 square");
        assert!(seen(view("block 99"), 1).concat().iter().all(|&x| x == 0));
    }

    #[test]
    fn one_of_the_views_is_drawn_for_each_image() {
        let views = [view("plain"), view("mask 1"), view("mix 0")];
        let mut counts = [0; 3];
        for position in 0..3000 {
            let mut image = vec![200; 4];
            Draw { views: &views, seed: 0, epoch: 0, position }
                .apply(&mut image, 2, 1, |_| &[100; 4]);
            counts[[200, 0, 100].iter().position(|&x| image == [x; 4]).unwrap()] += 1;
        }
        // χ² of 2 degrees: p = 0.001 at 13.8.
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 13.8, "{counts:?}");
    }
}
