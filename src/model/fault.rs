//! What went wrong in a store, and what the caller can do about it.
//!
//! The stores (`meta`, `blob`, `cluster`) return one [`Fault`]. Its kind says what the caller can do, never
//! which library failed; the source chain is for the log. A fault is an error, not an absence: only
//! [`Kind::NotFound`] says that something is known not to be there.

use std::error::Error;
use std::fmt;

/// What the caller of a store can do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A limit of ours is reached, or a transaction lost a race too often: the same call may succeed later.
    Busy,
    /// The store did not answer, or not in time. Nothing is known about what it holds.
    Unavailable,
    /// The store answered, and what was asked for is not there.
    NotFound,
    /// A commit or write was sent and its outcome is not known: neither repeat nor undo it.
    Unknown,
    /// Stored data contradicts itself or its digest.
    Corrupt,
    /// The store is out of room.
    Full,
    /// Configuration or start-up input that cannot work; the text names the setting.
    Config,
    /// A bug of ours or an answer that no rule covers.
    Internal,
}

impl Kind {
    /// A fixed lower-case word, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::Unknown => "unknown",
            Self::Corrupt => "corrupt",
            Self::Full => "full",
            Self::Config => "config",
            Self::Internal => "internal",
        }
    }
}

/// One failed operation of a store.
#[derive(Debug)]
pub struct Fault {
    kind: Kind,
    operation: &'static str,
    context: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault of `kind` in `operation`, which is a fixed short phrase such as `"read blob"`.
    pub fn new(kind: Kind, operation: &'static str) -> Self {
        Self {
            kind,
            operation,
            context: String::new(),
            source: None,
        }
    }

    /// Adds what was attempted on what (bucket, key, backend); it goes to the log, never to a client.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        if !self.context.is_empty() {
            self.context.push_str(", ");
        }
        self.context.push_str(&context.to_string());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same call may succeed when it is made again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Busy | Kind::Unavailable)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.operation, self.kind)?;
        if !self.context.is_empty() {
            write!(f, " ({})", self.context)?;
        }
        // The chain is printed here because a fault is logged once, where it stops, as one field.
        let mut next = self
            .source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static));
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_operation_kind_context_and_cause() {
        let fault = Fault::new(Kind::Unavailable, "read blob")
            .context("backend local")
            .context("name 00ff")
            .source("connection reset");
        assert_eq!(
            fault.to_string(),
            "read blob: Unavailable (backend local, name 00ff): connection reset"
        );
        assert!(fault.is_retryable());
    }
}
