//! What is locked: keys, and prefixes of keys.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind};

/// The longest key in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 512;

/// The name of what is locked: any UTF-8 text of 1 to 512 bytes, the same on every backend.
///
/// Backends escape what their server cannot take, so every character is allowed, and two different keys never
/// meet. Cloning is cheap. The hash is computed once.
///
/// # Examples
/// ```
/// use lockcore::Key;
///
/// let key: Key = "invoices/2026-11".parse()?;
/// assert_eq!(key.as_str(), "invoices/2026-11");
/// assert!("".parse::<Key>().is_err());
/// # Ok::<(), lockcore::Error>(())
/// ```
#[derive(Clone)]
pub struct Key(Arc<Hashed>);

struct Hashed {
    hash: u64,
    text: Box<str>,
}

/// Keyed per process: whoever chooses keys cannot choose their hashes.
static HASHER: OnceLock<RandomState> = OnceLock::new();

impl Key {
    /// Makes a key of `text`.
    ///
    /// # Errors
    /// `InvalidArgument` when `text` is empty or longer than [`MAX_KEY_BYTES`].
    pub fn new(text: impl Into<String>) -> Result<Key, Error> {
        let text: String = text.into();
        if text.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a key must not be empty"));
        }
        if text.len() > MAX_KEY_BYTES {
            let message =
                format!("a key has at most {MAX_KEY_BYTES} bytes of UTF-8, this one has {}", text.len());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let hash = HASHER.get_or_init(RandomState::new).hash_one(text.as_str());
        Ok(Key(Arc::new(Hashed { hash, text: text.into_boxed_str() })))
    }

    /// The key as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// A hash of the key, computed once; it differs from process to process.
    #[must_use]
    pub fn hash_code(&self) -> u64 {
        self.0.hash
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.text == other.0.text)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Key, Error> {
        Key::new(text)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The beginning of keys, to list them by: any UTF-8 text up to 512 bytes; the empty one begins every key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// Makes a prefix of `text`.
    ///
    /// # Errors
    /// `InvalidArgument` when `text` is longer than [`MAX_KEY_BYTES`].
    pub fn new(text: impl Into<String>) -> Result<KeyPrefix, Error> {
        let text = text.into();
        if text.len() > MAX_KEY_BYTES {
            let message =
                format!("a key prefix has at most {MAX_KEY_BYTES} bytes, this one has {}", text.len());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(KeyPrefix(text))
    }

    /// The prefix as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` begins with this prefix.
    #[must_use]
    pub fn begins(&self, key: &Key) -> bool {
        key.as_str().starts_with(self.as_str())
    }
}

impl Borrow<str> for KeyPrefix {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_of_one_to_512_bytes_is_a_key() {
        for text in ["a", "/", "{}", "a\0b", "line\nbreak", "ключ", &"k".repeat(512)] {
            assert_eq!(Key::new(text).unwrap().as_str(), text);
        }
        for text in [String::new(), "k".repeat(513), "é".repeat(257)] {
            assert_eq!(Key::new(text).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn equal_keys_hash_alike_and_others_differ() {
        let (one, same, other) = (Key::new("k").unwrap(), Key::new("k").unwrap(), Key::new("K").unwrap());
        assert_eq!(one, same);
        assert_eq!(one.hash_code(), same.hash_code());
        assert_ne!(one, other);
    }
}
