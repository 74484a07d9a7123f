//! A program that sends one message and ends: `oneshot DOMAIN MEMBERS HOW END NUMBER`.
//!
//! MEMBERS is `private` or the gid of a shared domain, HOW is `publish` or `send`, END is `return` (from `main`, everything is
//! dropped), `exit` (`std::process::exit`, nothing is dropped) or `kill` (SIGKILL). It writes how many inboxes got the message,
//! and how many it is pending for, before it ends.

use librpc::{Domain, Node};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [domain, members, how, end, number] = &arguments[..] else { return Err("five arguments".into()) };
    let domain = match members.parse() {
        Ok(gid) => Domain::at(domain).shared_with_group(gid),
        Err(_) => Domain::at(domain),
    };
    let node = Node::builder(&format!("oneshot-{number}")).domain(domain).open()?;
    let (publisher, sender);
    if how == "publish" {
        let mut it = node.publisher("numbers")?;
        let receipt = it.publish(number.as_bytes())?;
        println!("{} {}", receipt.inboxes(), receipt.pending());
        (publisher, sender) = (Some(it), None);
    } else {
        let mut it = node.try_connect("sink")?;
        it.send(number.as_bytes())?;
        println!("1 0");
        (publisher, sender) = (None, Some(it));
    }
    match end.as_str() {
        "return" => {}
        "exit" => std::process::exit(0),
        _ => rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?,
    }
    drop((publisher, sender));
    Ok(())
}
