//! The machine's limits, measured: what every figure is held against.

use crate::Context;
use crate::buffer::Buffer;
use crate::isa::{Kernel, dispatch};
use crate::pool::chunks;
use crate::simd::{LANES, Simd};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Floating-point operations per second of all threads at once, on independent chains of fused
/// multiply-adds in registers: the most that any product can reach.
///
/// A multiply-add counts as two operations. Takes about `duration`.
pub fn flops(context: &Context, duration: Duration) -> f64 {
    const ROUNDS: usize = 1 << 12;
    let per_round = |isa| dispatch(isa, MultiplyAdds { rounds: ROUNDS }) as f64;
    together(context, duration, |_| per_round(context.isa)).iter().sum()
}

/// The same for products of bf16: those of the tile unit where the ISA has one, on tiles in registers;
/// elsewhere [`flops`].
pub fn bf16_flops(context: &Context, duration: Duration) -> f64 {
    const ROUNDS: usize = 1 << 10;
    match context.isa.tiles() {
        Some(unit) => {
            together(context, duration, |_| unit.tiles().spin(ROUNDS) as f64).iter().sum()
        }
        None => flops(context, duration),
    }
}

/// The best of several short measurements of [`flops`], 50 ms in all: cores that were asleep, and
/// neighbours, only ever lower it.
pub fn best_flops(context: &Context) -> f64 {
    (0..10).map(|_| flops(context, Duration::from_millis(5))).fold(0.0, f64::max)
}

/// Bytes per second that all threads at once read, each from `bytes` of its own: at 16 KiB a
/// thread from the level-1 cache, at many times the last cache's size from memory.
///
/// Takes about `duration`, and longer where the array is large.
pub fn read_bandwidth(context: &Context, bytes: usize, duration: Duration) -> f64 {
    let len = (bytes / size_of::<f32>()).next_multiple_of(UNROLL * LANES);
    let mut memory = Buffer::zeroed(len * context.pool.threads());
    // Random bits would read no slower; zeros that were never written may share one page.
    context.pool.for_each_part(chunks(&mut memory, len), usize::MAX, |_, own| own.fill(1.0));
    let memory: &[f32] = &memory;
    let rates = together(context, duration, |thread| {
        let own = &memory[thread * len..][..len];
        // Short arrays are read often enough that a round takes microseconds.
        let passes = ((1 << 16) / len).max(1);
        for _ in 0..passes {
            black_box(dispatch(context.isa, Read { values: black_box(own) }));
        }
        (passes * len * size_of::<f32>()) as f64
    });
    rates.iter().sum()
}

/// Instructions per second that the slowest of the threads issues when none of them needs a unit.
///
/// The two hardware threads of a core share its front end, so that one alone has twice the rate of one
/// beside a busy neighbour. A virtual machine is not told of neighbours; this rate tells. Whatever else
/// takes a thread's time lowers it too. `None` where no such instruction is known.
pub fn issue_rate(context: &Context, duration: Duration) -> Option<f64> {
    let rates = together(context, duration, |_| idle_instructions() as f64);
    rates.into_iter().min_by(f64::total_cmp).filter(|rate| *rate > 0.0)
}

/// Runs some thousand instructions that need no unit, and returns how many: microseconds' worth, small
/// enough to be kept decoded.
fn idle_instructions() -> usize {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    {
        const UNROLLED: usize = 256;
        const ROUNDS: usize = 64;
        for _ in 0..ROUNDS {
            // SAFETY: they do nothing.
            unsafe {
                std::arch::asm!(
                    ".rept {n}", "nop", ".endr",
                    n = const UNROLLED,
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
        ROUNDS * UNROLLED
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    0
}

/// Seconds that a fork-join of the threads takes: from the leader's call until every thread has come
/// and gone again, the median of some thousand.
pub fn fork_join(context: &Context) -> f64 {
    const FORKS: usize = 4096;
    let threads = context.pool.threads();
    let mut seconds = [0.0; FORKS];
    context.pool.install(|| {
        for seconds in &mut seconds {
            let here = AtomicUsize::new(0);
            let start = Instant::now();
            context.pool.for_each(threads, usize::MAX, |_| meet(&here, threads));
            *seconds = start.elapsed().as_secs_f64();
        }
    });
    seconds.sort_by(f64::total_cmp);
    seconds[FORKS / 2]
}

/// Waits until each of `threads` tasks has come `here`. A thread that waits cannot take a second
/// task: each gets one.
fn meet(here: &AtomicUsize, threads: usize) {
    here.fetch_add(1, Ordering::Relaxed);
    for looks in 0_usize.. {
        if here.load(Ordering::Relaxed) >= threads {
            return;
        }
        if looks < 1 << 12 { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

/// Each thread's rate of `work`, which returns the units it did, repeated on all at once for `duration`.
fn together(context: &Context, duration: Duration, work: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
    let threads = context.pool.threads();
    let mut rates = vec![0.0; threads];
    let here = AtomicUsize::new(0);
    context.pool.install(|| {
        context.pool.for_each_part(chunks(&mut rates, 1), usize::MAX, |thread, rate| {
            work(thread);
            meet(&here, threads);
            let (start, mut units) = (Instant::now(), 0.0);
            // Once at the least: whoever is put aside for that long did work too.
            loop {
                units += work(thread);
                if start.elapsed() >= duration {
                    break;
                }
            }
            rate[0] = units / start.elapsed().as_secs_f64();
        });
    });
    rates
}

struct MultiplyAdds {
    rounds: usize,
}

impl Kernel for MultiplyAdds {
    /// Operations done.
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        // Enough chains to hide the latency, few enough to stay in registers.
        if S::TILE.accumulators > 8 {
            chains::<S, 12>(s, self.rounds)
        } else {
            chains::<S, 6>(s, self.rounds)
        }
    }
}

/// x ← x·a + b in each lane of each chain: the value stays near b/(1 − a).
#[inline(always)]
fn chains<S: Simd, const CHAINS: usize>(s: S, rounds: usize) -> usize {
    let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(0.5)));
    let mut x = [s.splat(black_box(0.25)); CHAINS];
    for _ in 0..rounds {
        for x in &mut x {
            *x = s.fma(*x, a, b);
        }
    }
    let mut sum = s.splat(0.0);
    for x in x {
        sum = s.add(sum, x);
    }
    black_box(s.reduce_add(sum));
    2 * LANES * CHAINS * rounds
}

/// Vectors read side by side.
const UNROLL: usize = 8;

struct Read<'a> {
    values: &'a [f32],
}

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); UNROLL];
        for block in self.values.as_chunks::<LANES>().0.as_chunks::<UNROLL>().0 {
            for (sum, values) in sums.iter_mut().zip(block) {
                *sum = s.add(*sum, s.load(values));
            }
        }
        let mut sum = s.splat(0.0);
        for part in sums {
            sum = s.add(sum, part);
        }
        s.reduce_add(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn a_fork_join_is_measured() {
        let context = Context::new(Isa::best(), 2).unwrap();
        assert!(fork_join(&context).is_finite());
    }

    #[test]
    fn rates_are_measured_on_every_isa() {
        let short = Duration::from_millis(5);
        for isa in Isa::available() {
            for threads in [1, 2] {
                let context = Context::new(isa, threads).unwrap();
                let read = read_bandwidth(&context, 8 << 10, short);
                let mut rates = vec![flops(&context, short), bf16_flops(&context, short), read];
                rates.extend(issue_rate(&context, short));
                assert!(
                    rates.iter().all(|rate| rate.is_finite() && *rate > 0.0),
                    "{isa}: {rates:?}"
                );
            }
        }
    }
}
