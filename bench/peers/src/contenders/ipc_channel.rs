//! ipc-channel: two channels of bytes, which need no serialisation. B receives its ends of both through a one-shot
//! server.

use ipc_channel::IpcError;
use ipc_channel::TryRecvError;
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};

use crate::contender::{Contender, Job, Side, eventually};
use crate::payload;

pub(crate) struct IpcChannel {
    to: IpcBytesSender,
    from: IpcBytesReceiver,
    polls: bool,
    message: Vec<u8>,
}

impl Contender for IpcChannel {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let path = job.place.join("server");
        let (to, from) = match job.side {
            Side::B => {
                let (server, name) = IpcOneShotServer::<(IpcBytesSender, IpcBytesReceiver)>::new()?;
                let unfinished = path.with_extension("new");
                std::fs::write(&unfinished, name)?;
                std::fs::rename(unfinished, path)?;
                server.accept()?.1
            }
            Side::A => {
                let name = eventually("B does not serve", || std::fs::read_to_string(&path))?;
                let (to_b, at_b) = ipc::bytes_channel()?;
                let (to_a, at_a) = ipc::bytes_channel()?;
                IpcSender::connect(name)?.send((to_a, at_b))?;
                (to_b, at_a)
            }
        };
        Ok(Self { to, from, polls: !job.sleeps(), message: vec![0; job.bytes] })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        payload::write(number, &mut self.message);
        Ok(self.to.send(&self.message)?)
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        let received = if self.polls { self.from.try_recv() } else { self.from.recv().map_err(TryRecvError::IpcError) };
        match received {
            Ok(message) => take(&message),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::IpcError(error @ IpcError::Disconnected)) => return Err(error.into()),
            Err(error) => anyhow::bail!("ipc-channel cannot receive: {error:?}"),
        }
        Ok(())
    }
}
