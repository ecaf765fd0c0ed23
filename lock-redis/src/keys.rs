//! The names of things on the server: which keys belong to a lock, and how a key is written there.

use lockcore::{ClaimId, Key, KeyPrefix};

/// The names under one prefix.
///
/// The header of the lock on `a/b` is `lock/{a/b}`; its other keys are that and one letter more. What stands in the
/// braces is the hash tag of Redis Cluster, so that all keys of a lock lie in one slot.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: String) -> Keys {
        Keys { prefix }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of the lock's header.
    pub(crate) fn header(&self, key: &Key) -> String {
        let text = key.as_str();
        let mut name = String::with_capacity(self.prefix.len() + text.len() + 2);
        name.push_str(&self.prefix);
        name.push('{');
        escape_into(&mut name, text);
        name.push('}');
        name
    }

    /// The pattern that matches the headers of all keys that begin with `prefix`.
    pub(crate) fn pattern(&self, prefix: &KeyPrefix) -> String {
        let mut begin = format!("{}{{", self.prefix);
        escape_into(&mut begin, prefix.as_str());
        let mut pattern = String::with_capacity(begin.len() + 8);
        for c in begin.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push_str("*}");
        pattern
    }

    /// The key that a header's name stands for; `None` when it is not one that [`header`](Keys::header) makes.
    pub(crate) fn key_of(&self, name: &[u8]) -> Option<Key> {
        let name = std::str::from_utf8(name).ok()?;
        let escaped = name.strip_prefix(&self.prefix)?.strip_prefix('{')?.strip_suffix('}')?;
        let key = Key::new(unescape(escaped)?).ok()?;
        (self.header(&key) == name).then_some(key)
    }

    /// The channel on which a client hears of its claims.
    pub(crate) fn channel(&self) -> String {
        format!("{}news/{}", self.prefix, &ClaimId::random().to_string()[..16])
    }
}

/// Braces would end the hash tag, and nobody wants control characters in a terminal.
fn escape_into(name: &mut String, text: &str) {
    for c in text.chars() {
        if matches!(c, '%' | '{' | '}' | '\0'..='\x1f' | '\x7f') {
            let code = u32::from(c);
            name.push('%');
            for digit in [code >> 4, code & 15] {
                name.push(char::from_digit(digit, 16).unwrap_or('0').to_ascii_uppercase());
            }
        } else {
            name.push(c);
        }
    }
}

fn unescape(escaped: &str) -> Option<String> {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let code = u8::from_str_radix(rest.get(at + 1..at + 3)?, 16).ok()?;
        text.push(char::from(code));
        rest = &rest[at + 3..];
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("lock/".into())
    }

    #[test]
    fn names_go_there_and_back_and_differ() {
        let texts = ["a", "a/b", "{}", "}{", "%7B", "{", "a\0b", "new\nline", "ключ", "%", "é%", "a*[b]?\\"];
        let mut seen = std::collections::HashSet::new();
        for text in texts {
            let key = Key::new(text).unwrap();
            let name = keys().header(&key);
            assert_eq!(keys().key_of(name.as_bytes()), Some(key), "{name}");
            assert_eq!(name.find('{'), Some(5), "the hash tag is the first brace: {name}");
            assert_eq!(name.find('}'), Some(name.len() - 1), "and ends with the name: {name}");
            assert!(seen.insert(name));
        }
    }

    #[test]
    fn names_of_others_are_no_keys() {
        for name in [
            "lock/a",
            "lock/{a}q",
            "lock/{}",
            "lock/{%41}",
            "lock/{%7b}",
            "lock/{%}",
            "other{a}",
            "lock/{%€}",
        ] {
            assert_eq!(keys().key_of(name.as_bytes()), None, "{name}");
        }
        assert_eq!(keys().key_of(b"lock/{\xff}"), None);
    }

    #[test]
    fn patterns_take_nothing_literally_for_a_glob() {
        let pattern = keys().pattern(&KeyPrefix::new("a*[{").unwrap());
        assert_eq!(pattern, "lock/{a\\*\\[%7B*}");
    }
}
