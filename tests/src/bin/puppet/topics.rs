//! Topics, which share one outbox.

use std::error::Error;
use std::ops::RangeInclusive;

use librpc::{Outbox, Topic};
use librpc_system_tests::command::{Published, TopicsCommand};

use crate::sender::account;
use crate::{Outcome, Puppet, answer, done};

impl Puppet {
    pub(crate) fn obey_about_topics(&mut self, command: TopicsCommand) -> Outcome {
        match command {
            TopicsCommand::SetLimit(limit) => {
                self.publish_limit = limit;
                done()
            }
            TopicsCommand::SetRedelivery(limit) => {
                self.outbox()?.set_redelivery(Some(limit));
                done()
            }
            TopicsCommand::Publish { topic, text } => self.publish(&topic, &text),
            TopicsCommand::PublishNumbers { topic, numbers, bytes } => self.publish_numbers(&topic, numbers, bytes),
            TopicsCommand::Loan { topic, bytes } => {
                let (outbox, topic) = self.topic(&topic)?;
                drop(outbox.loan_uninit(topic, bytes)?);
                done()
            }
            TopicsCommand::Subscribers { topic } => {
                let (outbox, topic) = self.topic(&topic)?;
                answer(outbox.subscribers(topic)?)
            }
            TopicsCommand::Flush { limit } => answer(self.outbox()?.flush(limit)?),
            TopicsCommand::Account => answer(account(self.outbox()?.total())),
        }
    }

    fn outbox(&mut self) -> Result<&mut Outbox, &'static str> {
        if self.outbox.is_none() {
            self.outbox = Some(self.node()?.outbox());
        }
        self.outbox.as_mut().ok_or("there is no outbox")
    }

    fn topic(&mut self, name: &str) -> Result<(&mut Outbox, Topic), Box<dyn Error>> {
        let outbox = self.outbox()?;
        let topic = outbox.topic(name)?;
        Ok((outbox, topic))
    }

    fn publish(&mut self, topic: &str, text: &str) -> Outcome {
        let limit = self.publish_limit;
        let (outbox, topic) = self.topic(topic)?;
        let receipt = outbox.publish_timeout(topic, text.as_bytes(), limit)?;
        let undelivered = receipt.undelivered().iter().map(ToString::to_string).collect();
        answer(Published { inboxes: receipt.inboxes(), pending: receipt.pending(), undelivered })
    }

    fn publish_numbers(&mut self, topic: &str, numbers: RangeInclusive<u64>, bytes: usize) -> Outcome {
        let limit = self.publish_limit;
        let (outbox, topic) = self.topic(topic)?;
        let (mut delivered, mut undelivered) = (0, 0);
        for number in numbers {
            let number = number.to_string();
            let zeros = bytes.saturating_sub(number.len());
            let receipt = outbox.publish_timeout(topic, &[&vec![b'0'; zeros], number.as_bytes()].concat(), limit)?;
            delivered += receipt.inboxes();
            undelivered += receipt.undelivered().len();
        }
        answer((delivered, undelivered))
    }
}
