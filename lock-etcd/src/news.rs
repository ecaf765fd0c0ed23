//! What clients tell each other of their claims: one key for each client, whose every write its one watch brings.

use lockcore::{ClaimId, Ending, Fence, FencingToken};

use crate::core::Core;
use crate::link::News;

/// Says that a claim was granted by the very write that this goes out with.
pub(crate) fn granted(id: ClaimId, floor: u64) -> String {
    format!("G {id} {floor}\n")
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
                let token = FencingToken::new(revision.unsigned_abs())?;
                let floor = FencingToken::new(words.next()?.parse().ok()?).unwrap_or(token);
                Some(Line::Granted(id, Fence { token, floor }))
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
        let message = granted(one, 0) + &granted(other, 5) + &ended(one, Ending::Broken) + "?";
        let token = |n| FencingToken::new(n).unwrap();
        assert_eq!(
            lines(&message, 9).collect::<Vec<_>>(),
            [
                Line::Granted(one, Fence { token: token(9), floor: token(9) }),
                Line::Granted(other, Fence { token: token(9), floor: token(5) }),
                Line::Ended(one, Ending::Broken),
            ]
        );
    }
}
