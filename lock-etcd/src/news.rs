//! What clients tell each other of their claims: one key for each client, whose every write its one watch brings.

use lockcore::{ClaimId, Ending, Fence};

use crate::core::Core;
use crate::keys::Keys;
use crate::link::News;
use crate::token;
use crate::txn::{TxnOp, put};

/// What one write says to whom: each client's key can be written once in a transaction.
#[derive(Default)]
pub(crate) struct Messages<'a>(Vec<(&'a str, String)>);

impl<'a> Messages<'a> {
    pub(crate) fn add(&mut self, client: &'a str, line: &str) {
        match self.0.iter_mut().find(|(of, _)| *of == client) {
            Some((_, message)) => message.push_str(line),
            None => self.0.push((client, line.to_owned())),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn writes(self, keys: &Keys, lease: i64) -> impl Iterator<Item = TxnOp> {
        self.0.into_iter().map(move |(client, message)| put(keys.news(client), message, lease))
    }
}

/// Says that a claim was granted by the very write that this goes out with, after so many others.
pub(crate) fn granted(id: ClaimId, nth: u64, floor: u64) -> String {
    format!("G {id} {nth} {floor}\n")
}

/// Says that a claim has ended.
pub(crate) fn ended(id: ClaimId, ending: Ending) -> String {
    let letter = match ending {
        Ending::Broken => 'B',
        Ending::TakenOver => 'T',
        Ending::Expired => 'E',
    };
    format!("{letter} {id}\n")
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Granted(ClaimId, Fence),
    Ended(ClaimId, Ending),
}

/// Reads a message that came with the write of `revision`; what cannot be read ends it.
fn lines(message: &str, revision: i64) -> impl Iterator<Item = Line> {
    message.lines().map_while(move |line| {
        let mut words = line.split(' ');
        let (kind, id) = (words.next()?, words.next()?.parse().ok()?);
        let ended = |ending| Some(Line::Ended(id, ending));
        match kind {
            "G" => {
                let (nth, floor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Some(Line::Granted(id, token::fence(revision, nth, floor)))
            }
            "B" => ended(Ending::Broken),
            "T" => ended(Ending::TakenOver),
            "E" => ended(Ending::Expired),
            _ => None,
        }
    })
}

impl Core {
    /// Rings the bells that the watch has brought something for.
    pub(crate) async fn dispatch(&self, news: &[News]) {
        for one in news {
            match one {
                News::Written { value, revision } => self.dispatch_message(value, *revision),
                News::Deleted { name } => {
                    if let Some(lease) = self.leases.ended(name).await {
                        self.registry.lease_ended(&lease);
                    }
                }
            }
        }
    }

    fn dispatch_message(&self, message: &[u8], revision: i64) {
        for line in lines(&String::from_utf8_lossy(message), revision) {
            match line {
                Line::Granted(id, fence) => self.registry.granted(id, fence, revision),
                Line::Ended(id, ending) => self.registry.ended(id, ending),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let (one, other) = (ClaimId::from_bits(1), ClaimId::from_bits(2));
        let message = granted(one, 0, 0) + &granted(other, 1, 850) + &ended(one, Ending::Broken) + "?";
        assert_eq!(
            lines(&message, 9).collect::<Vec<_>>(),
            [
                Line::Granted(one, token::fence(9, 0, 0)),
                Line::Granted(other, token::fence(9, 1, 850)),
                Line::Ended(one, Ending::Broken),
            ]
        );
    }
}
