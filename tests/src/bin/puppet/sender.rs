//! Senders to nodes.

use librpc::Sender;
use librpc_system_tests::command::{Account, SenderCommand};

use crate::{Outcome, Puppet, answer, done, text};

impl Puppet {
    pub(crate) fn obey_about_sender(&mut self, to: String, command: SenderCommand) -> Outcome {
        let made = match command {
            SenderCommand::Connect { limit: None } => self.node()?.connect(&to)?,
            SenderCommand::Connect { limit: Some(limit) } => self.node()?.connect_timeout(&to, limit)?,
            SenderCommand::TryConnect => self.node()?.try_connect(&to)?,
            SenderCommand::Drop => {
                self.senders.remove(&to);
                return done();
            }
            _ => return use_sender(self.sender(&to)?, command),
        };
        self.senders.insert(to, made);
        done()
    }

    pub(crate) fn sender(&mut self, to: &str) -> Result<&mut Sender, &'static str> {
        self.senders.get_mut(to).ok_or("there is no such sender")
    }
}

fn use_sender(sender: &mut Sender, command: SenderCommand) -> Outcome {
    match command {
        SenderCommand::Connect { .. } | SenderCommand::TryConnect | SenderCommand::Drop => unreachable!("done above"),
        SenderCommand::SetLimit(limit) => {
            sender.set_timeout(limit);
            done()
        }
        SenderCommand::SetRedelivery(limit) => {
            sender.set_redelivery(Some(limit));
            done()
        }
        SenderCommand::Send { text } => answer(sender.send(text.as_bytes())?),
        SenderCommand::SendNumbers(mut numbers) => {
            answer(numbers.try_for_each(|number| sender.send(number.to_string().as_bytes()))?)
        }
        SenderCommand::Fill { bytes } => {
            let payload = vec![b'x'; bytes];
            answer(std::iter::repeat_with(|| sender.try_send(&payload)).take_while(Result::is_ok).count())
        }
        SenderCommand::Flush { limit } => answer(sender.flush(limit)?),
        SenderCommand::Progress => answer((sender.sent(), sender.acknowledged())),
        SenderCommand::Account => answer(account(sender.account())),
        SenderCommand::TakeReturned => {
            let numbered = |returned: librpc::Returned| {
                let mark = if returned.was_in_work { "!" } else { "" };
                format!("{}:{}{mark}", returned.sequence, text(&returned.payload))
            };
            answer(sender.take_returned()?.into_iter().map(numbered).collect::<Vec<_>>())
        }
    }
}

pub(crate) fn account(account: librpc::Account) -> Account {
    let librpc::Account { sent, processed, queued, dropped, returned, .. } = account;
    Account { sent, processed, queued, dropped, returned }
}
