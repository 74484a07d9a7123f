//! Made-up histories: correct ones pass, and every kind of mistake is found.

use super::*;

const REPORTED: Rules = Rules { redelivery: false, in_work: 1 };
const AGAIN: Rules = Rules { redelivery: true, in_work: 1 };

fn segment(first: u64, sent: u64, begun: u64, reported: Option<u64>) -> Segment {
    Segment { first, sent, begun, reported, pending: false }
}

fn run(receiver: u64, first: u64, end: u64) -> Run {
    Run { receiver, first, end, redelivered: false }
}

fn redelivered(receiver: u64, first: u64, end: u64) -> Run {
    Run { redelivered: true, ..run(receiver, first, end) }
}

fn finished(segments: &[Segment], runs: &[Run]) -> Stream {
    Stream { segments: segments.to_vec(), runs: runs.to_vec(), sender: End::Finished, receiver: End::Finished }
}

fn sender_killed(segments: &[Segment], runs: &[Run]) -> Stream {
    Stream { sender: End::Killed, ..finished(segments, runs) }
}

#[test]
fn a_stream_that_arrives_completely_is_correct() {
    let totals = finished(&[segment(0, 10, 10, None)], &[run(1, 0, 10)]).check(REPORTED).unwrap();
    assert_eq!(totals, Totals { processed: 10, reported: 0, doubled: 0 });
    assert_eq!(finished(&[], &[]).check(REPORTED), Ok(Totals::default()));
}

#[test]
fn a_loss_at_the_end_the_middle_or_the_beginning_is_found() {
    let sent = [segment(0, 10, 10, None)];
    assert_eq!(finished(&sent, &[run(1, 0, 9)]).check(REPORTED), Err(Violation::Lost { from: 9, to: 10 }));
    assert_eq!(
        finished(&sent, &[run(1, 0, 4), run(1, 5, 10)]).check(REPORTED),
        Err(Violation::Lost { from: 4, to: 5 })
    );
    assert_eq!(finished(&sent, &[run(1, 1, 10)]).check(REPORTED), Err(Violation::Lost { from: 0, to: 1 }));
    assert_eq!(finished(&sent, &[]).check(REPORTED), Err(Violation::Lost { from: 0, to: 10 }));
}

#[test]
fn doubled_and_reordered_messages_are_found() {
    let sent = [segment(0, 10, 10, None)];
    let doubled = [run(1, 0, 5), run(1, 4, 10)];
    assert_eq!(finished(&sent, &doubled).check(REPORTED), Err(Violation::Doubled { from: 4, to: 5 }));
    let reordered = [run(1, 0, 4), run(1, 5, 6), run(1, 4, 5), run(1, 6, 10)];
    assert!(finished(&sent, &reordered).check(REPORTED).is_err());
    assert!(finished(&sent, &[run(1, 0, 10), run(1, 0, 10)]).check(REPORTED).is_err());
}

#[test]
fn messages_that_nobody_sent_are_found() {
    let sent = [segment(0, 10, 10, None)];
    assert_eq!(finished(&sent, &[run(1, 0, 11)]).check(REPORTED), Err(Violation::Invented { number: 10 }));
    let more = [run(1, 0, 10), run(1, 20, 21)];
    assert_eq!(finished(&sent, &more).check(REPORTED), Err(Violation::Invented { number: 20 }));
}

#[test]
fn the_message_that_a_killed_sender_was_sending_may_arrive_or_not() {
    let sent = [segment(0, 9, 10, None)];
    assert!(sender_killed(&sent, &[run(1, 0, 9)]).check(REPORTED).is_ok());
    assert!(sender_killed(&sent, &[run(1, 0, 10)]).check(REPORTED).is_ok());
    assert_eq!(sender_killed(&sent, &[run(1, 0, 8)]).check(REPORTED), Err(Violation::Lost { from: 8, to: 9 }));
    assert_eq!(sender_killed(&sent, &[run(1, 0, 11)]).check(REPORTED), Err(Violation::Invented { number: 10 }));
}

#[test]
fn when_both_sides_are_killed_only_the_end_may_be_lost() {
    let both = |runs: &[Run]| Stream { receiver: End::Killed, ..sender_killed(&[segment(0, 9, 10, None)], runs) };
    assert!(both(&[run(1, 0, 3)]).check(REPORTED).is_ok());
    assert!(both(&[]).check(REPORTED).is_ok());
    assert!(both(&[run(1, 1, 3)]).check(REPORTED).is_err());
    assert!(both(&[run(1, 0, 11)]).check(REPORTED).is_err());
}

#[test]
fn messages_of_a_pending_sender_may_be_lost_only_with_it() {
    let pending = [Segment { pending: true, ..segment(0, 9, 10, None) }];
    assert!(sender_killed(&pending, &[]).check(REPORTED).is_ok());
    assert!(finished(&pending, &[]).check(REPORTED).is_err());
}

#[test]
fn a_reported_loss_matches_what_was_processed_except_for_the_one_in_work() {
    let sent = [segment(0, 10, 10, Some(4)), segment(10, 20, 20, None)];
    let with = |end| finished(&sent, &[run(1, 0, end), run(2, 10, 20)]).check(REPORTED);
    assert_eq!(with(6), Ok(Totals { processed: 16, reported: 4, doubled: 0 }));
    assert_eq!(with(7), Ok(Totals { processed: 17, reported: 4, doubled: 1 }));
    assert_eq!(with(5), Err(Violation::Lost { from: 5, to: 6 }));
    assert_eq!(with(8), Err(Violation::ReportedTooMuch { reported: 4, lost: 3 }));
}

#[test]
fn a_loss_that_is_reported_twice_is_found() {
    let sent = [segment(0, 10, 10, Some(4)), segment(10, 10, 10, Some(4)), segment(10, 20, 20, None)];
    let runs = [run(1, 0, 6), run(2, 10, 20)];
    assert_eq!(finished(&sent, &runs).check(REPORTED), Err(Violation::ReportedTooMuch { reported: 4, lost: 0 }));
}

#[test]
fn a_receiver_that_had_processed_everything_can_be_replaced_without_a_report() {
    assert!(finished(&[segment(0, 20, 20, None)], &[run(1, 0, 10), run(2, 10, 20)]).check(REPORTED).is_ok());
}

#[test]
fn a_message_that_arrives_after_it_was_reported_lost_is_found() {
    let sent = [segment(0, 10, 10, Some(4)), segment(10, 20, 20, None)];
    assert!(finished(&sent, &[run(1, 0, 6), run(2, 6, 20)]).check(REPORTED).is_err());
}

#[test]
fn redelivery_doubles_at_most_one_message_for_each_death_and_flags_it() {
    let sent = [segment(0, 20, 20, None)];
    let check = |runs: &[Run]| finished(&sent, runs).check(AGAIN);
    assert_eq!(check(&[run(1, 0, 10), run(2, 10, 20)]), Ok(Totals { processed: 20, reported: 0, doubled: 0 }));
    let flagged = [run(1, 0, 10), redelivered(2, 9, 10), run(2, 10, 20)];
    assert_eq!(check(&flagged), Ok(Totals { processed: 20, reported: 0, doubled: 1 }));
    assert!(check(&[run(1, 0, 10), redelivered(2, 9, 15), run(2, 15, 20)]).is_ok());
    assert_eq!(check(&[run(1, 0, 10), run(2, 9, 20)]), Err(Violation::Doubled { from: 9, to: 10 }));
    assert_eq!(check(&[run(1, 0, 10), redelivered(2, 8, 20)]), Err(Violation::Doubled { from: 8, to: 10 }));
    let without_death = [run(1, 0, 10), redelivered(1, 9, 20)];
    assert_eq!(check(&without_death), Err(Violation::Doubled { from: 9, to: 10 }));
    let each_death = [run(1, 0, 10), redelivered(2, 9, 11), redelivered(3, 10, 20)];
    assert_eq!(check(&each_death).unwrap().doubled, 2);
    let twice = [run(1, 0, 10), redelivered(2, 9, 10), redelivered(2, 9, 20)];
    assert!(check(&twice).is_err());
}

#[test]
fn redelivery_loses_nothing_while_one_side_lives() {
    let sent = [segment(0, 20, 20, None)];
    assert!(finished(&sent, &[run(1, 0, 10), run(2, 11, 20)]).check(AGAIN).is_err());
    assert!(finished(&sent, &[run(1, 0, 10)]).check(AGAIN).is_err());
    let reported = [segment(0, 20, 20, Some(1))];
    assert!(finished(&reported, &[run(1, 0, 20)]).check(AGAIN).is_err());
    assert!(finished(&sent, &[run(1, 0, 21)]).check(AGAIN).is_err());
    let both = Stream { receiver: End::Killed, ..sender_killed(&sent, &[run(1, 0, 10)]) };
    assert!(both.check(AGAIN).is_ok());
}
