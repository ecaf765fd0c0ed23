//! Whether what the clients of a play believed can be explained.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use super::{Stage, World};
use crate::history::{self, Act, Event, Options, Summary};

impl<W: World> Stage<W> {
    pub(super) fn judged(&self) -> Result<Summary, String> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = self.history.events();
        let granted: Vec<Event> = events.iter().filter(|event| is_grant(event)).cloned().collect();
        for grant in granted {
            let forgiven = claims.get(&grant.attempt).and_then(|&id| self.world.forgiven(id));
            if let Some(at) = forgiven {
                end(&mut events, &grant, at);
            }
        }
        // Whoever loses a claim at the moment at which another is granted did not believe in it any more.
        let begun: HashMap<u64, u64> =
            events.iter().filter(|event| is_grant(event)).map(|grant| (grant.attempt, grant.at)).collect();
        let is_end = |event: &Event| {
            event.act == Act::Lost && begun.get(&event.attempt).is_some_and(|&begun| begun < event.at)
        };
        events.sort_by_key(|event| (event.at, !is_end(event)));
        let options = Options { complete: true, ..Options::default() };
        history::check(&events, options).map_err(|violation| {
            let named = |event: &Event| format!("{} {:?}", event.to_json(), claims.get(&event.attempt));
            let all: Vec<String> = events.iter().map(named).collect();
            format!("{violation}\n{}", all.join("\n"))
        })
    }
}

fn is_grant(event: &Event) -> bool {
    matches!(event.act, Act::Granted { .. })
}

/// Nothing counts from then on that the holder of this grant believed.
fn end(events: &mut Vec<Event>, grant: &Event, at: Duration) {
    let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    if at > grant.at {
        events.push(Event { at, act: Act::Lost, ..grant.clone() });
    } else {
        // It was told so after its end.
        let is_later =
            |event: &Event| event.attempt == grant.attempt && !matches!(event.act, Act::Asked { .. });
        events.retain(|event| !is_later(event));
        events.push(Event { act: Act::GaveUp, ..grant.clone() });
    }
}
