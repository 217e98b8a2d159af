//! The ranks of an MPI job (MPI 3.1, sections 3 and 5) as a [`Communicator`].

use super::{Communicator, Link, Told};
use crate::files::error::Result;
use ::mpi::Threading;
use ::mpi::collective::SystemOperation;
use ::mpi::environment::Universe;
use ::mpi::point_to_point::send_receive_into;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator as _, CommunicatorCollectives};
use std::time::Duration;

/// The job that this process was started in, if any.
///
/// `patience` is how long an answer may take before the run ends; with `any_order` sums are
/// MPI_Allreduce's: faster on some networks, and of bits that depend on the number of ranks.
///
/// # Errors
/// [`crate::Error::Usage`] where MPI cannot be used from a thread; [`crate::Error::Lost`] where the
/// other ranks do not come.
pub fn join(patience: Duration, any_order: bool) -> Result<Option<Communicator>> {
    let Some(place) = super::place_in_the_job() else { return Ok(None) };
    Communicator::start(patience, place, move || {
        // Funneled: the thread that initialises MPI is the only one to call it.
        let found = ::mpi::initialize_with_threading(Threading::Funneled);
        let (universe, threading) = found.ok_or("MPI is initialised already")?;
        if threading < Threading::Funneled {
            return Err(format!("MPI: found thread support {threading:?}, expected Funneled"));
        }
        let world = universe.world();
        Ok(World { world, any_order, _universe: universe })
    })
    .map(Some)
}

/// All ranks of the job; the end of the value is MPI's.
struct World {
    world: SimpleCommunicator,
    any_order: bool,
    _universe: Universe,
}

/// MPI counts in 32 bits.
const MESSAGE: usize = 1 << 30;

impl Link for World {
    fn place(&self) -> (usize, usize) {
        (self.world.rank() as usize, self.world.size() as usize)
    }

    fn exchange(&mut self, peer: usize, send: &[u8], receive: &mut [u8]) -> Told<()> {
        let peer = self.world.process_at_rank(peer as i32);
        let mut send = send.chunks(MESSAGE);
        let mut receive = receive.chunks_mut(MESSAGE);
        loop {
            let (send, receive) = match (send.next(), receive.next()) {
                (None, None) => return Ok(()),
                (send, receive) => (send.unwrap_or(&[]), receive.unwrap_or(&mut [])),
            };
            send_receive_into(send, &peer, receive, &peer);
        }
    }

    fn sum(&mut self, values: &mut [f32], scratch: &mut Vec<f32>) -> Told<()> {
        if !self.any_order {
            return super::tree_sum(self, values, scratch);
        }
        scratch.clear();
        scratch.extend_from_slice(values);
        let parts = scratch.chunks(MESSAGE).zip(values.chunks_mut(MESSAGE));
        for (scratch, values) in parts {
            self.world.all_reduce_into(scratch, values, SystemOperation::sum());
        }
        Ok(())
    }
}
