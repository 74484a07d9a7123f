//! A server of the service `work`: `service DOMAIN NODE LOG`. It writes `ready`, and serves until it is killed, or its stdin ends.
//!
//! A request says what becomes of it: `echo TEXT`, `log NUMBER` (appends it to LOG, then answers), `hold` (never answered), `die`,
//! `drop`, `panic`, `fail CODE TEXT`, `unimplemented`, `parts COUNT BYTES`, `until-cancelled` (appends `cancelled` to LOG).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;

use librpc::{Domain, Node, Request};
use testkit::die_with_parent;

fn handle(request: Request, log: &mut impl Write, held: &mut Vec<Request>) -> Result<(), Box<dyn std::error::Error>> {
    let text = String::from_utf8(request.to_vec())?;
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["echo", ..] => request.reply(&text.as_bytes()[5..])?,
        ["log", number] => {
            log.write_all(format!("{number}\n").as_bytes())?;
            request.reply(number.as_bytes())?;
        }
        ["hold"] => held.push(request),
        ["die"] => rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?,
        ["drop"] => drop(request),
        ["panic"] => {
            let _ = std::thread::spawn(move || {
                let _request = request;
                std::panic::panic_any("as asked");
            })
            .join();
        }
        ["fail", code, ref words @ ..] => request.fail(code.parse()?, &words.join(" "))?,
        ["unimplemented"] => request.unimplemented("no such request")?,
        ["parts", count, bytes] => {
            let (count, bytes): (u64, usize) = (count.parse()?, bytes.parse()?);
            let mut stream = request.stream();
            std::thread::spawn(move || {
                for number in 0..count {
                    let mut part = number.to_le_bytes().to_vec();
                    part.resize(bytes.max(8), number as u8);
                    if stream.send(&part).is_err() {
                        return;
                    }
                }
                let _ = stream.finish();
            });
        }
        ["until-cancelled"] => {
            while !request.is_cancelled() {
                std::thread::yield_now();
            }
            log.write_all(b"cancelled\n")?;
        }
        _ => request.fail(1, "what?")?,
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    die_with_parent()?;
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [domain, id, log] = &arguments[..] else { return Err("three arguments".into()) };
    let mut log: File = OpenOptions::new().create(true).append(true).open(log)?;
    let node = Node::builder(id).domain(Domain::at(domain)).open()?;
    let server = Arc::new(node.serve("work")?);
    println!("ready");
    let mut held = Vec::new();
    while let Some(request) = server.recv()? {
        if let Err(error) = handle(request, &mut log, &mut held) {
            eprintln!("{id}: {error}");
        }
    }
    Ok(())
}
