//! `fencelock inspect`, `list` and `break`: a lock from outside.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write as _};

use fencelock::{BreakTarget, ClaimInfo, FencingToken, PageToken, Snapshot};
use serde_json::{Value, json};

use crate::cli::{BreakArgs, InspectArgs, ListArgs};
use crate::duration::{clock, short};
use crate::exit::{Failure, NOTHING};
use crate::voice::say;

/// Shows who holds a lock and who waits for it.
pub(crate) async fn inspect(args: InspectArgs) -> Result<u8, Failure> {
    let backend = args.backend.find()?;
    let look = async {
        let locks = backend.connect().await?;
        Ok(locks.lock(args.key.as_str())?.inspect().await?)
    };
    let snapshot = look.await.map_err(|failure| backend.shield(failure))?;
    print(&if args.json {
        format!("{:#}\n", as_json(&args.key, &backend.public(), &snapshot))
    } else {
        as_text(&args.key, &backend.public(), &snapshot)
    })
}

/// Breaks what the arguments name.
pub(crate) async fn break_lock(args: BreakArgs) -> Result<u8, Failure> {
    let target = match (args.token, args.owner) {
        (Some(token), _) => BreakTarget::Token(
            FencingToken::new(token)
                .ok_or_else(|| Failure::misuse(format!("{token} is no fencing token")))?,
        ),
        (None, Some(owner)) => BreakTarget::Owner(owner.into()),
        (None, None) => BreakTarget::Holders,
    };
    let backend = args.backend.find()?;
    let strike = async {
        let locks = backend.connect().await?;
        Ok(locks.lock(args.key.as_str())?.break_claims(target).await?)
    };
    let broken = strike.await.map_err(|failure| backend.shield(failure))?;
    if broken.is_empty() {
        say(format_args!("nothing to break on {:?}", args.key));
        return Ok(NOTHING);
    }
    print(&with_line_ends(broken.iter().map(broken_line).collect()))
}

/// Lists keys.
pub(crate) async fn list(args: ListArgs) -> Result<u8, Failure> {
    let backend = args.backend.find()?;
    let look = async {
        let locks = backend.connect().await?;
        // A key may come twice.
        let mut keys = BTreeSet::new();
        let mut next = Some(PageToken::default());
        while let Some(page) = next {
            let page = locks.list(args.prefix.as_str(), page).await?;
            keys.extend(page.keys);
            next = page.next;
        }
        Ok(keys)
    };
    let keys = look.await.map_err(|failure| backend.shield(failure))?;
    print(&if args.json {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "key": key.as_str() })).collect();
        format!("{:#}\n", Value::from(keys))
    } else {
        with_line_ends(keys.iter().map(|key| word(key.as_str())).collect())
    })
}

/// Prints an answer; gives the exit code.
pub(crate) fn print(text: &str) -> Result<u8, Failure> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed the pipe (`| head -1`) has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::own(format!("cannot print: {error}")))
        }
        Ok(()) | Err(_) => Ok(0),
    }
}

fn as_text(key: &str, backend: &str, snapshot: &Snapshot) -> String {
    let mode = mode(snapshot);
    let fence = or_dash(fence(snapshot));
    let mut lines = vec![format!("key      {}   backend {backend}   mode {mode}   fence {fence}", word(key))];
    lines.extend(snapshot.holders.iter().map(|holder| {
        format!(
            "holder   {}   since {}   left {}   token {}{}   note {}",
            name(holder),
            clock(holder.age),
            short(holder.left),
            or_dash(holder.token),
            if holder.upgrading { "   upgrading" } else { "" },
            or_dash(holder.note.as_ref().map(|note| format!("{note:?}"))),
        )
    }));
    lines.push(format!("waiting  {}", snapshot.waiters.len()));
    lines.extend(snapshot.waiters.iter().enumerate().map(|(at, waiter)| {
        // Padded as text: a mode's own formatting knows no width.
        let mode = waiter.mode.to_string();
        format!("  {}  {mode:<9}  {}   {}{}", at + 1, name(waiter), clock(waiter.age), note(waiter))
    }));
    with_line_ends(lines)
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn note(claim: &ClaimInfo) -> String {
    claim.note.as_ref().map(|note| format!("   note {note:?}")).unwrap_or_default()
}

fn with_line_ends(mut lines: Vec<String>) -> String {
    // For the last one.
    lines.push(String::new());
    lines.join("\n")
}

fn as_json(key: &str, backend: &str, snapshot: &Snapshot) -> Value {
    json!({
        "key": key,
        "backend": backend,
        "mode": mode(snapshot),
        "fence": fence(snapshot),
        "holders": snapshot.holders.iter().map(claim).collect::<Vec<_>>(),
        "waiting": snapshot.waiters.iter().map(claim).collect::<Vec<_>>(),
    })
}

/// One claim with the fields of the text. What there is not, such as a note, is null here and `-` there.
fn claim(claim: &ClaimInfo) -> Value {
    json!({
        "id": claim.id.to_string(),
        "mode": claim.mode.to_string(),
        "owner": claim.owner.as_deref(),
        "note": claim.note.as_deref(),
        "token": claim.token.map(FencingToken::get),
        "since_seconds": claim.age.as_secs_f64(),
        "left_seconds": claim.left.as_secs_f64(),
        "upgrading": claim.upgrading,
    })
}

fn mode(snapshot: &Snapshot) -> String {
    snapshot.holders.first().map_or_else(|| "free".into(), |holder| holder.mode.to_string())
}

/// The newest token.
fn fence(snapshot: &Snapshot) -> Option<u64> {
    snapshot.holders.iter().filter_map(|holder| holder.token).max().map(FencingToken::get)
}

fn broken_line(claim: &ClaimInfo) -> String {
    let role = if claim.token.is_some() { "holder" } else { "waiter" };
    let token = claim.token.map(|token| format!("   token {token}")).unwrap_or_default();
    let (who, since) = (name(claim), clock(claim.age));
    format!("broke {} {role}   {who}   since {since}{token}{}", claim.mode, note(claim))
}

/// Who it is: the owner, or the claim's id.
pub(crate) fn name(claim: &ClaimInfo) -> String {
    claim.owner.as_deref().map_or_else(|| claim.id.to_string(), word)
}

/// The text as it is if it is one word, else quoted: so that a line has as many words as it seems, and no control
/// character that somebody put into an owner reaches the terminal.
fn word(text: &str) -> String {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"';
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fencelock::{ClaimId, Mode};

    use super::*;

    #[test]
    fn text_and_json_have_the_same_fields() {
        let holder = ClaimInfo {
            id: ClaimId::from_bits(1),
            mode: Mode::Shared,
            owner: Some("web-3".into()),
            note: None,
            token: FencingToken::new(7),
            age: Duration::from_millis(161_500),
            left: Duration::from_millis(21_400),
            upgrading: true,
        };
        let snapshot = Snapshot { holders: vec![holder], waiters: Vec::new() };
        let text = as_text("k", "memory:", &snapshot);
        let line = "holder   web-3   since 00:02:41   left 21.4s   token 7   upgrading   note -";
        assert_eq!(text.lines().nth(1), Some(line));
        let json = as_json("k", "memory:", &snapshot)["holders"][0].take();
        let expected = json!({
            "id": ClaimId::from_bits(1).to_string(), "mode": "shared", "owner": "web-3", "since_seconds": 161.5,
            "left_seconds": 21.4, "token": 7, "upgrading": true, "note": null,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn words_stay_and_the_rest_is_quoted() {
        assert_eq!(word("web-3/4711"), "web-3/4711");
        assert_eq!(word("ключ"), "ключ");
        assert_eq!(word("two words"), r#""two words""#);
        assert_eq!(word("\u{1b}[2J"), r#""\u{1b}[2J""#);
        assert_eq!(word(""), r#""""#);
    }
}
