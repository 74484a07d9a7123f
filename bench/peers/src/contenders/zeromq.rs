//! ZeroMQ, libzmq built from source: a pair of sockets over `ipc://`.
//!
//! Its I/O thread needs a core as much as the receiver does, so the receiver blocks instead of polling. The high-water
//! marks, at which a sender waits, are raised to 10,000 messages. A message is written in place and not copied.

use anyhow::Context as _;
use zmq::{Context, Message, PAIR, Socket};

use crate::contender::{Contender, Job, Side};
use crate::payload;

const HIGH_WATER_MARK: i32 = 10_000;

pub(crate) struct ZeroMq {
    socket: Socket,
    bytes: usize,
    incoming: Message,
    _context: Context,
}

impl Contender for ZeroMq {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let context = Context::new();
        let socket = context.socket(PAIR)?;
        socket.set_sndhwm(HIGH_WATER_MARK)?;
        socket.set_rcvhwm(HIGH_WATER_MARK)?;
        socket.set_rcvtimeo(1000)?;
        socket.set_linger(5000)?;
        let address = format!("ipc://{}", job.place.join("zmq").display());
        match job.side {
            Side::B => socket.bind(&address),
            Side::A => socket.connect(&address), // it tries again by itself
        }
        .with_context(|| address)?;
        Ok(Self { socket, bytes: job.bytes, incoming: Message::new(), _context: context })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let mut message = Message::with_size(self.bytes);
        payload::write(number, &mut message);
        Ok(self.socket.send(message, 0)?)
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        match self.socket.recv(&mut self.incoming, 0) {
            Ok(()) => take(&self.incoming),
            Err(zmq::Error::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
