//! A process that does what a test tells it, line by line: each command on stdin is answered by one line on stdout.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use librpc::{
    Acknowledge, Admission, Domain, Event, Inbox, Limits, Node, Outbox, Policy, Receipt, Sender, Subscriber, Topic,
    Wait,
};

type Outcome = Result<String, Box<dyn std::error::Error>>;

/// Everything that a puppet holds.
#[derive(Default)]
struct Puppet {
    // Dropped in this order.
    senders: HashMap<String, Sender>,
    /// All topics of this puppet share one outbox.
    outbox: Option<Outbox>,
    limit: Option<Duration>,
    inbox: Option<Inbox>,
    subscribers: HashMap<String, Subscriber>,
    node: Option<Node>,
}

fn main() {
    let mut puppet = Puppet::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("stdin is text");
        let words: Vec<&str> = line.split(' ').collect();
        let answer = puppet.obey(&words).unwrap_or_else(|error| format!("error: {error}"));
        println!("{answer}");
        std::io::stdout().flush().expect("stdout is read");
    }
}

impl Puppet {
    fn node(&self) -> Result<&Node, &'static str> {
        self.node.as_ref().ok_or("no node is open")
    }

    fn inbox(&mut self) -> Result<&mut Inbox, &'static str> {
        self.inbox.as_mut().ok_or("no inbox is open")
    }

    fn sender(&mut self, to: &str) -> Result<&mut Sender, &'static str> {
        self.senders.get_mut(to).ok_or("no such sender")
    }

    fn topic(&mut self, name: &str) -> Result<(&mut Outbox, Topic), Box<dyn std::error::Error>> {
        if self.outbox.is_none() {
            self.outbox = Some(self.node()?.outbox());
        }
        let outbox = self.outbox.as_mut().ok_or("no outbox")?;
        let topic = outbox.topic(name)?;
        Ok((outbox, topic))
    }

    fn subscriber(&mut self, name: &str) -> Result<&mut Subscriber, &'static str> {
        self.subscribers.get_mut(name).ok_or("no such subscriber")
    }

    /// What has to do with topics; `None`: nothing.
    fn obey_about_topics(&mut self, words: &[&str]) -> Option<Outcome> {
        Some(match words {
            ["subscribe", name, patterns, options @ ..] => self.subscribe(name, patterns, options),
            ["unsubscribe", name] => {
                self.subscribers.remove(*name);
                Ok("ok".into())
            }
            ["redeliver-topics", ms] => ms.parse().map_err(Into::into).and_then(|ms| {
                self.topic("a")?.0.set_redelivery(Some(Duration::from_millis(ms)));
                Ok("ok".into())
            }),
            ["limit-publish", ms] => ms.parse().map_err(Into::into).map(|ms| {
                self.limit = Some(Duration::from_millis(ms));
                "ok".into()
            }),
            ["publish", topic, text] => self.publish(topic, text),
            // Publishes the numbers from `first` to `last`; answers how often one got into an inbox, and how often not.
            ["publish-count", topic, first, last] => self.publish_count(topic, first, last),
            ["subscribers", topic] => self
                .topic(topic)
                .and_then(|(outbox, topic)| Ok(outbox.subscribers(topic)?))
                .map(|subscribers| subscribers.to_string()),
            ["flush-topics", ms] => {
                let outbox = self.outbox.as_mut().expect("something was published");
                ms.parse().map_err(Into::into).and_then(|ms| {
                    outbox.flush(Duration::from_millis(ms))?;
                    Ok("ok".into())
                })
            }
            ["account"] => {
                let account = self.outbox.as_mut().expect("something was published").total();
                let librpc::Account { sent, processed, queued, dropped, returned, .. } = account;
                Ok(format!(
                    "{sent} sent, {processed} processed, {queued} queued, {dropped} dropped, {returned} returned"
                ))
            }
            ["hear", name] => self.hear(name),
            // Receives `n` messages and nothing more; answers how many of each sender and topic.
            ["collect", name, count] => self.collect(name, count),
            // Receives until the message that says so; answers how many it has received and missed.
            ["hear-until", name, last] => self.hear_until(name, last),
            _ => return None,
        })
    }

    fn subscribe(&mut self, name: &str, patterns: &str, options: &[&str]) -> Outcome {
        let mut builder = self.node()?.subscriber_builder(patterns.split(','));
        for option in options {
            builder = match option.split_once('=') {
                Some(("capacity", bytes)) => builder.capacity(bytes.parse()?),
                Some(("durable", name)) => builder.durable(name),
                _ if *option == "own" => builder.own(true),
                _ if *option == "drop-newest" => builder.policy(Policy::DropNewest),
                _ if *option == "latest" => builder.policy(Policy::Latest),
                _ => return Err(format!("option {option}").into()),
            };
        }
        let subscriber = builder.open()?;
        self.subscribers.insert(name.to_owned(), subscriber);
        Ok("ok".into())
    }

    fn publish(&mut self, topic: &str, text: &str) -> Outcome {
        let limit = self.limit.unwrap_or(librpc::DEFAULT_SEND_LIMIT);
        let (outbox, topic) = self.topic(topic)?;
        let receipt = outbox.publish_timeout(topic, text.as_bytes(), limit)?;
        let mut answer = receipt.inboxes().to_string();
        if receipt.pending() > 0 {
            answer += &format!(", {} pending", receipt.pending());
        }
        for error in receipt.undelivered() {
            answer += &format!("; {error}");
        }
        Ok(answer)
    }

    fn publish_count(&mut self, topic: &str, first: &str, last: &str) -> Outcome {
        let limit = self.limit.unwrap_or(librpc::DEFAULT_SEND_LIMIT);
        let (outbox, topic) = self.topic(topic)?;
        let (mut delivered, mut undelivered) = (0, 0);
        for number in first.parse::<u64>()?..=last.parse()? {
            let receipt: Receipt<'_> = outbox.publish_timeout(topic, number.to_string().as_bytes(), limit)?;
            delivered += receipt.inboxes();
            undelivered += receipt.undelivered().len();
        }
        Ok(format!("{delivered} {undelivered}"))
    }

    fn hear(&mut self, name: &str) -> Outcome {
        Ok(match self.subscriber(name)?.recv_timeout(Duration::from_secs(30))? {
            Some(message) => {
                let (topic, payload) = (message.topic(), String::from_utf8_lossy(message.payload()));
                let mark = if message.is_redelivered() { "!" } else { "" };
                format!("{} {topic} {payload} {}{mark}", message.from(), message.missed())
            }
            None => "nothing".into(),
        })
    }

    fn collect(&mut self, name: &str, count: &str) -> Outcome {
        let subscriber = self.subscriber(name)?;
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for number in 0..count.parse::<u64>()? {
            let message = subscriber.recv_timeout(Duration::from_secs(30))?;
            let message = message.ok_or_else(|| format!("only {number} messages: {counts:?}"))?;
            *counts.entry(format!("{}:{}", message.from(), message.topic())).or_default() += 1;
        }
        if let Some(message) = subscriber.try_recv()? {
            return Err(format!("one message too many: {message:?}").into());
        }
        let counts = counts.into_iter().map(|(topic, count)| format!("{topic}={count}"));
        Ok(counts.collect::<Vec<_>>().join(","))
    }

    fn hear_until(&mut self, name: &str, last: &str) -> Outcome {
        let subscriber = self.subscriber(name)?;
        let (mut received, mut missed, mut before) = (0u64, 0u64, 0u64);
        loop {
            let message = subscriber.recv_timeout(Duration::from_secs(30))?.ok_or("nothing comes")?;
            let number: u64 = std::str::from_utf8(message.payload())?.parse()?;
            if number != before + message.missed() + 1 {
                return Err(format!("{number} behind {before}, with {} missed", message.missed()).into());
            }
            (before, received, missed) = (number, received + 1, missed + message.missed());
            if message.payload() == last.as_bytes() {
                return Ok(format!("{received} {missed}"));
            }
        }
    }

    fn obey(&mut self, words: &[&str]) -> Outcome {
        if let Some(outcome) = self.obey_about_topics(words) {
            return outcome;
        }
        let ok = || Ok("ok".to_owned());
        match words {
            ["open", id, domain, options @ ..] => {
                let mut domain = Domain::at(domain);
                let mut admission = Admission::same_user();
                let mut limits = Limits::default();
                for option in options {
                    match option.split_once('=') {
                        Some(("group", gid)) => domain = domain.shared_with_group(gid.parse()?),
                        Some(("uid", uid)) => admission = admission.uid(uid.parse()?),
                        Some(("gid", gid)) => admission = admission.gid(gid.parse()?),
                        Some(("exe", path)) => admission = admission.executable(path),
                        Some(("only", name)) => {
                            let name = name.to_owned();
                            admission = Admission::nobody().function(move |peer| *peer.node == *name);
                        }
                        // Is asked about whoever connects, and never answers.
                        None if *option == "undecided" => {
                            admission = Admission::nobody().function(|_| {
                                loop {
                                    std::thread::park();
                                }
                            });
                        }
                        Some(("channels", most)) => limits.channels_per_user = most.parse()?,
                        Some(("patience", ms)) => limits.handshake_time = Duration::from_millis(ms.parse()?),
                        _ => return Err(format!("option {option}").into()),
                    }
                }
                self.node = Some(Node::builder(id).domain(domain).admit(admission).limits(limits).open()?);
                ok()
            }
            ["inbox", options @ ..] => {
                let mut builder = self.node()?.inbox_builder();
                for option in options {
                    builder = match option.split_once('=') {
                        Some(("capacity", bytes)) => builder.capacity(bytes.parse()?),
                        _ if *option == "drop-newest" => builder.policy(Policy::DropNewest),
                        _ if *option == "explicit" => builder.acknowledge(Acknowledge::Explicit),
                        _ if *option == "block" => builder.wait(Wait::Block),
                        _ => return Err(format!("option {option}").into()),
                    };
                }
                let inbox = builder.open()?;
                self.inbox = Some(inbox);
                ok()
            }
            ["sender", to] => {
                let sender = self.node()?.sender(to)?;
                self.senders.insert((*to).to_owned(), sender);
                ok()
            }
            ["try-sender", to] => {
                let sender = self.node()?.try_sender(to)?;
                self.senders.insert((*to).to_owned(), sender);
                ok()
            }
            ["sender", to, ms] => {
                let sender = self.node()?.sender_within(to, Duration::from_millis(ms.parse()?))?;
                self.senders.insert((*to).to_owned(), sender);
                ok()
            }
            ["redeliver", to, ms] => {
                let limit = Duration::from_millis(ms.parse()?);
                self.sender(to)?.set_redelivery(Some(limit));
                ok()
            }
            ["account", to] => {
                let librpc::Account { sent, processed, queued, dropped, returned, .. } = self.sender(to)?.account();
                Ok(format!("{sent} {processed} {queued} {dropped} {returned}"))
            }
            ["take-returned", to] => {
                let returned = self.sender(to)?.take_returned()?;
                let text = |returned: &librpc::Returned| {
                    let payload = String::from_utf8_lossy(&returned.payload).into_owned();
                    format!("{}:{payload}{}", returned.sequence, if returned.was_in_work { "!" } else { "" })
                };
                Ok(returned.iter().map(text).collect::<Vec<_>>().join(","))
            }
            // The next message with its number; one that is delivered again is marked.
            ["hear-numbered"] => Ok(match self.inbox()?.recv_timeout(Duration::from_secs(30))? {
                Some(message) => {
                    let payload = String::from_utf8_lossy(message.payload()).into_owned();
                    format!("{}:{payload}{}", message.sequence(), if message.is_redelivered() { "!" } else { "" })
                }
                None => "nothing".into(),
            }),
            ["limit", to, ms] => {
                let limit = Duration::from_millis(ms.parse()?);
                self.sender(to)?.set_limit(limit);
                ok()
            }
            ["send", to, text] => {
                self.sender(to)?.send(text.as_bytes())?;
                ok()
            }
            // Sends the numbers from `first` to `last`.
            ["count", to, first, last] => {
                let sender = self.sender(to)?;
                for number in first.parse::<u64>()?..=last.parse()? {
                    sender.send(number.to_string().as_bytes())?;
                }
                ok()
            }
            ["fill", to, bytes] => {
                let payload = vec![b'x'; bytes.parse()?];
                let mut sent = 0;
                while self.sender(to)?.try_send(&payload).is_ok() {
                    sent += 1;
                }
                Ok(sent.to_string())
            }
            ["flush", to, ms] => {
                let limit = Duration::from_millis(ms.parse()?);
                self.sender(to)?.flush(limit)?;
                ok()
            }
            ["progress", to] => {
                let sender = self.sender(to)?;
                Ok(format!("{} {}", sender.sent(), sender.acknowledged()))
            }
            ["drop-sender", to] => {
                self.senders.remove(*to);
                ok()
            }
            ["drop-inbox"] => {
                self.inbox = None;
                ok()
            }
            ["recv"] => Ok(match self.inbox()?.recv_timeout(Duration::from_secs(30))? {
                Some(message) => String::from_utf8_lossy(message.payload()).into_owned(),
                None => "nothing".into(),
            }),
            ["try-recv"] => Ok(match self.inbox()?.try_recv()? {
                Some(message) => String::from_utf8_lossy(message.payload()).into_owned(),
                None => "nothing".into(),
            }),
            // Receives `n` messages, which must be the numbers from `first` on.
            ["expect", first, last] => {
                for number in first.parse::<u64>()?..=last.parse()? {
                    let message = self.inbox()?.recv_timeout(Duration::from_secs(30))?.ok_or("nothing comes")?;
                    if message.payload() != number.to_string().as_bytes() {
                        let got = String::from_utf8_lossy(message.payload()).into_owned();
                        return Err(format!("{got} instead of {number}").into());
                    }
                }
                ok()
            }
            ["ack"] => {
                self.inbox()?.ack();
                ok()
            }
            ["event"] => Ok(match self.inbox()?.recv_event_timeout(Duration::from_secs(30))? {
                None => "nothing".into(),
                Some(Event::Message(message)) => {
                    format!("message {} {}", message.from(), String::from_utf8_lossy(message.payload()))
                }
                Some(Event::SenderJoined(peer)) => format!("joined {}", peer.node),
                Some(Event::SenderLeft(peer, departure)) => format!("left {} {departure:?}", peer.node),
                Some(other) => format!("{other:?}"),
            }),
            // Keeps receiving until the process is told nothing more: the count on stdin's end is of no use then.
            ["drain", count] => {
                for _ in 0..count.parse::<u64>()? {
                    self.inbox()?.recv()?.ok_or("stopped")?;
                }
                ok()
            }
            ["descriptors"] => Ok(std::fs::read_dir("/proc/self/fd")?.count().to_string()),
            ["limit-descriptors", more] => {
                use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
                let used = std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1;
                let limit = used + more.parse::<u64>()?;
                let maximum = getrlimit(Resource::Nofile).maximum;
                setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum })?;
                ok()
            }
            ["free-descriptors"] => {
                use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
                let maximum = getrlimit(Resource::Nofile).maximum;
                setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum })?;
                ok()
            }
            ["sleep-count"] => {
                let mut switches = 0;
                for task in std::fs::read_dir("/proc/self/task")? {
                    let status = std::fs::read_to_string(task?.path().join("status"))?;
                    for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
                        switches += line.split_whitespace().last().ok_or("no number")?.parse::<u64>()?;
                    }
                }
                Ok(switches.to_string())
            }
            ["close", ms] => {
                let limit = Duration::from_millis(ms.parse()?);
                self.senders.clear();
                self.outbox = None;
                self.inbox = None;
                self.subscribers.clear();
                self.node.take().ok_or("no node is open")?.close(limit)?;
                ok()
            }
            ["close-under", ms] => {
                let limit = Duration::from_millis(ms.parse()?);
                self.node.take().ok_or("no node is open")?.close(limit)?;
                ok()
            }
            ["leave"] => {
                self.senders.clear();
                self.outbox = None;
                self.inbox = None;
                self.subscribers.clear();
                self.node = None;
                ok()
            }
            // Opens and closes nodes of a domain as fast as it can.
            ["churn", id, domain, rounds] => {
                for _ in 0..rounds.parse::<u64>()? {
                    Node::builder(id).domain(Domain::at(domain)).open()?;
                }
                ok()
            }
            // Forks; the child tries everything that it has inherited, then the parent's death is up to the test.
            ["fork", to] => self.fork(to),
            _ => Err(format!("unknown command {words:?}").into()),
        }
    }

    #[allow(unsafe_code)]
    fn fork(&mut self, to: &str) -> Outcome {
        let (reader, writer) = std::io::pipe()?;
        // SAFETY: this process runs one thread beside the library's; the child only uses what it owns, and ends with
        // `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let mut writer = writer;
            let sent = self.sender(to).map(|sender| sender.send(b"from the child").map_err(|error| error.to_string()));
            let received = self.inbox().map(|inbox| match inbox.try_recv() {
                Ok(_) => "received".to_owned(),
                Err(error) => error.to_string(),
            });
            // Dropping what it has inherited undoes nothing of the parent's.
            self.senders.clear();
            self.inbox = None;
            self.node = None;
            let _ = writeln!(writer, "{sent:?} {received:?}");
            drop(writer);
            // Outlives its parent, so that a test sees the parent's death although a copy of the process goes on.
            // SAFETY: waits for the signal that ends it: the test's, or in the end the alarm clock's.
            unsafe {
                libc::alarm(60);
                libc::pause();
            }
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(0) };
        }
        drop(writer);
        let mut line = String::new();
        std::io::BufReader::new(reader).read_line(&mut line)?;
        Ok(format!("{pid} {}", line.trim()))
    }
}
