//! One side of an exchange, for the tests between languages (crates/c/test). Usage: peer DOMAIN ID ROLE ...

use std::error::Error;
use std::time::Duration;

use librpc::{CallError, Client, Departure, Domain, Event, Inbox, Node, Request};

const MINUTE: Duration = Duration::from_secs(60);
const LARGE: usize = 65_536;

type Done = Result<(), Box<dyn Error>>;

/// A numbered payload: the number in 8 bytes, then its lowest byte throughout.
fn fill(payload: &mut [u8], number: u64) {
    payload.fill(number as u8);
    payload[..8].copy_from_slice(&number.to_le_bytes());
}

fn number_of(payload: &[u8]) -> u64 {
    let (number, rest) = payload.split_first_chunk().expect("a payload has its number");
    let number = u64::from_le_bytes(*number);
    assert!(rest.iter().all(|byte| *byte == number as u8), "a torn payload at message {number}");
    number
}

fn receive(mut inbox: Inbox, count: u64) -> Done {
    for next in 0..count {
        let number = match next % 2 {
            0 => number_of(inbox.recv_timeout(MINUTE)?.expect("it comes in time").payload()),
            _ => number_of(&inbox.recv_sample_timeout(MINUTE)?.expect("it comes in time").to_vec()),
        };
        assert_eq!(number, next, "another message");
    }
    Ok(())
}

fn watch(mut inbox: Inbox) -> Done {
    let mut next = 0;
    loop {
        match inbox.recv_event_timeout(MINUTE)?.expect("it comes in time") {
            Event::Message(message) => {
                assert_eq!(number_of(message.payload()), next, "another message");
                next += 1;
            }
            Event::SenderLeft(_, departure) => {
                println!("{} {next}", if departure == Departure::Died { "died" } else { "left" });
                return Ok(());
            }
            _ => {}
        }
    }
}

fn answer(request: Request) -> Done {
    match &request[..] {
        b"fail" => request.fail(7, "as asked")?,
        b"stream" => {
            let mut stream = request.stream();
            (0..100_u64).try_for_each(|part| stream.send(&part.to_le_bytes()))?;
            stream.finish()?;
        }
        _ => {
            let copy = request.to_vec();
            request.reply(&copy)?;
        }
    }
    Ok(())
}

fn call_all(client: &Client, count: u64, size: usize) -> Done {
    let mut payload = vec![0; size];
    for number in 0..count {
        fill(&mut payload, number);
        assert_eq!(client.call(&payload, MINUTE)?[..], payload[..]);
    }
    let failed = client.call(b"fail", MINUTE);
    assert!(matches!(failed, Err(CallError::Failed { code: 7, .. })), "{failed:?}");
    let parts = client.call_stream(b"stream", MINUTE)?.map(|part| Ok(part?.to_vec()));
    let parts: Result<Vec<_>, CallError> = parts.collect();
    assert!(parts?.into_iter().eq((0..100_u64).map(|part| part.to_le_bytes().to_vec())));
    Ok(())
}

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [domain, id, role, rest @ ..] = &arguments[..] else { return Err("usage: peer DOMAIN ID ROLE ...".into()) };
    let node = Node::builder(id).domain(Domain::parse(domain)).open()?;
    match (&**role, rest) {
        ("recv", [count]) => {
            let inbox = node.inbox()?;
            println!("ready");
            receive(inbox, count.parse()?)?;
        }
        ("watch", []) => {
            let inbox = node.inbox()?;
            println!("ready");
            watch(inbox)?;
        }
        ("sub", [pattern, count]) => {
            let inbox = node.subscribe(pattern)?;
            println!("ready");
            receive(inbox, count.parse()?)?;
        }
        ("send" | "pub", [to, count, size]) => {
            let (count, size): (u64, usize) = (count.parse()?, size.parse()?);
            let mut payload = vec![0; size];
            let mut sender = if role == "send" { Some(node.connect_timeout(to, MINUTE)?) } else { None };
            let mut publisher = if role == "pub" { Some(node.publisher(to)?) } else { None };
            if let Some(publisher) = &mut publisher {
                publisher.wait_for_subscriber(MINUTE)?;
            }
            for number in 0..count {
                let in_place = size >= LARGE && number % 2 == 1;
                if !in_place {
                    fill(&mut payload, number);
                }
                match (&mut sender, &mut publisher) {
                    (Some(sender), _) if in_place => {
                        let mut loan = sender.loan_uninit(size)?;
                        fill(&mut loan, number);
                        sender.send_loan(loan)?;
                    }
                    (Some(sender), _) => sender.send(&payload)?,
                    (_, Some(publisher)) if in_place => {
                        let mut loan = publisher.loan_uninit(size)?;
                        fill(&mut loan, number);
                        assert_eq!(publisher.publish_loan(loan)?.inboxes(), 1);
                    }
                    (_, Some(publisher)) => assert_eq!(publisher.publish(&payload)?.inboxes(), 1),
                    _ => unreachable!("one of them is there"),
                }
                if number == 0 {
                    println!("begun");
                }
            }
            if let Some(sender) = &mut sender {
                sender.flush(MINUTE)?;
            }
            if let Some(publisher) = &mut publisher {
                publisher.flush(MINUTE)?;
            }
        }
        ("serve", [service]) => {
            let server = node.serve(service)?;
            println!("ready");
            while let Some(request) = server.recv()? {
                answer(request)?;
            }
        }
        ("call", [service, count, size]) => {
            let client = node.client(service)?;
            client.wait_for_server(MINUTE)?;
            call_all(&client, count.parse()?, size.parse()?)?;
        }
        _ => return Err(format!("no role {role} with {rest:?}").into()),
    }
    println!("done");
    Ok(())
}
