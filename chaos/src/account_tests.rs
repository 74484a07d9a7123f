//! Made-up histories: sound ones pass, and each way to be wrong is found.

use super::*;

const TOLD: Rules = Rules { redelivery: false, in_work: 1 };
const AGAIN: Rules = Rules { redelivery: true, in_work: 1 };

fn segment(first: u64, sent: u64, begun: u64, told: Option<u64>) -> Segment {
    Segment { first, sent, begun, told, pending: false }
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
fn everything_arrives() {
    let totals = finished(&[segment(0, 10, 10, None)], &[run(1, 0, 10)]).check(TOLD).unwrap();
    assert_eq!(totals, Totals { processed: 10, told: 0, doubled: 0 });
    assert_eq!(finished(&[], &[]).check(TOLD), Ok(Totals::default()));
}

#[test]
fn a_loss_at_the_end_in_the_middle_or_at_the_beginning_is_found() {
    let sent = [segment(0, 10, 10, None)];
    assert_eq!(finished(&sent, &[run(1, 0, 9)]).check(TOLD), Err(Violation::Lost { from: 9, to: 10 }));
    assert_eq!(finished(&sent, &[run(1, 0, 4), run(1, 5, 10)]).check(TOLD), Err(Violation::Lost { from: 4, to: 5 }));
    assert_eq!(finished(&sent, &[run(1, 1, 10)]).check(TOLD), Err(Violation::Lost { from: 0, to: 1 }));
    assert_eq!(finished(&sent, &[]).check(TOLD), Err(Violation::Lost { from: 0, to: 10 }));
}

#[test]
fn what_is_doubled_or_out_of_order_is_found() {
    let sent = [segment(0, 10, 10, None)];
    let doubled = [run(1, 0, 5), run(1, 4, 10)];
    assert_eq!(finished(&sent, &doubled).check(TOLD), Err(Violation::Doubled { from: 4, to: 5 }));
    let reordered = [run(1, 0, 4), run(1, 5, 6), run(1, 4, 5), run(1, 6, 10)];
    assert!(finished(&sent, &reordered).check(TOLD).is_err());
    assert!(finished(&sent, &[run(1, 0, 10), run(1, 0, 10)]).check(TOLD).is_err());
}

#[test]
fn what_nobody_sent_is_found() {
    let sent = [segment(0, 10, 10, None)];
    assert_eq!(finished(&sent, &[run(1, 0, 11)]).check(TOLD), Err(Violation::Invented { number: 10 }));
    let more = [run(1, 0, 10), run(1, 20, 21)];
    assert_eq!(finished(&sent, &more).check(TOLD), Err(Violation::Invented { number: 20 }));
}

#[test]
fn a_killed_sender_may_or_may_not_have_committed_what_it_was_sending() {
    let sent = [segment(0, 9, 10, None)];
    assert!(sender_killed(&sent, &[run(1, 0, 9)]).check(TOLD).is_ok());
    assert!(sender_killed(&sent, &[run(1, 0, 10)]).check(TOLD).is_ok());
    assert_eq!(sender_killed(&sent, &[run(1, 0, 8)]).check(TOLD), Err(Violation::Lost { from: 8, to: 9 }));
    assert_eq!(sender_killed(&sent, &[run(1, 0, 11)]).check(TOLD), Err(Violation::Invented { number: 10 }));
}

#[test]
fn when_both_are_killed_the_end_is_lost_but_nothing_else() {
    let both = |runs: &[Run]| Stream { receiver: End::Killed, ..sender_killed(&[segment(0, 9, 10, None)], runs) };
    assert!(both(&[run(1, 0, 3)]).check(TOLD).is_ok());
    assert!(both(&[]).check(TOLD).is_ok());
    assert!(both(&[run(1, 1, 3)]).check(TOLD).is_err());
    assert!(both(&[run(1, 0, 11)]).check(TOLD).is_err());
}

#[test]
fn what_a_pending_sender_has_sent_dies_with_it_only() {
    let pending = [Segment { pending: true, ..segment(0, 9, 10, None) }];
    assert!(sender_killed(&pending, &[]).check(TOLD).is_ok());
    assert!(finished(&pending, &[]).check(TOLD).is_err());
}

#[test]
fn a_told_loss_meets_what_was_processed_up_to_the_one_in_work() {
    let sent = [segment(0, 10, 10, Some(4)), segment(10, 20, 20, None)];
    let with = |end| finished(&sent, &[run(1, 0, end), run(2, 10, 20)]).check(TOLD);
    assert_eq!(with(6), Ok(Totals { processed: 16, told: 4, doubled: 0 }));
    assert_eq!(with(7), Ok(Totals { processed: 17, told: 4, doubled: 1 }));
    assert_eq!(with(5), Err(Violation::Lost { from: 5, to: 6 }));
    assert_eq!(with(8), Err(Violation::ToldTooMuch { told: 4, lost: 3 }));
}

#[test]
fn a_loss_that_is_told_twice_is_found() {
    let sent = [segment(0, 10, 10, Some(4)), segment(10, 10, 10, Some(4)), segment(10, 20, 20, None)];
    let runs = [run(1, 0, 6), run(2, 10, 20)];
    assert_eq!(finished(&sent, &runs).check(TOLD), Err(Violation::ToldTooMuch { told: 4, lost: 0 }));
}

#[test]
fn a_receiver_that_had_processed_everything_is_replaced_without_a_word() {
    assert!(finished(&[segment(0, 20, 20, None)], &[run(1, 0, 10), run(2, 10, 20)]).check(TOLD).is_ok());
}

#[test]
fn a_told_message_that_arrives_later_is_found() {
    let sent = [segment(0, 10, 10, Some(4)), segment(10, 20, 20, None)];
    assert!(finished(&sent, &[run(1, 0, 6), run(2, 6, 20)]).check(TOLD).is_err());
}

#[test]
fn redelivery_doubles_at_most_one_for_each_death_and_flags_it() {
    let sent = [segment(0, 20, 20, None)];
    let check = |runs: &[Run]| finished(&sent, runs).check(AGAIN);
    assert_eq!(check(&[run(1, 0, 10), run(2, 10, 20)]), Ok(Totals { processed: 20, told: 0, doubled: 0 }));
    let flagged = [run(1, 0, 10), redelivered(2, 9, 10), run(2, 10, 20)];
    assert_eq!(check(&flagged), Ok(Totals { processed: 20, told: 0, doubled: 1 }));
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
    let told = [segment(0, 20, 20, Some(1))];
    assert!(finished(&told, &[run(1, 0, 20)]).check(AGAIN).is_err());
    assert!(finished(&sent, &[run(1, 0, 21)]).check(AGAIN).is_err());
    let both = Stream { receiver: End::Killed, ..sender_killed(&sent, &[run(1, 0, 10)]) };
    assert!(both.check(AGAIN).is_ok());
}
