//! The names of things on the server: which keys belong to a lock, and how a key is written there.

use lockcore::{ClaimId, Error, ErrorKind, Key, KeyPrefix, Mode, Result};

use crate::slots::Slot;

/// The names under one prefix.
///
/// An exclusive claim on `a/b` is `lock/a%2Fb/~x/<client>.<slot>`. A lock's own part begins with `/~`, and neither keys nor prefixes
/// have a `~` of their own in them, so that locks under one prefix never lie among those of another.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

/// Where a claim's key lies: by the mode that it joined with. What it is now is in its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Permit,
    Shared,
    /// Not a claim of its own: it says that a claim stands out of turn (an upgrade, a take-over).
    Marker,
    Exclusive,
}

impl Kind {
    pub(crate) fn of(mode: Mode) -> Kind {
        match mode {
            Mode::Exclusive => Kind::Exclusive,
            Mode::Shared => Kind::Shared,
            Mode::Permit { .. } => Kind::Permit,
        }
    }

    fn letter(self) -> char {
        match self {
            Kind::Permit => 'p',
            Kind::Shared => 's',
            Kind::Marker => 'u',
            Kind::Exclusive => 'x',
        }
    }
}

/// A range of names: from the first to before the second.
pub(crate) type Span = (String, String);

impl Keys {
    /// # Errors
    /// `InvalidArgument` for a prefix under which names would be ambiguous.
    pub(crate) fn new(prefix: String) -> Result<Keys> {
        let fine = !prefix.contains(['~', '\0']) && (prefix.is_empty() || prefix.ends_with('/'));
        if fine {
            Ok(Keys { prefix })
        } else {
            let message =
                format!("the prefix must end with a slash and have no tilde in it, unlike {prefix:?}");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn of(&self, key: &Key) -> Names {
        let mut base = String::with_capacity(self.prefix.len() + key.as_str().len() + 2);
        base.push_str(&self.prefix);
        escape_into(&mut base, key.as_str());
        base.push_str("/~");
        Names { base }
    }

    /// Where the client of this session hears of its claims.
    pub(crate) fn news(&self, session: &str) -> String {
        format!("{}~news/{session}", self.prefix)
    }

    /// The range of all names of the keys that begin with `prefix`.
    pub(crate) fn listing(&self, prefix: &KeyPrefix) -> Span {
        let mut start = self.prefix.clone();
        escape_into(&mut start, prefix.as_str());
        // Above every character, also above the first one of a name of `news`.
        let end = format!("{start}\u{10ffff}\u{10ffff}");
        (start, end)
    }

    /// The key that a claim's name belongs to; `None` for other names.
    pub(crate) fn key_of(&self, name: &[u8]) -> Option<Key> {
        let name = std::str::from_utf8(name).ok()?;
        let (escaped, rest) = name.strip_prefix(&self.prefix)?.split_once("/~")?;
        // A slash is escaped: this is a lock under a longer prefix.
        if escaped.contains('/') || !matches!(rest.as_bytes().first()?, b'p' | b's' | b'x') {
            return None;
        }
        Key::new(unescape(escaped)?).ok()
    }

    /// The first name behind all of the lock that `name` belongs to.
    pub(crate) fn behind(name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name);
        match name.split_once("/~") {
            Some((lock, _)) => format!("{lock}/~~"),
            None => format!("{name}\0"),
        }
    }
}

/// The names of one lock.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    base: String,
}

impl Names {
    /// The key of a claim of the client of this session.
    pub(crate) fn of(&self, kind: Kind, session: &str, slot: Slot) -> String {
        format!("{}{}/{session}.{slot}", self.base, kind.letter())
    }

    /// The marker of the claim whose key this is.
    pub(crate) fn marker(&self, name: &str) -> String {
        let slot = name.rsplit_once('/').map_or(name, |(_, slot)| slot);
        format!("{}{}/{slot}", self.base, Kind::Marker.letter())
    }

    /// Says that the claim has ended for good.
    pub(crate) fn ended(&self, id: ClaimId) -> String {
        format!("{}d/{id}", self.base)
    }

    /// All claims and markers.
    pub(crate) fn everything(&self) -> Span {
        (format!("{}p", self.base), format!("{}y", self.base))
    }

    /// All of one kind.
    pub(crate) fn all(&self, kind: Kind) -> Span {
        let letter = kind.letter();
        (format!("{}{letter}/", self.base), format!("{}{letter}0", self.base))
    }

    /// Everything that a shared claim waits behind: markers and exclusive claims. Permits are a range of their own.
    pub(crate) fn out_of_turn_and_exclusive(&self) -> Span {
        (format!("{}u", self.base), format!("{}y", self.base))
    }

    /// What a name of this lock stands for.
    pub(crate) fn kind(&self, name: &[u8]) -> Option<Kind> {
        let rest = std::str::from_utf8(name).ok()?.strip_prefix(&self.base)?;
        let (letter, _slot) = rest.split_once('/')?;
        match letter {
            "p" => Some(Kind::Permit),
            "s" => Some(Kind::Shared),
            "u" => Some(Kind::Marker),
            "x" => Some(Kind::Exclusive),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.base.trim_end_matches("/~")
    }
}

/// Slashes and tildes mark the parts of a name, and nobody wants control characters in a terminal.
fn escape_into(name: &mut String, text: &str) {
    for c in text.chars() {
        if matches!(c, '%' | '/' | '~' | '\0'..='\x1f' | '\x7f' | '\u{10ffff}') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                name.push('%');
                for digit in [byte >> 4, byte & 15] {
                    name.push(char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase());
                }
            }
        } else {
            name.push(c);
        }
    }
}

fn unescape(escaped: &str) -> Option<String> {
    let mut text = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first == b'%' {
            let (digits, behind) = rest.split_at_checked(2)?;
            text.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = behind;
        } else {
            text.push(first);
        }
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back_and_differ() {
        let keys = Keys::new("lock/".into()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for text in
            ["a", "a/b", "~", "a/~x/", "%7E", "%", "a\0b", "new\nline", "ключ", "é%", "\u{10ffff}", "x"]
        {
            let key = Key::new(text).unwrap();
            let names = keys.of(&key);
            let name = names.of(Kind::Shared, "1f", Slot::default());
            let marker = names.marker(&name);
            assert_eq!(keys.key_of(name.as_bytes()), Some(key), "{name}");
            assert_eq!(names.kind(name.as_bytes()), Some(Kind::Shared), "{name}");
            assert_eq!(names.kind(marker.as_bytes()), Some(Kind::Marker), "{marker}");
            let (start, end) = names.everything();
            assert!(start < name && name < end && start < marker && marker < end, "{name}");
            assert!(names.ended(ClaimId::from_bits(7)) < start);
            let (start, end) = keys.listing(&KeyPrefix::new(text).unwrap());
            assert!(start <= name && name < end, "{name}");
            assert!(Keys::behind(name.as_bytes()) > marker);
            assert!(seen.insert(name));
        }
    }

    #[test]
    fn a_lock_never_lies_among_those_of_another_prefix() {
        let (outer, inner) = (Keys::new("lock/".into()).unwrap(), Keys::new("lock/a/".into()).unwrap());
        let (start, end) = outer.of(&Key::new("a").unwrap()).everything();
        for text in ["x", "~x", "u", "pxyz"] {
            let name = inner.of(&Key::new(text).unwrap()).of(Kind::Exclusive, "1", Slot::default());
            assert!(name < start || name >= end, "{name}");
        }
        assert!(Keys::new("lock".into()).is_err() && Keys::new("a/~x/".into()).is_err());
        assert_eq!(outer.key_of(outer.news("5").as_bytes()), None);
    }
}
