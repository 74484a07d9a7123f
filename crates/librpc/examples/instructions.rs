//! A fixed number of 64-byte messages from one node to another, on one thread: `bench/instructions` has callgrind count
//! what a send, a publish and a receive take, and each step of a call.
//!
//! A few are sent, then these are received, so that the ring stays in one place and nobody waits. Calls are made one at a time.

use std::error::Error;
use std::hint::black_box;

use std::time::Duration;

use librpc::{
    Client, Domain, Inbox, Node, Pending, Plain, Publisher, Request, Sender, Server, TypedInbox, TypedPublisher, Wait,
};

const BATCH: u64 = 8;
const PAYLOAD_BYTES: usize = 64;

type Value = [u8; PAYLOAD_BYTES];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [domain, path, batches] = &arguments[..] else {
        return Err("DOMAIN send|publish|publish-kept|publish-asked|publish-values|call BATCHES".into());
    };
    let batches: u64 = batches.parse()?;
    let open = |id| Node::builder(id).domain(Domain::at(domain)).open();
    let (here, there) = (open("here")?, open("there")?);
    match &**path {
        "send" => {
            let mut inbox = there.inbox_builder().wait(Wait::Spin).open()?;
            let mut sender = here.connect("there")?;
            sender.send(b"the first one")?;
            connected(&mut inbox)?;
            (0..batches).try_for_each(|_| send_batch(&mut sender).and_then(|()| receive_batch(&mut inbox)))
        }
        "publish" | "publish-kept" | "publish-asked" => {
            let mut inbox = there.subscriber_builder(["topic"]).wait(Wait::Spin).open()?;
            let history = if path == "publish-kept" { 10 } else { 0 };
            let mut publisher = here.publisher_builder("topic").history(history).open()?;
            publisher.publish(b"the first one")?.inboxes();
            connected(&mut inbox)?;
            let is_asked = path == "publish-asked";
            while is_asked && publisher.try_event()?.is_some() {}
            (0..batches).try_for_each(|_| {
                publish_batch(&mut publisher)?;
                if is_asked {
                    ask_batch(&mut publisher)?;
                }
                receive_batch(&mut inbox)
            })
        }
        "publish-values" => {
            let mut inbox = there.subscriber_builder(["topic"]).wait(Wait::Spin).open_of::<Plain<Value>>()?;
            let mut publisher = here.publisher_of::<Plain<Value>>("topic")?;
            publisher.publish(&[0; PAYLOAD_BYTES])?.inboxes();
            connected(&mut inbox)?;
            (0..batches).try_for_each(|_| publish_values(&mut publisher).and_then(|()| receive_values(&mut inbox)))
        }
        "call" => {
            let server = there.server_builder("service").wait(Wait::Spin).open()?;
            let client = here.client_builder("service").wait(Wait::Spin).open()?;
            (0..batches * BATCH + 1).try_for_each(|_| {
                let pending = start_call(&client)?;
                reply_to_call(receive_call(&server)?)?;
                wait_for_call(pending)
            })
        }
        _ => {
            Err(format!("{path:?} is unknown: send, publish, publish-kept, publish-asked, publish-values or call")
                .into())
        }
    }
}

/// Receives the first message, for which it waits: not counted.
fn connected(inbox: &mut Inbox) -> Result<(), Box<dyn Error>> {
    inbox.recv()?.ok_or("nobody stops this inbox")?;
    Ok(())
}

// callgrind looks for these by name.

#[inline(never)]
fn send_batch(sender: &mut Sender) -> Result<(), Box<dyn Error>> {
    for _ in 0..BATCH {
        sender.send(black_box(&[7; PAYLOAD_BYTES]))?;
    }
    Ok(())
}

#[inline(never)]
fn publish_batch(publisher: &mut Publisher) -> Result<(), Box<dyn Error>> {
    for _ in 0..BATCH {
        if publisher.publish(black_box(&[7; PAYLOAD_BYTES]))?.inboxes() != 1 {
            return Err("a message did not reach its inbox".into());
        }
    }
    Ok(())
}

/// Asks for events, of which there are none.
#[inline(never)]
fn ask_batch(publisher: &mut Publisher) -> Result<(), Box<dyn Error>> {
    for _ in 0..BATCH {
        if let Some(event) = black_box(publisher.try_event()?) {
            return Err(event.to_string().into());
        }
    }
    Ok(())
}

#[inline(never)]
fn receive_batch(inbox: &mut Inbox) -> Result<(), Box<dyn Error>> {
    for _ in 0..BATCH {
        let message = inbox.recv()?.ok_or("nobody stops this inbox")?;
        black_box(message.payload());
    }
    Ok(())
}

#[inline(never)]
fn publish_values(publisher: &mut TypedPublisher<Plain<Value>>) -> Result<(), Box<dyn Error>> {
    for _ in 0..BATCH {
        if publisher.publish(black_box(&[7; PAYLOAD_BYTES]))?.inboxes() != 1 {
            return Err("a message did not reach its inbox".into());
        }
    }
    Ok(())
}

#[inline(never)]
fn receive_values(inbox: &mut TypedInbox<Plain<Value>>) -> Result<(), Box<dyn Error>> {
    for _ in 0..BATCH {
        let message = inbox.recv()?.ok_or("nobody stops this inbox")?;
        black_box(message.value()?);
    }
    Ok(())
}

#[inline(never)]
fn start_call(client: &Client) -> Result<Pending, Box<dyn Error>> {
    Ok(client.start(black_box(&[7; PAYLOAD_BYTES]), Duration::from_secs(10))?)
}

#[inline(never)]
fn receive_call(server: &Server) -> Result<Request, Box<dyn Error>> {
    Ok(server.recv()?.ok_or("nobody stops this server")?)
}

#[inline(never)]
fn reply_to_call(request: Request) -> Result<(), Box<dyn Error>> {
    Ok(request.reply(black_box(&[7; PAYLOAD_BYTES]))?)
}

#[inline(never)]
fn wait_for_call(pending: Pending) -> Result<(), Box<dyn Error>> {
    black_box(&*pending.wait()?);
    Ok(())
}
