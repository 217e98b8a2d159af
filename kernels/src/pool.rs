//! Threads: a rayon pool and the ways in which kernels share work.
//!
//! Work is split over outputs only, never over a sum, so the number of threads cannot change a
//! bit. Run whole training loops inside [`Pool::install`]: entering the pool from outside costs
//! a wake-up for every kernel.

use rayon::prelude::*;

/// A fixed number of worker threads.
pub struct Pool {
    workers: rayon::ThreadPool,
}

impl Pool {
    /// A pool of `threads` workers (at least one).
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub fn new(threads: usize) -> Result<Self, String> {
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .build()
            .map_err(|e| format!("could not start {threads} threads: {e}"))?;
        Ok(Self { workers })
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.workers.current_num_threads()
    }

    /// Runs `work` on a worker, where the kernels it calls start without a wake-up.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.workers.install(work)
    }

    /// Calls `work(0)` … `work(tasks − 1)`, in any order, in parallel.
    pub(crate) fn for_each(&self, tasks: usize, work: impl Fn(usize) + Sync + Send) {
        if tasks <= 1 || self.threads() == 1 {
            (0..tasks).for_each(work);
        } else {
            self.install(|| (0..tasks).into_par_iter().for_each(work));
        }
    }

    /// Calls `work(i, chunk)` for each `len` values of `data` (the last chunk may be shorter).
    pub(crate) fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        if data.len() <= len || self.threads() == 1 {
            data.chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk));
        } else {
            self.install(|| {
                data.par_chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk));
            });
        }
    }
}
