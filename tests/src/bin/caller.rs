//! A client of the service `work`: `caller DOMAIN NODE`. It writes `ready`, and does what the lines of its stdin say, until they end.
//!
//! `call MILLISECONDS TEXT` calls with this limit, in a thread of its own. It writes `begun` once the request is sent, and `ok REPLY` or
//! `error WHY` once the call has ended;
//! `client` makes a new client for later calls; `serve NAME` answers each request to a service with its own text. Both write `done` or
//! `error WHY`.

use std::sync::Arc;
use std::time::Duration;

use librpc::{Client, Domain, Node, Pending, ServeError};
use testkit::die_with_parent;

fn serve(node: &Node, name: &str) -> Result<(), ServeError> {
    let server = node.serve(name)?;
    std::thread::spawn(move || {
        while let Ok(Some(request)) = server.recv() {
            let text = request.to_vec();
            let _ = request.reply(&text); // its client learns of an error
        }
    });
    Ok(())
}

fn call(client: Arc<Client>, limit: Duration, text: String) {
    std::thread::spawn(move || {
        let begun = client.start(text.as_bytes(), limit).inspect(|_| println!("begun"));
        match begun.and_then(Pending::wait) {
            Ok(reply) => println!("ok {}", String::from_utf8_lossy(&reply)),
            Err(error) => println!("error {error}"),
        }
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    die_with_parent()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [domain, id] = &arguments[..] else { return Err("two arguments".into()) };
    let node = Node::builder(id).domain(Domain::at(domain)).open()?;
    let mut client = Arc::new(node.client("work")?);
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        let done = match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["call", limit, text] => {
                call(client.clone(), Duration::from_millis(limit.parse()?), text.to_owned());
                continue;
            }
            ["client"] => node.client("work").map(|new| client = Arc::new(new)),
            ["serve", name] => serve(&node, name),
            _ => return Err(format!("{line:?}?").into()),
        };
        match done {
            Ok(()) => println!("done"),
            Err(error) => println!("error {error}"),
        }
    }
    Ok(())
}
