//! The part of HTTP that a scrape needs: `GET`, and one answer per connection. No client can block the others.
//!
//! Each connection has its own thread, a size limit for its request, and one time limit for everything, whether it asks
//! slowly, reads slowly, or does nothing. There are never more than [`MOST`] connections.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::interrupt::Interrupt;
use crate::outcome::say;

/// How many connections are served at the same time. Others are refused.
const MOST: usize = 16;
/// How long a connection may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a client that was answered has to read the answer. A connection that is closed with something unread is reset, and
/// the answer with it.
const LINGER: Duration = Duration::from_secs(1);
/// How many refused clients get that time.
const MOST_REFUSED: usize = 64;
/// The longest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The answer to a request.
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) kind: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }
}

pub(super) struct Server(TcpListener);

impl Server {
    pub(super) fn listen(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Answers until a signal comes. `answer` gets the path of the request.
    pub(super) fn serve(
        &self,
        interrupt: &Interrupt,
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        let answer = Arc::new(answer);
        let mut refused = VecDeque::new();
        while interrupt.signal().is_none() {
            let mut waited = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(interrupt, PollFlags::empty())];
            let linger = Timespec { tv_sec: LINGER.as_secs() as i64, tv_nsec: 0 };
            match poll(&mut waited, (!refused.is_empty()).then_some(&linger)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for connections"),
            }
            refused.retain(|(since, _): &(Instant, TcpStream)| since.elapsed() < LINGER);
            let connection = match self.0.accept() {
                Ok((connection, _)) => connection,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                // The client is gone again, or this process has no descriptor for it at the moment.
                Err(_) => {
                    interrupt.wait_for(Duration::from_millis(10))?;
                    continue;
                }
            };
            // Each connection's thread holds a reference.
            if Arc::strong_count(&answer) > MOST {
                let busy = Answer::text("503 Service Unavailable", "too many connections: try again\n");
                let _ = connection.set_nonblocking(true).and_then(|()| (&connection).write_all(&whole(&busy)));
                let _ = connection.shutdown(Shutdown::Write);
                if refused.len() == MOST_REFUSED {
                    refused.pop_front();
                }
                refused.push_back((Instant::now(), connection));
                continue;
            }
            let answer = answer.clone();
            let serve = move || drop(serve(&connection, &*answer)); // the client may be gone
            if let Err(error) = std::thread::Builder::new().name("scrape".into()).spawn(serve) {
                say(format_args!("a scrape cannot be served: {error}"));
            }
        }
        Ok(())
    }
}

/// The bytes of an answer.
fn whole(Answer { status, kind, body }: &Answer) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

fn serve(mut connection: &TcpStream, answer: &impl Fn(&str) -> Answer) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    connection.set_nonblocking(false)?;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(Some(left)) }
    };
    let (mut head, mut bytes) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        connection.set_read_timeout(left()?)?;
        match connection.read(&mut bytes)? {
            0 => return Ok(()),
            read => head.extend_from_slice(&bytes[..read]),
        }
        if head.len() > MAX_HEAD {
            connection.write_all(&whole(&Answer::text("431 Request Header Fields Too Large", "too long\n")))?;
            return linger(connection);
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let answer = match (words.next(), words.next(), words.next()) {
        (Some("GET"), Some(target), Some("HTTP/1.1" | "HTTP/1.0")) => {
            answer(target.split('?').next().unwrap_or(target))
        }
        (Some(_), Some(_), Some("HTTP/1.1" | "HTTP/1.0")) => Answer::text("405 Method Not Allowed", "only GET\n"),
        _ => Answer::text("400 Bad Request", "not HTTP\n"),
    };
    let answer = whole(&answer);
    let mut rest = &answer[..];
    while !rest.is_empty() {
        connection.set_write_timeout(left()?)?;
        let written = connection.write(rest)?;
        rest = &rest[written..];
    }
    linger(connection)
}

/// Waits until the client has hung up, for a while.
fn linger(mut connection: &TcpStream) -> io::Result<()> {
    connection.shutdown(Shutdown::Write)?;
    let (until, mut bytes) = (Instant::now() + LINGER, [0; 1024]);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        connection.set_read_timeout(Some(left))?;
        if connection.read(&mut bytes)? == 0 {
            break;
        }
    }
    Ok(())
}
