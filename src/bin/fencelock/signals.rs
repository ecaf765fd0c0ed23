//! Signals as they come in.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// What asks a process to end: it ends a wait, and is handed on to a child.
pub(crate) const ENDING: [Signal; 6] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// What else is handed on to a child, or stops and continues it with us.
pub(crate) const OTHERS: [Signal; 3] = [Signal::WINCH, Signal::CONT, Signal::TSTP];

/// The signals that are listened to. From the first on, their default actions are off until the process ends.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Listens to `signals`, except to those that were ignored when this program was started: under nohup, or in the
    /// background of a shell without job control, the child is to ignore them as well.
    pub(crate) fn listen(signals: &[Signal]) -> io::Result<Signals> {
        let mut listening = Signals(Vec::new());
        listening.also(signals)?;
        Ok(listening)
    }

    /// Listens to more.
    pub(crate) fn also(&mut self, signals: &[Signal]) -> io::Result<()> {
        let ignored = ignored();
        for &signal in signals {
            if ignored & (1 << (signal.as_raw() - 1)) == 0 {
                self.0.push((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
            }
        }
        Ok(())
    }

    /// The next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if let Poll::Ready(Some(())) = stream.poll_recv(context) {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for `work`, but no longer than until a signal comes; the work is dropped then.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Signal> {
        tokio::select! {
            biased;
            signal = self.next() => Err(signal),
            outcome = work => Ok(outcome),
        }
    }
}

/// The set of ignored signals, as the kernel tells it; none where it does not.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
