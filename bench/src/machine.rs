//! What a figure was measured on.

use std::fs;

use serde::Serialize;

/// A machine, and how busy it was.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Machine {
    /// What the processor calls itself.
    pub processor: String,
    /// Cores that this program may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Threads that ran or wanted to, on average over the last minute, when this was asked: what else was going on.
    pub load: f64,
}

impl Machine {
    /// This one, now. What the system does not say is empty, or zero.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            processor: processor(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, kernel, load } = self;
        write!(f, "{cores} cores of {processor}, Linux {kernel}, load {load:.1} at the start")
    }
}

fn processor(cpuinfo: &str) -> String {
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_name_is_found() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: A B @ 2 GHz\n"), "A B @ 2 GHz");
        assert_eq!(processor("processor\t: 0\n"), std::env::consts::ARCH);
    }
}
