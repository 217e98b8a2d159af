//! Threads: rayon's workers, kept at hand for the length of a training loop.
//!
//! A step of a small net takes milliseconds and forks about 20 times. Inside [`Pool::install`] the
//! workers wait for jobs by spinning on one atomic word, so a fork costs a fraction of a
//! microsecond; after a while without a job they sleep. The thread that called `install` leads:
//! it works on every job itself and never waits for a worker that has not started.
//!
//! Of n tasks thread t of T owns those from t·n/T to (t+1)·n/T, in every job, so that what it wrote
//! in one job lies in its own cache for the next. Who has finished takes over from the end of
//! another's share.
//!
//! A job so small that a fork costs more than the others' help saves is the leader's alone. Small
//! nets so use as many threads as pay, job by job; see `MIN_SHARED_COST`.
//!
//! Work is split over outputs only, never over a sum, so the number of threads cannot change a
//! bit.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A fixed number of threads.
pub struct Pool {
    threads: usize,
    /// All but the leader.
    workers: rayon::ThreadPool,
    team: Team,
    /// The cost from which on a job is shared.
    min_cost: usize,
    /// Held by the thread that leads the team.
    lead: Mutex<()>,
}

/// What a thread is to a team.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Outsider,
    Leader(*const Team),
    Helper,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Outsider) };
}

/// Sets the thread's role for its lifetime.
struct RoleGuard {
    before: Role,
}

impl RoleGuard {
    fn new(role: Role) -> Self {
        Self { before: ROLE.replace(role) }
    }
}

impl Drop for RoleGuard {
    fn drop(&mut self) {
        ROLE.set(self.before);
    }
}

impl Pool {
    /// A pool of `threads` threads (at least one), the caller's included.
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub fn new(threads: usize) -> Result<Self, String> {
        let threads = threads.max(1);
        let workers = rayon::ThreadPoolBuilder::new()
            // rayon takes 0 for "as many as cores"; one idle worker costs nothing.
            .num_threads((threads - 1).max(1))
            .build()
            .map_err(|e| format!("could not start {threads} threads: {e}"))?;
        // What a worker allocates on its way up, it has allocated when this returns.
        workers.broadcast(|_| ());
        // Spinning pays only where every thread has a core.
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let spins = if threads <= cores { SPINS } else { 0 };
        let team = Team::new(threads, spins);
        Ok(Self { threads, workers, team, min_cost: MIN_SHARED_COST, lead: Mutex::new(()) })
    }

    /// Shares every job, however small, so that tests on small shapes see the threads at work.
    pub fn eager(self) -> Self {
        Self { min_cost: 0, ..self }
    }

    /// Threads, the leader's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` on this thread, where the kernels it calls start without a wake-up. Other
    /// threads that call this meanwhile wait.
    pub fn install<R>(&self, work: impl FnOnce() -> R) -> R {
        let role = ROLE.get();
        if self.threads == 1 || role == Role::Helper || role == Role::Leader(&self.team) {
            return work();
        }
        let _lead = lock(&self.lead);
        let _role = RoleGuard::new(Role::Leader(&self.team));
        self.team.gather();
        self.workers.in_place_scope(|scope| {
            for thread in 1..self.threads {
                scope.spawn(move |_| self.team.help(thread));
            }
            // Also when `work` panics: the scope waits for the helpers.
            let _dismissed = Dismissal(&self.team);
            work()
        })
    }

    /// Jobs that were shared out to the threads since the pool was made.
    pub fn forks(&self) -> u64 {
        self.team.state.load(Ordering::Relaxed) / JOB
    }

    /// `work(0)` … `work(tasks − 1)` in this order, worked out in parallel: for tasks of
    /// milliseconds and more.
    pub fn map<T: Send>(&self, tasks: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let mut results: Vec<Option<T>> = (0..tasks).map(|_| None).collect();
        self.for_each_part(chunks(&mut results, 1), usize::MAX, |i, slot| slot[0] = Some(work(i)));
        results.into_iter().map(|result| result.expect("every task ran")).collect()
    }

    /// Calls `work(0)` … `work(tasks − 1)`, in any order, in parallel where that pays: `cost` is
    /// about how many vectors of 16 values are multiplied and added, or else read or written, in
    /// all.
    pub(crate) fn for_each(&self, tasks: usize, cost: usize, work: impl Fn(usize) + Sync) {
        let alone = tasks <= 1 || self.threads == 1 || cost < self.min_cost;
        if alone || ROLE.get() == Role::Helper {
            (0..tasks).for_each(work);
        } else {
            self.install(|| self.team.run(tasks, &work));
        }
    }

    /// Calls `work(i, part)` for each part, as [`Pool::for_each`] does.
    pub(crate) fn for_each_part<P: Parts>(
        &self,
        parts: P,
        cost: usize,
        work: impl Fn(usize, P::Part) + Sync,
    ) {
        // SAFETY: `for_each` calls its closure once for each i.
        self.for_each(parts.count(), cost, |i| work(i, unsafe { parts.part(i) }));
    }
}

/// Vectors that a job must touch before the threads share it: about 10 µs of multiply-adds. A fork
/// costs 0.35 µs between cores of one last-level cache and 1.1 µs between others, and what the
/// threads wrote then changes cores. Measured on Zen 4 with the net 784-30-30-10: at batch 16, two
/// jobs of 25,000 vectors a step, two threads gained 1 % or lost 25 %.
const MIN_SHARED_COST: usize = 1 << 15;

/// How often a helper looks for a job before it sleeps: about 100 µs.
const SPINS: usize = 4096;

/// One of the helpers at work, in [`Team::state`].
const HELPER: u64 = 1;
const HELPERS: u64 = 0xffff;
/// Helpers may enter.
const OPEN: u64 = 1 << 16;
/// No job will follow.
const DISMISSED: u64 = 1 << 17;
/// The number of the job starts here.
const JOB: u64 = 1 << 18;

/// The threads of a pool that wait for a leader's jobs.
///
/// A helper enters a job by adding itself to `state` while it is open, and only then reads `job`.
/// The leader closes the job and waits until nobody is inside. So `job` lives as long as anyone
/// looks at it, and helpers that come late cost nothing.
#[repr(align(128))]
struct Team {
    state: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    /// What is left of each thread's tasks.
    shares: Box<[Share]>,
    spins: usize,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake_up: Condvar,
}

/// Tasks that threads take one by one.
struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    /// The first panic of a helper.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A range of tasks, start · 2³² + end, in a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Share(AtomicU64);

impl Share {
    fn set(&self, tasks: Range<usize>) {
        self.0.store((tasks.start as u64) << 32 | tasks.end as u64, Ordering::Relaxed);
    }

    /// Takes the first task, or the last one.
    fn take(&self, first: bool) -> Option<usize> {
        // The tasks' data was published by `Team::state`; here only the counters must agree.
        let taken = self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |share| {
            let (start, end) = (share >> 32, share & 0xffff_ffff);
            (start < end).then(|| if first { share + (1 << 32) } else { share - 1 })
        });
        let share = taken.ok()?;
        Some(if first { share >> 32 } else { (share & 0xffff_ffff) - 1 } as usize)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Team {
    fn new(threads: usize, spins: usize) -> Self {
        Self {
            shares: (0..threads).map(|_| Share::default()).collect(),
            state: AtomicU64::new(DISMISSED),
            job: AtomicPtr::new(ptr::null_mut()),
            spins,
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake_up: Condvar::new(),
        }
    }

    fn gather(&self) {
        self.state.fetch_and(!DISMISSED, Ordering::SeqCst);
    }

    /// Works through `tasks` tasks with whoever of the helpers comes.
    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        assert!(tasks < 1 << 32, "{tasks} tasks");
        let job = Job { work, panic: Mutex::new(None) };
        let threads = self.shares.len();
        for (t, share) in self.shares.iter().enumerate() {
            share.set(t * tasks / threads..(t + 1) * tasks / threads);
        }
        self.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        let number = self.state.load(Ordering::Relaxed) / JOB + 1;
        self.state.store(number * JOB + OPEN, Ordering::SeqCst);
        self.wake();
        {
            // Also when a task panics: helpers may still be inside.
            let _closed = Closing(self);
            // What a task shares out itself, the thread that runs it does alone.
            let _role = RoleGuard::new(Role::Helper);
            self.work_through(&job, 0);
        }
        if let Some(panic) = lock(&job.panic).take() {
            resume_unwind(panic);
        }
    }

    /// Takes tasks, those of `thread` first, until none is left.
    fn work_through(&self, job: &Job, thread: usize) {
        let (before, from) = self.shares.split_at(thread);
        let mut own = true;
        for share in from.iter().chain(before) {
            while let Some(task) = share.take(own) {
                (job.work)(task);
            }
            own = false;
        }
    }

    /// Waits for jobs and works on them until the team is dismissed.
    fn help(&self, thread: usize) {
        let _role = RoleGuard::new(Role::Helper);
        let mut last = 0;
        loop {
            let state = self.wait(last);
            if state & DISMISSED != 0 {
                return;
            }
            let (now, then) = (Ordering::SeqCst, Ordering::Relaxed);
            if self.state.compare_exchange(state, state + HELPER, now, then).is_err() {
                continue;
            }
            last = state / JOB;
            // SAFETY: this thread is counted in `state`, so `run` has not returned and its job
            // lives; the exchange acquired what `run` stored before it opened the job.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            let done = catch_unwind(AssertUnwindSafe(|| self.work_through(job, thread)));
            if let Err(panic) = done {
                lock(&job.panic).get_or_insert(panic);
            }
            self.state.fetch_sub(HELPER, Ordering::SeqCst);
        }
    }

    /// The state as soon as a job other than `last` is open, or the team is dismissed.
    fn wait(&self, last: u64) -> u64 {
        let ready = |state: u64| state & DISMISSED != 0 || state & OPEN != 0 && state / JOB != last;
        for _ in 0..self.spins {
            let state = self.state.load(Ordering::Relaxed);
            if ready(state) {
                return state;
            }
            std::hint::spin_loop();
        }
        // A leader that changes the state after the check below sees the sleeper: both sides
        // write, then read, in sequentially consistent order. `state` is written in no other
        // order: that leaves no older value for the check to read, and costs nothing on x86.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut sleep = lock(&self.sleep);
        let state = loop {
            let state = self.state.load(Ordering::SeqCst);
            if ready(state) {
                break state;
            }
            sleep = self.wake_up.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        state
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _sleep = lock(&self.sleep);
            self.wake_up.notify_all();
        }
    }
}

/// Closes the team's job when dropped and waits for the helpers inside.
struct Closing<'a>(&'a Team);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::SeqCst);
        for looks in 0_usize.. {
            if state & HELPERS == 0 {
                return;
            }
            if looks < SPINS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            state = self.0.state.load(Ordering::Acquire);
        }
    }
}

/// Sends the helpers home when dropped.
struct Dismissal<'a>(&'a Team);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_or(DISMISSED, Ordering::SeqCst);
        self.0.wake();
    }
}

/// Disjoint parts of something, for the threads to take.
pub(crate) trait Parts: Sync {
    /// One part.
    type Part;

    /// Parts.
    fn count(&self) -> usize;

    /// Part `i`.
    ///
    /// # Safety
    /// No part may be taken twice.
    unsafe fn part(&self, i: usize) -> Self::Part;

    /// Part i of both; there are as many as `self` has.
    fn zip<Q: Parts>(self, other: Q) -> (Self, Q)
    where
        Self: Sized,
    {
        (self, other)
    }
}

/// An array in chunks of `len` values, the last of which may be shorter; beyond the array, empty.
pub(crate) struct Chunks<'a, T> {
    start: *mut T,
    total: usize,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the array is borrowed exclusively and its parts, which the contract of `part` keeps
// apart, go to one thread each.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

/// `data` in chunks of `len` values.
pub(crate) fn chunks<T>(data: &mut [T], len: usize) -> Chunks<'_, T> {
    Chunks { start: data.as_mut_ptr(), total: data.len(), len: len.max(1), borrow: PhantomData }
}

impl<'a, T: Send> Parts for Chunks<'a, T> {
    type Part = &'a mut [T];

    fn count(&self) -> usize {
        self.total.div_ceil(self.len)
    }

    unsafe fn part(&self, i: usize) -> &'a mut [T] {
        let from = (i * self.len).min(self.total);
        let len = self.len.min(self.total - from);
        // SAFETY: the range lies in the array, which is borrowed for 'a; the caller takes it once.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

impl<P: Parts, Q: Parts> Parts for (P, Q) {
    type Part = (P::Part, Q::Part);

    fn count(&self) -> usize {
        self.0.count()
    }

    unsafe fn part(&self, i: usize) -> Self::Part {
        // SAFETY: the caller takes i once.
        unsafe { (self.0.part(i), self.1.part(i)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn pools() -> impl Iterator<Item = Pool> {
        [1, 2, 3, 8].into_iter().map(|threads| Pool::new(threads).unwrap().eager())
    }

    #[test]
    fn every_task_runs_once() {
        for pool in pools() {
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                let count = |i: usize| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                };
                pool.for_each(tasks, 0, count);
                // Nested calls and many jobs in one installation.
                pool.install(|| {
                    for _ in 0..50 {
                        pool.for_each(tasks, 0, count);
                    }
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 51));
            }
        }
    }

    #[test]
    fn parts_cover_the_arrays() {
        for pool in pools() {
            for (len, chunk) in [(0, 4), (1, 4), (8, 4), (1003, 10)] {
                let (mut a, mut b) = (vec![0; len], vec![0; len.div_ceil(chunk)]);
                let parts = chunks(&mut a, chunk).zip(chunks(&mut b, 1));
                pool.for_each_part(parts, 0, |i, (a, b)| {
                    a.iter_mut().enumerate().for_each(|(j, a)| *a = i * chunk + j);
                    b[0] = i;
                });
                assert!(a.into_iter().eq(0..len) && b.into_iter().eq(0..len.div_ceil(chunk)));
            }
        }
    }

    #[test]
    fn a_map_keeps_the_order() {
        for pool in pools() {
            for tasks in [0, 1, 7, 1000] {
                let squares: Vec<String> = pool.map(tasks, |i| (i * i).to_string());
                assert!(squares.into_iter().eq((0..tasks).map(|i| (i * i).to_string())));
            }
        }
    }

    #[test]
    fn what_a_task_shares_out_its_thread_does_alone() {
        for pool in pools() {
            let outer: Vec<bool> = pool.map(100, |_| {
                let thread = std::thread::current().id();
                let inner = pool.map(10, |i| (i, std::thread::current().id()));
                inner.into_iter().eq((0..10).map(|i| (i, thread)))
            });
            assert_eq!(outer, [true; 100]);
        }
    }

    #[test]
    fn small_jobs_are_the_leaders_alone_and_others_are_counted() {
        let pool = Pool::new(2).unwrap();
        let leader = std::thread::current().id();
        pool.for_each(64, MIN_SHARED_COST - 1, |_| assert_eq!(std::thread::current().id(), leader));
        assert_eq!(pool.forks(), 0);
        pool.for_each(64, MIN_SHARED_COST, |_| ());
        assert_eq!(pool.forks(), 1);
    }

    #[test]
    fn helpers_that_slept_are_woken() {
        let pool = Pool::new(2).unwrap();
        pool.install(|| {
            for _ in 0..3 {
                std::thread::sleep(std::time::Duration::from_millis(20));
                // Two tasks that wait for each other need two threads.
                let (first, second) = (AtomicBool::new(false), AtomicBool::new(false));
                pool.for_each(2, MIN_SHARED_COST, |task| {
                    let (mine, other) =
                        if task == 0 { (&first, &second) } else { (&second, &first) };
                    mine.store(true, Ordering::Release);
                    while !other.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        for pool in pools() {
            for culprit in [0, 63] {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    pool.for_each(64, 0, |i| assert_ne!(i, culprit, "the culprit"));
                }));
                assert!(outcome.is_err());
            }
            let sum = AtomicUsize::new(0);
            pool.for_each(10, 0, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_pool_is_shared_by_threads_and_nested_in_another() {
        let (one, two) = (Pool::new(2).unwrap(), Pool::new(3).unwrap());
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        one.install(|| {
                            two.for_each(5, MIN_SHARED_COST, |i| {
                                sum.fetch_add(i, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4000);
    }
}
