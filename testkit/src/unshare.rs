//! A program in namespaces of its own, started by `unshare`.

use std::ffi::OsStr;
use std::process::Command;

/// The command that runs `program` in new namespaces, as `unshare` makes them with these options.
///
/// The program is killed when `unshare` is. Its environment is the one set on `program`.
pub fn unshare(options: &[impl AsRef<OsStr>], program: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--fork", "--kill-child=KILL"]).args(options).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Whether `unshare` can make these namespaces here; `Err`: why not.
pub fn can_unshare(options: &[&str]) -> Result<(), String> {
    match Command::new("unshare").args(options).args(["--fork", "true"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}
