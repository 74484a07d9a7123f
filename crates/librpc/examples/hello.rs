//! Two nodes, one message: `cargo run -p librpc-ipc --example hello`.

use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let display = librpc::Node::open("hello-display")?; // these two may be in different processes
    let mut inbox = display.inbox()?;

    let camera = librpc::Node::open("hello-camera")?;
    let mut to = camera.sender("hello-display")?; // waits for it to appear
    to.send(b"hello")?; // in shared memory: this process may die now

    let message = inbox.recv()?.expect("nobody stops this inbox");
    println!("{}: {}", message.sender(), String::from_utf8_lossy(message.payload()));
    inbox.try_recv()?; // asking for the next message acknowledges the last one
    to.flush(Duration::from_secs(1))?; // processed
    Ok(())
}
