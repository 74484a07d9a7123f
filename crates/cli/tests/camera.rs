//! The example `camera`: whichever process is killed, no frame is torn, and nothing is left behind.

use std::path::PathBuf;
use std::time::Duration;

use testkit::{Process, TestDomain, command};

/// Longer than it takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The example, which `cargo test` builds with all tests: `cargo build -p librpc-cli --example camera`.
fn example() -> PathBuf {
    let tests = std::env::current_exe().expect("this test");
    let path = tests.ancestors().nth(2).expect("a directory").join("examples/camera");
    assert!(path.exists(), "{} is not built", path.display());
    path
}

/// The numbers in a line, in order.
fn numbers(line: &str) -> Vec<f64> {
    let words = line.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.trim_matches('.').parse().ok()).collect()
}

#[test]
fn frames_are_whole_whoever_is_killed() {
    for (kill, kills) in [("last", 1..), ("any", 3..)] {
        let domain = TestDomain::named(&format!("camera_{kill}")).without_cleaning();
        let path = format!("--domain={}", domain.path().display());
        let mut camera = command(example());
        camera.args(["--seconds", "3", "--every", "0.3", "--rate", "30", "--size", "1000003", "--kill", kill, &path]);
        let ended = Process::start(&mut camera).expect("it starts").finishes_with(b"", LIMIT).expect("it ends");
        assert_eq!(ended.code, 0, "{}", ended.stdout());
        let lines: Vec<&str> = ended.stdout().lines().collect();
        let [camera, viewers @ .., memory] = &lines[..] else { panic!("{lines:?}") };
        assert!(camera.starts_with("camera: ") && memory.starts_with("memfds: "), "{lines:?}");
        assert!(numbers(camera)[0] > 0.0 && viewers.len() == 3, "{lines:?}");
        let mut all_kills = if kill == "any" { numbers(camera)[3] as u64 } else { 0 };
        for viewer in viewers {
            let [_, came, _, _, torn, killed] = numbers(viewer)[..] else { panic!("{viewer}") };
            assert!(came > 0.0 && torn == 0.0, "{viewer}");
            all_kills += killed as u64;
        }
        assert!(kills.contains(&all_kills), "{lines:?}");
        let [first, most, now] = numbers(memory)[..] else { panic!("{memory}") };
        assert!(first > 0.0 && most >= first && now <= most, "{memory}");
    }
}
