//! What goes into URLs.

use std::fmt::Write as _;

/// Encodes what may not stand in the user's part of a URL.
pub(crate) fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_passwords_are_encoded() {
        assert_eq!(percent_encode("a/b@c:ü"), "a%2Fb%40c%3A%C3%BC");
    }
}
