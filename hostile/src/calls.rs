//! The calls of the honest pair: each serves the other one, calls it, and calls the attacker, too.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use librpc::{CallError, CallOptions, Client, ReplyError, Request, SendError, Server};
use testkit::wait_for;

use crate::honest::{Honest, LARGE, LOOK, PACE};

/// The limit of an honest call: it is far from reached.
const LONG: Duration = Duration::from_secs(30);
/// The limit of a call to the attacker.
const SHORT: Duration = Duration::from_millis(40);
/// How many parts an honest reply in parts has: more than a client takes ahead.
const PARTS: u64 = 24;
/// How many of the attacker's requests are kept before they are answered.
const KEPT: usize = 32;

/// What an honest request asks for.
const SHORT_REPLY: u8 = 0;
const LARGE_REPLY: u8 = 1;
const PARTS_OF_REPLY: u8 = 2;

impl Honest {
    /// Answers what the other one asks as expected, and the attacker in every way.
    pub(crate) fn serve(&self, server: &Server) {
        let mut kept = VecDeque::new();
        while self.is_on() {
            let request = server.recv_timeout(LOOK).expect("a server works");
            let Some(request) = request else { continue };
            if request.client() != self.other {
                answer_attacker(request, &mut kept);
                continue;
            }
            self.answer(request);
            if let Some(late) = kept.pop_front() {
                let _ = late.reply(b"late"); // the attacker may be gone
            }
        }
    }

    fn answer(&self, request: Request) {
        let number = u64::from_le_bytes(request[1..9].try_into().expect("8 bytes"));
        let answered = match request[0] {
            SHORT_REPLY => request.reply(&(number ^ u64::MAX).to_le_bytes()),
            LARGE_REPLY => match request.reply(&vec![number as u8; LARGE]) {
                Err(ReplyError::Send(error)) if is_out_of_memory(&error) => Ok(()),
                answered => answered,
            },
            _ => {
                let mut stream = request.stream();
                let mut parts = (0..PARTS).map(|part| (number + part).to_le_bytes());
                parts.try_for_each(|part| stream.send(&part)).and_then(|()| stream.finish())
            }
        };
        if let Err(error) = answered {
            self.must_be_over(&error);
        }
    }

    /// Calls the other one, whose answers must be right, and the attacker.
    pub(crate) fn call(&self, client: &Client) {
        assert!(client.wait_for_server(LONG).expect("servers are looked up"), "the other one serves");
        let other = CallOptions::new(LONG).to(&self.other);
        for number in 0.. {
            if !self.is_on() {
                break;
            }
            let begun = Instant::now();
            match number % 4 {
                0 => self.call_in_parts(client, number, &other),
                1 => self.call_for_much(client, number, &other),
                _ => self.call_for_little(client, number, &other),
            }
            self.note(&self.longest_call, begun);
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.call_attacker(client, number);
            std::thread::sleep(PACE);
        }
    }

    fn call_for_little(&self, client: &Client, number: u64, other: &CallOptions) {
        match client.call(&request(SHORT_REPLY, number, 9), other.clone()) {
            Ok(reply) => assert_eq!(*reply, (number ^ u64::MAX).to_le_bytes(), "call {number}"),
            Err(error) => self.must_be_over(&error),
        }
    }

    /// Request and reply are large. An attacker may hold all memory for that.
    fn call_for_much(&self, client: &Client, number: u64, other: &CallOptions) {
        match client.call(&request(LARGE_REPLY, number, LARGE), other.clone()) {
            Ok(reply) => assert!(*reply == vec![number as u8; LARGE], "call {number}"),
            Err(CallError::Send { source, .. }) if is_out_of_memory(&source) => {}
            Err(CallError::Failed { code: 0, message, .. }) if message.contains("could not be sent") => {}
            Err(error) => self.must_be_over(&error),
        }
    }

    fn call_in_parts(&self, client: &Client, number: u64, other: &CallOptions) {
        let parts = match client.call_stream(&request(PARTS_OF_REPLY, number, 9), other.clone()) {
            Ok(parts) => parts,
            Err(error) => return self.must_be_over(&error),
        };
        let mut expected = (0..PARTS).map(|part| (number + part).to_le_bytes());
        for part in parts {
            match part {
                Ok(part) => assert_eq!(Some(&*part), expected.next().as_ref().map(|part| &part[..]), "call {number}"),
                Err(error) => return self.must_be_over(&error),
            }
        }
        assert_eq!(expected.next(), None, "call {number}: all parts have come");
    }

    /// Whatever the attacker answers, the call ends within its limit, with a reply or a reason.
    fn call_attacker(&self, client: &Client, number: u64) {
        let begun = Instant::now();
        let evil = CallOptions::new(SHORT).to("evil");
        let request = vec![7; if number % 8 == 5 { LARGE } else { 20 }];
        let ended = match number % 3 {
            0 => client.call_stream(&request, evil).and_then(|mut parts| parts.try_for_each(|part| part.map(drop))),
            1 => client.call(&request, evil).map(drop),
            // It is given up at some point.
            _ => client.start(&request, evil).map(|mut call| drop(call.wait_timeout(SHORT / 20))),
        };
        self.note(&self.longest_call, begun + SHORT);
        if let Err(CallError::Receive { .. } | CallError::Lookup { .. } | CallError::Closed { .. }) = ended {
            self.must_be_over(&ended.expect_err("it has failed"));
        }
    }

    /// Nothing of this kind happens before the end: then the other one may be gone a moment earlier.
    fn must_be_over(&self, error: &dyn std::fmt::Display) {
        wait_for(Duration::from_millis(200), || Ok(!self.is_on())).unwrap_or_else(|_| panic!("{error}"));
    }
}

/// An honest request: what it asks for, its number, and its length.
fn request(what: u8, number: u64, bytes: usize) -> Vec<u8> {
    let mut request = vec![what; bytes];
    request[1..9].copy_from_slice(&number.to_le_bytes());
    request
}

fn is_out_of_memory(error: &SendError) -> bool {
    matches!(error, SendError::NoMemory { .. })
}

/// Answers as the first byte of the request says. What becomes of it is the attacker's affair.
fn answer_attacker(request: Request, kept: &mut VecDeque<Request>) {
    let how = request.sample().view().get(0).unwrap_or(0);
    let _ = match how % 9 {
        0 => {
            let reply = request.to_vec();
            request.reply(&reply)
        }
        1 => request.reply(&[7; 40_000]),
        2 => request.reply(&vec![7; LARGE]),
        3 => {
            let mut stream = request.stream();
            let _ = (0..40).try_for_each(|_| match stream.try_send(&[7; 1000]) {
                Ok(true) => Ok(()),
                _ => Err(()),
            });
            stream.finish()
        }
        4 => request.fail(-1, &"no".repeat(10_000)),
        5 => request.unimplemented("no"),
        6 => {
            drop(request);
            Ok(())
        }
        7 => request.reply(b""),
        _ => {
            let _ = request.is_cancelled();
            kept.push_back(request);
            kept.truncate(KEPT);
            Ok(())
        }
    };
}
