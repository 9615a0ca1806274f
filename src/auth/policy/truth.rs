//! Three-valued logic: a question may turn on what has not been read yet.

/// Whether something holds. Ordered, so that the conjunction is the least and the disjunction the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::auth) enum Truth {
    /// It does not.
    No,
    /// It depends on the object, of which nothing is known yet.
    Unknown,
    /// It does.
    Yes,
}

impl Truth {
    /// Whether all of them hold.
    pub(in crate::auth) fn all(truths: impl IntoIterator<Item = Self>) -> Self {
        let mut least = Self::Yes;
        for truth in truths {
            least = least.min(truth);
            if least == Self::No {
                break;
            }
        }
        least
    }

    /// Whether any of them holds.
    pub(in crate::auth) fn any(truths: impl IntoIterator<Item = Self>) -> Self {
        let mut greatest = Self::No;
        for truth in truths {
            greatest = greatest.max(truth);
            if greatest == Self::Yes {
                break;
            }
        }
        greatest
    }

    /// Whether it holds and the other does too.
    pub(in crate::auth) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// Whether it holds, or the other does.
    pub(in crate::auth) fn or(self, other: Self) -> Self {
        self.max(other)
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}
