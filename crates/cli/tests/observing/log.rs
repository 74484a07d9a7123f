//! `--log`: what the library logs.

use crate::common::place;
use crate::stops;

#[test]
fn the_log_reports_joins_and_leaves_but_no_message() {
    let place = place("log");
    let sink = place.receiver("sink", &[]);
    let lines = (0..10_000).fold(String::new(), |lines, number| lines + &format!("{number}\n"));
    let ended = place.run(&["send", "sink", "--id", "camera", "--log", "trace"], lines.as_bytes());
    assert_eq!(ended.code, 0);
    for word in
        ["librpc::node: a node has joined", "librpc::link::outgoing: connected", "librpc::node_shared: a node has left"]
    {
        assert!(ended.stderr.contains(word), "{word:?} in {}", ended.stderr);
    }
    assert!(ended.stderr.lines().count() < 50, "{}", ended.stderr);
    assert_eq!(place.run(&["send", "sink", "--log", "no=such=filter"], b"").code, 2);
    assert_eq!(place.run(&["send", "sink"], b"").stderr, "", "nothing by default");
    stops(sink);
}
