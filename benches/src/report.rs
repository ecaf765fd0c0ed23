//! What comes out: lines for programs, tables and targets for people.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::clock::float;
use crate::compare::time_of;
use crate::drive::{Plan, Round};
use crate::server::Counted;

/// One result. Times are in µs unless they say otherwise; what does not apply is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Line {
    pub(crate) peer: String,
    pub(crate) backend: String,
    pub(crate) workload: String,
    pub(crate) lang: &'static str,
    pub(crate) rep: usize,
    pub(crate) clients: u64,
    pub(crate) ops: u64,
    pub(crate) secs: f64,
    pub(crate) ops_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acq_p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acq_p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cycle_p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cycle_p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) self_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handovers_per_s: Option<f64>,
    pub(crate) fair_min: u64,
    pub(crate) fair_max: u64,
    pub(crate) starved: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) longest_wait_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drain_ms: Option<f64>,
    pub(crate) violations: u64,
    pub(crate) failures: u64,
    pub(crate) stuck: u64,
    pub(crate) client_cpu_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_s: Option<f64>,
    /// What clients sent: scripts and commands, or requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cmds: Option<u64>,
    /// All commands, those inside scripts too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cmds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raft_entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fsyncs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fill_secs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Calls of the client's backend, each a request of its own on the wire unless it is longer than a pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<u64>,
}

impl Line {
    pub(crate) fn of(peer: &str, workload: &str, round: &Round, plan: &Plan, rep: usize) -> Line {
        let contended = !round.hand_over.is_empty();
        let timed = !round.acquire.is_empty();
        let of = |histogram: &hdrhistogram::Histogram<u64>, quantile| {
            (!histogram.is_empty()).then(|| float(histogram.value_at_quantile(quantile)) / 1e3)
        };
        let many = round.to_itself < round.grants;
        Line {
            peer: peer.to_owned(),
            workload: workload.to_owned(),
            rep,
            clients: round.workers,
            ops: round.grants,
            secs: round.seconds,
            ops_per_s: round.per_second(),
            p50_us: of(time_of(round), 0.5),
            p99_us: of(time_of(round), 0.99),
            acq_p50_us: of(&round.acquire, 0.5).filter(|_| contended),
            acq_p99_us: of(&round.acquire, 0.99).filter(|_| contended),
            cycle_p50_us: of(&round.cycle, 0.5),
            cycle_p99_us: of(&round.cycle, 0.99),
            self_share: many.then(|| round.self_share()).filter(|_| plan.shared == 0),
            handovers_per_s: many.then(|| round.hand_overs_per_second()).filter(|_| plan.shared == 0),
            fair_min: round.fewest,
            fair_max: round.most,
            starved: round.starved,
            longest_wait_ms: timed.then(|| float(round.longest_wait) / 1e6),
            drain_ms: Some(round.drained_ms),
            violations: round.violations,
            failures: round.failures,
            stuck: round.stuck,
            client_cpu_s: round.cpu_seconds,
            ..Line::default()
        }
        .with_server(round.server.as_ref())
    }

    /// With what the server counted, if there is one.
    pub(crate) fn with_server(self, server: Option<&Counted>) -> Line {
        Line {
            server_cpu_s: server.map(|server| server.cpu_seconds),
            server_cmds: server.map(|server| server.requests),
            messages: server.map(|server| server.messages),
            cmds: server.and_then(|server| server.commands),
            raft_entries: server.and_then(|server| server.raft_entries),
            fsyncs: server.and_then(|server| server.fsyncs),
            ..self
        }
    }
}

/// Whether something is as fast as we want.
struct Target {
    what: String,
    wanted: String,
    measured: String,
    met: bool,
}

/// Everything that one run has found.
pub(crate) struct Report {
    backend: String,
    lines: Vec<Line>,
    targets: Vec<Target>,
}

impl Report {
    pub(crate) fn new(backend: &str) -> Report {
        Report { backend: backend.to_owned(), lines: Vec::new(), targets: Vec::new() }
    }

    pub(crate) fn line(&mut self, line: Line) {
        let line = Line { backend: self.backend.clone(), lang: "rust", ..line };
        if line.violations + line.failures + line.stuck > 0 {
            eprintln!(
                "VOID: {} {}: {} violations, {} failures, {} stuck",
                line.peer, line.workload, line.violations, line.failures, line.stuck
            );
        }
        self.lines.push(line);
    }

    /// A figure that should be at least so much.
    pub(crate) fn at_least(&mut self, what: impl Into<String>, measured: f64, wanted: f64) {
        self.target(what.into(), format!("≥ {}", short(wanted)), measured, measured >= wanted);
    }

    /// A figure that should be at most so much.
    pub(crate) fn at_most(&mut self, what: impl Into<String>, measured: f64, wanted: f64) {
        self.target(what.into(), format!("≤ {}", short(wanted)), measured, measured <= wanted);
    }

    fn target(&mut self, what: String, wanted: String, measured: f64, met: bool) {
        let measured = short(measured);
        println!("{} {what}: {measured} ({wanted})", if met { "ok    " } else { "MISSED" });
        self.targets.push(Target { what, wanted, measured, met });
    }

    /// Writes the lines and prints the targets. Whether every history held.
    pub(crate) fn finish(&self, folder: &Path) -> Result<bool> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&serde_json::to_string(line)?);
            text.push('\n');
        }
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.jsonl", self.backend));
        fs::write(&path, text)?;
        let rows: Vec<Vec<String>> = self.targets.iter().map(Target::row).collect();
        println!("\n## Targets\n");
        table(&["target", "wanted", "measured", ""], &rows);
        println!("\n{} lines in {}", self.lines.len(), path.display());
        Ok(self.lines.iter().all(|line| line.violations + line.failures + line.stuck == 0))
    }
}

impl Target {
    fn row(&self) -> Vec<String> {
        let verdict = if self.met { "ok" } else { "MISSED" };
        vec![self.what.clone(), self.wanted.clone(), self.measured.clone(), verdict.to_owned()]
    }
}

fn short(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        medium if medium >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// Prints a table that is Markdown, too.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let print = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        println!("| {} |", padded.join(" | "));
    };
    print(head.to_vec());
    println!("|{}|", widths.iter().map(|&width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}
