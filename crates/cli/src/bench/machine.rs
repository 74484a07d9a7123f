//! The machine of a measurement: a figure without it means nothing.

use std::fs::read_to_string;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    /// The load average over the last minute.
    pub(super) load: f64,
    /// This program's own.
    pub(super) version: &'static str,
}

impl Machine {
    pub(super) fn look() -> Self {
        let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = |line: &str| {
            let (key, value) = line.split_once(':')?;
            ["model name", "Model", "cpu model"].contains(&key.trim()).then(|| value.trim().to_owned())
        };
        let load = read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: info.lines().find_map(model).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: format!("Linux {}", kernel.trim()),
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let Self { cpu, cores, kernel, load, version } = self;
        format!("librpc {version} on {cpu}, {cores} cores, {kernel}, load {load}")
    }
}
