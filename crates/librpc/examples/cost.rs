//! What a message costs in one process, without any waiting: send a few, receive a few. To be counted and timed:
//!
//! ```sh
//! cargo build --release -p librpc-ipc --example cost
//! for n in 100000 300000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/cost $n; done
//! ```
//!
//! The difference of the two counts, divided by 200,000, is a message's.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let messages: u64 = std::env::args().nth(1).ok_or("how many messages?")?.parse()?;
    let domain = librpc::Domain::parse(format!("cost-{}", std::process::id()));
    let node = librpc::Node::builder("cost").domain(domain).open()?;
    let mut inbox = node.inbox()?;
    let mut sender = node.sender("cost")?;
    let begun = std::time::Instant::now();
    for _ in 0..messages / 32 {
        for _ in 0..32 {
            sender.send(&[7; 64])?;
        }
        for _ in 0..32 {
            inbox.recv()?.ok_or("stopped")?;
        }
    }
    println!("{:.2} ns for each message", begun.elapsed().as_nanos() as f64 / messages as f64);
    Ok(())
}
