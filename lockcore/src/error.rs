//! What can go wrong, told truthfully: whether the server acted is part of the kind.

use std::fmt;

use crate::key::Key;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed: what a program decides by.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The wait was over before the lock was granted. The claim is not held.
    Timeout,
    /// This process may no longer act as a holder: the lease ran out, or the claim was broken or taken over.
    Lost,
    /// Another holder already waits to upgrade; both would wait for each other for ever.
    WouldDeadlock,
    /// An argument is outside its bounds.
    InvalidArgument,
    /// This backend, or this build, cannot do what was asked.
    Unsupported,
    /// The server could not be reached, and nothing happened there.
    Unavailable,
    /// The server did not answer: what was asked may have happened.
    Indeterminate,
    /// The server refused the credentials or the permission.
    Denied,
    /// Somebody else's data lies where this library keeps its own.
    Conflict,
    /// The client was closed, or its runtime is gone.
    Closed,
    /// Anything else; the message and the source say what.
    Other,
}

impl ErrorKind {
    fn describe(self) -> &'static str {
        match self {
            ErrorKind::Timeout => "timed out",
            ErrorKind::Lost => "lost",
            ErrorKind::WouldDeadlock => "would deadlock",
            ErrorKind::InvalidArgument => "invalid argument",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Unavailable => "server unavailable",
            ErrorKind::Indeterminate => "no answer, it may have happened",
            ErrorKind::Denied => "denied",
            ErrorKind::Conflict => "conflicting data",
            ErrorKind::Closed => "closed",
            ErrorKind::Other => "failed",
        }
    }
}

/// An error of this library: a kind to decide by, and a message to act on.
///
/// # Examples
/// ```
/// use lockcore::{ErrorKind, Key};
///
/// let error = Key::new("").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
/// assert!(!error.is_retryable());
/// assert_eq!(error.to_string(), "invalid argument: a key must not be empty");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: Option<&'static str>,
    backend: Option<&'static str>,
    key: Option<Key>,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            operation: None,
            backend: None,
            key: None,
            message: message.into(),
            source: None,
        }))
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The same error with the operation, the backend and the key that it is about, where it does not say yet.
    #[must_use]
    pub fn at(mut self, operation: &'static str, backend: &'static str, key: Option<&Key>) -> Error {
        self.0.operation.get_or_insert(operation);
        self.0.backend.get_or_insert(backend);
        if self.0.key.is_none() {
            self.0.key = key.cloned();
        }
        self
    }

    /// The same facts as an error of another kind: for a caller that knows more than the one who failed.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done, such as `acquire`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The backend that it was done on, such as `redis`.
    #[must_use]
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The key that it was about.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// The message without the kind, the operation and the key.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later without anything being changed: the server was away, or the lock
    /// was busy for too long.
    ///
    /// ```
    /// use lockcore::{Error, ErrorKind};
    /// assert!(Error::new(ErrorKind::Unavailable, "refused").is_retryable());
    /// assert!(Error::new(ErrorKind::Timeout, "busy").is_retryable());
    /// assert!(!Error::new(ErrorKind::Denied, "wrong password").is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Indeterminate)
    }

    /// Whether the server may have acted although the caller was not told so.
    ///
    /// ```
    /// use lockcore::{Error, ErrorKind};
    /// assert!(Error::new(ErrorKind::Indeterminate, "no answer").may_have_happened());
    /// assert!(!Error::new(ErrorKind::Unavailable, "refused").may_have_happened());
    /// ```
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Indeterminate)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(operation) = inner.operation {
            f.write_str(operation)?;
            if let Some(key) = &inner.key {
                write!(f, " {:?}", key.as_str())?;
            }
            if let Some(backend) = inner.backend {
                write!(f, " on {backend}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(inner.kind.describe())?;
        if !inner.message.is_empty() {
            write!(f, ": {}", inner.message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("operation", &inner.operation)
            .field("backend", &inner.backend)
            .field("key", &inner.key)
            .field("message", &inner.message)
            .field("source", &inner.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
