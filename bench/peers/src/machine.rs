//! The machine of a run: without it, a figure means nothing.

use std::time::SystemTime;

pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// The load averages over a minute, before and after the run.
    pub(crate) load: (String, String),
    pub(crate) begun: String,
    /// librpc's own commit.
    pub(crate) commit: String,
    /// The versions of the peers, from the lock file.
    pub(crate) versions: Vec<(String, String)>,
}

const PEERS: [&str; 5] = ["iceoryx2", "ipc-channel", "rusteron-client", "rusteron-media-driver", "zeromq-src"];

impl Machine {
    pub(crate) fn look() -> Self {
        let info = read("/proc/cpuinfo");
        let system = rustix::system::uname();
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal").split(' ').next().and_then(|kib| kib.parse().ok());
        let kernel = format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy());
        Self {
            processor: field(&info, "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_kib.unwrap_or(0u64).div_ceil(1 << 20),
            kernel,
            load: (load(), String::new()),
            begun: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            commit: commit(),
            versions: versions(include_str!("../Cargo.lock")),
        }
    }

    pub(crate) fn and_now(self) -> Self {
        Self { load: (self.load.0, load()), ..self }
    }

    /// The machine in one line.
    pub(crate) fn line(&self) -> String {
        let Self { processor, cpus, memory_gib, kernel, load: (before, after), begun, commit, .. } = self;
        format!(
            "{processor}, {cpus} CPUs, {memory_gib} GiB, {kernel}; {begun}; load {before} before, {after} after; librpc {commit}"
        )
    }

    pub(crate) fn peers(&self) -> String {
        self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> String {
    let values = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == name);
    values.map(|(_, value)| value.trim().to_owned()).next().unwrap_or_else(|| "unknown".to_owned())
}

fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()
}

fn commit() -> String {
    let git = std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=10"])
        .output();
    let said = git
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_else(|| "of an unknown commit".to_owned())
}

fn versions(lock: &str) -> Vec<(String, String)> {
    let quoted = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut versions = Vec::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        let Some(name) = quoted(line, "name = ").filter(|name| PEERS.contains(&name.as_str())) else { continue };
        versions.extend(lines.next().and_then(|line| quoted(line, "version = ")).map(|version| (name, version)));
    }
    versions
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_peer_has_a_version() {
        let versions = super::versions(include_str!("../Cargo.lock"));
        assert_eq!(versions.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), super::PEERS);
    }
}
