//! Processes that work on one model together: how many they are, and how they talk.
//!
//! R ranks, a power of two, know two conversations, both of log₂ R exchanges between pairs:
//!
//! * **Sum** of an array over the ranks. At distance d = 1, 2, 4, … the ranks r and r xor d swap
//!   halves of what they have summed so far and add; then they pass the sums back the same way
//!   (recursive halving and doubling, Rabenseifner 2004). A rank sends 2·(R − 1)/R of the array.
//!   Every element is summed in the tree ((0 + 1) + (2 + 3)) + …, whichever rank does it, and a
//!   sum of two does not depend on their order: so all ranks get the same bits, and they are those
//!   of one process that sums the R arrays in that tree ([`crate::engine::microbatches`]).
//! * **Gather**: what each rank has, one behind the other, to all (recursive doubling). With one
//!   rank that has something it is a broadcast.
//!
//! A thread of its own does the talking, in the order in which it is asked, so that sums travel
//! while the layers below are still being differentiated. Whoever waits for an answer waits for
//! a limited time: a rank that has died or is out of reach ends the run with [`Error::Lost`].

#[cfg(feature = "mpi")]
pub mod mpi;

use crate::files::digest::sha256_of;
use crate::files::error::{Error, Result};
use limbeck_kernels::Buffer;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::{ops::Range, time::Duration};

/// The result of a conversation, or in words why it failed.
type Told<T> = std::result::Result<T, String>;

/// A connection of this rank to all others.
trait Link {
    /// This rank, from 0, and how many there are.
    fn place(&self) -> (usize, usize);

    /// Sends to `peer` and receives from it at the same time. Both know both lengths.
    fn exchange(&mut self, peer: usize, send: &[u8], receive: &mut [u8]) -> Told<()>;

    /// values ← Σ over the ranks.
    fn sum(&mut self, values: &mut [f32], scratch: &mut Vec<f32>) -> Told<()>
    where
        Self: Sized,
    {
        tree_sum(self, values, scratch)
    }

    /// What each rank has, `lengths` bytes, one behind the other; `mine` is this rank's.
    fn gather(&mut self, mine: &[u8], lengths: &[usize]) -> Told<Vec<u8>> {
        let (rank, size) = self.place();
        let start = |rank: usize| lengths[..rank].iter().sum::<usize>();
        let mut all = vec![0; start(size)];
        all[start(rank)..][..mine.len()].copy_from_slice(mine);
        for (i, peer) in peers(rank, size).enumerate() {
            // The ranks whose parts each of the two has by now.
            let group = |rank: usize| {
                let first = rank >> i << i;
                start(first)..start(first + (1 << i))
            };
            let (send, receive) = neighbours(&mut all, group(rank), group(peer));
            self.exchange(peer, send, receive)?;
        }
        Ok(all)
    }
}

/// values ← Σ over the ranks, in the tree that the module describes.
fn tree_sum(link: &mut impl Link, values: &mut [f32], scratch: &mut Vec<f32>) -> Told<()> {
    let (rank, size) = link.place();
    let mut owned = 0..values.len();
    let mut exchanged: Vec<(usize, Range<usize>, Range<usize>)> = Vec::new();
    for peer in peers(rank, size) {
        let middle = owned.start + owned.len() / 2;
        let (lower, upper) = (owned.start..middle, middle..owned.end);
        let (keep, give) = if rank < peer { (lower, upper) } else { (upper, lower) };
        scratch.resize(keep.len(), 0.0);
        let (send, receive) = (&values[give.clone()], &mut scratch[..]);
        link.exchange(peer, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(receive))?;
        values[keep.clone()].iter_mut().zip(&*scratch).for_each(|(v, other)| *v += other);
        exchanged.push((peer, keep.clone(), give));
        owned = keep;
    }
    for (peer, keep, give) in exchanged.into_iter().rev() {
        let (send, receive) = neighbours(values, keep, give);
        link.exchange(peer, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(receive))?;
    }
    Ok(())
}

/// Two ranges of an array, one of which begins where the other ends.
fn neighbours<T>(values: &mut [T], one: Range<usize>, other: Range<usize>) -> (&mut [T], &mut [T]) {
    if one.end == other.start {
        let (one, other) = values[one.start..other.end].split_at_mut(one.len());
        return (one, other);
    }
    let (other, one) = values[other.start..one.end].split_at_mut(other.len());
    (one, other)
}

/// The rank of this process and the number of ranks, where a launcher of MPI has started it: the
/// variables of Open MPI, of MPICH and Intel MPI, and of Slurm's PMIx.
#[must_use]
pub fn place_in_the_job() -> Option<(usize, usize)> {
    let names = [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        ("PMIX_RANK", "SLURM_NTASKS"),
    ];
    let number = |name| std::env::var(name).ok()?.parse().ok();
    names.into_iter().find_map(|(rank, size)| Some((number(rank)?, number(size)?)))
}

/// Whom a rank talks to: those whose number differs in one bit, the lowest first.
fn peers(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..size.ilog2()).map(move |bit| rank ^ 1 << bit)
}

/// A request to the thread that talks, and its answer.
enum Job {
    Sum(Buffer),
    Gather(Vec<u8>, Vec<usize>),
}

/// The ranks of a run, as one of them sees them.
pub struct Communicator {
    rank: usize,
    size: usize,
    /// How long an answer may take.
    patience: Duration,
    jobs: Option<Sender<Job>>,
    done: Receiver<Told<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Communicator {
    /// The ranks of one process, each to be used by a thread of its own: for tests, and to try out.
    ///
    /// # Panics
    /// If `size` is 0.
    #[must_use]
    pub fn in_process(size: usize, patience: Duration) -> Vec<Communicator> {
        assert!(size > 0, "a communicator has at least one rank");
        let mut links: Vec<Channels> =
            (0..size).map(|rank| Channels { rank, to: Vec::new(), from: Vec::new() }).collect();
        for from in 0..size {
            for to in 0..size {
                let (sender, receiver) = mpsc::channel();
                links[from].to.push(sender);
                links[to].from.push(receiver);
            }
        }
        let start = |link: Channels| Communicator::start(patience, (link.rank, size), || Ok(link));
        // A thread whose link is at hand does not fail to start.
        links.into_iter().filter_map(|link| start(link).ok()).collect()
    }

    /// A rank whose link is made, used and dropped by the thread that talks. As long as there is no
    /// link the launcher tells which of how many ranks this is.
    fn start<L: Link>(
        patience: Duration,
        (rank, size): (usize, usize),
        connect: impl FnOnce() -> Told<L> + Send + 'static,
    ) -> Result<Communicator> {
        let (jobs, to_do) = mpsc::channel();
        let (answer, done) = mpsc::channel();
        let (introduce, introduced) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut link = match connect() {
                Ok(link) => link,
                Err(message) => {
                    let _ = introduce.send(Err(message));
                    return;
                }
            };
            // Nobody is left to tell when the communicator has been dropped meanwhile.
            let _ = introduce.send(Ok(link.place()));
            let mut scratch = Vec::new();
            for job in to_do {
                let outcome = match job {
                    Job::Sum(mut values) => {
                        link.sum(&mut values, &mut scratch).map(|()| Job::Sum(values))
                    }
                    Job::Gather(mine, lengths) => {
                        link.gather(&mine, &lengths).map(|all| Job::Gather(all, lengths))
                    }
                };
                if answer.send(outcome).is_err() {
                    break;
                }
            }
        });
        let lost = |e: RecvTimeoutError| Error::Lost {
            rank,
            size,
            message: format!("no connection to the other ranks after {patience:?}: {e}"),
        };
        let (rank, size) =
            introduced.recv_timeout(patience).map_err(lost)?.map_err(Error::Usage)?;
        Ok(Communicator { rank, size, patience, jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// This rank, from 0. Rank 0 reads and writes the run folder.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Begins the sum of `values` over the ranks.
    pub(crate) fn start_sum(&mut self, values: Buffer) {
        self.ask(Job::Sum(values));
    }

    /// The oldest sum that was begun.
    pub(crate) fn finish_sum(&mut self) -> Result<Buffer> {
        match self.answer()? {
            Job::Sum(values) => Ok(values),
            Job::Gather(..) => Err(Error::Internal("a gather was answered to a sum".into())),
        }
    }

    /// Begins to gather `lengths` bytes of each rank, of which `mine` are this one's.
    pub(crate) fn start_gather(&mut self, mine: Vec<u8>, lengths: Vec<usize>) {
        self.ask(Job::Gather(mine, lengths));
    }

    /// What was gathered by the oldest gather that was begun.
    pub(crate) fn finish_gather(&mut self) -> Result<Vec<u8>> {
        match self.answer()? {
            Job::Gather(all, _) => Ok(all),
            Job::Sum(_) => Err(Error::Internal("a sum was answered to a gather".into())),
        }
    }

    pub(crate) fn gather(&mut self, mine: Vec<u8>, lengths: Vec<usize>) -> Result<Vec<u8>> {
        self.start_gather(mine, lengths);
        self.finish_gather()
    }

    /// Gives all ranks the bytes of rank 0.
    pub(crate) fn broadcast(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mine = if self.rank == 0 { bytes.to_vec() } else { Vec::new() };
        let lengths = (0..self.size).map(|rank| if rank == 0 { bytes.len() } else { 0 });
        bytes.copy_from_slice(&self.gather(mine, lengths.collect())?);
        Ok(())
    }

    /// Makes sure that all ranks have the same `text` for `what`: the data, the configuration.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first rank that has another; [`Error::Lost`].
    pub fn agree(&mut self, what: &str, text: &str) -> Result<()> {
        if !self.size.is_power_of_two() {
            return Err(Error::Usage(format!(
                "ranks of the job: found {}, expected a power of two: they work on one model",
                self.size
            )));
        }
        let mine = sha256_of([text]).into_bytes();
        let lengths = vec![mine.len(); self.size];
        let all = self.gather(mine.clone(), lengths)?;
        let digests: Vec<&[u8]> = all.chunks_exact(mine.len()).collect();
        match digests.iter().position(|digest| *digest != digests[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::Usage(format!(
                "{what}: found another on rank {rank} than on rank 0, expected the same on all {}",
                self.size
            ))),
        }
    }

    fn ask(&mut self, job: Job) {
        // That the thread has ended is found when its answer is awaited.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    fn answer(&mut self) -> Result<Job> {
        let lost = |message| Error::Lost { rank: self.rank, size: self.size, message };
        match self.done.recv_timeout(self.patience) {
            Ok(outcome) => outcome.map_err(lost),
            Err(RecvTimeoutError::Timeout) => Err(lost(format!(
                "no answer from the other ranks for {} s",
                self.patience.as_secs_f64()
            ))),
            Err(RecvTimeoutError::Disconnected) => {
                Err(lost("the thread that talks to the other ranks has ended".into()))
            }
        }
    }
}

/// Waits for what was begun: a rank that left earlier would leave the others waiting.
impl Drop for Communicator {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported when its answer was awaited.
            let _ = thread.join();
        }
    }
}

/// Ranks of one process.
struct Channels {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

impl Link for Channels {
    fn place(&self) -> (usize, usize) {
        (self.rank, self.to.len())
    }

    fn exchange(&mut self, peer: usize, send: &[u8], receive: &mut [u8]) -> Told<()> {
        let gone = || format!("rank {peer} has ended");
        self.to[peer].send(send.to_vec()).map_err(|_| gone())?;
        receive.copy_from_slice(&self.from[peer].recv().map_err(|_| gone())?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `work` returns on each rank, in their order.
    fn on_each<R: Send>(size: usize, work: impl Fn(&mut Communicator) -> R + Sync) -> Vec<R> {
        let mut communicators = Communicator::in_process(size, Duration::from_secs(20));
        thread::scope(|scope| {
            let ranks: Vec<_> =
                communicators.iter_mut().map(|rank| scope.spawn(|| work(rank))).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    /// Values whose sum depends on the order: of very different sizes and signs.
    fn value(rank: usize, i: usize) -> f32 {
        let x = (rank * 7919 + i * 104_729 + 13) % 1009;
        (x as f32 - 500.0) * 10f32.powi((x % 13) as i32 - 6)
    }

    fn tree(values: &[f32]) -> f32 {
        match values {
            [one] => *one,
            _ => {
                let (low, high) = values.split_at(values.len() / 2);
                tree(low) + tree(high)
            }
        }
    }

    #[test]
    fn all_ranks_get_the_sum_of_the_tree() {
        let mut order_matters = false;
        for size in [1, 2, 4, 8] {
            for len in [0, 1, 3, 16, 1000] {
                let sums = on_each(size, |communicator| {
                    let mut values = Buffer::zeroed(len);
                    let rank = communicator.rank();
                    values.iter_mut().enumerate().for_each(|(i, v)| *v = value(rank, i));
                    communicator.start_sum(values);
                    communicator.finish_sum().unwrap().to_vec()
                });
                for i in 0..len {
                    let values: Vec<f32> = (0..size).map(|rank| value(rank, i)).collect();
                    let in_order = values.iter().sum::<f32>();
                    order_matters |= in_order.to_bits() != tree(&values).to_bits();
                    for sum in &sums {
                        assert_eq!(sum[i].to_bits(), tree(&values).to_bits(), "{size} {len} {i}");
                    }
                }
            }
        }
        assert!(order_matters, "these values have the same sum in any order");
    }

    #[test]
    fn all_ranks_get_what_each_has() {
        for size in [1, 2, 4, 8] {
            let lengths: Vec<usize> = (0..size).map(|rank| 3 * rank % 5).collect();
            let expected: Vec<u8> =
                (0..size).flat_map(|rank| vec![rank as u8; lengths[rank]]).collect();
            let found = on_each(size, |communicator| {
                let rank = communicator.rank();
                communicator.gather(vec![rank as u8; lengths[rank]], lengths.clone()).unwrap()
            });
            assert_eq!(found, vec![expected; size]);
            let found = on_each(size, |communicator| {
                let mut values = [communicator.rank() as f32 + 0.5; 3];
                communicator.broadcast(bytemuck::cast_slice_mut(&mut values)).unwrap();
                values
            });
            assert_eq!(found, vec![[0.5; 3]; size]);
        }
    }

    #[test]
    fn a_rank_that_is_gone_or_silent_is_noticed() {
        let mut communicators = Communicator::in_process(2, Duration::from_millis(100));
        let silent = communicators.pop();
        let mut communicator = communicators.remove(0);
        communicator.start_gather(vec![1], vec![1, 1]);
        let error = communicator.finish_gather().unwrap_err();
        assert_eq!(error.exit_code(), 74);
        assert!(error.to_string().contains("rank 0 of 2: no answer"), "{error}");
        drop(silent);
        // The exchange that hung now fails, as every later one.
        let error = communicator.finish_gather().unwrap_err();
        assert!(error.to_string().contains("rank 1 has ended"), "{error}");
    }
}
