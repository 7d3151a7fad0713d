//! What remains of a demo: `report.json` for programs, `report.html` for people, both in one directory.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::output::grouped;

/// Width of one step of the timeline.
pub(crate) const STEP_MS: u64 = 10;

/// Everything the demo found out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Whether everything holds.
    pub passed: bool,
    /// Nodes at the start.
    pub nodes: usize,
    /// The mode's name.
    pub mode: String,
    /// `multicast` or `unicast`.
    pub fan_out: String,
    /// Concurrent clients.
    pub clients: usize,
    /// Operations each client kept in flight.
    pub in_flight: usize,
    /// For how long the load ran.
    pub seconds: f64,
    /// Share of datagrams that every node threw away on purpose.
    pub drop: f64,
    /// Operations with a known outcome.
    pub operations: u64,
    /// Operations whose outcome stayed unknown.
    pub unknown: u64,
    /// Operations per second over the whole load, the crash included.
    pub throughput_ops_s: u64,
    /// Whether the clients slowed down to keep the history at a size that can be checked: then the throughput is theirs
    /// and not the cluster's.
    pub held_back: bool,
    /// Median time from submission to completion.
    pub p50_us: u64,
    /// 99 of 100 took at most so long.
    pub p99_us: u64,
    /// The longest, which waited for the new leader.
    pub max_us: u64,
    /// The leader that was killed.
    pub killed: u16,
    /// The leader afterwards.
    pub leader_after: u16,
    /// From the last completion before the kill to the first completion of an operation submitted after it.
    pub failover_ms: f64,
    /// When it was killed, after the load began.
    pub killed_at_ms: f64,
    /// Increments that were acknowledged and are not in the counters.
    pub lost_acknowledged: i128,
    /// Increments that took effect more than once.
    pub duplicated: i128,
    /// Whether an order of the whole history has been found and replayed that explains every answer.
    pub linearizable: bool,
    /// Whether the check gave up on a part of the history before it knew, which is no pass.
    pub undecided: bool,
    /// What does not hold, or why it could not be decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Keys in the history, each checked as a whole.
    pub keys: usize,
    /// Replies by the node they came from, as clients counted them.
    pub replies: Vec<Replies>,
    /// Bodies that survivors got by Fetch because the datagram with the request was lost.
    pub bodies_fetched: u64,
    /// Requests sent more than once by the clients.
    pub retransmitted: u64,
    /// The files with everything in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<PathBuf>,
    /// Completions in each step of [`STEP_MS`].
    #[serde(skip)]
    pub timeline: Vec<u32>,
}

/// How many replies came from a node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Replies {
    pub node: u16,
    pub replies: u64,
}

impl Report {
    /// The object on the last line of `demo --json`.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// Whether it is linearizable, in a word.
    pub(crate) fn verdict(&self) -> &'static str {
        match (self.linearizable, self.undecided) {
            (true, _) => "yes",
            (false, true) => "NOT DECIDED",
            (false, false) => "NO",
        }
    }

    /// Writes both files and returns the path of the one for people.
    pub(crate) fn write(&mut self, directory: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let html = directory.join("report.html");
        self.report = Some(html.clone());
        let mut value = serde_json::to_value(&*self).map_err(io::Error::other)?;
        value["timeline_step_ms"] = STEP_MS.into();
        value["timeline"] = self.timeline.clone().into();
        fs::write(directory.join("report.json"), serde_json::to_string_pretty(&value)?)?;
        fs::write(&html, self.to_html())?;
        Ok(html)
    }

    fn to_html(&self) -> String {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let mut rows = String::new();
        let mut row = |name: &str, value: String| {
            _ = write!(rows, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(&value));
        };
        row("cluster", format!("{} nodes, mode {}, fan-out by {}", self.nodes, self.mode, self.fan_out));
        row(
            "load",
            format!("{} clients, {} operations in flight each, {:.1} s", self.clients, self.in_flight, self.seconds),
        );
        if self.drop > 0.0 {
            row("loss on purpose", format!("{} %, {} bodies fetched", self.drop * 100.0, grouped(self.bodies_fetched)));
        }
        row("operations", format!("{} ({} of unknown outcome)", grouped(self.operations), grouped(self.unknown)));
        row("throughput", format!("{} operations/s, the crash included", grouped(self.throughput_ops_s)));
        row("latency", format!("p50 {} µs, p99 {} µs, longest {} µs", self.p50_us, self.p99_us, self.max_us));
        row("failover", format!("{:.1} ms without service after leader n{} was killed", self.failover_ms, self.killed));
        let replies: Vec<_> = self.replies.iter().map(|r| format!("n{} {}", r.node, grouped(r.replies))).collect();
        row("replies by node", replies.join(", "));
        row("acknowledged increments lost", self.lost_acknowledged.to_string());
        row("increments executed twice", self.duplicated.to_string());
        row("linearizable", format!("{} ({} keys)", self.verdict(), self.keys));
        let reason = self.reason.as_deref().map_or_else(String::new, |why| format!("<pre>{}</pre>", escaped(why)));
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>HovercRaft demo: {verdict}</title>\n\
             <style>{STYLE}</style></head>\n<body><h1>HovercRaft demo: {verdict}</h1>\n{svg}\n\
             <table>{rows}</table>\n{reason}\n</body></html>\n",
            svg = self.to_svg(),
        )
    }

    /// Completions over time, with the kill marked.
    fn to_svg(&self) -> String {
        const WIDTH: f64 = 960.0;
        const HEIGHT: f64 = 260.0;
        const LEFT: f64 = 70.0;
        const TOP: f64 = 30.0;
        const BOTTOM: f64 = TOP + HEIGHT;
        let steps = self.timeline.len().max(1) as f64;
        let per_second = 1000.0 / STEP_MS as f64;
        let highest = f64::from(self.timeline.iter().copied().max().unwrap_or(0).max(1));
        let x = |ms: f64| LEFT + ms / (steps * STEP_MS as f64) * WIDTH;
        let y = |count: f64| BOTTOM - count / highest * HEIGHT;

        let mut area = format!("M{:.1} {BOTTOM:.1}", x(0.0));
        for (step, &count) in self.timeline.iter().enumerate() {
            let (from, to) = (x((step as u64 * STEP_MS) as f64), x(((step as u64 + 1) * STEP_MS) as f64));
            _ = write!(area, "L{from:.1} {level:.1}L{to:.1} {level:.1}", level = y(f64::from(count)));
        }
        _ = write!(area, "L{:.1} {BOTTOM:.1}Z", x(steps * STEP_MS as f64));

        let mut svg = format!(
            "<svg viewBox=\"0 0 {:.0} {:.0}\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" \
             aria-label=\"completed operations per {STEP_MS} ms\">",
            LEFT + WIDTH + 20.0,
            BOTTOM + 50.0
        );
        let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
            _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text));
        };
        text(LEFT, TOP - 12.0, "start", &format!("completed operations per second, in steps of {STEP_MS} ms"));
        for share in [0.0, 0.5, 1.0] {
            let rate = (highest * share * per_second) as u64;
            text(LEFT - 8.0, y(highest * share) + 4.0, "end", &grouped(rate));
        }
        let seconds = (steps * STEP_MS as f64 / 1000.0) as u64;
        for second in 0..=seconds {
            text(x(second as f64 * 1000.0), BOTTOM + 18.0, "middle", &format!("{second} s"));
        }
        let killed = format!("leader n{} killed", self.killed);
        text(
            x(self.killed_at_ms),
            BOTTOM + 38.0,
            "middle",
            &format!("{killed}, service back after {:.0} ms", self.failover_ms),
        );
        _ = write!(
            svg,
            "<rect class=\"gap\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{HEIGHT}\"/>\
             <path class=\"area\" d=\"{area}\"/>\
             <line class=\"axis\" x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{:.1}\" y2=\"{BOTTOM}\"/>\
             <line class=\"kill\" x1=\"{kill:.1}\" y1=\"{TOP}\" x2=\"{kill:.1}\" y2=\"{:.1}\"><title>{killed}</title></line></svg>",
            x(self.killed_at_ms),
            self.failover_ms / (steps * STEP_MS as f64) * WIDTH,
            LEFT + WIDTH,
            BOTTOM + 24.0,
            kill = x(self.killed_at_ms),
        );
        svg
    }
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:15px system-ui,sans-serif;max-width:1050px;margin:2em auto;padding:0 1em}\
svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:currentColor}.area{fill:#2a7de1;fill-opacity:.75}\
.axis{stroke:currentColor}.kill{stroke:#d33;stroke-width:2}.gap{fill:#d33;fill-opacity:.15}\
table{border-collapse:collapse}th{text-align:left;font-weight:normal;opacity:.7;padding:.2em 2em .2em 0}pre{overflow-x:auto}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            nodes: 3,
            mode: "hovercraft".into(),
            killed: 2,
            killed_at_ms: 20.0,
            failover_ms: 10.0,
            timeline: vec![5, 9, 0, 7],
            linearizable: true,
            reason: Some("a < b & c".into()),
            ..Report::default()
        }
    }

    #[test]
    fn json_has_what_scripts_were_promised() {
        let value: serde_json::Value = serde_json::from_str(&report().to_json()).expect("JSON");
        for name in [
            "nodes",
            "mode",
            "operations",
            "throughput_ops_s",
            "p50_us",
            "p99_us",
            "failover_ms",
            "lost_acknowledged",
            "duplicated",
            "linearizable",
        ] {
            assert!(value.get(name).is_some(), "{name} is missing");
        }
        assert!(!report().to_json().contains('\n'));
    }

    #[test]
    fn files_stand_alone() {
        let directory = std::env::temp_dir().join(format!("hovercraft-test-report-{}", std::process::id()));
        let html = report().write(&directory).expect("written");
        let text = fs::read_to_string(html).expect("HTML");
        assert!(text.contains("<svg") && text.contains("leader n2 killed") && text.contains("a &lt; b &amp; c"));
        let outside = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http"), "needs nothing from outside");
        let json = fs::read_to_string(directory.join("report.json")).expect("JSON");
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["timeline"], serde_json::json!([5, 9, 0, 7]));
        fs::remove_dir_all(directory).expect("tidy up");
    }
}
