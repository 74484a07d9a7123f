//! The robot runs while its processes are killed, and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn nothing_is_lost_or_doubled_while_processes_are_killed_and_nothing_is_left() {
    let files = tempfile::tempdir().unwrap();
    let mut robot = Command::new(env!("CARGO_BIN_EXE_robot"));
    robot.args(["--seconds", "6", "--kill-every", "600ms", "--seed", "7"]).env("TMPDIR", files.path());
    let robot = robot.stdout(Stdio::piped()).spawn().unwrap();
    let domain = PathBuf::from(format!("/dev/shm/librpc_robot_{}", robot.id()));
    let ended = robot.wait_with_output().unwrap();
    let table = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{table}");
    for row in ["commands", "samples of the IMU", "camera", "frames at the detector", "torn frames", "calls", "kills"] {
        assert!(table.contains(&format!("| {row} ")), "no {row} in\n{table}");
    }
    assert_eq!(testkit::left_of(&domain), [] as [&Path; 0], "something is left in shared memory");
    assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 0, "a file is left");
}
