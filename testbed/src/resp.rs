//! A Redis client of a few lines, for what tests ask a server beside the library under test.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::wait::PATIENCE;

/// What a Redis server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: the key or field is not there.
    Nil,
    /// A number.
    Integer(i64),
    /// A status or a string; bytes that are no UTF-8 are replaced by `�`.
    Text(String),
    /// Several answers.
    List(Vec<Reply>),
}

impl Reply {
    /// The number, also when it came as text.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Nil | Self::List(_) => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Nil | Self::Integer(_) | Self::List(_) => None,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("(nil)"),
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A connection over the server's Unix socket: neither TLS nor a fault on the network is in its way.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(crate) fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            write!(request, "${}\r\n", word.len())?;
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request)?;
        let answer = read_reply(&mut self.0).map_err(|error| {
            // What a read timeout is called depends on the system; say what it means.
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                let text = format!("redis gave no answer within {PATIENCE:?}");
                return io::Error::new(io::ErrorKind::TimedOut, text);
            }
            error
        })?;
        answer.map_err(|refusal| {
            let name = words.first().map(|word| String::from_utf8_lossy(word.as_ref())).unwrap_or_default();
            io::Error::other(format!("redis refused {name}: {refusal}"))
        })
    }
}

/// Reads one reply; the inner error is the server's own.
fn read_reply(from: &mut impl BufRead) -> io::Result<Result<Reply, String>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    let Some((kind, rest)) = line.strip_suffix(b"\r\n").and_then(<[u8]>::split_first) else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "redis closed the connection"));
    };
    let rest = String::from_utf8_lossy(rest).into_owned();
    let number = |text: &str| text.parse::<i64>().map_err(|_| malformed(text));
    Ok(match kind {
        b'+' => Ok(Reply::Text(rest)),
        b'-' => Err(rest),
        b':' => Ok(Reply::Integer(number(&rest)?)),
        b'$' => Ok(match usize::try_from(number(&rest)?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let mut text = vec![0; length + 2];
                from.read_exact(&mut text)?;
                text.truncate(length);
                Reply::Text(String::from_utf8_lossy(&text).into_owned())
            }
        }),
        b'*' => match usize::try_from(number(&rest)?) {
            Err(_) => Ok(Reply::Nil),
            Ok(count) => {
                (0..count).map(|_| read_reply(from)).collect::<io::Result<Result<_, _>>>()?.map(Reply::List)
            }
        },
        _ => return Err(malformed(&rest)),
    })
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no answer of redis: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> io::Result<Result<Reply, String>> {
        read_reply(&mut bytes)
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        assert_eq!(read(b"+OK\r\n").unwrap().unwrap(), Reply::Text("OK".into()));
        assert_eq!(read(b"-ERR no\r\n").unwrap().unwrap_err(), "ERR no");
        assert_eq!(read(b"$-1\r\n").unwrap().unwrap(), Reply::Nil);
        let list = read(b"*3\r\n:-7\r\n$4\r\na\r\nb\r\n*0\r\n").unwrap().unwrap();
        assert_eq!(
            list,
            Reply::List(vec![Reply::Integer(-7), Reply::Text("a\r\nb".into()), Reply::List(vec![])])
        );
        assert_eq!(list.to_string(), "[-7, a\r\nb, []]");
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        assert_eq!(read(b"").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"$9\r\nab").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"HTTP/1.1\r\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b":x\r\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn numbers_are_found_in_text_too() {
        assert_eq!(Reply::Text("12".into()).as_integer(), Some(12));
        assert_eq!(Reply::Nil.as_integer(), None);
    }
}
