//! Runs peers in alternating rounds, so that whatever else the machine does meets all of them alike.

use crate::Result;
use crate::clock::float;
use crate::drive::{Plan, Round};
use crate::report::{Line, Report};
use crate::server::Counted;

/// Something that is measured: a name, and how a window of it is run.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'static str,
    run: Window<'a>,
}

type Window<'a> = Box<dyn FnMut(&Plan) -> Result<Round> + 'a>;

impl<'a> Peer<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut(&Plan) -> Result<Round> + 'a) -> Peer<'a> {
        Peer { name, run: Box::new(run) }
    }
}

/// The rounds of all peers, in the order of the peers.
pub(crate) struct Compared(Vec<Vec<Round>>);

/// What is compared.
pub(crate) type Measure = fn(&Round) -> f64;

impl Compared {
    /// Runs `rounds` rounds of each, in turn, and writes a line for each.
    pub(crate) fn run(
        report: &mut Report,
        workload: &str,
        peers: &mut [Peer<'_>],
        plan: &Plan,
        rounds: usize,
    ) -> Result<Compared> {
        let mut all: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
        for repetition in 0..rounds {
            for (peer, rounds) in peers.iter_mut().zip(&mut all) {
                let round = (peer.run)(plan)?;
                report.line(Line::of(peer.name, workload, &round, plan, repetition));
                rounds.push(round);
            }
        }
        Ok(Compared(all))
    }

    /// The rounds of one peer.
    pub(crate) fn of(&self, peer: usize) -> &[Round] {
        &self.0[peer]
    }

    /// The middle of one peer's rounds.
    pub(crate) fn median(&self, peer: usize, measure: impl Fn(&Round) -> f64) -> f64 {
        median(self.of(peer).iter().map(measure).collect())
    }

    /// A count of the server for each grant; the few after the window are counted on both sides.
    pub(crate) fn each(&self, peer: usize, of: impl Fn(&Counted) -> u64) -> f64 {
        self.median(peer, |round| {
            let grants = float(round.acquire.len().max(1));
            round.server.as_ref().map_or(f64::NAN, |server| float(of(server)) / grants)
        })
    }

    /// The middle of the ratios of two peers within each round.
    pub(crate) fn ratio(&self, peer: usize, to: usize, measure: Measure) -> f64 {
        median(
            self.of(peer).iter().zip(self.of(to)).map(|(one, other)| measure(one) / measure(other)).collect(),
        )
    }

    /// µs of CPU for each grant: the client's, and the server's if there is one. Other load changes it least.
    fn cpu(&self, peer: usize) -> String {
        let each = |seconds: f64, round: &Round| 1e6 * seconds / float(round.grants.max(1));
        let client = median(self.of(peer).iter().map(|round| each(round.cpu_seconds, round)).collect());
        let with_server = |round: &Round| Some(each(round.server.as_ref()?.cpu_seconds, round));
        let server: Option<Vec<f64>> = self.of(peer).iter().map(with_server).collect();
        match server {
            Some(server) => format!("{client:.1} + {:.1}", median(server)),
            None => format!("{client:.2}"),
        }
    }

    /// The row of a table for one peer, beside the one that is the measure.
    pub(crate) fn row(&self, name: &str, peer: usize, to: usize, measure: Measure) -> Vec<String> {
        let rounds = self.of(peer);
        let micros =
            |of: fn(&Round) -> u64| median(rounds.iter().map(|round| float(of(round)) / 1e3).collect());
        let percentiles = if rounds.iter().all(|round| round.acquire.is_empty()) {
            String::new()
        } else {
            let p50 = micros(|round| time_of(round).value_at_quantile(0.5));
            let p99 = micros(|round| time_of(round).value_at_quantile(0.99));
            format!("{p50:.1} / {p99:.1}")
        };
        vec![
            name.to_owned(),
            rate(self.median(peer, measure)),
            format!("×{:.2}", self.ratio(peer, to, measure)),
            percentiles,
            self.cpu(peer),
            format!("{:.0} %", 100.0 * self.median(peer, Round::self_share)),
            format!("{:.2}", self.median(peer, |round| float(round.most) / float(round.fewest.max(1)))),
            format!("{:.1}", self.median(peer, |round| float(round.longest_wait) / 1e6)),
            format!("{:.1}", self.median(peer, |round| round.drained_ms)),
        ]
    }
}

/// The head of the tables of [`Compared::row`].
pub(crate) const HEAD: [&str; 9] = [
    "peer",
    "per second",
    "ratio",
    "p50 / p99 µs",
    "CPU µs",
    "to itself",
    "most : fewest",
    "longest ms",
    "drain ms",
];

/// The hand-over where there was one, else the acquire.
pub(crate) fn time_of(round: &Round) -> &hdrhistogram::Histogram<u64> {
    if round.hand_over.is_empty() { &round.acquire } else { &round.hand_over }
}

/// The middle value.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Such as `1.23 M` or `45.6 k`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        millions if millions >= 1e6 => format!("{:.2} M", millions / 1e6),
        thousands if thousands >= 1e4 => format!("{:.1} k", thousands / 1e3),
        few => format!("{few:.0}"),
    }
}
